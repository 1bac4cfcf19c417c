//! A progress bar for long operations.

use crate::output::Output;
use halfheard_import::import::Stage;
use indicatif::{ProgressBar, ProgressStyle};

/// A progress bar on standard error, if that is a terminal.
pub(super) struct Bar {
    bar: ProgressBar,
}

impl Bar {
    pub(super) fn new(output: Output) -> Self {
        let bar = if output.is_json() {
            ProgressBar::hidden()
        } else {
            ProgressBar::new(0)
        };
        if let Ok(style) =
            ProgressStyle::with_template("{msg:9} [{wide_bar}] {percent:>3}%  {elapsed}")
        {
            bar.set_style(style.progress_chars("=> "));
        }
        Self { bar }
    }

    pub(super) fn show(&self, stage: Stage, done: u64, total: u64) {
        let message = match stage {
            Stage::Read => "reading",
            Stage::Check => "checking",
            Stage::Write => "writing",
            Stage::Describe => "counting",
        };
        if self.bar.message() != message {
            self.bar.set_message(message);
        }
        if self.bar.length() != Some(total) {
            self.bar.set_length(total);
        }
        self.bar.set_position(done);
    }

    pub(super) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}
