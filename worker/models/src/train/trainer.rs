//! Runs a method's training procedure step by step, keeps the best checkpoints, and can stop and go
//! on after any step.

use super::{
    TrainError, catch_panics,
    data::{Data, Erased, SplitData},
    order,
    predict::predict_split,
    state::{self, BestRef, Progress, StateError},
    weights,
};
use crate::methods::{Batch, Method, MethodError, Position};
use bytes::Bytes;
use halfheard_shared::{
    artifacts::Hash,
    benchmark::{Benchmark, Criterion},
    case::{Case, Rate},
    dataset::Split,
    metrics,
    wire::{CheckpointRef, EpochLog, Selection, TrainSpec},
};
use std::{
    collections::BTreeMap,
    rc::Rc,
    time::{Duration, Instant},
};
use tch::Tensor;

/// A validation loss must be lower by this to count as better (the reference's trainers).
const BETTER: f64 = 1e-6;

/// What to do after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Directive {
    /// Train on.
    Continue,
    /// Save as soon as the method is at rest, then train on.
    Save,
    /// Save as soon as the method is at rest, then stop.
    SaveAndStop,
    /// Stop without saving.
    Stop,
}

/// Where the training stands, for who watches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// The epoch in progress, from 1.
    pub epoch: u32,
    /// The most epochs there can be.
    pub max_epochs: u32,
    /// Steps done in this epoch, over all passes.
    pub step: usize,
    /// Steps of an epoch.
    pub steps: usize,
    /// The mean loss of this epoch so far.
    pub loss: Option<f64>,
    /// Whether an epoch has just ended.
    pub epoch_ended: bool,
}

/// A training's saved state and the checkpoints it refers to.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// To be read by [`Trainer::resume`].
    pub state: Bytes,
    /// The best checkpoints so far. They must be there before the state is.
    pub best: Vec<BestCheckpoint>,
    /// The last completed epoch.
    pub after_epoch: u32,
}

/// A checkpoint's content.
#[derive(Clone, Debug)]
pub struct BestCheckpoint {
    /// Its name.
    pub blake3: Hash,
    /// A safetensors file.
    pub content: Bytes,
}

/// Who watches a training and says when it has to stop.
pub trait TrainObserver {
    /// What to do now; asked after every step and after every epoch.
    fn directive(&mut self, view: StepReport) -> Directive;
    /// An epoch ended.
    fn epoch_ended(&mut self, log: EpochLog);
    /// A state to be kept.
    fn save(&mut self, snapshot: Snapshot);
}

/// How a training ended.
#[derive(Debug)]
pub enum TrainOutcome {
    /// Every epoch was trained, or early stopping applied.
    Completed {
        /// One for each selection criterion.
        checkpoints: Vec<CheckpointRef>,
        /// Their contents, each once.
        contents: Vec<BestCheckpoint>,
        /// Epochs trained.
        epochs: u32,
        /// Seconds spent, over all attempts.
        seconds: f64,
    },
    /// The observer stopped it.
    Stopped {
        /// The last completed epoch.
        after_epoch: u32,
        /// Whether the state was saved before.
        saved: bool,
    },
}

/// One training.
pub struct Trainer {
    spec: TrainSpec,
    benchmark: Benchmark,
    method: Box<dyn Method>,
    train: Rc<SplitData>,
    selection: Watched,
    /// Where schedules and early stopping look, if not at the selection split.
    validation: Option<Watched>,
    progress: Progress,
    /// Contents of the best checkpoints by hash.
    held: BTreeMap<String, Bytes>,
    /// Whether nothing has been trained or restored yet.
    fresh: bool,
    pass: Option<Pass>,
}

/// A split that is predicted after every epoch, with what is erased of it.
struct Watched {
    split: Rc<SplitData>,
    erased: Erased,
}

