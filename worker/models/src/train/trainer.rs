//! Runs a method's training procedure step by step, keeps the best checkpoints, and can stop and
//! resume after any step.

use super::{
    BestCheckpoint, BestContents, BestEpochs, Directive, Snapshot, StepReport, TrainError,
    TrainObserver, TrainOutcome, catch_panics,
    data::{Data, Erased, Rows, SplitData},
    fingerprint::fingerprint,
    named, order,
    predict::predict_split,
    references,
    saved_state::{self, BestRef, Progress, StateError},
    validation::BatchMean,
    weights,
};
use crate::methods::{Batch, Losses, Method, Position};
use bytes::Bytes;
use halfheard_shared::{
    benchmark::Benchmark,
    case::{Case, Rate},
    dataset::Split,
    metrics,
    regime::{Pass as TrainingPass, Regime},
    wire::{EpochLog, Selection, TrainSpec},
};
use std::{collections::BTreeMap, rc::Rc, time::Instant};
use tch::{Device, Tensor};

/// By how much a validation loss must be lower to count as better, as in the reference's trainers.
pub(super) const MIN_IMPROVEMENT: f64 = 1e-6;

/// How many steps a device may compute before their losses are read, which waits for it. On the CPU every
/// step's are.
pub(super) const ROUND: usize = 32;

/// A training run.
pub struct Trainer {
    spec: TrainSpec,
    benchmark: Benchmark,
    method: Box<dyn Method>,
    train: Rc<SplitData>,
    /// The splits that choose checkpoints, each with what stands before its ids.
    selection: Vec<(&'static str, EvalSplit)>,
    validation: Validation,
    progress: Progress,
    /// Contents of the best checkpoints.
    contents: BestContents,
    /// Whether nothing has been trained or restored yet.
    fresh: bool,
    pass: Option<Pass>,
    /// Losses that are still on the device, the oldest first.
    unread: Vec<(Position, Losses)>,
    /// How many of them there may be.
    pub(super) round: usize,
}

/// Where the loss of schedules and early stopping comes from: never from the test split.
enum Validation {
    /// The predictions of the selection, which the validation split is the first of.
    Selected,
    /// Predictions of its own: the selection has none of the validation split.
    Own(EvalSplit),
    /// The mean of batch means, as in the reference.
    BatchMean(BatchMean),
}

impl Validation {
    fn new(spec: &TrainSpec, method: &dyn Method, data: &Data) -> Result<Self, TrainError> {
        let selected = spec.protocol.selection != Selection::Test;
        if let Some(mean) = BatchMean::new(spec, method, data, selected)? {
            return Ok(Self::BatchMean(mean));
        }
        match selected {
            true => Ok(Self::Selected),
            false => Ok(Self::Own(EvalSplit::new(data, Split::Valid, spec)?)),
        }
    }
}

/// A split that is predicted after every epoch, with its erasure.
struct EvalSplit {
    split: Rc<SplitData>,
    erased: Erased,
}

impl EvalSplit {
    fn new(data: &Data, split: Split, spec: &TrainSpec) -> Result<Self, TrainError> {
        let split = data.split(split)?;
        let rate = Rate::from_thousandths(spec.protocol.selection_rate);
        let erased = split.erase_case(
            &Case::at_rate(rate),
            spec.protocol.erasure_seed,
            spec.tokens,
        )?;
        Ok(Self { split, erased })
    }

    /// Predictions `[N]`, on the device.
    fn predict(
        &self,
        method: &dyn Method,
        id: &str,
        observer: &mut dyn TrainObserver,
    ) -> Result<Tensor, TrainError> {
        let advanced = &mut || observer.advanced();
        predict_split(method, id, &self.split, &self.erased, advanced)
    }
}

/// The order and the erasure of the pass in progress.
struct Pass {
    epoch: u32,
    pass: usize,
    order: Rows,
    erased: Rc<Erased>,
}

impl Trainer {
    /// A new training run of `method`, which must have been built from `spec`.
    pub fn new(spec: TrainSpec, method: Box<dyn Method>, data: &Data) -> Result<Self, TrainError> {
        if spec.max_epochs == 0 {
            return Err(TrainError::Spec("max_epochs is 0".to_owned()));
        }
        let splits = spec.protocol.selection.splits().iter();
        let selection = splits
            .map(|(split, prefix)| Ok((*prefix, EvalSplit::new(data, *split, &spec)?)))
            .collect::<Result<_, TrainError>>()?;
        Ok(Self {
            benchmark: spec.dataset,
            train: data.split(Split::Train)?,
            selection,
            validation: Validation::new(&spec, method.as_ref(), data)?,
            progress: Progress {
                spec: fingerprint(&spec)?,
                epoch: 1,
                pass: 0,
                step: 0,
                steps: 0,
                losses: BTreeMap::new(),
                epoch_seconds: 0.0,
                seconds: 0.0,
                best_loss: None,
                best: BestEpochs::new(),
                stopped: false,
                processors: Vec::new(),
                logs: Vec::new(),
            },
            contents: BestContents::default(),
            fresh: true,
            pass: None,
            unread: Vec::new(),
            round: match data.device() {
                Device::Cpu => 1,
                _ => ROUND,
            },
            spec,
            method,
        })
    }

