//! Who watches a training on libtorch's thread: passes on its progress, saves, and tells it to
//! leave.

use super::{shutdown, shutdown::Shutdown, presence::Status, report::Reporter};
use bytes::Bytes;
use halfheard_models::train::{Best, Control, Order, Snapshot, View, driver::Pace};
use halfheard_shared::{
    artifacts::{ArtifactError, ArtifactStore, Hash, Key},
    ids::JobId,
    wire::{EpochLog, ResultBody, ResultMessage},
};
use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{runtime::Handle, task::JoinHandle};

/// Watches one training.
pub struct TrainMonitor {
    runtime: Handle,
    shutdown: Shutdown,
    cancelled: Arc<AtomicBool>,
    status: Status,
    reporter: Reporter,
    /// What a report of this attempt looks like, but for its body.
    report: ResultMessage,
    delivery: u64,
    pace: Pace,
    /// When the training was told to save.
    asked: Instant,
    /// What is in the store.
    saver: Saver,
    upload: Option<JoinHandle<Upload>>,
    saved_after_epoch: u32,
    /// Whether the last state could not be saved.
    unsaved: bool,
}

/// What a training is watched with.
pub struct MonitorSettings {
    /// When to leave.
    pub shutdown: Shutdown,
    /// Set when the sweep is cancelled.
    pub cancelled: Arc<AtomicBool>,
    /// What the worker is doing.
    pub status: Status,
    /// The way to the coordinator.
    pub reporter: Reporter,
    /// What a report of this attempt looks like, but for its body.
    pub report: ResultMessage,
    /// How often the job has been delivered.
    pub delivery: u64,
    /// How often to save between epochs.
    pub save_every: Duration,
    /// Where to save.
    pub store: ArtifactStore,
}

struct Upload {
    saver: Saver,
    took: Duration,
    outcome: Result<(), ArtifactError>,
}

/// Writes saved states, and knows which checkpoints are in the store for them.
struct Saver {
    store: ArtifactStore,
    job: JobId,
    there: HashSet<Hash>,
}

impl Saver {
    async fn save(&mut self, snapshot: Snapshot) -> Result<(), ArtifactError> {
        let now: HashSet<Hash> = snapshot.best.iter().map(|b| b.blake3.clone()).collect();
        for Best { blake3, content } in snapshot.best {
            if !self.there.contains(&blake3) {
                let key = Key::ResumeCheckpoint(self.job, blake3.clone());
                self.store.put(&key, content).await?;
                self.there.insert(blake3);
            }
        }
        self.store
            .put(&Key::Resume(self.job), snapshot.state)
            .await?;
        // What no state refers to any more goes; the new state is in place.
        let old: Vec<Hash> = self.there.difference(&now).cloned().collect();
        for hash in old {
            let key = Key::ResumeCheckpoint(self.job, hash.clone());
            self.store.delete(&key).await?;
            self.there.remove(&hash);
        }
        Ok(())
    }

    async fn clear(&mut self) -> Result<(), ArtifactError> {
        // The state first: without its checkpoints it would be refused with a warning.
        self.store.delete(&Key::Resume(self.job)).await?;
        for hash in std::mem::take(&mut self.there) {
            let key = Key::ResumeCheckpoint(self.job, hash);
            self.store.delete(&key).await?;
        }
        Ok(())
    }
}

impl TrainMonitor {
    /// Watches the training that `settings.report` names.
    pub fn new(settings: MonitorSettings) -> Self {
        Self {
            runtime: Handle::current(),
            shutdown: settings.shutdown,
            cancelled: settings.cancelled,
            status: settings.status,
            reporter: settings.reporter,
            delivery: settings.delivery,
            pace: Pace::new(settings.save_every),
            asked: Instant::now(),
            saver: Saver {
                store: settings.store,
                job: settings.report.job,
                there: HashSet::new(),
            },
            report: settings.report,
            upload: None,
            unsaved: false,
            saved_after_epoch: 0,
        }
    }

    /// The training begins, or goes on after an epoch.
    /// `processor` says on what kinds of processors it has been.
    pub fn begins(&mut self, resumed_after_epoch: u32, processor: String) {
        self.saved_after_epoch = resumed_after_epoch;
        self.report.worker.processor = processor;
        let body = ResultBody::Started {
            delivery: self.delivery,
            resumed_after_epoch,
        };
        self.reporter.send(self.report.with(body));
    }

    /// A report of this attempt, with this body.
    pub(super) fn report(&self, body: ResultBody) -> ResultMessage {
        self.report.with(body)
    }