impl Watched {
    fn new(data: &Data, split: Split, spec: &TrainSpec) -> Result<Self, TrainError> {
        let split = data.split(split)?;
        let rate = Rate::from_thousandths(spec.protocol.selection_rate);
        let erased =
            split.erase_case(&Case::Rate(rate), spec.protocol.erasure_seed, spec.tokens)?;
        Ok(Self { split, erased })
    }
}

/// The order and the erasure of the pass in progress.
struct Pass {
    epoch: u32,
    pass: usize,
    order: Tensor,
    erased: Rc<Erased>,
}

impl Trainer {
    /// A training of `method` that has not begun. The method must have been built from `spec`.
    pub fn new(spec: TrainSpec, method: Box<dyn Method>, data: &Data) -> Result<Self, TrainError> {
        if spec.max_epochs == 0 {
            return Err(TrainError::Spec(
                "max_epochs is 0: nothing would be trained".to_owned(),
            ));
        }
        let selection = match spec.protocol.selection {
            Selection::Validation => Split::Valid,
            Selection::Test => Split::Test,
        };
        // Only the choice of the epoch may look at the test split, never the schedule.
        let validation = match spec.protocol.selection {
            Selection::Validation => None,
            Selection::Test => Some(Watched::new(data, Split::Valid, &spec)?),
        };
        Ok(Self {
            benchmark: spec.dataset,
            train: data.split(Split::Train)?,
            selection: Watched::new(data, selection, &spec)?,
            validation,
            progress: Progress {
                spec: digest(&spec),
                epoch: 1,
                pass: 0,
                step: 0,
                losses: BTreeMap::new(),
                epoch_seconds: 0.0,
                seconds: 0.0,
                best_loss: None,
                best: BTreeMap::new(),
                stopped: false,
                processors: Vec::new(),
            },
            held: BTreeMap::new(),
            fresh: true,
            pass: None,
            spec,
            method,
        })
    }

    /// Goes to where a saved state stands. `fetch` brings the checkpoints that the state refers to.
    /// After an error the trainer must not be used: build a new one and start afresh.
    pub fn resume(
        &mut self,
        saved: &[u8],
        fetch: &mut dyn FnMut(&BestRef) -> Option<Bytes>,
    ) -> Result<(), StateError> {
        let (progress, method) = state::decode(saved, &self.progress.spec)?;
        let mut held = BTreeMap::new();
        for best in progress.best.values() {
            if !held.contains_key(&best.blake3) {
                let content = fetch(best).ok_or_else(|| {
                    StateError::Damaged(format!("its checkpoint {} is gone", best.blake3))
                })?;
                held.insert(best.blake3.clone(), content);
            }
        }
        catch_panics(None, || Ok(self.method.restore(&method)?))
            .map_err(|e| StateError::Method(e.to_string()))?;
        self.progress = progress;
        self.held = held;
        self.fresh = false;
        Ok(())
    }

    /// The last completed epoch.
    pub fn after_epoch(&self) -> u32 {
        self.progress.epoch - 1
    }

    /// Says on what kind of processor the training goes on from here. Returns the kinds that it has
    /// been on, in order, with `+` between them: its result is theirs to the last bit.
    pub fn record_processor(&mut self, processor: &str) -> String {
        let processors = &mut self.progress.processors;
        if processors.last().is_none_or(|last| last != processor) {
            processors.push(processor.to_owned());
        }
        processors.join("+")
    }

    /// Samples in a batch.
    pub fn batch_size(&self) -> usize {
        self.method.batch_size()
    }

    /// The best checkpoints so far, by criterion and epoch: what is worth keeping when the training
    /// fails.
    pub fn best_checkpoints(&self) -> Vec<(String, BestCheckpoint)> {
        let best = self.progress.best.iter();
        best.filter_map(|(id, best)| {
            let content = self.held.get(&best.blake3)?.clone();
            let blake3 = best.blake3.parse().ok()?;
            Some((
                format!("{id} after epoch {}", best.epoch),
                BestCheckpoint { blake3, content },
            ))
        })
        .collect()
    }

