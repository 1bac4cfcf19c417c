//! What the simulated GPUs do: which job each has, how far saved states are, and how much work was done twice.

use super::costs::{Training, evaluation_seconds};
use crate::finished::Noise;
use anyhow::Result;
use halfheard_shared::{
    ids::JobId,
    wire::{JobMessage, Work},
};
use std::collections::HashMap;

/// Seconds until a training run begins: the data and the encoder are loaded, and the saved state.
pub const PREPARATION: f64 = 15.0;
/// Seconds until a saved state is stored. Training goes on meanwhile.
pub const UPLOAD: f64 = 5.0;
/// The default of the worker's `--save-every`.
const SAVE_EVERY: f64 = 60.0;

/// What a job takes on the GPU that it was granted to.
#[derive(Clone, Debug, PartialEq)]
pub enum Plan {
    /// A training run that goes on from a saved state, or begins.
    Train {
        /// The whole run.
        training: Training,
        /// Seconds of epochs in the state.
        from: f64,
    },
    /// An evaluation of so many seconds.
    Evaluate(f64),
    /// Nothing.
    Noop,
}

impl Plan {
    /// Seconds from its beginning to its end.
    pub fn seconds(&self) -> f64 {
        match self {
            Self::Train { training, from } => PREPARATION + training.seconds() - from,
            Self::Evaluate(seconds) => *seconds,
            Self::Noop => 0.0,
        }
    }

    /// The states that it stores: after how many seconds, and how many seconds of epochs each holds. As the worker does
    /// it: at the end of an epoch or after a minute, and so rarely that saving takes at most a tenth of the time.
    pub fn saves(&self) -> Vec<(f64, f64)> {
        let Self::Train { training, from } = self else {
            return Vec::new();
        };
        let epoch = training.epoch_seconds();
        let (mut last, mut cost) = (*from, 0.0);
        let mut saves = Vec::new();
        loop {
            let earliest = last + 10.0 * cost;
            // A hair's breadth after an epoch's end is not in the next epoch.
            let ended = (last / epoch + 1e-9).floor() + 1.0;
            let next_end = epoch * ended.max((earliest / epoch - 1e-9).ceil());
            let state = next_end.min(earliest.max(last + SAVE_EVERY));
            let stored = state + UPLOAD;
            if stored >= training.seconds() {
                return saves;
            }
            saves.push((PREPARATION + stored - from, state));
            (last, cost) = (stored, UPLOAD);
        }
    }
}

/// A job on a GPU.
#[derive(Debug)]
struct Open {
    job: JobId,
    begun: f64,
    plan: Plan,
}

/// What all GPUs did.
#[derive(Debug, Default)]
pub struct Journal {
    /// Seconds of epochs in the last stored state of each training job.
    stored: HashMap<JobId, f64>,
    /// By worker: what it has, one after the other.
    open: HashMap<String, Vec<Open>>,
    /// Seconds that GPUs worked on jobs that are over.
    spent: f64,
    deaths: u64,
}

impl Journal {
    /// A worker is granted a job: what it takes, and in how many seconds its GPU is free for it.
    ///
    /// # Errors
    ///
    /// A job whose costs are not known.
    pub fn begin(&mut self, worker: &str, job: &JobMessage, now: f64) -> Result<(Plan, f64)> {
        let plan = match &job.work {
            Work::Train(spec) => Plan::Train {
                training: Training::of(spec)?,
                from: self.stored.get(&job.job).copied().unwrap_or(0.0),
            },
            Work::Eval { spec, .. } => Plan::Evaluate(evaluation_seconds(spec)?),
            Work::Noop => Plan::Noop,
        };
        let open = self.open.entry(worker.to_owned()).or_default();
        let end = |open: &Open| open.begun + open.plan.seconds();
        let over: Vec<Open> = open.extract_if(.., |open| end(open) <= now).collect();
        let begun = open.iter().map(end).fold(now, f64::max);
        open.push(Open {
            job: job.job,
            begun,
            plan: plan.clone(),
        });
        for open in over {
            self.close(&open, now);
        }
        Ok((plan, begun - now))
    }

    /// A worker dies.
    pub fn end(&mut self, worker: &str, now: f64) {
        self.deaths += 1;
        for open in self.open.remove(worker).unwrap_or_default() {
            self.close(&open, now);
        }
    }

    /// Seconds that GPUs have worked until `now`, and deaths.
    pub fn totals(mut self, now: f64) -> (f64, u64) {
        let workers: Vec<Vec<Open>> = self.open.drain().map(|(_, open)| open).collect();
        for open in workers.iter().flatten() {
            self.close(open, now);
        }
        (self.spent, self.deaths)
    }

    fn close(&mut self, open: &Open, now: f64) {
        let elapsed = (now - open.begun).clamp(0.0, open.plan.seconds());
        self.spent += elapsed;
        let saves = open.plan.saves();
        let stored = saves.iter().rev().find(|(after, _)| *after <= elapsed);
        if let Some((_, state)) = stored {
            self.stored.insert(open.job, *state);
        }
    }
}

