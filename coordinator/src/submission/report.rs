//! Reports on a refused spec: each problem with the lines of the spec that it is about.

use super::load::LoadError;
use halfheard_shared::spec::{Problem, SpecError};
use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, JSONReportHandler};

/// Width of a report in columns.
const WIDTH: usize = 100;

/// Draws the report if `error` is a refused spec.
pub(crate) fn draw(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    match error.downcast_ref::<LoadError>()? {
        LoadError::Invalid(error) => Some(render(error)),
        _ => None,
    }
}

fn render(error: &SpecError) -> String {
    // Each problem separately: a joint report puts a line with "Error:" before each.
    let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode()).with_width(WIDTH);
    let mut out = match error.problems.len() {
        1 => String::new(),
        _ => format!("× {error}\n"),
    };
    for problem in &error.problems {
        let placed = Placed { problem, error };
        if !out.is_empty() {
            out.push('\n');
        }
        let before = out.len();
        if handler.render_report(&mut out, &placed).is_err() {
            out.truncate(before);
            // Writing into a String does not fail; if it did, the plain form would be the fallback.
            let _ = JSONReportHandler::new().render_report(&mut out, &placed);
        }
    }
    let lines: Vec<&str> = out.lines().map(str::trim_end).collect();
    lines.join("\n").trim_matches('\n').to_owned()
}

/// A problem with the text of its spec.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.text())]
struct Placed<'a> {
    problem: &'a Problem,
    error: &'a SpecError,
}

impl Placed<'_> {
    /// Returns the message, with the file if no line of it is shown.
    fn text(&self) -> String {
        if self.error.problems.len() == 1 && self.problem.span.is_none() {
            format!("{}: {}", self.error.path, self.problem.message)
        } else {
            self.problem.message.clone()
        }
    }
}

impl Diagnostic for Placed<'_> {
    fn help<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        self.problem.help()
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = miette::LabeledSpan> + '_>> {
        self.problem.labels()
    }

    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        Some(&self.error.text)
    }
}