    /// Restores a saved state; `fetch` returns the checkpoints that it refers to.
    ///
    /// # Errors
    ///
    /// The state does not fit. The trainer may be partially restored and must not be used: build a
    /// new one and start over.
    pub fn resume(
        &mut self,
        saved: &[u8],
        fetch: &mut dyn FnMut(&BestRef) -> Option<Bytes>,
    ) -> Result<(), StateError> {
        let (progress, method) = saved_state::decode(saved, &self.progress.spec)?;
        let contents = BestContents::fetch(&progress.best, fetch).map_err(|best| {
            StateError::Damaged(format!("its checkpoint {} is missing", best.blake3))
        })?;
        catch_panics(None, || Ok(self.method.restore(&method)?))
            .map_err(|e| StateError::Method(e.to_string()))?;
        self.progress = progress;
        self.contents = contents;
        self.fresh = false;
        Ok(())
    }

    /// The last completed epoch.
    pub fn after_epoch(&self) -> u32 {
        self.progress.epoch - 1
    }

    /// The completed epochs, those of earlier attempts included.
    pub fn logs(&self) -> &[EpochLog] {
        &self.progress.logs
    }

    /// Training steps so far, over all epochs and attempts.
    pub fn steps_done(&self) -> u64 {
        self.progress.steps
    }

    /// Records the kind of processor that trains from here on. Returns all kinds so far, joined by
    /// `+`, which determine the result to the last bit.
    pub fn record_processor(&mut self, processor: &str) -> String {
        let processors = &mut self.progress.processors;
        if processors.last().is_none_or(|last| last != processor) {
            processors.push(processor.to_owned());
        }
        processors.join("+")
    }

    /// Samples per batch.
    pub fn batch_size(&self) -> usize {
        self.method.batch_size()
    }

    /// The best checkpoints so far, with their criterion and epoch, to keep if training fails.
    pub fn best_checkpoints(&self) -> Vec<(String, BestCheckpoint)> {
        self.contents.named(&self.progress.best)
    }

    /// Trains until completion or until `observer` stops it. A panic of the method becomes an error.
    pub fn run(&mut self, observer: &mut dyn TrainObserver) -> Result<TrainOutcome, TrainError> {
        catch_panics(Some(self.method.batch_size()), || self.run_steps(observer))
    }

