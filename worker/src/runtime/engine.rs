//! The compute thread, on which libtorch runs. It owns every tensor; others send it tasks and wait.
//!
//! Datasets and the model under evaluation stay loaded between tasks.

use super::{
    inject,
    settings::SlotSettings,
    train_monitor::TrainMonitor,
    watch::{Phase, Watch},
};
use crate::external::{self, Inputs as External};
use bytes::Bytes;
use halfheard_models::{
    device::{self, Device},
    memory::PeakMemory,
    train::{
        BestCheckpoint, BestRef, Data, EvalCase, EvalObserver, LoadedModel, StateError, TrainError,
        TrainOutcome, Trainer, build, catch_panics, evaluate,
    },
};
use halfheard_shared::{
    dataset::Dataset,
    ids::JobId,
    wire::{CheckpointRef, TrainSpec},
};
use std::{
    path::{Path, PathBuf},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
};
use tokio::sync::oneshot;

/// Datasets kept loaded.
const MAX_DATASETS: usize = 2;

/// Fetches a checkpoint that a saved state refers to.
pub(super) type FetchBest = Box<dyn FnMut(&BestRef) -> Option<Bytes> + Send>;
/// Fetches a checkpoint to evaluate.
pub(super) type FetchCheckpoint =
    Box<dyn FnMut(&CheckpointRef) -> Result<Bytes, TrainError> + Send>;

/// A training job.
pub(super) struct TrainTask {
    pub(super) job: JobId,
    pub(super) spec: TrainSpec,
    /// The program that trains it, if it is none of the registry's methods.
    pub(super) external: Option<External>,
    /// The dataset file.
    pub(super) data: PathBuf,
    /// The encoder's folder.
    pub(super) encoder: PathBuf,
    /// A saved state to resume from.
    pub(super) state: Option<Bytes>,
    pub(super) fetch: FetchBest,
    /// What the last bits of this process's results depend on.
    pub(super) processor: String,
    pub(super) monitor: TrainMonitor,
    /// What log lines about it carry.
    pub(super) context: tracing::Span,
}

/// How a training job ended.
pub(super) struct TrainEnd {
    pub(super) outcome: Result<TrainOutcome, TrainError>,
    /// The best checkpoints so far, if it failed.
    pub(super) kept: Vec<(String, BestCheckpoint)>,
    /// The most bytes of the device's memory that it needed; 0 if unknown.
    pub(super) peak_memory: u64,
    pub(super) monitor: TrainMonitor,
}

/// Evaluation jobs of one trained model.
pub(super) struct EvalTask {
    pub(super) spec: TrainSpec,
    /// The program that predicts, if it is none of the registry's methods.
    pub(super) external: Option<External>,
    /// The dataset file.
    pub(super) data: PathBuf,
    /// The encoder's folder.
    pub(super) encoder: PathBuf,
    pub(super) cases: Vec<EvalCase>,
    pub(super) fetch: FetchCheckpoint,
    /// The observer, given what measures the memory that is needed from here on.
    pub(super) monitor: Box<dyn FnOnce(JobMemory) -> Box<dyn EvalObserver> + Send>,
}

/// The memory that a job needs.
#[derive(Clone, Debug)]
pub(super) struct JobMemory {
    peak: PeakMemory,
    before: u64,
    /// What a program had, in whose place this process has nothing to measure.
    program: Option<Arc<AtomicU64>>,
}

impl JobMemory {
    fn begin(peak: PeakMemory) -> Self {
        Self {
            peak,
            before: peak.now(),
            program: None,
        }
    }

    /// The memory of a program, as `bytes` has it.
    fn of_program(peak: PeakMemory, bytes: Arc<AtomicU64>) -> Self {
        Self {
            program: Some(bytes),
            ..Self::begin(peak)
        }
    }

    /// The most bytes so far; 0 if unknown.
    pub(super) fn bytes(&self) -> u64 {
        match &self.program {
            Some(bytes) => bytes.load(Ordering::Relaxed),
            None => self.peak.of_job(self.before),
        }
    }
}

