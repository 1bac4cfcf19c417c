//! From granted rows to the jobs that workers receive.

use halfheard_shared::{
    case::{Case, CaseError, Damage},
    ids::JobId,
    wire::{CheckpointRef, JobMessage, TrainSpec, Work},
};
use halfheard_store::{JobKind, Store, StoreError, grants::GrantedJob};
use std::collections::{HashMap, HashSet};
use uuid::Uuid;

/// Reads what granted jobs consist of.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    configs: HashMap<Uuid, Result<TrainSpec, String>>,
    checkpoints: HashMap<JobId, Vec<CheckpointRef>>,
    /// The tables of what words are heard as, of evaluations that need one.
    confusions: HashMap<JobId, String>,
}

impl Jobs {
    /// Loads the configs and checkpoints of `jobs`. They are read anew each time: a submission may name
    /// other paths, and a training that is done again may leave other checkpoints.
    pub(super) async fn load(
        &mut self,
        store: &Store,
        jobs: &[&GrantedJob],
    ) -> Result<(), StoreError> {
        let configs: HashSet<Uuid> = jobs.iter().filter_map(|job| job.config).collect();
        self.configs.clear();
        if !configs.is_empty() {
            let configs: Vec<Uuid> = configs.into_iter().collect();
            self.configs = store.configs(&configs).await?;
        }
        let trains: HashSet<JobId> = jobs.iter().filter_map(|job| job.train).collect();
        self.checkpoints.clear();
        if !trains.is_empty() {
            let trains: Vec<JobId> = trains.into_iter().collect();
            self.checkpoints = store.checkpoints(&trains).await?;
        }
        let is_asr = |job: &&&GrantedJob| {
            let case = job.case.as_deref().and_then(|case| case.parse().ok());
            case.is_some_and(|case: Case| matches!(case.damage, Damage::Asr(_)))
        };
        let misheard: Vec<JobId> = jobs.iter().filter(is_asr).map(|job| job.job).collect();
        self.confusions.clear();
        if !misheard.is_empty() {
            self.confusions = store.confusions(&misheard).await?;
        }
        Ok(())
    }

    /// The job that a worker receives, or why there is none.
    pub(super) fn message(&self, job: &GrantedJob) -> Result<JobMessage, String> {
        let work = match job.kind {
            JobKind::Noop => Work::Noop,
            JobKind::Train => Work::Train(self.spec(job)?),
            JobKind::Eval => self.evaluation(job)?,
        };
        Ok(JobMessage {
            sweep: job.sweep,
            job: job.job,
            attempt: job.attempt,
            work,
        })
    }

    fn spec(&self, job: &GrantedJob) -> Result<TrainSpec, String> {
        let spec = job
            .config
            .and_then(|config| self.configs.get(&config))
            .ok_or("the database lacks its config")?
            .as_ref()?;
        Ok(TrainSpec {
            seed: u64::try_from(job.seed).map_err(|_| "its seed is negative")?,
            ..spec.clone()
        })
    }

    fn evaluation(&self, job: &GrantedJob) -> Result<Work, String> {
        let train = job.train.ok_or("it has no training job")?;
        let case: Case = job
            .case
            .as_deref()
            .ok_or("it has no case")?
            .parse()
            .map_err(|error: CaseError| error.to_string())?;
        let checkpoints = self
            .checkpoints
            .get(&train)
            .filter(|checkpoints| !checkpoints.is_empty())
            .ok_or("its training job has no checkpoint")?;
        Ok(Work::Eval {
            train,
            spec: self.spec(job)?,
            case,
            confusions: self.confusions.get(&job.job).cloned(),
            checkpoints: checkpoints.clone(),
        })
    }
}
