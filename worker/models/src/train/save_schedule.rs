//! When to save the state of a training run.

use std::time::{Duration, Instant};

/// Decides when to save: at the end of an epoch or after an interval, but so rarely that saving takes
/// at most about a tenth of the time.
#[derive(Debug)]
pub struct SaveSchedule {
    every: Duration,
    last: Instant,
    cost: Duration,
}

impl SaveSchedule {
    /// A schedule that saves at least once per `every`.
    pub fn new(every: Duration) -> Self {
        Self {
            every,
            last: Instant::now(),
            cost: Duration::ZERO,
        }
    }

    /// Whether to save now.
    pub fn is_due(&self, epoch_ended: bool) -> bool {
        let since = self.last.elapsed();
        since >= self.cost * 10 && (epoch_ended || since >= self.every)
    }

    /// Records that a state was saved, which took `cost`.
    pub fn record_save(&mut self, cost: Duration) {
        self.last = Instant::now();
        self.cost = cost;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn saving_takes_at_most_a_tenth_of_the_time() {
        let mut pace = SaveSchedule::new(Duration::ZERO);
        assert!(pace.is_due(false));
        pace.record_save(Duration::from_secs(60));
        assert!(!pace.is_due(true));
        let pace = SaveSchedule::new(Duration::from_secs(60));
        assert!(pace.is_due(true) && !pace.is_due(false));
    }
}
