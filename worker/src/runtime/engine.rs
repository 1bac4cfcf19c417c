//! The thread that libtorch runs on. It owns every tensor; others send it tasks and wait.
//!
//! Datasets and the model for evaluations stay loaded from task to task.

use super::{inject, train_monitor::TrainMonitor};
use crate::device;
use bytes::Bytes;
use halfheard_models::train::{
    Best, Data, EvalCase, Finish, Loaded, TrainError, Trainer, Watch, build,
    error::Said,
    evaluate, guarded,
    state::{BestRef, StateError},
};
use halfheard_shared::{
    dataset::Dataset,
    wire::{CheckpointRef, TrainSpec},
};
use std::{
    path::{Path, PathBuf},
    rc::Rc,
    sync::{Arc, mpsc},
};
use tch::{Device, Kind, Tensor};
use tokio::sync::oneshot;

/// Datasets that stay loaded.
const DATASETS: usize = 2;

/// Brings a checkpoint that a saved state refers to.
pub type FetchBest = Box<dyn FnMut(&BestRef) -> Option<Bytes> + Send>;
/// Brings a checkpoint to evaluate.
pub type FetchCheckpoint = Box<dyn FnMut(&CheckpointRef) -> Result<Bytes, TrainError> + Send>;

/// A training to do.
pub struct TrainTask {
    /// What to train.
    pub spec: TrainSpec,
    /// The dataset file.
    pub data: PathBuf,
    /// The encoder's folder.
    pub encoder: PathBuf,
    /// A saved state.
    pub state: Option<Bytes>,
    /// Brings what the state refers to.
    pub fetch: FetchBest,
    /// What this process's results depend on to the last bit.
    pub processor: String,
    /// Who watches.
    pub live: TrainMonitor,
}

/// What became of a training.
pub struct TrainEnd {
    /// How it ended.
    pub outcome: Result<Finish, TrainError>,
    /// The best checkpoints so far, where it failed.
    pub kept: Vec<(String, Best)>,
    /// Who watched.
    pub live: TrainMonitor,
}

/// Evaluations of one trained model to do.
pub struct EvalTask {
    /// What was trained.
    pub spec: TrainSpec,
    /// The dataset file.
    pub data: PathBuf,
    /// The encoder's folder.
    pub encoder: PathBuf,
    /// The cases.
    pub cases: Vec<EvalCase>,
    /// Brings the checkpoints.
    pub fetch: FetchCheckpoint,
    /// Who watches.
    pub watch: Box<dyn Watch + Send>,
}

enum Task {
    Train(Box<TrainTask>, oneshot::Sender<TrainEnd>),
    Eval(Box<EvalTask>, oneshot::Sender<Result<bool, TrainError>>),
    Probe(oneshot::Sender<Result<(), TrainError>>),
}

/// The engine's thread is gone, which only a crash of this process can bring about.
#[derive(Debug, thiserror::Error)]
#[error("the thread that computes is gone")]
pub struct EngineExited;

/// The way to the thread. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    tasks: mpsc::Sender<Task>,
}

impl Engine {
    /// Starts the thread for `device`.
    pub fn start(device: Device, threads: usize) -> std::io::Result<Self> {
        let (tasks, inbox) = mpsc::channel();
        std::thread::Builder::new()
            .name("libtorch".to_owned())
            .spawn(move || {
                device::set_threads(threads);
                let mut state = EngineState {
                    device,
                    data: Vec::new(),
                    model: None,
                };
                // Ends when every sender is gone.
                while let Ok(task) = inbox.recv() {
                    // A receiver that has gone away needs no answer.
                    match task {
                        Task::Train(task, end) => drop(end.send(state.train(*task))),
                        Task::Eval(task, end) => drop(end.send(state.evaluate(*task))),
                        Task::Probe(end) => drop(end.send(state.probe())),
                    }
                }
            })?;
        Ok(Self { tasks })
    }

    /// Trains.
    pub async fn train(&self, task: TrainTask) -> Result<TrainEnd, EngineExited> {
        let (end, ended) = oneshot::channel();
        self.tasks
            .send(Task::Train(Box::new(task), end))
            .map_err(|_| EngineExited)?;
        ended.await.map_err(|_| EngineExited)
    }

    /// Looks whether the device computes.
    pub async fn probe(&self) -> Result<Result<(), TrainError>, EngineExited> {
        let (end, ended) = oneshot::channel();
        self.tasks.send(Task::Probe(end)).map_err(|_| EngineExited)?;
        ended.await.map_err(|_| EngineExited)
    }

    /// Evaluates; tells whether all cases were done.
    pub async fn evaluate(&self, task: EvalTask) -> Result<Result<bool, TrainError>, EngineExited> {
        let (end, ended) = oneshot::channel();
        self.tasks
            .send(Task::Eval(Box::new(task), end))
            .map_err(|_| EngineExited)?;
        ended.await.map_err(|_| EngineExited)
    }
}

/// What the thread has at hand.
struct EngineState {
    device: Device,
    /// The latest last.
    data: Vec<(String, Rc<Data>)>,
    model: Option<Loaded>,
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
        if self.data.len() >= DATASETS {
            self.data.remove(0);
        }
        let data = Rc::new(Data::new(Arc::new(Dataset::open(path)?), self.device));
        self.data.push((hash.clone(), data.clone()));
        Ok(data)
    }

    fn train(&mut self, task: TrainTask) -> TrainEnd {
        let TrainTask {
            spec,
            data,
            encoder,
            state,
            mut fetch,
            processor,
            mut live,
        } = task;
        // Its memory is needed.
        self.model = None;
        let mut kept = Vec::new();
        let outcome = guarded(None, || {
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
                        tracing::warn!(%reason, "the saved state is not used, training starts afresh");
                        // It may have been lease half.
                        drop(trainer);
                        trainer = begin()?;
                    }
                }
            }
            let processors = trainer.computes_on(&processor);
            live.begins(trainer.after_epoch(), processors);
            let outcome = trainer.run(&mut live);
            if outcome.is_err() {
                kept = trainer.kept();
            }
            outcome
        });
        TrainEnd {
            outcome,
            kept,
            live,
        }
    }

    fn probe(&self) -> Result<(), TrainError> {
        inject::device()?;
        guarded(None, || {
            let ones = Tensor::f_ones([8, 8], (Kind::Float, self.device))?;
            let sum = ones.f_matmul(&ones)?.f_sum(Kind::Float)?;
            match f64::try_from(&sum)? {
                512.0 => Ok(()),
                wrong => Err(TrainError::Device(Said(format!(
                    "eight times eight times eight came out as {wrong}"
                )))),
            }
        })
    }

    fn evaluate(&mut self, task: EvalTask) -> Result<bool, TrainError> {
        let EvalTask {
            spec,
            data,
            encoder,
            cases,
            mut fetch,
            mut watch,
        } = task;
        inject::device()?;
        let data = guarded(None, || self.data(&spec, &data))?;
        let mut model = match self.model.take() {
            Some(model) if model.fits(&spec) => model,
            other => {
                drop(other);
                Loaded::new(&spec, &data, &encoder, self.device)?
            }
        };
        let all = evaluate::evaluate(&mut model, &spec, &data, &cases, &mut fetch, watch.as_mut())?;
        // Kept only after success: an error may have left it half loaded.
        self.model = Some(model);
        Ok(all)
    }
}