    /// Trains until it is done or told to leave. A panic of the method comes back as an error.
    pub fn run(&mut self, observer: &mut dyn TrainObserver) -> Result<TrainOutcome, TrainError> {
        catch_panics(Some(self.method.batch_size()), || self.run_steps(observer))
    }

    fn run_steps(&mut self, observer: &mut dyn TrainObserver) -> Result<TrainOutcome, TrainError> {
        if self.fresh {
            self.prepare()?;
            self.fresh = false;
        }
        while !self.progress.stopped && self.progress.epoch <= self.spec.max_epochs {
            let epoch_ended = if self.progress.pass < self.method.passes() {
                self.step()?;
                false
            } else {
                observer.epoch_ended(self.end_epoch()?);
                true
            };
            let directive = observer.directive(self.view(epoch_ended));
            if directive == Directive::Continue {
                continue;
            }
            let saves = directive != Directive::Stop && self.method.at_rest();
            if saves {
                observer.save(self.snapshot()?);
            }
            match directive {
                Directive::Stop => return Ok(self.stopped(false)),
                Directive::SaveAndStop if saves => return Ok(self.stopped(true)),
                _ => {}
            }
        }
        Ok(TrainOutcome::Completed {
            checkpoints: self
                .progress
                .best
                .iter()
                .map(|(criterion, best)| CheckpointRef {
                    criterion: criterion.clone(),
                    epoch: best.epoch,
                    blake3: best.blake3.clone(),
                    bytes: best.bytes,
                })
                .collect(),
            contents: self.contents(),
            epochs: self.after_epoch(),
            seconds: self.progress.seconds,
        })
    }

    fn stopped(&self, saved: bool) -> TrainOutcome {
        TrainOutcome::Stopped {
            after_epoch: self.after_epoch(),
            saved,
        }
    }

    fn contents(&self) -> Vec<BestCheckpoint> {
        self.held
            .values()
            .map(|content| BestCheckpoint {
                blake3: Hash::of(content),
                content: content.clone(),
            })
            .collect()
    }

    fn steps(&self) -> usize {
        let all = self
            .train
            .samples()
            .div_ceil(self.method.batch_size().max(1));
        self.method
            .steps_of_pass(self.progress.pass, all)
            .clamp(1, all.max(1))
    }

    fn view(&self, epoch_ended: bool) -> StepReport {
        let steps = self.steps();
        let loss = self.progress.losses.get("loss");
        StepReport {
            epoch: self.progress.epoch,
            max_epochs: self.spec.max_epochs,
            step: self.progress.pass * steps + self.progress.step,
            steps: self.method.passes() * steps,
            loss: loss.map(|(sum, count)| sum / *count as f64),
            epoch_ended,
        }
    }

    /// The state now. The method must be at rest.
    fn snapshot(&self) -> Result<Snapshot, TrainError> {
        let state = state::encode(&self.progress, &self.method.state()?)?;
        Ok(Snapshot {
            state: state.into(),
            best: self.contents(),
            after_epoch: self.after_epoch(),
        })
    }

    fn erase_training(&self, epoch: u32) -> Result<Rc<Erased>, TrainError> {
        // A method's ablation may ask for complete training data, and so may the protocol.
        let complete = serde_json::from_str::<serde_json::Value>(&self.spec.hyper)
            .ok()
            .and_then(|hyper| hyper.get("train_missing")?.as_bool())
            == Some(false);
        let protocol = &self.spec.protocol;
        let erased = self.train.erase_training(
            protocol.train_missing && !complete,
            self.spec.seed,
            epoch,
            protocol,
            self.spec.tokens,
        )?;
        Ok(Rc::new(erased))
    }