    /// A checkpoint that a saved state refers to, from the store.
    pub fn fetch_best(store: ArtifactStore, job: JobId) -> super::engine::FetchBest {
        let runtime = Handle::current();
        Box::new(move |best| -> Option<Bytes> {
            let key = Key::ResumeCheckpoint(job, best.blake3.parse().ok()?);
            let got = store.get(&key, halfheard_shared::artifacts::MAX_BYTES);
            match runtime.block_on(got) {
                Ok(content) => content,
                Err(error) => {
                    tracing::warn!(%error, "a saved checkpoint cannot be read");
                    None
                }
            }
        })
    }

    /// Waits until what was to be saved is, or for as long as there is time when shutdown.
    pub async fn settle(&mut self) {
        let Some(upload) = self.upload.take() else {
            return;
        };
        let shutdown = self.shutdown.clone();
        tokio::select! {
            ended = upload => self.uploaded(ended),
            () = shutdown.deadline(shutdown::SAVE_DEADLINE) => tracing::warn!("no time to save"),
        }
    }

    fn uploaded(&mut self, ended: Result<Upload, tokio::task::JoinError>) {
        match ended {
            Ok(upload) => {
                self.saver = upload.saver;
                self.pace.saved(upload.took);
                match upload.outcome {
                    Ok(()) if self.unsaved => {
                        self.unsaved = false;
                        self.status.unhindered();
                    }
                    Ok(()) => {}
                    Err(error) => {
                        let error_chain = crate::chain(&error);
                        tracing::warn!(
                            error = error_chain,
                            "the state could not be saved; training goes on"
                        );
                        if let Some(fault) = super::faults::of_store(&error) {
                            self.unsaved = true;
                            self.status.hindered(fault, None);
                        }
                    }
                }
            }
            Err(error) => tracing::error!(%error, "saving broke"),
        }
    }

    /// The last completed epoch that the saved state holds.
    pub fn saved_after_epoch(&self) -> u32 {
        self.saved_after_epoch
    }

    /// Deletes the saved state: the training is over.
    pub async fn clear(&mut self) {
        self.settle().await;
        if let Err(error) = self.saver.clear().await {
            tracing::warn!(%error, "a saved state stays behind");
        }
    }

    /// Takes in the last upload, waiting for it where it is not over.
    fn harvest(&mut self) {
        if let Some(upload) = self.upload.take() {
            let ended = self.runtime.clone().block_on(upload);
            self.uploaded(ended);
        }
    }

    fn is_uploading(&self) -> bool {
        self.upload.as_ref().is_some_and(|u| !u.is_finished())
    }
}

impl Control for TrainMonitor {
    fn order(&mut self, view: View) -> Order {
        self.status.update(|doing| {
            doing.epoch = view.epoch.min(view.max_epochs);
            doing.max_epochs = view.max_epochs;
            doing.step = view.step as u32;
            doing.steps = view.steps as u32;
            if view.loss.is_some() {
                doing.loss = view.loss;
            }
        });
        // It may be set going again.
        if self.cancelled.load(Ordering::Relaxed) && !self.shutdown.is_requested() {
            return Order::SaveAndLeave;
        }
        if self.shutdown.is_requested() {
            return if self.shutdown.is_past(shutdown::STEP_DEADLINE) {
                Order::Leave
            } else {
                Order::SaveAndLeave
            };
        }
        if self.is_uploading() {
            return Order::GoOn;
        }
        self.harvest();
        if self.pace.is_due(view.epoch_ended) {
            self.asked = Instant::now();
            return Order::Save;
        }
        Order::GoOn
    }

    fn epoch(&mut self, log: EpochLog) {
        tracing::info!(
            epoch = log.epoch,
            loss = log.losses.get("loss").copied().unwrap_or(f64::NAN),
            seconds = log.train_seconds + log.eval_seconds,
            "epoch done"
        );
        self.reporter.send(self.report.with(ResultBody::Epoch(log)));
    }

    fn save(&mut self, snapshot: Snapshot) {
        self.harvest();
        self.saved_after_epoch = snapshot.after_epoch;
        // Until the upload is over nothing else may save: the real table comes back with it.
        let placeholder = Saver {
            store: self.saver.store.clone(),
            job: self.saver.job,
            there: HashSet::new(),
        };
        let mut saver = std::mem::replace(&mut self.saver, placeholder);
        let asked = self.asked;
        self.pace.saved(Duration::ZERO);
        self.upload = Some(self.runtime.spawn(async move {
            let outcome = saver.save(snapshot).await;
            Upload {
                saver,
                took: asked.elapsed(),
                outcome,
            }
        }));
    }
}

/// The same report with another body.
pub(super) trait With {
    /// With this body, now.
    fn with(&self, body: ResultBody) -> ResultMessage;
}

impl With for ResultMessage {
    fn with(&self, body: ResultBody) -> ResultMessage {
        ResultMessage {
            at_ms: super::presence::now_ms(),
            worker: self.worker.clone(),
            body,
            ..*self
        }
    }
}
