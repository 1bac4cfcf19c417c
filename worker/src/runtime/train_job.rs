//! A training job's way through the worker.

use super::{
    BEFORE, BESIDE, Patience, Slot, JobLease, after,
    engine::{TrainEnd, TrainTask},
    faults::{self, Need},
    health::Health,
    shutdown,
    train_monitor::{TrainMonitor, MonitorSettings},
    words,
};
use halfheard_models::train::{Best, Finish, failure};
use halfheard_shared::{
    artifacts::{ArtifactError, Hash, Key, MAX_BYTES},
    ids::AttemptId,
    wire::{Failure, FailureKind, FaultKind, ResultBody, TrainSpec},
};
use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

impl Slot {
    /// From the first look at the job to its acknowledgement.
    pub(super) async fn train(self: Arc<Self>, lease: JobLease, spec: TrainSpec) {
        let what = format!("train {}", words(&spec));
        let attempt = self.attempt(&lease);
        self.doing(&lease, what.clone(), spec.max_epochs);
        tracing::info!(job = %lease.job.job, delivery = lease.delivery, "{what}");

        // Evaluations find the checkpoints by the outcome: without them it is worth nothing.
        let earlier = match self.earlier_outcome(&lease).await {
            Ok(earlier) => earlier,
            Err(error) => return self.no_store(lease, attempt, &what, &error).await,
        };
        if let Some(body) = earlier
            && let ResultBody::Trained { checkpoints, .. } = &body
            && self
                .are_there(checkpoints.iter().map(|c| c.blake3.as_str()))
                .await
        {
            tracing::info!(job = %lease.job.job, "done already: only the result goes out again");
            let report = self.report(&lease, attempt, body);
            return self.report_and_ack(&lease, report).await;
        }
        if self.is_crashing(&lease).await {
            let body = ResultBody::Failed(Failure {
                chain: vec![
                    what,
                    format!(
                        "delivered {} times, and no worker lived to say how it ended: it may need more memory than there is",
                        lease.delivery
                    ),
                ],
                kind: FailureKind::Crashed,
            });
            let report = self.report(&lease, attempt, body);
            return self.report_and_ack(&lease, report).await;
        }
        let (data, encoder) = match self.inputs(&spec).await {
            Ok(both) => both,
            Err(error) => {
                let Some(fault) = faults::of_blob(&error, &spec) else {
                    let body = Self::failure(&what, &error, FailureKind::Permanent);
                    let report = self.report(&lease, attempt, body);
                    return self.report_and_ack(&lease, report).await;
                };
                self.met(lease.job.job, &fault, Need::Inputs(Box::new(spec)));
                return self.decline(lease, attempt, 0, &fault).await;
            }
        };
        let key = Key::Resume(lease.job.job);
        let state = match self
            .retry_transient(BEFORE, async || self.store.get(&key, MAX_BYTES).await)
            .await
        {
            Ok(state) => state,
            // What is there is no state: there will be none by waiting.
            Err(error @ (ArtifactError::TooLarge { .. } | ArtifactError::Damaged { .. })) => {
                tracing::warn!(
                    error = crate::chain(&error),
                    "a saved state cannot be read, training starts afresh"
                );
                None
            }
            Err(error) => return self.no_store(lease, attempt, &what, &error).await,
        };

        let cancelled = Arc::new(AtomicBool::new(false));
        let watch = tokio::spawn({
            let (sweeps, cancelled) = (self.sweeps.clone(), cancelled.clone());
            let sweep = lease.job.sweep;
            async move {
                sweeps.cancelled(sweep).await;
                cancelled.store(true, Ordering::Relaxed);
            }
        });
        let task = TrainTask {
            data,
            encoder: encoder.clone(),
            state,
            processor: self.worker.processor.clone(),
            fetch: TrainMonitor::fetch_best(self.store.clone(), lease.job.job),
            live: TrainMonitor::new(MonitorSettings {
                shutdown: self.shutdown.clone(),
                cancelled: cancelled.clone(),
                status: self.status.clone(),
                reporter: self.reporter.clone(),
                report: self.report(&lease, attempt, ResultBody::Noop),
                delivery: lease.delivery,
                save_every: self.settings.save_every,
                store: self.store.clone(),
            }),
            spec: spec.clone(),
        };
        let end = tokio::select! {
            end = self.engine.train(task) => end,
            () = self.shutdown.deadline(shutdown::SAVE_DEADLINE) => {
                tracing::warn!("the step takes too long: the job goes back as it was last saved");
                watch.abort();
                self.hand_back(lease, attempt, None).await;
                return;
            }
        };
        watch.abort();
        let TrainEnd {
            outcome,
            kept,
            mut live,
        } = match end {
            Ok(end) => end,
            Err(gone) => {
                self.broken.store(true, Ordering::Relaxed);
                let body = Self::failure(&what, &gone, FailureKind::Retryable);
                let report = self.report(&lease, attempt, body);
                return self.report_and_ack(&lease, report).await;
            }
        };
        match outcome {
            Ok(Finish::Left { .. }) if cancelled.load(Ordering::Relaxed) => {
                tracing::info!(job = %lease.job.job, "the sweep is cancelled");
                // What it has reached stays: the sweep may be submitted again.
                live.settle().await;
                let after_epoch = live.saved_after_epoch();
                let body = ResultBody::HandedBack { after_epoch };
                let report = self.report(&lease, attempt, body);
                self.report_and_ack(&lease, report).await;
            }
            Ok(Finish::Left { .. }) => {
                live.settle().await;
                let after_epoch = live.saved_after_epoch();
                self.hand_back(lease, attempt, Some(after_epoch)).await;
            }
            Ok(Finish::Done {
                checkpoints,
                contents,
                epochs,
                seconds,
            }) => {
                let body = match self.keep(after(seconds), contents).await {
                    Ok(()) => {
                        let body = ResultBody::Trained {
                            checkpoints,
                            epochs,
                            seconds,
                        };
                        self.keep_outcome(&lease, body).await
                    }
                    Err(_) if self.shutdown.is_requested() => {
                        // The saved state leads the next attempt here again.
                        live.settle().await;
                        let after_epoch = live.saved_after_epoch();
                        return self.hand_back(lease, attempt, Some(after_epoch)).await;
                    }
                    Err(error) => {
                        // The saved state is for the worker that can keep what comes of it.
                        live.settle().await;
                        let after_epoch = live.saved_after_epoch();
                        if let Some(fault) = faults::of_store(&error) {
                            self.met(lease.job.job, &fault, Need::Kind);
                            return self.decline(lease, attempt, after_epoch, &fault).await;
                        }
                        Self::failure(&what, &error, FailureKind::Permanent)
                    }
                };
                let trained = matches!(body, ResultBody::Trained { .. });
                let report = live.report(body);
                self.report_and_ack(&lease, report).await;
                if trained {
                    self.status.health(Health::worked);
                    live.clear().await;
                }
                tracing::info!(job = %lease.job.job, epochs, seconds, "{what}: done");
            }
            Err(error) => {
                live.settle().await;
                if error.breaks_the_process() {
                    self.broken.store(true, Ordering::Relaxed);
                }
                if let Some(fault) = faults::of_training(&error, &spec, &encoder) {
                    let need = match fault.kind {
                        FaultKind::Dataset | FaultKind::Encoder => Need::Inputs(Box::new(spec)),
                        _ => Need::Kind,
                    };
                    self.met(lease.job.job, &fault, need);
                    let after_epoch = live.saved_after_epoch();
                    return self.decline(lease, attempt, after_epoch, &fault).await;
                }
                let mut failure = failure(&what, &error);
                failure.chain.extend(self.keep_last_good(kept).await);
                tracing::error!(job = %lease.job.job, "{}", failure.chain.join(": "));
                let report = self.report(&lease, attempt, ResultBody::Failed(failure));
                self.report_and_ack(&lease, report).await;
            }
        }
    }

