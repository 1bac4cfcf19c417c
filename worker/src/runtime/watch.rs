//! Whether work advances. Every phase of work says that it does; what takes much longer than the same
//! has taken hangs: a device, a driver, a file system.

use super::inject;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// The shortest limit for a step or batch.
const MIN_PATIENCE: Duration = Duration::from_secs(60);
/// The limit for a step, over the longest recent one.
const FACTOR: u32 = 10;
/// How many steps are recent.
const RECENT: usize = 64;

/// What the process is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing, or waiting for the store or the broker, however long they are away.
    Waiting,
    /// Reading inputs or building a model: no steps, but pieces of files.
    Preparing,
    /// Training steps or batches.
    Steps,
}

impl Phase {
    fn lacks(self) -> &'static str {
        match self {
            Phase::Waiting => "no progress",
            Phase::Preparing => "no progress in reading the inputs",
            Phase::Steps => "no step",
        }
    }
}

/// The progress of this process. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Watch(Arc<Mutex<Progress>>);

struct Progress {
    phase: Phase,
    /// Grows with everything that advances.
    count: u64,
    moved: Instant,
    /// How long recent steps took.
    recent: VecDeque<Duration>,
    min_patience: Duration,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            phase: Phase::Waiting,
            count: 0,
            moved: Instant::now(),
            recent: VecDeque::new(),
            min_patience: inject::patience().unwrap_or(MIN_PATIENCE),
        }
    }
}

impl Progress {
    fn advance(&mut self) {
        self.count += 1;
        self.moved = Instant::now();
    }

    /// How long the present phase may take without progress; `None`: without limit.
    fn patience(&self) -> Option<Duration> {
        match self.phase {
            Phase::Waiting => None,
            // The first step may compile kernels or read the data.
            Phase::Steps if !self.recent.is_empty() => {
                let longest = self.recent.iter().max().copied().unwrap_or_default();
                Some((longest * FACTOR).max(self.min_patience))
            }
            Phase::Preparing | Phase::Steps => Some(self.min_patience * FACTOR),
        }
    }
}

impl Watch {
    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a phase.
    pub(super) fn enter(&self, phase: Phase) {
        let mut progress = self.lock();
        // Another model has another pace.
        if phase == Phase::Preparing {
            progress.recent.clear();
        }
        progress.phase = phase;
        progress.advance();
    }

    /// Waits without limit until the guard is dropped; then the phase goes on.
    pub(super) fn wait(&self) -> Waiting {
        let before = std::mem::replace(&mut self.lock().phase, Phase::Waiting);
        Waiting {
            watch: self.clone(),
            before,
        }
    }

    /// The work advances: a step, a batch, a piece of a file.
    pub(super) fn advanced(&self) {
        let mut progress = self.lock();
        if progress.phase == Phase::Steps {
            let took = progress.moved.elapsed();
            progress.recent.push_back(took);
            if progress.recent.len() > RECENT {
                progress.recent.pop_front();
            }
        }
        progress.advance();
    }

    /// The count of what advanced, and how long nothing may.
    pub(super) fn now(&self) -> (u64, Option<Duration>) {
        let progress = self.lock();
        (progress.count, progress.patience())
    }

    /// How often to look.
    pub(super) fn interval(&self) -> Duration {
        (self.lock().min_patience / 10).min(Duration::from_secs(1))
    }

    /// What is missing, if nothing has advanced for too long.
    pub(super) fn overdue(&self) -> Option<String> {
        let progress = self.lock();
        let since = progress.moved.elapsed();
        (since > progress.patience()?).then(|| {
            let lacks = progress.phase.lacks();
            match since.as_secs() {
                seconds @ ..120 => format!("{lacks} for {seconds} s"),
                seconds => format!("{lacks} for {} min", seconds / 60),
            }
        })
    }

    /// Time in which this process did not run does not count.
    pub(super) fn excuse(&self, stopped: Duration) {
        let mut progress = self.lock();
        progress.moved = (progress.moved + stopped).min(Instant::now());
    }
}

/// Ends a wait when dropped.
pub(super) struct Waiting {
    watch: Watch,
    before: Phase,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut progress = self.watch.lock();
        progress.phase = self.before;
        progress.advance();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stalled_for(watch: &Watch, time: Duration) -> Option<String> {
        watch.lock().moved = Instant::now().checked_sub(time).unwrap();
        watch.overdue()
    }

    #[test]
    fn patience_follows_the_pace_of_steps() {
        let watch = Watch::default();
        assert_eq!(watch.now().1, None, "nothing to do");
        watch.enter(Phase::Preparing);
        assert_eq!(watch.now().1, Some(MIN_PATIENCE * FACTOR));
        watch.enter(Phase::Steps);
        assert_eq!(watch.now().1, Some(MIN_PATIENCE * FACTOR), "the first step");
        watch.advanced();
        assert_eq!(watch.now().1, Some(MIN_PATIENCE));
        watch.lock().moved = Instant::now().checked_sub(Duration::from_secs(90)).unwrap();
        watch.advanced();
        let patience = watch.now().1.unwrap();
        assert!(patience >= Duration::from_secs(900), "{patience:?}");
        // Steps of another model.
        watch.enter(Phase::Preparing);
        watch.enter(Phase::Steps);
        assert_eq!(watch.now().1, Some(MIN_PATIENCE * FACTOR));
    }

    #[test]
    fn hung_step_is_noticed_and_waiting_is_not() {
        let watch = Watch::default();
        watch.enter(Phase::Steps);
        watch.advanced();
        assert_eq!(stalled_for(&watch, Duration::from_secs(50)), None);
        let lack = stalled_for(&watch, Duration::from_secs(75)).unwrap();
        assert_eq!(lack, "no step for 75 s");
        {
            let _waiting = watch.wait();
            assert_eq!(stalled_for(&watch, Duration::from_secs(7200)), None);
        }
        assert_eq!(watch.overdue(), None, "it goes on");
        let count = watch.now().0;
        watch.lock().moved = Instant::now().checked_sub(Duration::from_secs(90)).unwrap();
        watch.excuse(Duration::from_secs(80));
        assert_eq!(watch.overdue(), None, "the process was stopped");
        assert_eq!(watch.now().0, count);
    }
}
