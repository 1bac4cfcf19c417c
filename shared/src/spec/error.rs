//! Problems of a spec, with their lines.

use miette::{Diagnostic, NamedSource, SourceSpan};

/// One problem of a spec.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Diagnostic)]
#[error("{message}")]
pub struct Problem {
    /// What is wrong.
    pub message: String,
    /// The marked part of the text.
    #[label("{label}")]
    pub span: Option<SourceSpan>,
    /// The text below the mark.
    pub label: String,
    /// What to do about it.
    #[help]
    pub help: Option<String>,
}

/// All problems of a spec.
#[derive(Debug, thiserror::Error, Diagnostic)]
#[error("{path} cannot be used: {}", count(.problems.len()))]
pub struct SpecError {
    /// The file's path.
    pub path: String,
    /// The file's text.
    #[source_code]
    pub text: NamedSource<String>,
    /// What is wrong.
    #[related]
    pub problems: Vec<Problem>,
}

fn count(problems: usize) -> String {
    if problems == 1 {
        "1 problem".to_owned()
    } else {
        format!("{problems} problems")
    }
}

impl SpecError {
    /// Problems of the spec `text` of `path`.
    pub fn new(path: &str, text: &str, problems: Vec<Problem>) -> Self {
        Self {
            path: path.to_owned(),
            text: NamedSource::new(path, text.to_owned()).with_language("TOML"),
            problems,
        }
    }

    /// The line of a problem, from 1.
    pub fn line(&self, problem: &Problem) -> Option<usize> {
        let span = problem.span?;
        let text = self.text.inner().as_bytes();
        let before = text.get(..span.offset())?;
        Some(1 + before.iter().filter(|&&b| b == b'\n').count())
    }
}