    /// The dataset file and the encoder's folder.
    pub(super) async fn inputs(
        &self,
        spec: &TrainSpec,
    ) -> Result<(PathBuf, PathBuf), super::blobs::BlobError> {
        Ok((
            self.blobs.dataset(&spec.data).await?,
            self.blobs.encoder(&spec.encoder).await?,
        ))
    }

    /// Puts checkpoints into the store.
    async fn keep(&self, patience: Patience, contents: Vec<Best>) -> Result<(), ArtifactError> {
        for Best { blake3, content } in contents {
            let key = Key::Checkpoint(blake3);
            self.retry_transient(patience, async || {
                self.store.put(&key, content.clone()).await
            })
            .await?;
        }
        Ok(())
    }

    /// The store does not work: another worker's may.
    pub(super) async fn no_store(
        &self,
        lease: JobLease,
        attempt: AttemptId,
        what: &str,
        error: &ArtifactError,
    ) {
        if self.shutdown.is_requested() {
            return self.hand_back_unstarted(lease).await;
        }
        match faults::of_store(error) {
            Some(fault) => {
                self.met(lease.job.job, &fault, Need::Kind);
                self.decline(lease, attempt, 0, &fault).await;
            }
            None => {
                let body = Self::failure(what, error, FailureKind::Permanent);
                let report = self.report(&lease, attempt, body);
                self.report_and_ack(&lease, report).await;
            }
        }
    }

    /// Keeps what a failed training had reached, and says so.
    async fn keep_last_good(&self, kept: Vec<(String, Best)>) -> Option<String> {
        let words: Vec<String> = kept
            .iter()
            .map(|(what, best)| format!("{what}: {}", best.blake3))
            .collect();
        let contents = kept.into_iter().map(|(_, best)| best).collect();
        if words.is_empty() {
            return None;
        }
        match self.keep(BESIDE, contents).await {
            Ok(()) => Some(format!("checkpoints kept: {}", words.join(", "))),
            Err(error) => Some(format!("no checkpoint was kept: {error}")),
        }
    }

    /// Whether all these checkpoints are in the store.
    async fn are_there<'a>(&self, hashes: impl Iterator<Item = &'a str>) -> bool {
        for hash in hashes {
            let Ok(hash) = hash.parse::<Hash>() else {
                return false;
            };
            let key = Key::Checkpoint(hash);
            let size = self
                .retry_transient(BEFORE, async || self.store.size(&key).await)
                .await;
            match size {
                Ok(Some(_)) => {}
                _ => return false,
            }
        }
        true
    }

    /// Gives a training back; `None` where it is not known what the saved state holds.
    async fn hand_back(&self, lease: JobLease, attempt: AttemptId, after_epoch: Option<u32>) {
        let body = ResultBody::HandedBack {
            after_epoch: after_epoch.unwrap_or(0),
        };
        let report = self.report(&lease, attempt, body);
        tokio::select! {
            _ = self.reporter.deliver(report) => {}
            () = self.shutdown.deadline(shutdown::SAVE_DEADLINE + std::time::Duration::from_millis(500)) => {
                tracing::warn!("the hand-back could not be reported in time");
            }
        }
        self.hand_back_unstarted(lease).await;
        tracing::info!("the job is handed back");
    }
}
