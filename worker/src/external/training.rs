//! Trains with a program: follows its epochs, selects the best, keeps its states.

use super::{
    error::misbehaved,
    folder::excerpt,
    inputs::Inputs,
    process::{Running, Said},
    session::Session,
};
use bytes::Bytes;
use halfheard_models::train::{
    BestCheckpoint, BestContents, BestEpochs, BestRef, Directive, Snapshot, StepReport, TrainError,
    TrainObserver, TrainOutcome, named, references,
};
use halfheard_shared::{
    bundle::Bundle,
    case::{Case, Rate},
    dataset::Dataset,
    external::{EpochPredictions, Event, JobSelection, Task},
    hash::Hash,
    ids::JobId,
    metrics,
    wire::{EpochLog, TrainSpec},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    convert::Infallible,
    path::Path,
    time::{Duration, Instant},
};

/// How long a program that was asked to end may take, where the shutdown itself does not say so.
const LEAVE: Duration = Duration::from_secs(10);
/// How long a program that has finished may take to exit.
const EXIT: Duration = Duration::from_secs(60);
/// The most losses of an epoch, and the most characters of their names.
const MAX_LOSSES: usize = 32;
const MAX_LOSS_NAME: usize = 64;

/// What is known of a training, beside the program's own state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Progress {
    /// The job that it belongs to.
    job: JobId,
    /// The completed epochs.
    logs: Vec<EpochLog>,
    /// The best epoch by each selection criterion.
    best: BestEpochs,
    /// Seconds over all attempts.
    seconds: f64,
    /// The kinds of processors used so far, in order.
    processors: Vec<String>,
}

/// What an attempt begins from.
pub(crate) struct Begun {
    /// The last completed epoch.
    pub(crate) after_epoch: u32,
    /// The kinds of processors used so far.
    pub(crate) processors: String,
    /// Checkpoints that the store has.
    pub(crate) stored: Vec<Hash>,
    /// The completed epochs.
    pub(crate) logs: Vec<EpochLog>,
}

/// How a training ended.
pub(crate) struct Trained {
    pub(crate) outcome: Result<TrainOutcome, TrainError>,
    /// The best checkpoints so far, if it failed.
    pub(crate) kept: Vec<(String, BestCheckpoint)>,
    /// The most memory that the program had, in bytes.
    pub(crate) peak_memory: u64,
}

/// A job and what is there of it.
pub(crate) struct Start<'a> {
    pub(crate) job: JobId,
    pub(crate) spec: &'a TrainSpec,
    /// The dataset file.
    pub(crate) data: &'a Path,
    /// The encoder's folder.
    pub(crate) encoder: &'a Path,
    /// A saved state to resume from.
    pub(crate) state: Option<Bytes>,
    /// What the last bits of results depend on here.
    pub(crate) processor: &'a str,
}

/// Trains until the program has finished or `observer` stops it. `begun` is called before the first epoch.
pub(crate) fn train<O: TrainObserver>(
    start: Start<'_>,
    inputs: &Inputs,
    fetch: &mut dyn FnMut(&BestRef) -> Option<Bytes>,
    observer: &mut O,
    begun: impl FnOnce(Begun, &mut O),
) -> Trained {
    let mut training = Training {
        spec: start.spec,
        progress: Progress {
            job: start.job,
            logs: Vec::new(),
            best: BestEpochs::new(),
            seconds: 0.0,
            processors: Vec::new(),
        },
        contents: BestContents::default(),
        peak_memory: 0,
    };
    let outcome = training.run(start, inputs, fetch, observer, begun);
    let kept = match outcome {
        Ok(_) => Vec::new(),
        Err(_) => training.contents.named(&training.progress.best),
    };
    Trained {
        outcome,
        kept,
        peak_memory: training.peak_memory,
    }
}

struct Training<'a> {
    spec: &'a TrainSpec,
    progress: Progress,
    /// Contents of the best checkpoints.
    contents: BestContents,
    peak_memory: u64,
}

/// A split that is predicted after each epoch.
struct SelectionSplit {
    name: &'static str,
    /// What stands before the ids of what it chooses.
    prefix: &'static str,
    labels: Vec<f32>,
}

/// A run of the program so far.
struct Run {
    epoch_began: Instant,
    /// Since when it has been asked to end.
    asked: Option<Instant>,
    /// Since when it has been finished.
    finished: Option<Instant>,
    saved: bool,
    /// What it said last of the epoch in progress.
    step: u32,
    steps: u32,
    loss: Option<f64>,
}

