//! The time below which no scheduler can finish a sweep.

use super::{
    costs::{Training, evaluation_seconds},
    journal::PREPARATION,
};
use anyhow::Result;
use halfheard_shared::matrix::{PlannedJob, PlannedWork};

/// What a sweep takes at least.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bound {
    /// All its jobs one after the other.
    pub work: f64,
    /// The longest training run and one of its evaluations, which cannot begin before.
    pub chain: f64,
    /// Its jobs.
    pub jobs: usize,
}

impl Bound {
    /// Of the jobs of a sweep.
    ///
    /// # Errors
    ///
    /// A job whose costs are not known.
    pub fn of(jobs: impl Iterator<Item = PlannedJob>) -> Result<Self> {
        let mut bound = Self::default();
        for job in jobs {
            bound.jobs += 1;
            match &job.work {
                PlannedWork::Train(spec) => {
                    let seconds = PREPARATION + Training::of(spec)?.seconds();
                    bound.work += seconds;
                    bound.chain = bound.chain.max(seconds);
                }
                PlannedWork::Eval { spec, .. } => {
                    let seconds = evaluation_seconds(spec)?;
                    bound.work += seconds;
                    let training = PREPARATION + Training::of(spec)?.seconds();
                    bound.chain = bound.chain.max(training + seconds);
                }
                PlannedWork::Noop => {}
            }
        }
        Ok(bound)
    }

    /// The makespan of `workers` workers cannot be shorter.
    pub fn makespan(&self, workers: usize) -> f64 {
        self.chain.max(self.work / workers as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cluster::costs,
        finished::{Matrix, resolved},
    };
    use halfheard_shared::{benchmark::Benchmark, matrix};
    use std::sync::Arc;

    fn bound(seeds: u64) -> Bound {
        let matrix = Matrix {
            name: "bound".to_owned(),
            models: costs::models(),
            datasets: Benchmark::ALL.to_vec(),
            seeds: (0..seeds).collect(),
        };
        let spec = Arc::new(resolved(&matrix).unwrap());
        Bound::of(matrix::expand(spec, None)).unwrap()
    }

    #[test]
    fn bound_is_the_chain_for_many_workers_and_the_work_for_few() {
        let one = bound(3);
        assert_eq!(one.jobs, 72 * 17);
        // LNLN on MOSEI, 200 epochs of 255 steps.
        let training = 200.0 * 255.0 * 17.4 / 200.0;
        assert!(one.chain > PREPARATION + training && one.chain < 1.1 * training);
        assert_eq!(one.makespan(1_000_000), one.chain);
        assert_eq!(one.makespan(1), one.work);
        assert_eq!(one.makespan(2), one.work / 2.0);
        // Those that stop early differ by seed, the longest does not.
        let ten = bound(30);
        assert_eq!(ten.chain, one.chain);
        assert!((ten.work / one.work - 10.0).abs() < 1.0);
    }
}
