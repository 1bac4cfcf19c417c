//! Processing a training job.

use super::{
    blobs::BlobError,
    ending::Ending,
    engine::{FetchBest, TrainEnd, TrainTask},
    faults::{self, Requirement},
    health::Health,
    leases::JobLease,
    retry::{BEFORE_JOB, OPTIONAL, RetryPolicy, for_result},
    slot::{ExitReason, Slot, describe},
    sweep_control::Cancellation,
    train_monitor::{MonitorSettings, TrainMonitor},
};
use crate::shutdown;
use bytes::Bytes;
use halfheard_models::train::{BestCheckpoint, TrainOutcome, failure};
use halfheard_shared::{
    artifacts::{ArtifactError, Key, MAX_BYTES},
    error::chain,
    hash::Hash,
    ids::JobId,
    wire::{CheckpointRef, FailureKind, ResultBody, TrainSpec},
};
use std::{path::PathBuf, time::Duration};
use tokio::runtime::Handle;

/// Limit for reporting a hand-back during a shutdown.
const HANDBACK_DEADLINE: Duration =
    shutdown::SAVE_DEADLINE.saturating_add(Duration::from_millis(500));

/// What a training job starts from.
struct Inputs {
    data: PathBuf,
    encoder: PathBuf,
    /// A saved state to resume from.
    state: Option<Bytes>,
}

/// What a completed training job produced.
struct Trained {
    checkpoints: Vec<CheckpointRef>,
    contents: Vec<BestCheckpoint>,
    epochs: u32,
    seconds: f64,
}

impl Slot {
    /// Processes a training job.
    pub(super) async fn train(&self, lease: JobLease, spec: TrainSpec) {
        let what = format!("train {}", describe(&spec));
        self.set_activity(&lease, what.clone(), spec.max_epochs, 0);
        tracing::info!(job = %lease.job.job, delivery = lease.delivery, "{what}");
        match self.prepare_training(&lease, &spec, &what).await {
            Ok(inputs) => self.run_training(lease, spec, &what, inputs).await,
            Err(ending) => self.end(lease, ending).await,
        }
    }

    /// Collects what the job starts from, unless it ends before it starts.
    async fn prepare_training(
        &self,
        lease: &JobLease,
        spec: &TrainSpec,
        what: &str,
    ) -> Result<Inputs, Ending> {
        let earlier = self.earlier_outcome(lease).await;
        let earlier = earlier.map_err(|error| self.store_failed(lease, what, &error))?;
        // Evaluation jobs find the checkpoints by the outcome: without them it is worthless.
        if let Some(body) = earlier
            && let ResultBody::Trained { checkpoints, .. } = &body
            && self.has_checkpoints(checkpoints).await
        {
            tracing::info!(job = %lease.job.job, "already trained; reporting the result again");
            return Err(Ending::Report(body));
        }
        if self.is_crashing(lease).await {
            return Err(Ending::crashed(what, lease.delivery));
        }
        let (data, encoder) = self.inputs_or_ending(lease.job.job, spec, what).await?;
        let state = self.saved_state(lease.job.job).await;
        let state = state.map_err(|error| self.store_failed(lease, what, &error))?;
        Ok(Inputs {
            data,
            encoder,
            state,
        })
    }

    async fn saved_state(&self, job: JobId) -> Result<Option<Bytes>, ArtifactError> {
        let key = Key::Resume(job);
        let read = self.retry_transient(BEFORE_JOB, async || self.store.get(&key, MAX_BYTES).await);
        match read.await {
            // Waiting does not make it readable.
            Err(error @ (ArtifactError::TooLarge { .. } | ArtifactError::Damaged { .. })) => {
                tracing::warn!(
                    error = chain(&error),
                    "cannot read the saved state; training starts over"
                );
                Ok(None)
            }
            read => read,
        }
    }

