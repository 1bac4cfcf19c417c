//! Monitors a training job on the compute thread: reports its progress, saves its state, and tells
//! it when to stop.

use super::{
    faults, inject, presence::Status, report::AttemptReporter, step_meter::StepMeter, traces,
    watch::Watch,
};
use crate::shutdown::Deadlines;
use halfheard_models::train::{
    BestCheckpoint, Directive, SaveSchedule, Snapshot, StepReport, TrainObserver,
};
use halfheard_shared::{
    artifacts::{ArtifactError, ArtifactStore, Key},
    error::chain,
    hash::Hash,
    ids::JobId,
    shutdown::Shutdown,
    wire::{EpochLog, ResultBody},
};
use std::{
    collections::HashSet,
    time::{Duration, Instant},
};
use tokio::{
    runtime::Handle,
    task::{JoinError, JoinHandle},
};
use tokio_util::sync::CancellationToken;

/// Monitors one training job.
pub(super) struct TrainMonitor {
    runtime: Handle,
    shutdown: Shutdown,
    deadlines: Deadlines,
    released: CancellationToken,
    status: Status,
    watch: Watch,
    voice: AttemptReporter,
    schedule: SaveSchedule,
    /// When the last save was requested.
    save_requested: Instant,
    saver: StateSaver,
    upload: Option<JoinHandle<Upload>>,
    saved_after_epoch: u32,
    /// Whether the last save failed.
    save_failed: bool,
    steps: StepMeter,
}

/// What a [`TrainMonitor`] is made of.
pub(super) struct MonitorSettings {
    pub(super) shutdown: Shutdown,
    pub(super) deadlines: Deadlines,
    /// Cancelled when the job is taken away.
    pub(super) released: CancellationToken,
    pub(super) status: Status,
    pub(super) watch: Watch,
    pub(super) voice: AttemptReporter,
    /// How often to save between epochs.
    pub(super) save_every: Duration,
    pub(super) store: ArtifactStore,
    /// The method's id.
    pub(super) method: String,
}

struct Upload {
    saver: StateSaver,
    took: Duration,
    after_epoch: u32,
    steps: u64,
    outcome: Result<(), ArtifactError>,
}

/// Writes saved states, and tracks the checkpoints that the store has for them.
struct StateSaver {
    store: ArtifactStore,
    job: JobId,
    stored: HashSet<Hash>,
}

impl StateSaver {
    fn new(store: ArtifactStore, job: JobId) -> Self {
        Self {
            store,
            job,
            stored: HashSet::new(),
        }
    }

    /// Stores a state. `tidy` says that this attempt still has the job: then what no state refers to
    /// any more is deleted. Another attempt's state may refer to it otherwise.
    async fn save(&mut self, snapshot: Snapshot, tidy: bool) -> Result<(), ArtifactError> {
        let current: HashSet<Hash> = snapshot.best.iter().map(|b| b.blake3.clone()).collect();
        for BestCheckpoint { blake3, content } in snapshot.best {
            if !self.stored.contains(&blake3) {
                let key = Key::ResumeCheckpoint(self.job, blake3.clone());
                self.store.put(&key, content).await?;
                self.stored.insert(blake3);
            }
        }
        self.store
            .put(&Key::Resume(self.job), snapshot.state)
            .await?;
        if !tidy {
            return Ok(());
        }
        let old: Vec<Hash> = self.stored.difference(&current).cloned().collect();
        for hash in old {
            let key = Key::ResumeCheckpoint(self.job, hash.clone());
            self.store.delete(&key).await?;
            self.stored.remove(&hash);
        }
        Ok(())
    }

    async fn clear(&mut self) -> Result<(), ArtifactError> {
        // The state first: without its checkpoints it would be rejected with a warning.
        self.store.delete(&Key::Resume(self.job)).await?;
        for hash in std::mem::take(&mut self.stored) {
            let key = Key::ResumeCheckpoint(self.job, hash);
            self.store.delete(&key).await?;
        }
        Ok(())
    }
}

impl TrainMonitor {
    pub(super) fn new(settings: MonitorSettings) -> Self {
        Self {
            runtime: Handle::current(),
            shutdown: settings.shutdown,
            deadlines: settings.deadlines,
            released: settings.released,
            status: settings.status,
            watch: settings.watch,
            schedule: SaveSchedule::new(settings.save_every),
            save_requested: Instant::now(),
            saver: StateSaver::new(settings.store, settings.voice.job),
            voice: settings.voice,
            upload: None,
            save_failed: false,
            steps: StepMeter::new(settings.method),
            saved_after_epoch: 0,
        }
    }

    /// Reports that training starts, or resumes after an epoch, from a state of `steps` training
    /// steps that refers to the checkpoints `stored`. `processor` lists the kinds of processors it has
    /// run on. `logs` are the epochs of earlier attempts, whose reports the broker may have lost.
    pub(super) fn started(
        &mut self,
        resumed_after_epoch: u32,
        steps: u64,
        processor: String,
        stored: impl Iterator<Item = Hash>,
        logs: &[EpochLog],
    ) {
        self.saved_after_epoch = resumed_after_epoch;
        self.saver.stored.extend(stored);
        self.voice.worker.processor = processor;
        self.voice.started(resumed_after_epoch, steps);
        for log in logs {
            self.voice.send(ResultBody::Epoch(log.clone()));
        }
        self.status.publish();
    }

