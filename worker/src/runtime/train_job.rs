//! Processing a training job.

use super::{
    blobs::BlobError,
    ending::Ending,
    engine::{FetchBest, TrainEnd, TrainTask},
    faults::{self, Requirement},
    health::Health,
    leases::JobLease,
    report::AttemptReporter,
    retry::{BEFORE_JOB, OPTIONAL, RESULT, RetryPolicy},
    slot::{ExitReason, Slot, describe},
    traces,
    train_monitor::{MonitorSettings, TrainMonitor},
    watch::Phase,
};
use crate::external::{Captured, Inputs as External, OutputSink};
use bytes::Bytes;
use halfheard_models::train::{BestCheckpoint, TrainOutcome, failure};
use halfheard_shared::{
    artifacts::{ArtifactError, Key, MAX_BYTES},
    error::chain,
    external::ExternalTraining,
    ids::JobId,
    wire::{FailureKind, Fault, FaultKind, ResultBody, TrainSpec},
};
use std::{path::PathBuf, time::SystemTime};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

/// What every job with a model starts from.
pub(super) struct Inputs {
    /// The dataset file.
    pub(super) data: PathBuf,
    /// The encoder's folder.
    pub(super) encoder: PathBuf,
    /// The program, for what is none of the registry's methods.
    pub(super) external: Option<External>,
}

/// What a training job starts from.
struct Prepared {
    inputs: Inputs,
    /// A saved state to resume from.
    state: Option<Bytes>,
}

/// What a completed training job produced.
struct Trained {
    contents: Vec<BestCheckpoint>,
    report: ResultBody,
}

impl Slot {
    /// Processes a training job.
    pub(super) async fn train(&self, lease: JobLease, spec: TrainSpec) {
        let what = format!("train {}", describe(&spec));
        self.set_activity(&lease, what.clone(), spec.max_epochs, 0);
        lease.set_at_work(true);
        tracing::info!(job = %lease.job.job, attempt = %lease.attempt(), "{what}");
        match self.prepare_training(&lease, &spec, &what).await {
            Ok(prepared) => self.run_training(lease, spec, &what, prepared).await,
            Err(ending) => {
                self.watch.enter(Phase::Waiting);
                self.end(lease, ending).await;
            }
        }
    }

    /// Collects what the job starts from, unless it ends before it starts.
    async fn prepare_training(
        &self,
        lease: &JobLease,
        spec: &TrainSpec,
        what: &str,
    ) -> Result<Prepared, Ending> {
        self.watch.enter(Phase::Preparing);
        let began = SystemTime::now();
        let collect = async {
            let inputs = self.inputs_or_ending(lease, spec, what).await?;
            let state = self.saved_state(lease).await;
            let state = state.map_err(|error| self.store_failed(lease, what, &error))?;
            Ok(Prepared { inputs, state })
        };
        let prepared = self.unless_ended(lease, collect).await;
        traces::part(lease.attempt(), "data", began);
        prepared
    }

    /// Does `work`, which may take long, unless the worker shuts down or the job is taken away.
    pub(super) async fn unless_ended<T>(
        &self,
        lease: &JobLease,
        work: impl Future<Output = Result<T, Ending>>,
    ) -> Result<T, Ending> {
        tokio::select! {
            done = work => done,
            () = self.shutdown.requested() => Err(Ending::HandBack { after_epoch: 0 }),
            () = lease.released().cancelled() => Err(Ending::HandBack { after_epoch: 0 }),
        }
    }

