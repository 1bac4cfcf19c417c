//! How fast a training job is.

use halfheard_models::train::StepReport;
use std::time::{Duration, Instant};

/// Counts and times the steps of one training job.
pub(super) struct StepMeter {
    method: String,
    /// The epoch and step of the last report, and when work went on after it.
    last: Option<(u32, usize, Instant)>,
}

impl StepMeter {
    pub(super) fn new(method: String) -> Self {
        Self { method, last: None }
    }

    /// Records what was done since the last report: a step, or none at the end of an epoch; a program of
    /// others may report several at once.
    pub(super) fn record(&mut self, now: &StepReport) {
        let (steps, took) = self.since(now);
        self.last = Some((now.epoch, now.step, Instant::now()));
        if steps == 0 {
            return;
        }
        let label = || self.method.clone();
        let count = steps as u64;
        metrics::counter!("halfheard_worker_steps_total", "method" => label()).increment(count);
        metrics::counter!("halfheard_worker_samples_total", "method" => label())
            .increment(count * now.samples as u64);
        if let Some(took) = took {
            let each = took.as_secs_f64() / steps as f64;
            metrics::histogram!("halfheard_worker_step_seconds", "method" => label()).record(each);
        }
    }

    /// The steps since the last report, and how long they took.
    fn since(&self, now: &StepReport) -> (usize, Option<Duration>) {
        match self.last {
            _ if now.epoch_ended => (0, None),
            // What it resumed from is not known, and the first step prepares much.
            None => (1.min(now.step), None),
            Some((epoch, step, at)) => {
                let before = if epoch == now.epoch { step } else { 0 };
                (now.step.saturating_sub(before), Some(at.elapsed()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_counted_over_epochs_and_resumed_ones_are_not_counted_again() {
        let mut meter = StepMeter::new("lnln".to_owned());
        let mut steps = |epoch, step, epoch_ended| {
            let now = StepReport {
                epoch,
                max_epochs: 9,
                step,
                steps: 10,
                samples: 16,
                loss: None,
                epoch_ended,
            };
            let since = meter.since(&now);
            meter.record(&now);
            (since.0, since.1.is_some())
        };
        assert_eq!(steps(3, 7, false), (1, false), "resumed");
        assert_eq!(steps(3, 8, false), (1, true));
        assert_eq!(steps(3, 10, false), (2, true), "two at once");
        assert_eq!(steps(4, 0, true), (0, false), "the end of an epoch");
        assert_eq!(steps(4, 1, false), (1, true));
    }
}