    fn run_steps(&mut self, observer: &mut dyn TrainObserver) -> Result<TrainOutcome, TrainError> {
        if self.fresh {
            self.prepare(observer)?;
            self.fresh = false;
        }
        while !self.progress.stopped && self.progress.epoch <= self.spec.max_epochs {
            let epoch_ended = if self.progress.pass < self.method.passes() {
                self.step()?;
                false
            } else {
                let log = self.end_epoch(observer)?;
                self.progress.logs.push(log.clone());
                observer.epoch_ended(log);
                true
            };
            let directive = observer.directive(self.report(epoch_ended));
            if directive == Directive::Continue {
                continue;
            }
            let saves = directive != Directive::Stop && self.method.can_save();
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
            checkpoints: references(&self.progress.best),
            contents: self.contents.checkpoints(),
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

    fn steps(&self) -> usize {
        let all = self
            .train
            .samples()
            .div_ceil(self.method.batch_size().max(1));
        self.method
            .steps_of_pass(self.progress.pass, all)
            .clamp(1, all.max(1))
    }

    fn report(&self, epoch_ended: bool) -> StepReport {
        let steps = self.steps();
        let loss = self.progress.losses.get("loss");
        StepReport {
            epoch: self.progress.epoch,
            max_epochs: self.spec.max_epochs,
            step: self.progress.pass * steps + self.progress.step,
            steps: self.method.passes() * steps,
            samples: self.samples_of_last_step(),
            loss: loss.and_then(|(sum, count)| Some((*sum)? / *count as f64)),
            epoch_ended,
        }
    }

    fn samples_of_last_step(&self) -> usize {
        let size = self.method.batch_size().max(1);
        let Progress { pass, step, .. } = self.progress;
        let all = self.train.samples().div_ceil(size);
        // A pass that is over has been left.
        let before = match step.checked_sub(1) {
            Some(before) => before,
            None => {
                self.method
                    .steps_of_pass(pass.saturating_sub(1), all)
                    .clamp(1, all.max(1))
                    - 1
            }
        };
        self.train.samples().saturating_sub(before * size).min(size)
    }

    /// The current state. The method must be able to save.
    fn snapshot(&mut self) -> Result<Snapshot, TrainError> {
        self.read_losses()?;
        let state = saved_state::encode(&self.progress, &self.method.state()?)?;
        Ok(Snapshot {
            state: state.into(),
            best: self.contents.checkpoints(),
            after_epoch: self.after_epoch(),
            steps: self.progress.steps,
        })
    }

    /// What is missing of the samples that the method trains on.
    fn regime(&self) -> Regime {
        match self.method.trains_on_complete_inputs() {
            true => Regime::Complete,
            false => self.spec.protocol.train_missing,
        }
    }

    /// The erasure of a pass that visits samples in `order`.
    fn erase_training(
        &self,
        (epoch, pass): (u32, usize),
        order: &[i64],
    ) -> Result<Rc<Erased>, TrainError> {
        let pass = TrainingPass {
            seed: self.spec.seed,
            epoch,
            pass: pass as u32,
            order,
            batch_size: self.method.batch_size(),
        };
        let (protocol, tokens) = (&self.spec.protocol, self.spec.tokens);
        let erased = self
            .train
            .erase_training(self.regime(), pass, protocol, tokens)?;
        Ok(Rc::new(erased))
    }

    /// Reads the training split before the first epoch.
    fn prepare(&mut self, observer: &mut dyn TrainObserver) -> Result<(), TrainError> {
        let erased = self.erase_training((1, 0), &[])?;
        let size = self.method.batch_size().max(1) as i64;
        let complete = self.method.needs().complete_in_training;
        for (step, batch) in self.train.in_order(size, &erased, complete).enumerate() {
            tch::manual_seed(order::step_seed(self.spec.seed, 0, 0, step));
            self.method.prepare(&batch?)?;
            observer.advanced();
        }
        Ok(())
    }

    /// The batch of the next step.
    fn batch(&mut self) -> Result<Batch, TrainError> {
        let (epoch, pass) = (self.progress.epoch, self.progress.pass);
        let is_current = self
            .pass
            .as_ref()
            .is_some_and(|p| (p.epoch, p.pass) == (epoch, pass));
        if !is_current {
            let order = order::permutation(self.train.samples(), self.spec.seed, epoch, pass);
            let regime = self.regime();
            let holds = |before: &Pass| {
                let same_epoch = before.epoch == epoch && regime.holds_for_epoch();
                regime.is_constant() || same_epoch
            };
            let erased = match self.pass.take().filter(holds) {
                Some(before) => before.erased,
                None => self.erase_training((epoch, pass), &order)?,
            };
            let device = self.train.device_labels().device();
            self.pass = Some(Pass {
                epoch,
                pass,
                order: Rows::new(order, device)?,
                erased,
            });
        }
        let Some(pass) = &self.pass else {
            // Set just above.
            return Err(TrainError::Spec("no pass has begun".to_owned()));
        };
        let size = self.method.batch_size().max(1);
        let rows = pass.order.part(self.progress.step * size, size)?;
        let complete = self.method.needs().complete_in_training;
        self.train.batch(rows, &pass.erased, complete)
    }

    /// Runs one step; the first and the last step of a pass also begin and end it.
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
        self.unread.push((at, outcome.losses));
        if self.unread.len() >= self.round {
            self.read_losses()?;
        }
        self.progress.step += 1;
        self.progress.steps += 1;
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

    /// Adds up the losses of the steps since the last call.
    ///
    /// # Errors
    ///
    /// A used loss that is not finite. Nothing is kept of the model since then, so this comes before each
    /// checkpoint and each saved state.
    fn read_losses(&mut self) -> Result<(), TrainError> {
        let unread = std::mem::take(&mut self.unread);
        for (name, value) in Losses::read_all(&unread)?.into_iter().flatten() {
            let start = (Some(0.0), 0);
            let entry = self.progress.losses.entry(name.to_owned());
            let entry = entry.or_insert(start);
            let sum = entry.0.map(|sum| sum + value).filter(|sum| sum.is_finite());
            *entry = (sum, entry.1 + 1);
        }
        Ok(())
    }

    /// Predictions, metrics, best checkpoints, schedule and early stopping.
    fn end_epoch(&mut self, observer: &mut dyn TrainObserver) -> Result<EpochLog, TrainError> {
        let began = Instant::now();
        self.read_losses()?;
        // The device was still computing steps.
        let waited = began.elapsed().as_secs_f64();
        self.progress.epoch_seconds += waited;
        self.progress.seconds += waited;
        let began = Instant::now();
        let epoch = self.progress.epoch;
        let mut measured = Vec::new();
        let mut first = None;
        for (prefix, split) in &self.selection {
            let predictions = split.predict(self.method.as_ref(), &self.spec.method, observer)?;
            let values = split.split.to_labels(&predictions)?;
            let metrics = metrics::evaluate(self.benchmark, &values, split.split.labels())
                .map_err(|source| TrainError::Prediction { epoch, source })?;
            measured.push((*prefix, metrics));
            first.get_or_insert((predictions, split));
        }
        let validation_loss = self.validation_loss(epoch, first, observer)?;
        let vars = self.method.vars();
        let best_for = self.contents.keep(
            &mut self.progress.best,
            self.benchmark,
            (epoch, &measured),
            || weights::checkpoint(vars).map(Bytes::from),
        )?;
        self.method.end_epoch(epoch, validation_loss)?;
        let best = self.progress.best_loss;
        let is_better = best.map_or(validation_loss.is_finite(), |(best, _)| {
            validation_loss <= best - MIN_IMPROVEMENT
        });
        if is_better {
            self.progress.best_loss = Some((validation_loss, epoch));
        }
        let since = epoch - self.progress.best_loss.map_or(0, |(_, best)| best);
        let patience = self.method.patience();
        self.progress.stopped = patience.is_some_and(|patience| since >= patience);

        let mut metrics = named(measured);
        let loss = Some(validation_loss).filter(|loss| loss.is_finite());
        metrics.insert("validation_loss".to_owned(), loss);
        let losses = std::mem::take(&mut self.progress.losses);
        let eval_seconds = began.elapsed().as_secs_f64();
        self.progress.seconds += eval_seconds;
        self.progress.epoch += 1;
        self.progress.pass = 0;
        Ok(EpochLog {
            epoch,
            losses: losses
                .into_iter()
                .filter_map(|(name, (sum, count))| Some((name, sum? / count.max(1) as f64)))
                .collect(),
            metrics,
            train_seconds: std::mem::take(&mut self.progress.epoch_seconds),
            eval_seconds,
            best_for,
        })
    }

    /// The loss of schedules and early stopping; `first` is the first split of the selection with its
    /// predictions.
    fn validation_loss(
        &self,
        epoch: u32,
        first: Option<(Tensor, &EvalSplit)>,
        observer: &mut dyn TrainObserver,
    ) -> Result<f64, TrainError> {
        let method = self.method.as_ref();
        let mean = |predictions: &Tensor, split: &EvalSplit| {
            method.validation_loss(predictions, split.split.device_labels())
        };
        match (&self.validation, &first) {
            (Validation::BatchMean(loss), _) => {
                let selected = first.as_ref().map(|(predictions, _)| predictions);
                loss.loss(method, epoch, selected, &mut || observer.advanced())
            }
            (Validation::Own(split), _) => {
                let predictions = split.predict(method, &self.spec.method, observer)?;
                Ok(mean(&predictions, split))
            }
            (Validation::Selected, Some((predictions, split))) => Ok(mean(predictions, split)),
            // Every selection has a split.
            (Validation::Selected, None) => Err(TrainError::Spec("nothing selects".to_owned())),
        }
    }
}