impl Training<'_> {
    fn after_epoch(&self) -> u32 {
        self.progress.logs.last().map_or(0, |log| log.epoch)
    }

    fn run<O: TrainObserver>(
        &mut self,
        start: Start<'_>,
        inputs: &Inputs,
        fetch: &mut dyn FnMut(&BestRef) -> Option<Bytes>,
        observer: &mut O,
        begun: impl FnOnce(Begun, &mut O),
    ) -> Result<TrainOutcome, TrainError> {
        let data = Dataset::open(start.data)?;
        let session = Session::prepare(inputs)?;
        let mut job = inputs.job_file(Task::Train, self.spec, &data, start.encoder);
        let rate = Rate::from_thousandths(self.spec.protocol.selection_rate);
        let case = Case::at_rate(rate);
        let mut selection = Vec::new();
        for &(split, prefix) in self.spec.protocol.selection.splits() {
            let labels = data.split(split).labels().to_vec();
            job.selection.push(JobSelection {
                split: split.as_str().to_owned(),
                case: case.to_string(),
                inputs: session.write_inputs(&data, split, (&case, None), self.spec)?,
                samples: labels.len(),
            });
            let name = split.as_str();
            selection.push(SelectionSplit {
                name,
                prefix,
                labels,
            });
        }
        if let Some(state) = start.state
            && let Some(bundle) = self.resume(&state, fetch)
        {
            session.folder.unpack(&bundle, "state")?;
            job.state = Some("state".to_owned());
            job.after_epoch = self.after_epoch();
        }
        let processors = &mut self.progress.processors;
        if processors.last().is_none_or(|last| last != start.processor) {
            processors.push(start.processor.to_owned());
        }
        let stored = self.progress.best.values();
        let begins = Begun {
            after_epoch: self.after_epoch(),
            processors: self.progress.processors.join("+"),
            stored: stored.filter_map(|best| best.blake3.parse().ok()).collect(),
            logs: self.progress.logs.clone(),
        };
        let mut program = session.start(&job)?;
        begun(begins, observer);
        let ended = self.follow(&session, &mut program, &selection, inputs, observer);
        self.peak_memory = program.peak_memory();
        ended
    }

    /// Follows the program until it ends.
    fn follow(
        &mut self,
        session: &Session<'_>,
        program: &mut Running,
        selection: &[SelectionSplit],
        inputs: &Inputs,
        observer: &mut dyn TrainObserver,
    ) -> Result<TrainOutcome, TrainError> {
        let mut run = Run {
            epoch_began: Instant::now(),
            asked: None,
            finished: None,
            saved: false,
            step: 0,
            steps: 0,
            loss: None,
        };
        loop {
            let epoch_ended = match program.wait()? {
                Said::Nothing => false,
                Said::Ended(code) => return self.ended(program, &run, code),
                Said::Event(event) => {
                    self.hear(event, session, selection, inputs, &mut run, observer)?
                }
            };
            if run.finished.is_some_and(|since| since.elapsed() > EXIT) {
                tracing::warn!("the program has finished and does not exit; ending it");
                return Ok(self.completed());
            }
            let directive = observer.directive(self.report(&run, epoch_ended));
            let asked = run.asked.map(|since| since.elapsed());
            match directive {
                Directive::Stop => return Ok(self.stopped(&run)),
                Directive::SaveAndStop if asked.is_some_and(|asked| asked > LEAVE) => {
                    return Ok(self.stopped(&run));
                }
                Directive::SaveAndStop if asked.is_none() => {
                    run.asked = Some(Instant::now());
                    program.ask_to_end();
                }
                // It saves when it can.
                Directive::SaveAndStop | Directive::Save | Directive::Continue => {}
            }
        }
    }

    /// Takes in what the program says. Returns whether an epoch is completed by it.
    fn hear(
        &mut self,
        event: Event,
        session: &Session<'_>,
        selection: &[SelectionSplit],
        inputs: &Inputs,
        run: &mut Run,
        observer: &mut dyn TrainObserver,
    ) -> Result<bool, TrainError> {
        let limit = inputs.limits.file;
        match event {
            event if run.finished.is_some() => Err(misbehaved(format!(
                "it said {} after it had finished",
                name(&event)
            ))),
            Event::Progress {
                epoch,
                step,
                steps,
                loss,
            } => {
                self.expect_next(epoch)?;
                (run.step, run.steps, run.loss) = (step, steps, loss);
                Ok(false)
            }
            Event::Epoch {
                epoch,
                losses,
                predictions,
                checkpoint,
            } => {
                self.expect_next(epoch)?;
                check_losses(&losses)?;
                let content = session.folder.take(&checkpoint, limit, "its checkpoint")?;
                let said = (epoch, losses, predictions);
                let took = run.epoch_began.elapsed();
                let log = self.epoch(session, selection, said, content.into(), took)?;
                (run.step, run.steps, run.loss) = (0, 0, None);
                run.epoch_began = Instant::now();
                observer.epoch_ended(log);
                Ok(true)
            }
            Event::State { after_epoch, path } => {
                observer.save(self.state(session, after_epoch, &path, limit)?);
                run.saved = true;
                Ok(false)
            }
            Event::Finished {} => {
                if self.progress.logs.is_empty() {
                    return Err(misbehaved("it finished without an epoch"));
                }
                run.finished = Some(Instant::now());
                Ok(false)
            }
            event @ Event::Predictions { .. } => Err(misbehaved(format!(
                "it said {}, which belongs to an evaluation",
                name(&event)
            ))),
        }
    }

    /// What it means that the program has ended.
    fn ended(&self, program: &Running, run: &Run, code: i32) -> Result<TrainOutcome, TrainError> {
        if run.finished.is_some() && code == 0 {
            return Ok(self.completed());
        }
        match run.asked {
            Some(_) => Ok(self.stopped(run)),
            None => Err(program.ended_early(code)),
        }
    }

    /// Epochs come in order, each once.
    fn expect_next(&self, epoch: u32) -> Result<(), TrainError> {
        let (next, most) = (self.after_epoch() + 1, self.spec.max_epochs);
        if epoch != next {
            return Err(misbehaved(format!(
                "it spoke of epoch {epoch} where epoch {next} was next"
            )));
        }
        if epoch > most {
            return Err(misbehaved(format!(
                "it went on to epoch {epoch}, beyond the {most} of max_epochs"
            )));
        }
        Ok(())
    }

    fn report(&self, run: &Run, epoch_ended: bool) -> StepReport {
        StepReport {
            epoch: self.after_epoch() + 1,
            max_epochs: self.spec.max_epochs,
            step: run.step as usize,
            steps: run.steps as usize,
            samples: 0,
            loss: run.loss,
            epoch_ended,
        }
    }

    /// Measures an epoch and keeps its checkpoint if it is the best by some criterion.
    fn epoch(
        &mut self,
        session: &Session<'_>,
        selection: &[SelectionSplit],
        (epoch, losses, predictions): (u32, BTreeMap<String, f64>, EpochPredictions),
        checkpoint: Bytes,
        took: Duration,
    ) -> Result<EpochLog, TrainError> {
        let began = Instant::now();
        let mut measured = Vec::new();
        for (split, values) in each_split(session, selection, predictions)? {
            let metrics = metrics::evaluate(self.spec.dataset, &values, &split.labels)
                .map_err(|source| TrainError::Prediction { epoch, source })?;
            measured.push((split.prefix, metrics));
        }
        let Ok(best_for) = self.contents.keep(
            &mut self.progress.best,
            self.spec.dataset,
            (epoch, &measured),
            || Ok::<_, Infallible>(checkpoint),
        );
        let log = EpochLog {
            epoch,
            losses,
            metrics: named(measured),
            train_seconds: took.as_secs_f64(),
            eval_seconds: began.elapsed().as_secs_f64(),
            best_for,
        };
        self.progress.seconds += log.train_seconds + log.eval_seconds;
        self.progress.logs.push(log.clone());
        Ok(log)
    }

    /// Takes a state that the program has saved.
    fn state(
        &self,
        session: &Session<'_>,
        after_epoch: u32,
        path: &str,
        limit: u64,
    ) -> Result<Snapshot, TrainError> {
        if after_epoch != self.after_epoch() || after_epoch == 0 {
            return Err(misbehaved(format!(
                "it saved a state after epoch {after_epoch}, and the last epoch that it reported is {}",
                self.after_epoch()
            )));
        }
        let mut bundle = session.folder.take_state(path, limit)?;
        bundle.about = serde_json::to_value(&self.progress).unwrap_or_default();
        let state = bundle
            .encode()
            .map_err(|error| misbehaved(format!("its state cannot be kept: {error}")))?;
        Ok(Snapshot {
            state: state.into(),
            best: self.contents.checkpoints(),
            after_epoch,
            steps: u64::from(after_epoch),
        })
    }

    /// Restores what was saved. `None`, with a warning, if it cannot be used: then training starts over.
    fn resume(
        &mut self,
        state: &[u8],
        fetch: &mut dyn FnMut(&BestRef) -> Option<Bytes>,
    ) -> Option<Bundle> {
        let refused = |reason: String| {
            tracing::warn!(
                reason,
                "cannot resume from the saved state; training starts over"
            );
            None
        };
        let mut bundle = match Bundle::decode(state) {
            Ok(bundle) => bundle,
            Err(error) => return refused(error.to_string()),
        };
        let progress = std::mem::take(&mut bundle.about);
        let progress: Progress = match serde_json::from_value(progress) {
            Ok(progress) => progress,
            Err(error) => return refused(error.to_string()),
        };
        if progress.job != self.progress.job {
            return refused(format!("it belongs to job {}", progress.job));
        }
        let contents = match BestContents::fetch(&progress.best, fetch) {
            Ok(contents) => contents,
            Err(best) => return refused(format!("its checkpoint {} is missing", best.blake3)),
        };
        self.progress = progress;
        self.contents = contents;
        Some(bundle)
    }

    fn completed(&self) -> TrainOutcome {
        TrainOutcome::Completed {
            checkpoints: references(&self.progress.best),
            contents: self.contents.checkpoints(),
            epochs: self.after_epoch(),
            seconds: self.progress.seconds,
        }
    }

    fn stopped(&self, run: &Run) -> TrainOutcome {
        TrainOutcome::Stopped {
            after_epoch: self.after_epoch(),
            saved: run.saved,
        }
    }
}

