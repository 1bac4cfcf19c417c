//! Evaluates a trained model with its program: it predicts, the metrics are computed here.

use super::{
    error::misbehaved,
    folder::excerpt,
    inputs::Inputs,
    process::{Running, Said},
    session::Session,
};
use bytes::Bytes;
use halfheard_models::train::{EvalCase, EvalObserver, EvalProgress, TrainError};
use halfheard_shared::{
    dataset::{Dataset, Split},
    external::{Event, JobCase, Predictions, Task},
    wire::{CheckpointRef, TrainSpec},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::{Duration, Instant},
};

/// How long a program that has predicted everything may take to exit.
const EXIT: Duration = Duration::from_secs(60);

/// Evaluates `cases`, each of which is reported to `observer` when all is predicted. Returns whether all
/// were finished.
///
/// # Errors
///
/// An error that affects all unfinished cases.
pub(crate) fn evaluate(
    spec: &TrainSpec,
    inputs: &Inputs,
    (data, encoder): (&Path, &Path),
    cases: &[EvalCase],
    fetch: &mut dyn FnMut(&CheckpointRef) -> Result<Bytes, TrainError>,
    observer: &mut dyn EvalObserver,
    peak_memory: &dyn Fn(u64),
) -> Result<bool, TrainError> {
    let data = Dataset::open(data)?;
    let session = Session::prepare(inputs)?;
    let samples = data.split(Split::Test).len();
    let mut job = inputs.job_file(Task::Evaluate, spec, &data, encoder);
    // By the name in the job file.
    let mut checkpoints: BTreeMap<String, String> = BTreeMap::new();
    for checkpoint in cases.iter().flat_map(|case| &case.checkpoints) {
        let hash = &checkpoint.blake3;
        if !checkpoints.values().any(|known| known == hash) {
            let name = session.write_checkpoint(hash, &fetch(checkpoint)?)?;
            checkpoints.insert(name, hash.clone());
        }
    }
    for case in cases {
        let hashes: BTreeSet<&str> = case.checkpoints.iter().map(|c| c.blake3.as_str()).collect();
        let named = checkpoints.iter();
        let named = named.filter(|(_, hash)| hashes.contains(hash.as_str()));
        job.cases.push(JobCase {
            case: case.case.to_string(),
            inputs: session.write_inputs(
                &data,
                Split::Test,
                (&case.case, case.confusions.as_deref()),
                spec,
            )?,
            samples,
            checkpoints: named.map(|(name, _)| name.clone()).collect(),
        });
    }
    let mut program = session.start(&job)?;
    observer.cases_started(&Vec::from_iter(0..cases.len()));
    let mut run = Run {
        spec,
        session: &session,
        cases,
        checkpoints,
        labels: data.split(Split::Test).labels(),
        predicted: BTreeMap::new(),
        done: BTreeSet::new(),
        since: Instant::now(),
        peak_memory,
    };
    run.follow(&mut program, observer)
}

struct Run<'a> {
    spec: &'a TrainSpec,
    session: &'a Session<'a>,
    cases: &'a [EvalCase],
    /// Hashes by the name in the job file.
    checkpoints: BTreeMap<String, String>,
    labels: &'a [f32],
    /// By case and hash.
    predicted: BTreeMap<(usize, String), Vec<f32>>,
    done: BTreeSet<usize>,
    /// When the last case was done.
    since: Instant,
    peak_memory: &'a dyn Fn(u64),
}

impl Run<'_> {
    fn follow(
        &mut self,
        program: &mut Running,
        observer: &mut dyn EvalObserver,
    ) -> Result<bool, TrainError> {
        let mut finished: Option<Instant> = None;
        loop {
            let said = program.wait()?;
            (self.peak_memory)(program.peak_memory());
            match said {
                Said::Nothing | Said::Event(Event::Progress { .. }) => {}
                Said::Ended(0) if finished.is_some() => return Ok(true),
                Said::Ended(code) => return Err(program.ended_early(code)),
                Said::Event(Event::Predictions {
                    case,
                    checkpoint,
                    predictions,
                }) if finished.is_none() => {
                    self.predicted(&case, &checkpoint, predictions, observer)?;
                }
                Said::Event(Event::Finished {}) if finished.is_none() => {
                    let left = self.cases.len() - self.done.len();
                    if left > 0 {
                        return Err(misbehaved(format!(
                            "it finished and left {left} of {} cases without predictions",
                            self.cases.len()
                        )));
                    }
                    finished = Some(Instant::now());
                }
                Said::Event(_) => {
                    return Err(misbehaved(
                        "it said something else than `predictions` and, in the end, `finished`, \
                         which is all that belongs to an evaluation",
                    ));
                }
            }
            if finished.is_some_and(|since| since.elapsed() > EXIT) {
                tracing::warn!("the program has finished and does not exit; ending it");
                return Ok(true);
            }
            let at = EvalProgress {
                done: self.done.len(),
                batch: self.predicted.len(),
                batches: self.cases.len() * self.checkpoints.len(),
            };
            if finished.is_none() && !observer.should_continue(at) {
                return Ok(false);
            }
        }
    }

    /// Takes predictions, and measures the case if they are its last.
    fn predicted(
        &mut self,
        case: &str,
        checkpoint: &str,
        predictions: Predictions,
        observer: &mut dyn EvalObserver,
    ) -> Result<(), TrainError> {
        let unknown = |what: &str, named: &str| {
            misbehaved(format!(
                "it predicted for a {what} `{}` that it was not asked for",
                excerpt(named)
            ))
        };
        let cases = self.cases;
        let place = cases
            .iter()
            .position(|known| known.case.to_string() == case);
        let place = place.ok_or_else(|| unknown("case", case))?;
        let asked = &cases[place].checkpoints;
        let hash = self.checkpoints.get(checkpoint);
        let hash = hash.filter(|hash| asked.iter().any(|known| known.blake3 == **hash));
        let hash = hash
            .ok_or_else(|| unknown("checkpoint", checkpoint))?
            .clone();
        let what = format!("case {case}");
        let values = self.session.values(predictions, self.labels.len(), &what)?;
        if self.predicted.insert((place, hash), values).is_some() {
            return Err(misbehaved(format!(
                "it predicted twice with the same checkpoint for case {case}"
            )));
        }
        let is_complete = |known: &CheckpointRef| {
            let key = (place, known.blake3.clone());
            self.predicted.contains_key(&key)
        };
        if asked.iter().all(is_complete) {
            let values = |hash: &str| {
                let values = self.predicted.get(&(place, hash.to_owned()))?;
                Some(values.as_slice())
            };
            let outcome = cases[place].measure(self.spec.dataset, self.labels, values);
            self.done.insert(place);
            let seconds = self.since.elapsed().as_secs_f64();
            self.since = Instant::now();
            observer.case_finished(place, seconds, outcome);
        }
        Ok(())
    }
}