enum Task {
    Train(Box<TrainTask>, oneshot::Sender<TrainEnd>),
    Eval(Box<EvalTask>, oneshot::Sender<Result<bool, TrainError>>),
    Probe(oneshot::Sender<Result<(), TrainError>>),
}

/// The compute thread has exited, which only a panic in it can cause.
#[derive(Debug, thiserror::Error)]
#[error("the compute thread exited")]
pub(super) struct EngineExited;

/// A handle to the compute thread. Cheap to clone.
#[derive(Clone)]
pub(super) struct Engine {
    tasks: mpsc::Sender<Task>,
}

impl Engine {
    /// Starts the thread.
    pub(super) fn start(settings: &SlotSettings, watch: Watch) -> std::io::Result<Self> {
        let (device, threads) = (settings.device, settings.threads);
        let shared = settings.sharing.get() > 1;
        let (tasks, inbox) = mpsc::channel();
        std::thread::Builder::new()
            .name("libtorch".to_owned())
            .spawn(move || {
                device::set_threads(threads);
                let mut state = EngineState {
                    device,
                    watch,
                    // What others need on a shared GPU is not this process's.
                    peak: PeakMemory::new((!shared).then_some(device)),
                    data: Vec::new(),
                    model: None,
                };
                // Ends when every sender is dropped.
                while let Ok(task) = inbox.recv() {
                    // The caller may have given up.
                    match task {
                        Task::Train(task, end) => {
                            let context = task.context.clone();
                            drop(end.send(context.in_scope(|| state.train(*task))));
                        }
                        Task::Eval(task, end) => drop(end.send(state.evaluate(*task))),
                        Task::Probe(end) => drop(end.send(state.probe())),
                    }
                }
            })?;
        Ok(Self { tasks })
    }

    pub(super) async fn train(&self, task: TrainTask) -> Result<TrainEnd, EngineExited> {
        let (end, ended) = oneshot::channel();
        self.tasks
            .send(Task::Train(Box::new(task), end))
            .map_err(|_| EngineExited)?;
        ended.await.map_err(|_| EngineExited)
    }

    /// Checks whether the device computes.
    pub(super) async fn probe(&self) -> Result<Result<(), TrainError>, EngineExited> {
        let (end, ended) = oneshot::channel();
        self.tasks
            .send(Task::Probe(end))
            .map_err(|_| EngineExited)?;
        ended.await.map_err(|_| EngineExited)
    }

    /// Evaluates. Returns whether all cases were completed.
    pub(super) async fn evaluate(
        &self,
        task: EvalTask,
    ) -> Result<Result<bool, TrainError>, EngineExited> {
        let (end, ended) = oneshot::channel();
        self.tasks
            .send(Task::Eval(Box::new(task), end))
            .map_err(|_| EngineExited)?;
        ended.await.map_err(|_| EngineExited)
    }
}

/// Datasets and the model cached on the compute thread.
struct EngineState {
    device: Device,
    watch: Watch,
    peak: PeakMemory,
    /// By hash, the most recently used last.
    data: Vec<(String, Rc<Data>)>,
    model: Option<LoadedModel>,
}

impl EngineState {
    fn data(&mut self, spec: &TrainSpec, path: &Path) -> Result<Rc<Data>, TrainError> {
        let hash = &spec.data.blake3;
        if let Some(at) = self.data.iter().position(|(known, _)| known == hash) {
            let entry = self.data.remove(at);
            let data = entry.1.clone();
            self.data.push(entry);
            return Ok(data);
        }
        if self.data.len() >= MAX_DATASETS {
            self.data.remove(0);
        }
        let data = Rc::new(Data::new(Arc::new(Dataset::open(path)?), self.device));
        self.data.push((hash.clone(), data.clone()));
        Ok(data)
    }

    fn train(&mut self, task: TrainTask) -> TrainEnd {
        match task.external.clone() {
            Some(external) => self.train_with_program(task, &external),
            None => self.train_here(task),
        }
    }