    /// The reading before the first epoch.
    fn prepare(&mut self) -> Result<(), TrainError> {
        let erased = self.erase_training(1)?;
        let size = self.method.batch_size().max(1) as i64;
        let complete = self.method.needs().complete_in_training;
        for (step, batch) in self.train.in_order(size, &erased, complete).enumerate() {
            tch::manual_seed(order::step_seed(self.spec.seed, 0, 0, step));
            self.method.prepare(&batch?)?;
        }
        Ok(())
    }

    /// The batch of the step to come.
    fn batch(&mut self) -> Result<Batch, TrainError> {
        let (epoch, pass) = (self.progress.epoch, self.progress.pass);
        let stands = self
            .pass
            .as_ref()
            .is_some_and(|p| (p.epoch, p.pass) == (epoch, pass));
        if !stands {
            let erased = match self.pass.take() {
                Some(before) if before.epoch == epoch => before.erased,
                _ => self.erase_training(epoch)?,
            };
            let order = order::permutation(self.train.samples(), self.spec.seed, epoch, pass);
            let device = self.train.device_labels().device();
            self.pass = Some(Pass {
                epoch,
                pass,
                order: Tensor::f_from_slice(&order)?.f_to_device(device)?,
                erased,
            });
        }
        let Some(pass) = &self.pass else {
            // Set just above.
            return Err(TrainError::Spec("no pass has begun".to_owned()));
        };
        let size = self.method.batch_size().max(1);
        let start = self.progress.step * size;
        let length = size.min(self.train.samples() - start);
        let index = pass.order.f_narrow(0, start as i64, length as i64)?;
        let complete = self.method.needs().complete_in_training;
        self.train.batch(index, &pass.erased, complete)
    }

    /// One step, with the beginning and the end of its pass where it is the first or the last.
    fn step(&mut self) -> Result<(), TrainError> {
        let began = Instant::now();
        let steps = self.steps();
        let at = Position {
            epoch: self.progress.epoch,
            pass: self.progress.pass,
            step: self.progress.step,
            steps,
        };
        let batch = self.batch()?;
        tch::manual_seed(order::step_seed(self.spec.seed, at.epoch, at.pass, at.step));
        if at.step == 0 {
            self.method.begin_pass(at)?;
        }
        let outcome = self.method.train_step(at, &batch)?;
        if outcome.losses.values().any(|loss| !loss.is_finite()) {
            return Err(TrainError::Method(MethodError::NonFinite {
                at,
                losses: outcome.losses,
            }));
        }
        for (name, value) in outcome.losses {
            let entry = self.progress.losses.entry(name.to_owned()).or_default();
            *entry = (entry.0 + value, entry.1 + 1);
        }
        self.progress.step += 1;
        if self.progress.step == steps {
            self.method.end_pass(at)?;
            self.progress.step = 0;
            self.progress.pass += 1;
        }
        let spent = began.elapsed().as_secs_f64();
        self.progress.epoch_seconds += spent;
        self.progress.seconds += spent;
        Ok(())
    }