    async fn saved_state(&self, lease: &JobLease) -> Result<Option<Bytes>, ArtifactError> {
        let key = Key::Resume(lease.job.job);
        let read = self.retry_store(BEFORE_JOB, lease.released(), async || {
            self.store.get(&key, MAX_BYTES).await
        });
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

    async fn run_training(&self, lease: JobLease, spec: TrainSpec, what: &str, from: Prepared) {
        let encoder = from.inputs.encoder.clone();
        let output = from.inputs.external.as_ref();
        let output = output.map(|external| external.output.clone());
        let task = self.train_task(&lease, &spec, from);
        let end = tokio::select! {
            end = self.engine.train(task) => end,
            () = self.shutdown.deadline(self.settings.deadlines.save()) => {
                tracing::warn!("a step takes too long; handing the job back as last saved");
                // What the saved state holds is unknown here.
                return self.hand_back(lease, 0).await;
            }
        };
        let TrainEnd {
            outcome,
            kept,
            peak_memory,
            mut monitor,
        } = match end {
            Ok(end) => end,
            Err(exited) => {
                self.request_exit(ExitReason::Broken);
                let ending = Ending::failed(what, &exited, FailureKind::Retryable);
                return self.end(lease, ending).await;
            }
        };
        if let Some(captured) = output.and_then(|output| output.take()) {
            let voice = monitor.voice().clone();
            self.report_output(&[voice], captured).await;
        }
        match outcome {
            Ok(TrainOutcome::Stopped { .. }) => {
                // Of a job that was taken away, the saved state stays: its sweep may be submitted
                // again.
                let after_epoch = monitor.settle().await;
                let ending = Ending::HandBack { after_epoch };
                tracing::info!(job = %lease.job.job, after_epoch, taken_away = lease.is_released(), "job handed back");
                self.end_as(monitor.voice(), lease, ending).await;
            }
            Ok(TrainOutcome::Completed {
                checkpoints,
                contents,
                epochs,
                seconds,
            }) => {
                let trained = Trained {
                    contents,
                    report: ResultBody::Trained {
                        checkpoints,
                        epochs,
                        seconds,
                        peak_memory,
                    },
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
                        let kept = self.keep_last_good(kept, lease.released()).await;
                        failure.chain.extend(kept);
                        tracing::error!(%job, "{}", failure.chain.join(": "));
                        Ending::Report(ResultBody::Failed(failure))
                    }
                };
                self.end_as(monitor.voice(), lease, ending).await;
            }
        }
    }