    async fn run_training(&self, lease: JobLease, spec: TrainSpec, what: &str, inputs: Inputs) {
        let cancellation = self.sweeps.watch_cancellation(lease.job.sweep);
        let encoder = inputs.encoder.clone();
        let task = self.train_task(&lease, &spec, inputs, &cancellation);
        let end = tokio::select! {
            end = self.engine.train(task) => end,
            () = self.shutdown.deadline(shutdown::SAVE_DEADLINE) => {
                tracing::warn!("a step takes too long; handing the job back as last saved");
                // What the saved state holds is unknown here.
                return self.hand_back(lease, 0).await;
            }
        };
        let is_cancelled = cancellation.is_cancelled();
        let TrainEnd {
            outcome,
            kept,
            mut monitor,
        } = match end {
            Ok(end) => end,
            Err(exited) => {
                self.request_exit(ExitReason::Broken);
                let ending = Ending::failed(what, &exited, FailureKind::Retryable);
                return self.end(lease, ending).await;
            }
        };
        match outcome {
            Ok(TrainOutcome::Stopped { .. }) => {
                let after_epoch = monitor.settle().await;
                if is_cancelled {
                    tracing::info!(job = %lease.job.job, "sweep cancelled");
                    // The saved state stays: the sweep may be submitted again.
                    let body = ResultBody::HandedBack { after_epoch };
                    self.end(lease, Ending::Report(body)).await;
                } else {
                    self.hand_back(lease, after_epoch).await;
                }
            }
            Ok(TrainOutcome::Completed {
                checkpoints,
                contents,
                epochs,
                seconds,
            }) => {
                let trained = Trained {
                    checkpoints,
                    contents,
                    epochs,
                    seconds,
                };
                self.complete_training(lease, what, monitor, trained).await;
            }
            Err(error) => {
                let after_epoch = monitor.settle().await;
                let job = lease.job.job;
                let ending = match self.worker_fault(Some(job), &error, &spec, &encoder) {
                    Some(fault) => Ending::Decline { after_epoch, fault },
                    None => {
                        let mut failure = failure(what, &error);
                        failure.chain.extend(self.keep_last_good(kept).await);
                        tracing::error!(%job, "{}", failure.chain.join(": "));
                        Ending::Report(ResultBody::Failed(failure))
                    }
                };
                self.end(lease, ending).await;
            }
        }
    }

    fn train_task(
        &self,
        lease: &JobLease,
        spec: &TrainSpec,
        inputs: Inputs,
        cancellation: &Cancellation,
    ) -> TrainTask {
        TrainTask {
            spec: spec.clone(),
            data: inputs.data,
            encoder: inputs.encoder,
            state: inputs.state,
            processor: self.worker.processor.clone(),
            fetch: self.fetch_best(lease.job.job),
            monitor: TrainMonitor::new(MonitorSettings {
                shutdown: self.shutdown.clone(),
                cancelled: cancellation.flag(),
                status: self.status.clone(),
                reporter: self.reporter.clone(),
                header: self.header(lease),
                delivery: lease.delivery,
                save_every: self.settings.save_every,
                store: self.store.clone(),
            }),
        }
    }

    /// Stores and reports the result of a completed training job.
    async fn complete_training(
        &self,
        lease: JobLease,
        what: &str,
        mut monitor: TrainMonitor,
        trained: Trained,
    ) {
        let Trained {
            checkpoints,
            contents,
            epochs,
            seconds,
        } = trained;
        if let Err(error) = self.store_checkpoints(for_result(seconds), contents).await {
            // The saved state is for the attempt that can store the result.
            let shutdown = self.shutdown.is_requested();
            let after_epoch = monitor.settle().await;
            if shutdown {
                return self.hand_back(lease, after_epoch).await;
            }
            let ending = self.store_failed_after(&lease, what, &error, after_epoch);
            return self.end(lease, ending).await;
        }
        let body = ResultBody::Trained {
            checkpoints,
            epochs,
            seconds,
        };
        let body = self.keep_outcome(&lease, body).await;
        let trained = matches!(body, ResultBody::Trained { .. });
        self.report_and_ack(&lease, monitor.report(body)).await;
        if trained {
            self.status.health(Health::job_completed);
            monitor.clear().await;
        }
        tracing::info!(job = %lease.job.job, epochs, seconds, "{what}: completed");
    }

