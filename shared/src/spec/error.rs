//! What is wrong with a spec, with the line.

use miette::{Diagnostic, NamedSource, SourceSpan};

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Diagnostic)]
#[error("{message}")]
pub struct Problem {
    /// What.
    pub message: String,
    /// Where in the text.
    #[label("{label}")]
    pub span: Option<SourceSpan>,
    /// What is pointed at.
    pub label: String,
    /// What to do about it.
    #[help]
    pub help: Option<String>,
}

/// All that is wrong with a spec.
#[derive(Debug, thiserror::Error, Diagnostic)]
#[error("{path} cannot be used: {}", count(.problems.len()))]
pub struct SpecError {
    /// The file.
    pub path: String,
    /// Its text.
    #[source_code]
    pub text: NamedSource<String>,
    /// What is wrong.
    #[related]
    pub problems: Vec<Problem>,
}

fn count(problems: usize) -> String {
    if problems == 1 {
        "one thing is wrong".to_owned()
    } else {
        format!("{problems} things are wrong")
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