    /// Speaks for the attempt, with the processors that it has run on.
    pub(super) fn voice(&self) -> &AttemptReporter {
        &self.voice
    }

    /// Waits for the upload in progress, during a shutdown until the save deadline. Returns the last
    /// completed epoch that the saved state holds.
    pub(super) async fn settle(&mut self) -> u32 {
        if let Some(upload) = self.upload.take() {
            let shutdown = self.shutdown.clone();
            tokio::select! {
                ended = upload => self.upload_ended(ended),
                () = shutdown.deadline(self.deadlines.save()) => {
                    tracing::warn!("no time left to save the state");
                }
            }
        }
        self.saved_after_epoch
    }

    fn upload_ended(&mut self, ended: Result<Upload, JoinError>) {
        let upload = match ended {
            Ok(upload) => upload,
            Err(error) => return tracing::error!(%error, "saving the state panicked"),
        };
        self.saver = upload.saver;
        self.schedule.record_save(upload.took);
        let is_stored = upload.outcome.is_ok();
        traces::saved(
            self.voice.attempt,
            upload.took,
            upload.after_epoch,
            is_stored,
        );
        match upload.outcome {
            Ok(()) => {
                metrics::histogram!("halfheard_worker_save_seconds").record(upload.took);
                self.saved_after_epoch = upload.after_epoch;
                self.voice.leases.saved(self.voice.attempt, upload.steps);
                if std::mem::take(&mut self.save_failed) {
                    self.status.recovered();
                }
            }
            Err(error) => {
                metrics::counter!("halfheard_worker_save_failures_total").increment(1);
                tracing::warn!(
                    error = chain(&error),
                    "cannot save the state; training continues"
                );
                if let Some(fault) = faults::store_fault(&error) {
                    self.save_failed = true;
                    self.status.degraded(fault, None);
                }
            }
        }
    }

    /// Deletes the saved state of a completed training job.
    pub(super) async fn clear(&mut self) {
        self.settle().await;
        if let Err(error) = self.saver.clear().await {
            tracing::warn!(error = chain(&error), "cannot delete a saved state");
        }
    }

    /// Waits for the upload in progress.
    fn finish_upload(&mut self) {
        if let Some(upload) = self.upload.take() {
            let _waiting = self.watch.wait();
            let ended = self.runtime.clone().block_on(upload);
            self.upload_ended(ended);
        }
    }

    fn is_uploading(&self) -> bool {
        self.upload.as_ref().is_some_and(|u| !u.is_finished())
    }
}

impl TrainObserver for TrainMonitor {
    fn advanced(&mut self) {
        self.watch.advanced();
    }

    fn directive(&mut self, step: StepReport) -> Directive {
        inject::hang();
        self.watch.advanced();
        self.steps.record(&step);
        self.status.update(|doing| {
            doing.epoch = step.epoch.min(step.max_epochs);
            doing.max_epochs = step.max_epochs;
            doing.step = step.step as u32;
            doing.steps = step.steps as u32;
            if step.loss.is_some() {
                doing.loss = step.loss;
            }
        });
        if self.shutdown.is_requested() {
            return if self.shutdown.is_past(self.deadlines.step()) {
                Directive::Stop
            } else {
                Directive::SaveAndStop
            };
        }
        // Taken away: the sweep was cancelled, and may be submitted again, or another has the job.
        if self.released.is_cancelled() {
            return Directive::SaveAndStop;
        }
        if self.is_uploading() {
            return Directive::Continue;
        }
        self.finish_upload();
        if self.schedule.is_due(step.epoch_ended) {
            self.save_requested = Instant::now();
            return Directive::Save;
        }
        Directive::Continue
    }

    fn epoch_ended(&mut self, log: EpochLog) {
        tracing::info!(
            epoch = log.epoch,
            loss = log.losses.get("loss").copied().unwrap_or(f64::NAN),
            seconds = log.train_seconds + log.eval_seconds,
            "epoch completed"
        );
        traces::epoch(self.voice.attempt, &log);
        self.voice.send(ResultBody::Epoch(log));
    }

    fn save(&mut self, snapshot: Snapshot) {
        self.finish_upload();
        // Nothing else saves until the upload ends and returns the real saver.
        let placeholder = StateSaver::new(self.saver.store.clone(), self.saver.job);
        let mut saver = std::mem::replace(&mut self.saver, placeholder);
        let requested = self.save_requested;
        self.schedule.record_save(Duration::ZERO);
        let released = self.released.clone();
        let (after_epoch, steps) = (snapshot.after_epoch, snapshot.steps);
        self.upload = Some(self.runtime.spawn(async move {
            let outcome = saver.save(snapshot, !released.is_cancelled()).await;
            Upload {
                saver,
                took: requested.elapsed(),
                after_epoch,
                steps,
                outcome,
            }
        }));
    }
}