/// How long a machine lives, by an exponential distribution, the same for the same slot and number.
pub fn life(mean: f64, slot: usize, number: u64) -> f64 {
    let mut noise = Noise::new(&[b"life", &slot.to_le_bytes(), &number.to_le_bytes()]);
    -mean * (1.0 - noise.uniform()).ln()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sweeps::train_spec;
    use halfheard_shared::{
        ids::{AttemptId, SweepId},
        wire::TrainSpec,
    };

    fn message(max_epochs: u32) -> JobMessage {
        JobMessage {
            sweep: SweepId::derive(&[b"sweep"]),
            job: JobId::derive(&[&max_epochs.to_le_bytes()]),
            attempt: AttemptId::derive(&[b"attempt"]),
            work: Work::Train(TrainSpec {
                max_epochs,
                ..train_spec(1)
            }),
        }
    }

    fn plan(epochs: u32, epoch_seconds: f64, from: f64) -> Plan {
        let training = Training {
            epochs,
            steps: 10,
            step_seconds: epoch_seconds / 10.0,
        };
        Plan::Train { training, from }
    }

    #[test]
    fn states_are_saved_as_the_worker_does() {
        // After the first epoch, then no more often than ten times the upload, at ends of epochs.
        let short = plan(30, 4.0, 0.0).saves();
        assert_eq!(short[0], (PREPARATION + 4.0 + UPLOAD, 4.0));
        assert_eq!(short[1], (PREPARATION + 60.0 + UPLOAD, 60.0));
        assert_eq!(short.len(), 2);
        // Long epochs: every minute after the last upload.
        let long = plan(2, 1000.0, 0.0).saves();
        assert_eq!(long[0].1, 60.0);
        assert_eq!(long[1].1, 125.0);
        // A resumed one loads its state first.
        let resumed = plan(2, 1000.0, 125.0).saves();
        assert_eq!(resumed[0], (PREPARATION + 60.0 + UPLOAD, 185.0));
        assert!(Plan::Evaluate(100.0).saves().is_empty());
    }

    #[test]
    fn dead_worker_s_training_goes_on_from_its_last_stored_state() {
        let mut journal = Journal::default();
        let job = message(200);
        let (whole, wait) = journal.begin("a", &job, 10.0).unwrap();
        assert_eq!(wait, 0.0);
        let saves = whole.saves();
        let (stored, state) = saves[1];
        // Ten seconds after the second state was stored.
        journal.end("a", 10.0 + stored + 10.0);
        let (rest, _) = journal.begin("b", &job, 500.0).unwrap();
        assert!((rest.seconds() + state - whole.seconds()).abs() < 1e-6);
        let (spent, deaths) = journal.totals(1e9);
        assert_eq!(deaths, 1);
        let lost = spent - whole.seconds();
        // The upload, ten seconds, and another preparation.
        assert!(
            (lost - (UPLOAD + 10.0 + PREPARATION)).abs() < 1e-6,
            "{lost}"
        );
    }

    #[test]
    fn jobs_of_one_gpu_follow_each_other() {
        let mut journal = Journal::default();
        let (first, wait) = journal.begin("a", &message(3), 5.0).unwrap();
        assert_eq!(wait, 0.0);
        let (second, wait) = journal.begin("a", &message(4), 5.0).unwrap();
        assert!((wait - first.seconds()).abs() < 1e-6);
        // Another GPU is free, and so is this one later.
        assert_eq!(journal.begin("b", &message(5), 5.0).unwrap().1, 0.0);
        let over = 5.0 + first.seconds() + second.seconds();
        assert_eq!(journal.begin("a", &message(6), over).unwrap().1, 0.0);
        // What waits when its worker dies took nothing.
        journal.begin("a", &message(7), over).unwrap();
        journal.end("a", over);
        let other = message(5);
        let Work::Train(spec) = &other.work else {
            unreachable!()
        };
        let third = PREPARATION + Training::of(spec).unwrap().seconds();
        let all = first.seconds() + second.seconds() + third;
        assert!((journal.totals(1e9).0 - all).abs() < 1e-6);
    }

    #[test]
    fn lives_have_their_mean_and_are_drawn_once() {
        let lives: Vec<f64> = (0..4000)
            .map(|n| life(1800.0, n % 40, n as u64 / 40))
            .collect();
        let mean = lives.iter().sum::<f64>() / 4000.0;
        assert!((mean / 1800.0 - 1.0).abs() < 0.05, "{mean}");
        // A third lives longer than the mean.
        let long = lives.iter().filter(|life| **life > 1800.0).count();
        assert!((1300..1650).contains(&long), "{long}");
        assert_eq!(life(1800.0, 3, 4), life(1800.0, 3, 4));
        assert_ne!(life(1800.0, 3, 4), life(1800.0, 4, 3));
    }
}
