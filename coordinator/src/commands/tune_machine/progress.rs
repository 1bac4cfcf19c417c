//! What a terminal shows while it measures.

use crate::{output::Output, tuning::Candidate};
use halfheard_shared::text::count;
use indicatif::{ProgressBar, ProgressStyle};
use std::time::Duration;

/// A progress bar on standard error, if that is a terminal. It goes with this value.
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// For so many measurements.
    pub(super) fn new(output: Output, measurements: usize) -> Self {
        let bar = match output.is_json() {
            true => ProgressBar::hidden(),
            false => ProgressBar::new(measurements as u64),
        };
        if let Ok(style) = ProgressStyle::with_template("[{bar:24}] {pos}/{len}  {elapsed}  {msg}")
        {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.enable_steady_tick(Duration::from_millis(250));
        Self(bar)
    }

    /// Says what is measured now.
    pub(super) fn measuring(&self, candidate: Candidate, method: &str) {
        let Candidate { slots, threads } = candidate;
        self.0.set_message(format!(
            "{} of {} training {method}",
            count(slots, "worker"),
            count(threads, "thread")
        ));
    }

    pub(super) fn measured(&self) {
        self.0.inc(1);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
