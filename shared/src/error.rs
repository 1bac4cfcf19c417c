//! How errors are reported: an error's `Display` says its own part, [`Error::source`] the cause, [`Hint`] the remedy.
//!
//! [`Printer`] shows all three to a person; [`chain`] and [`causes`] are for logs and for messages, which carry no remedy.
//!
//! ```
//! use halfheard_shared::error::{Hint, Printer, WithHint as _, chain, hint_of};
//!
//! #[derive(Debug, thiserror::Error)]
//! #[error("cannot connect to the broker at {address}")]
//! struct ConnectError {
//!     address: &'static str,
//!     source: std::io::Error,
//! }
//!
//! impl Hint for ConnectError {
//!     fn hint(&self) -> Option<String> {
//!         Some("start it, or pass --nats-url".to_owned())
//!     }
//! }
//!
//! /// The program names the error types of its libraries that have hints.
//! const ERRORS: Printer = Printer::new(&[hint_of::<ConnectError>]);
//!
//! let source = std::io::Error::other("connection refused");
//! let error = ConnectError { address: "localhost", source };
//! assert_eq!(chain(&error), "cannot connect to the broker at localhost: connection refused");
//! assert_eq!(
//!     ERRORS.plain(&error),
//!     "error: cannot connect to the broker at localhost\n  \
//!        caused by: connection refused\n  \
//!        hint: start it, or pass --nats-url\n",
//! );
//!
//! // A hint where the error is made, for a type that has none.
//! let missing = std::io::Error::other("no such sweep");
//! let error = Err::<(), _>(missing).hint("list them with `coord status`").unwrap_err();
//! assert_eq!(ERRORS.plain(&error), "error: no such sweep\n  hint: list them with `coord status`\n");
//! ```

use crate::text::printable;
use anstyle::{AnsiColor, Style};
use std::{
    error::Error,
    fmt::{self, Write as _},
};

/// An error with a remedy.
pub trait Hint: Error {
    /// The remedy, as a fragment that follows "hint:". `None` if nothing is known that helps.
    fn hint(&self) -> Option<String>;
}

/// Finds a hint of an error whose type is only known at run time; see [`hint_of`].
pub type FindHint = fn(&(dyn Error + 'static)) -> Option<String>;

/// The hint of `error` if it is an `E`. Programs list `hint_of::<E>` for each type that implements [`Hint`].
pub fn hint_of<E: Hint + 'static>(error: &(dyn Error + 'static)) -> Option<String> {
    find::<E>(error)?.hint()
}

/// `error` as an `E`, also if it is boxed: the source of an error that holds a `Box<E>` is that box.
pub fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let boxed = || error.downcast_ref::<Box<E>>().map(AsRef::as_ref);
    error.downcast_ref::<E>().or_else(boxed)
}

/// An error with a hint that was added by its user. Otherwise it looks like the error inside.
#[derive(Debug)]
pub struct Hinted {
    error: Box<dyn Error + Send + Sync>,
    hint: String,
}

impl Hinted {
    /// The error without the hint.
    pub fn inner(&self) -> &(dyn Error + 'static) {
        self.error.as_ref()
    }
}

impl fmt::Display for Hinted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl Error for Hinted {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.source()
    }
}

impl Hint for Hinted {
    fn hint(&self) -> Option<String> {
        Some(self.hint.clone())
    }
}

/// An error that is only a text and a remedy: what a command says when its arguments do not fit.
pub fn hinted(message: impl Into<String>, hint: impl Into<String>) -> Hinted {
    Hinted {
        error: message.into().into(),
        hint: hint.into(),
    }
}

/// Adds a hint to the error of a result.
pub trait WithHint<T> {
    /// The same, with `hint` as the remedy.
    ///
    /// # Errors
    ///
    /// Those of the result itself.
    fn hint(self, hint: impl Into<String>) -> Result<T, Hinted>;
}

impl<T, E: Into<Box<dyn Error + Send + Sync>>> WithHint<T> for Result<T, E> {
    fn hint(self, hint: impl Into<String>) -> Result<T, Hinted> {
        self.map_err(|error| Hinted {
            error: error.into(),
            hint: hint.into(),
        })
    }
}

/// The texts of an error and its causes, outermost first.
///
/// Errors of other libraries often repeat their cause (`async_nats` and `sqlx` do); a cause that was said already is
/// left out.
pub fn causes(error: &dyn Error) -> Vec<String> {
    let mut texts = vec![error.to_string()];
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !texts.iter().any(|said| said.contains(&text)) {
            texts.push(text);
        }
        next = cause.source();
    }
    texts
}

/// An error and its causes on one line, joined with ": ".
pub fn chain(error: &dyn Error) -> String {
    causes(error).join(": ")
}