    fn train_task(&self, lease: &JobLease, spec: &TrainSpec, from: Prepared) -> TrainTask {
        TrainTask {
            job: lease.job.job,
            spec: spec.clone(),
            external: from.inputs.external,
            data: from.inputs.data,
            encoder: from.inputs.encoder,
            state: from.state,
            processor: self.processor_for(&lease.job.work),
            fetch: self.fetch_best(lease.job.job),
            context: tracing::Span::current(),
            monitor: TrainMonitor::new(MonitorSettings {
                shutdown: self.shutdown.clone(),
                deadlines: self.settings.deadlines,
                released: lease.released().clone(),
                status: self.status.clone(),
                watch: self.watch.clone(),
                voice: self.voice(lease),
                save_every: self.settings.save_every,
                store: self.store.clone(),
                method: spec.method.clone(),
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
        let released = lease.released().clone();
        let began = SystemTime::now();
        let stored = self.store_checkpoints(RESULT, &released, trained.contents);
        let stored = stored.await;
        traces::part(lease.attempt(), "store checkpoints", began);
        if let Err(error) = stored {
            // The saved state is for the attempt that can store the result.
            let after_epoch = monitor.settle().await;
            let ended = released.is_cancelled() || self.shutdown.is_requested();
            let ending = match ended {
                true => Ending::HandBack { after_epoch },
                // What cannot be stored anywhere.
                false => Ending::failed(what, &error, FailureKind::Permanent),
            };
            return self.end_as(monitor.voice(), lease, ending).await;
        }
        self.end_as(monitor.voice(), lease, Ending::Report(trained.report))
            .await;
        self.status.health(Health::job_completed);
        tracing::info!("{what}: completed");
        // Until the result is settled, another attempt may need the state.
        tokio::spawn(async move {
            released.cancelled().await;
            monitor.clear().await;
        });
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
        lease: &JobLease,
        spec: &TrainSpec,
        what: &str,
    ) -> Result<Inputs, Ending> {
        let job = lease.job.job;
        let from_error = |error: BlobError| {
            let Some(fault) = faults::input_fault(&error, spec) else {
                return Ending::failed(what, &error, FailureKind::Permanent);
            };
            self.record_fault(job, &fault, Requirement::Inputs(Box::new(spec.clone())));
            Ending::Decline {
                after_epoch: 0,
                fault,
            }
        };
        let training = ExternalTraining::of(spec)
            .map_err(|error| Ending::failed(what, &error, FailureKind::Permanent))?;
        let (data, encoder) = self.inputs(spec).await.map_err(from_error)?;
        let external = match training {
            None => None,
            Some(training) => {
                let Some(limits) = self.settings.external else {
                    let what = format!("external program {}", spec.method);
                    let reason = "it was started without --allow-external".to_owned();
                    let fault = Fault::new(FaultKind::Method, what, vec![reason]);
                    return Err(Ending::Decline {
                        after_epoch: 0,
                        fault,
                    });
                };
                let bundle = &training.program.bundle;
                Some(External {
                    bundle: self.blobs.program(bundle).await.map_err(from_error)?,
                    root: self.settings.data_dir.join("external"),
                    run: lease.attempt().to_string(),
                    limits,
                    device: self.settings.device,
                    threads: u32::try_from(self.settings.threads).unwrap_or(1),
                    output: OutputSink::default(),
                    training,
                })
            }
        };
        Ok(Inputs {
            data,
            encoder,
            external,
        })
    }

    /// Stores and reports what a program wrote to standard error.
    pub(super) async fn report_output(&self, attempts: &[AttemptReporter], captured: Captured) {
        let whole = Bytes::from(captured.whole);
        for voice in attempts {
            let key = Key::Output(voice.attempt);
            let stored = match whole.is_empty() {
                true => Ok(()),
                false => self.store.put(&key, whole.clone()).await,
            };
            if let Err(error) = &stored {
                tracing::warn!(
                    error = chain(error),
                    "cannot store what the program wrote; its end is kept"
                );
            }
            voice.send(ResultBody::Output {
                tail: captured.tail.clone(),
                bytes: captured.bytes,
                stored: stored.is_ok() && !whole.is_empty(),
            });
        }
    }

    async fn store_checkpoints(
        &self,
        policy: RetryPolicy,
        released: &CancellationToken,
        contents: Vec<BestCheckpoint>,
    ) -> Result<(), ArtifactError> {
        for BestCheckpoint { blake3, content } in contents {
            let key = Key::Checkpoint(blake3);
            self.retry_store(policy, released, async || {
                self.store.put(&key, content.clone()).await
            })
            .await?;
        }
        Ok(())
    }

    /// Keeps the best checkpoints of a failed training job and says so.
    async fn keep_last_good(
        &self,
        kept: Vec<(String, BestCheckpoint)>,
        released: &CancellationToken,
    ) -> Option<String> {
        if kept.is_empty() {
            return None;
        }
        let names: Vec<String> = kept
            .iter()
            .map(|(what, best)| format!("{what}: {}", best.blake3))
            .collect();
        let contents = kept.into_iter().map(|(_, best)| best).collect();
        let stored = self.store_checkpoints(OPTIONAL, released, contents);
        Some(match stored.await {
            Ok(()) => format!("checkpoints kept: {}", names.join(", ")),
            Err(error) => format!("cannot keep the checkpoints: {}", chain(&error)),
        })
    }

    /// Fetches the checkpoints that a saved state refers to.
    fn fetch_best(&self, job: JobId) -> FetchBest {
        let (store, runtime) = (self.store.clone(), Handle::current());
        let watch = self.watch.clone();
        Box::new(move |best| -> Option<Bytes> {
            watch.advanced();
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
}