    /// The dataset file and the encoder's folder.
    pub(super) async fn inputs(&self, spec: &TrainSpec) -> Result<(PathBuf, PathBuf), BlobError> {
        Ok((
            self.blobs.dataset(&spec.data).await?,
            self.blobs.encoder(&spec.encoder).await?,
        ))
    }

    /// The inputs, or how the job ends without them.
    pub(super) async fn inputs_or_ending(
        &self,
        job: JobId,
        spec: &TrainSpec,
        what: &str,
    ) -> Result<(PathBuf, PathBuf), Ending> {
        self.inputs(spec).await.map_err(|error| {
            let Some(fault) = faults::input_fault(&error, spec) else {
                return Ending::failed(what, &error, FailureKind::Permanent);
            };
            self.record_fault(job, &fault, Requirement::Inputs(Box::new(spec.clone())));
            Ending::Decline {
                after_epoch: 0,
                fault,
            }
        })
    }

    async fn store_checkpoints(
        &self,
        policy: RetryPolicy,
        contents: Vec<BestCheckpoint>,
    ) -> Result<(), ArtifactError> {
        for BestCheckpoint { blake3, content } in contents {
            let key = Key::Checkpoint(blake3);
            self.retry_transient(policy, async || self.store.put(&key, content.clone()).await)
                .await?;
        }
        Ok(())
    }

    /// Keeps the best checkpoints of a failed training job and says so.
    async fn keep_last_good(&self, kept: Vec<(String, BestCheckpoint)>) -> Option<String> {
        if kept.is_empty() {
            return None;
        }
        let names: Vec<String> = kept
            .iter()
            .map(|(what, best)| format!("{what}: {}", best.blake3))
            .collect();
        let contents = kept.into_iter().map(|(_, best)| best).collect();
        Some(match self.store_checkpoints(OPTIONAL, contents).await {
            Ok(()) => format!("checkpoints kept: {}", names.join(", ")),
            Err(error) => format!("cannot keep the checkpoints: {}", chain(&error)),
        })
    }

    /// Whether the store has all these checkpoints.
    async fn has_checkpoints(&self, checkpoints: &[CheckpointRef]) -> bool {
        for checkpoint in checkpoints {
            let Ok(hash) = checkpoint.blake3.parse::<Hash>() else {
                return false;
            };
            let key = Key::Checkpoint(hash);
            let size = self.retry_transient(BEFORE_JOB, async || self.store.size(&key).await);
            if !matches!(size.await, Ok(Some(_))) {
                return false;
            }
        }
        true
    }

    /// Fetches the checkpoints that a saved state refers to.
    fn fetch_best(&self, job: JobId) -> FetchBest {
        let (store, runtime) = (self.store.clone(), Handle::current());
        Box::new(move |best| -> Option<Bytes> {
            let key = Key::ResumeCheckpoint(job, best.blake3.parse().ok()?);
            match runtime.block_on(store.get(&key, MAX_BYTES)) {
                Ok(content) => content,
                Err(error) => {
                    tracing::warn!(error = chain(&error), "cannot read a saved checkpoint");
                    None
                }
            }
        })
    }

    /// Hands a training job back.
    async fn hand_back(&self, lease: JobLease, after_epoch: u32) {
        let report = self.report(&lease, ResultBody::HandedBack { after_epoch });
        tokio::select! {
            _ = self.reporter.deliver(report) => {}
            () = self.shutdown.deadline(HANDBACK_DEADLINE) => {
                tracing::warn!("no time left to report the hand-back");
            }
        }
        self.hand_back_unstarted(lease).await;
        tracing::info!("job handed back");
    }
}