/// Draws a finished report of an error that has more to show than a line, such as a place in a file.
pub type Draw = fn(&(dyn Error + 'static)) -> Option<String>;

/// Prints errors for a person.
#[derive(Clone, Copy, Debug)]
pub struct Printer {
    hints: &'static [FindHint],
    draw: Option<Draw>,
}

impl Printer {
    /// A printer that finds hints with `hints`, and those of [`Hinted`].
    pub const fn new(hints: &'static [FindHint]) -> Self {
        Self { hints, draw: None }
    }

    /// The same, but an error for which `draw` has a report is shown by that report alone.
    #[must_use]
    pub const fn drawing(self, draw: Draw) -> Self {
        Self {
            draw: Some(draw),
            ..self
        }
    }

    /// Prints `error` on standard error.
    pub fn print(&self, error: &(dyn Error + 'static)) {
        anstream::eprint!("{}", self.styled(error));
    }

    /// What [`Self::print`] prints, without colors.
    pub fn plain(&self, error: &(dyn Error + 'static)) -> String {
        anstream::adapter::strip_str(&self.styled(error)).to_string()
    }

    /// The first hint from the outside in: the caller knows best what the user wanted.
    pub fn hint(&self, error: &(dyn Error + 'static)) -> Option<String> {
        links(error).find_map(|link| {
            hint_of::<Hinted>(link).or_else(|| self.hints.iter().find_map(|find| find(link)))
        })
    }

    fn styled(&self, error: &(dyn Error + 'static)) -> String {
        let drawn = self.draw.and_then(|draw| links(error).find_map(draw));
        if let Some(mut report) = drawn {
            report.push('\n');
            return printable(&report).into_owned();
        }
        let red = AnsiColor::Red.on_default().bold();
        let dim = Style::new().dimmed();
        let cyan = AnsiColor::Cyan.on_default();
        let mut texts = causes(error).into_iter();
        let mut out = String::new();
        // Writing into a string does not fail.
        if let Some(text) = texts.next() {
            let _ = writeln!(out, "{red}error:{red:#} {text}");
        }
        for text in texts {
            let _ = writeln!(out, "  {dim}caused by:{dim:#} {text}");
        }
        if let Some(hint) = self.hint(error) {
            let _ = writeln!(out, "  {cyan}hint:{cyan:#} {hint}");
        }
        printable(&out).into_owned()
    }
}

/// An error, what is inside a [`Hinted`], and their causes.
fn links<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| match error.downcast_ref::<Hinted>() {
        Some(hinted) => Some(hinted.inner()),
        None => error.source(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Link(&'static str, #[source] Option<Box<Link>>);

    impl Hint for Link {
        fn hint(&self) -> Option<String> {
            (self.0 == "inner").then(|| "of inner".to_owned())
        }
    }

    fn nested() -> Link {
        Link("outer", Some(Box::new(Link("inner", None))))
    }

    #[test]
    fn hint_of_cause_is_found() {
        let printer = Printer::new(&[hint_of::<Link>]);
        assert_eq!(printer.hint(&nested()).as_deref(), Some("of inner"));
        assert_eq!(
            printer.plain(&nested()),
            "error: outer\n  caused by: inner\n  hint: of inner\n"
        );
        assert_eq!(Printer::new(&[]).hint(&nested()), None);
    }

    #[test]
    fn added_hint_wins_and_hides_nothing() {
        let printer = Printer::new(&[hint_of::<Link>]);
        let error = Err::<(), _>(nested()).hint("added").unwrap_err();
        assert_eq!(printer.hint(&error).as_deref(), Some("added"));
        assert_eq!(chain(&error), "outer: inner");
        let outer = Link("inner", None);
        let error = Err::<(), _>(outer).hint("added").unwrap_err();
        assert!(links(&error).any(|link| link.is::<Link>()));
    }

    #[test]
    fn cause_repeated_by_foreign_error_is_said_once() {
        let error = Link("outer: inner", Some(Box::new(Link("inner", None))));
        assert_eq!(causes(&error), ["outer: inner"]);
    }

    #[test]
    fn drawn_report_replaces_lines() {
        let draw: Draw = |error| error.is::<Hinted>().then(|| "report".to_owned());
        let printer = Printer::new(&[]).drawing(draw);
        assert_eq!(printer.plain(&hinted("a", "b")), "report\n");
        assert_eq!(
            printer.plain(&nested()),
            "error: outer\n  caused by: inner\n"
        );
    }

    #[test]
    fn colors_are_styles_that_plain_text_lacks() {
        let styled = Printer::new(&[]).styled(&nested());
        assert!(styled.contains("\u{1b}["));
        assert!(!Printer::new(&[]).plain(&nested()).contains('\u{1b}'));
    }
}