    /// Trains with an external program, which is bounded by limits of its own.
    fn train_with_program(&mut self, task: TrainTask, external: &External) -> TrainEnd {
        let TrainTask {
            job,
            spec,
            data,
            encoder,
            state,
            mut fetch,
            processor,
            mut monitor,
            ..
        } = task;
        // Frees its memory.
        self.model = None;
        self.watch.enter(Phase::Waiting);
        let start = external::Start {
            job,
            spec: &spec,
            data: &data,
            encoder: &encoder,
            state,
            processor: &processor,
        };
        let trained = external::train(
            start,
            external,
            &mut fetch,
            &mut monitor,
            |begun, monitor| {
                monitor.started(
                    begun.after_epoch,
                    u64::from(begun.after_epoch),
                    begun.processors,
                    begun.stored.into_iter(),
                    &begun.logs,
                );
            },
        );
        TrainEnd {
            outcome: trained.outcome,
            kept: trained.kept,
            peak_memory: trained.peak_memory,
            monitor,
        }
    }

    fn train_here(&mut self, task: TrainTask) -> TrainEnd {
        let TrainTask {
            spec,
            data,
            encoder,
            state,
            mut fetch,
            processor,
            mut monitor,
            ..
        } = task;
        // Frees its memory.
        self.model = None;
        let mut kept = Vec::new();
        let memory = JobMemory::begin(self.peak);
        self.watch.enter(Phase::Preparing);
        let outcome = catch_panics(None, || {
            inject::device()?;
            let data = self.data(&spec, &data)?;
            let begin = || {
                let method = build(&spec, &data, &encoder, self.device)?;
                Trainer::new(spec.clone(), method, &data)
            };
            let mut trainer = begin()?;
            if let Some(state) = state {
                match trainer.resume(&state, &mut fetch) {
                    Ok(()) => {}
                    Err(error) => {
                        let reason: &StateError = &error;
                        tracing::warn!(%reason, "cannot resume from the saved state; training starts over");
                        // It may be partially restored.
                        drop(trainer);
                        trainer = begin()?;
                    }
                }
            }
            let processors = trainer.record_processor(&processor);
            let stored = trainer.best_checkpoints();
            let stored = stored.into_iter().map(|(_, best)| best.blake3);
            monitor.started(
                trainer.after_epoch(),
                trainer.steps_done(),
                processors,
                stored,
                trainer.logs(),
            );
            self.watch.enter(Phase::Steps);
            let outcome = trainer.run(&mut monitor);
            if outcome.is_err() {
                kept = trainer.best_checkpoints();
            }
            outcome
        });
        // What follows waits for the store.
        self.watch.enter(Phase::Waiting);
        TrainEnd {
            outcome,
            kept,
            peak_memory: memory.bytes(),
            monitor,
        }
    }

    fn probe(&self) -> Result<(), TrainError> {
        inject::device()?;
        device::probe(self.device)
    }

    fn evaluate(&mut self, task: EvalTask) -> Result<bool, TrainError> {
        let EvalTask {
            spec,
            external,
            data,
            encoder,
            cases,
            mut fetch,
            monitor,
        } = task;
        if let Some(external) = external {
            self.model = None;
            self.watch.enter(Phase::Waiting);
            let bytes = Arc::new(AtomicU64::new(0));
            let mut monitor = monitor(JobMemory::of_program(self.peak, bytes.clone()));
            return external::evaluate(
                &spec,
                &external,
                (&data, &encoder),
                &cases,
                &mut fetch,
                monitor.as_mut(),
                &|now| bytes.store(now, Ordering::Relaxed),
            );
        }
        let mut monitor = monitor(JobMemory::begin(self.peak));
        self.watch.enter(Phase::Preparing);
        inject::device()?;
        let data = catch_panics(None, || self.data(&spec, &data))?;
        let mut model = match self.model.take() {
            Some(model) if model.fits(&spec) => model,
            other => {
                drop(other);
                LoadedModel::new(&spec, &data, &encoder, self.device)?
            }
        };
        let all = evaluate(
            &mut model,
            &spec,
            &data,
            &cases,
            &mut fetch,
            monitor.as_mut(),
        )?;
        // Kept only after success: an error may have left it partially loaded.
        self.model = Some(model);
        Ok(all)
    }
}