    /// Predictions, metrics, best checkpoints, schedule and early stopping.
    fn end_epoch(&mut self) -> Result<EpochLog, TrainError> {
        let began = Instant::now();
        let epoch = self.progress.epoch;
        let method = self.method.as_ref();
        let predictions = predict(method, &self.spec.method, &self.selection)?;
        let mut metrics = metrics::evaluate(
            self.benchmark,
            &self.selection.split.answers(&predictions)?,
            self.selection.split.labels(),
        )
        .map_err(|source| TrainError::Prediction { epoch, source })?;
        let validation_loss = match &self.validation {
            None => method.validation_loss(&predictions, self.selection.split.device_labels()),
            Some(validation) => {
                let predictions = predict(method, &self.spec.method, validation)?;
                method.validation_loss(&predictions, validation.split.device_labels())
            }
        };
        let best_for = self.keep_best(&metrics)?;
        self.method.end_epoch(epoch, validation_loss)?;
        let best_loss = self.progress.best_loss;
        if best_loss.is_none_or(|(best, _)| validation_loss <= best - BETTER) {
            self.progress.best_loss = Some((validation_loss, epoch));
        }
        let since = epoch - self.progress.best_loss.map_or(epoch, |(_, best)| best);
        let patience = self.method.patience();
        self.progress.stopped = patience.is_some_and(|patience| since >= patience);

        metrics.insert("validation_loss".to_owned(), Some(validation_loss));
        let losses = std::mem::take(&mut self.progress.losses);
        let eval_seconds = began.elapsed().as_secs_f64();
        self.progress.seconds += eval_seconds;
        self.progress.epoch += 1;
        self.progress.pass = 0;
        Ok(EpochLog {
            epoch,
            losses: losses
                .into_iter()
                .map(|(name, (sum, count))| (name, sum / count.max(1) as f64))
                .collect(),
            metrics,
            train_seconds: std::mem::take(&mut self.progress.epoch_seconds),
            eval_seconds,
            best_for,
        })
    }

    /// Keeps the weights for every criterion by which this epoch is the best so far.
    fn keep_best(&mut self, metrics: &metrics::Metrics) -> Result<Vec<String>, TrainError> {
        let better: Vec<(&'static Criterion, Option<f64>)> = self
            .benchmark
            .criteria()
            .iter()
            .map(|criterion| (criterion, metrics.get(criterion.id).copied().flatten()))
            .filter(|(criterion, value)| {
                let best = self.progress.best.get(criterion.id);
                best.is_none_or(|best| self.benchmark.improves(criterion, *value, best.value))
            })
            .collect();
        if better.is_empty() {
            return Ok(Vec::new());
        }
        let content = Bytes::from(weights::checkpoint(self.method.vars())?);
        let blake3 = Hash::of(&content).as_str().to_owned();
        for (criterion, value) in &better {
            self.progress.best.insert(
                criterion.id.to_owned(),
                BestRef {
                    epoch: self.progress.epoch,
                    value: *value,
                    blake3: blake3.clone(),
                    bytes: content.len() as u64,
                },
            );
        }
        self.held.insert(blake3, content);
        let best = &self.progress.best;
        self.held
            .retain(|hash, _| best.values().any(|b| b.blake3 == *hash));
        Ok(better.iter().map(|(c, _)| c.id.to_owned()).collect())
    }
}

/// BLAKE3 of what decides a training's course: all of the spec but the paths, which are hints.
fn digest(spec: &TrainSpec) -> String {
    let mut spec = spec.clone();
    spec.data.path.clear();
    spec.encoder.path.clear();
    let text = format!("{spec:?}");
    Hash::of(text.as_bytes()).as_str().to_owned()
}

/// Predictions `[N]` for a watched split, on the device.
fn predict(method: &dyn Method, id: &str, watched: &Watched) -> Result<Tensor, TrainError> {
    predict_split(method, id, &watched.split, &watched.erased)
}

/// Saves when it is time: at an epoch's end, or when `every` has passed, but never so often that
/// saving takes more than about a tenth of the time.
#[derive(Debug)]
pub struct SaveSchedule {
    every: Duration,
    last: Instant,
    cost: Duration,
}

impl SaveSchedule {
    /// Saves at least every `every`.
    pub fn new(every: Duration) -> Self {
        Self {
            every,
            last: Instant::now(),
            cost: Duration::ZERO,
        }
    }

    /// Whether to save now.
    pub fn is_due(&self, epoch_ended: bool) -> bool {
        let since = self.last.elapsed();
        since >= self.cost * 10 && (epoch_ended || since >= self.every)
    }

    /// A state was saved, which took `cost`.
    pub fn record_save(&mut self, cost: Duration) {
        self.last = Instant::now();
        self.cost = cost;
    }
}

#[cfg(test)]
#[path = "trainer_tests.rs"]
mod tests;
