//! What commands print: text for people or, with `--json`, JSON, both on standard output. Progress and
//! notes go to standard error.

use crate::config::Settings;
use halfheard_shared::text::{printable, printable_json};
use serde::Serialize;
use std::fmt::Display;

/// Prints in the form that the user chose.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    json: bool,
}

impl Output {
    pub(crate) fn of(settings: &Settings) -> Self {
        Self {
            json: settings.json,
        }
    }

    pub(crate) fn is_json(self) -> bool {
        self.json
    }

    /// Prints `report` as its text, or as JSON on one line.
    ///
    /// # Errors
    ///
    /// It does not serialize.
    pub(crate) fn print(self, report: &(impl Serialize + Display)) -> serde_json::Result<()> {
        if self.json {
            say_json(&serde_json::to_string(report)?);
        } else {
            say(&report.to_string());
        }
        Ok(())
    }

    /// As [`Self::print`], with indented JSON.
    ///
    /// # Errors
    ///
    /// It does not serialize.
    pub(crate) fn print_pretty(
        self,
        report: &(impl Serialize + Display),
    ) -> serde_json::Result<()> {
        if self.json {
            say_json(&serde_json::to_string_pretty(report)?);
            return Ok(());
        }
        self.print(report)
    }

    /// Prints something that happened at once: JSON on one line, or text for people.
    ///
    /// # Errors
    ///
    /// It does not serialize, or standard output is closed.
    pub(crate) fn event(self, event: &(impl Serialize + Display)) -> anyhow::Result<()> {
        self.print(event)?;
        std::io::Write::flush(&mut std::io::stdout())?;
        Ok(())
    }

    /// Writes a line for people to standard error.
    pub(crate) fn note(self, text: impl Display) {
        if !self.json {
            note(&text.to_string());
        }
    }
}

/// Prints text for people, without what would drive their terminal: parts of it come from other
/// machines and from files.
pub(crate) fn say(text: &str) {
    anstream::println!("{}", printable(text).trim_end_matches('\n'));
}

/// Prints JSON.
pub(crate) fn say_json(json: &str) {
    anstream::println!("{}", printable_json(json).trim_end_matches('\n'));
}

/// Writes a line for people to standard error.
pub(crate) fn note(text: &str) {
    anstream::eprintln!("{}", printable(text));
}