/// The values of each split of the selection.
fn each_split<'s>(
    session: &Session<'_>,
    selection: &'s [SelectionSplit],
    predictions: EpochPredictions,
) -> Result<Vec<(&'s SelectionSplit, Vec<f32>)>, TrainError> {
    let mut by_split = match (predictions, selection) {
        (EpochPredictions::One(values), [one]) => BTreeMap::from([(one.name.to_owned(), values)]),
        (EpochPredictions::Each(by_split), _) => by_split,
        (EpochPredictions::One(_), _) => {
            return Err(misbehaved(format!(
                "it predicted one split, and the job has {}: `predictions` is an object by split",
                selection.len()
            )));
        }
    };
    let mut each = Vec::new();
    for split in selection {
        let what = format!("split {}", split.name);
        let values = by_split
            .remove(split.name)
            .ok_or_else(|| misbehaved(format!("it did not predict {what}")))?;
        each.push((split, session.values(values, split.labels.len(), &what)?));
    }
    match by_split.keys().next() {
        Some(other) => Err(misbehaved(format!(
            "it predicted a split `{}`, which the job does not ask for",
            excerpt(other)
        ))),
        None => Ok(each),
    }
}

/// An event's name, as programs write it.
fn name(event: &Event) -> &'static str {
    match event {
        Event::Progress { .. } => "`progress`",
        Event::Epoch { .. } => "`epoch`",
        Event::State { .. } => "`state`",
        Event::Predictions { .. } => "`predictions`",
        Event::Finished {} => "`finished`",
    }
}

fn check_losses(losses: &BTreeMap<String, f64>) -> Result<(), TrainError> {
    if losses.len() > MAX_LOSSES {
        return Err(misbehaved(format!(
            "it reported {} losses, over the limit of {MAX_LOSSES}",
            losses.len()
        )));
    }
    let is_name = |name: &str| {
        let length = 1..=MAX_LOSS_NAME;
        length.contains(&name.len()) && name.chars().all(|c| c.is_ascii_graphic())
    };
    match losses.keys().find(|name| !is_name(name)) {
        Some(name) => Err(misbehaved(format!(
            "it reported a loss `{}`: a name has 1 to {MAX_LOSS_NAME} visible ASCII characters",
            excerpt(name)
        ))),
        None => Ok(()),
    }
}
