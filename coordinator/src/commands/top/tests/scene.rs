//! A state as an operator may meet it: three sweeps, four workers, curves and failures.

use crate::commands::top::{
    map::Map,
    state::{Outlook, Picture, State, SweepLine, TrainingView},
    update::{Event, update},
};
use chrono::{DateTime, TimeDelta, Utc};
use halfheard_progress::failures::FailureGroup;
use halfheard_shared::{
    ids::{AttemptId, JobId, SweepId},
    wire::Heartbeat,
};
use halfheard_store::{
    JobCounts, JobKind, JobState, SweepState,
    drained::Drained,
    job::AttemptOutcome,
    live::MapCell,
    sweeps::{Progress, SweepRow},
    terms::{Retention, SweepTerms},
    trainings::{AttemptRow, EpochRow, Sibling, Training},
};
use serde_json::{Value, json};
use std::{collections::HashMap, time::Duration};

pub(super) fn now() -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::days(20_000)
}

pub(super) fn sweep_id(name: &str) -> SweepId {
    SweepId::derive(&[name.as_bytes()])
}

pub(super) fn job_id(method: &str, dataset: &str, seed: i64) -> JobId {
    JobId::derive(&[method.as_bytes(), dataset.as_bytes(), &seed.to_le_bytes()])
}

fn sweep(name: &str, state: SweepState, jobs: Progress) -> SweepLine {
    let row = SweepRow {
        id: sweep_id(name),
        name: name.to_owned(),
        state,
        stopped_because: None,
        terms: SweepTerms {
            owner: "ann".to_owned(),
            priority: 0,
            weight: 1.0,
            max_running: None,
            max_failures: None,
            retention: Retention::All,
        },
        created: now() - TimeDelta::hours(3),
        jobs: JobCounts::default(),
    };
    SweepLine { row, jobs }
}

fn sweeps() -> Vec<SweepLine> {
    let running = Progress {
        blocked: 30,
        ready: 4,
        queued: 2,
        running: 3,
        done: 96,
        failed: 17,
        ..Progress::default()
    };
    let mut stopped = sweep(
        "a-name-that-is-far-too-long-for-any-terminal-of-forty-columns",
        SweepState::Paused,
        Progress {
            ready: 10,
            ..Progress::default()
        },
    );
    stopped.row.stopped_because = Some("11 jobs failed,\x1b[2J more than 10".to_owned());
    let finished = Progress {
        done: 136,
        ..Progress::default()
    };
    vec![
        sweep("demo", SweepState::Running, running),
        stopped,
        sweep("語 old", SweepState::Running, finished),
    ]
}

fn cells() -> Vec<MapCell> {
    let mut cells = Vec::new();
    for dataset in ["mosei", "mosi"] {
        for (method, variant) in [("almt", ""), ("lnln", ""), ("lnln", "no-dmc")] {
            for seed in [1111, 1112, 1113] {
                let (training, done, failed, evaluating) = match (dataset, method, seed) {
                    ("mosei", "almt", 1111) => (JobState::Failed, 0, 16, 0),
                    ("mosei", "almt", _) => (JobState::Running, 0, 0, 0),
                    ("mosei", _, 1113) => (JobState::Queued, 0, 0, 0),
                    ("mosei", ..) => (JobState::Ready, 0, 0, 0),
                    ("mosi", "almt", 1113) => (JobState::Done, 7, 0, 2),
                    ("mosi", "lnln", 1113) => (JobState::Done, 15, 1, 0),
                    _ => (JobState::Done, 16, 0, 0),
                };
                cells.push(MapCell {
                    job: job_id(&format!("{method}{variant}"), dataset, seed),
                    method: method.to_owned(),
                    variant: variant.to_owned(),
                    dataset: dataset.to_owned(),
                    seed,
                    training,
                    epoch: (training == JobState::Running).then_some(12),
                    evaluating,
                    done,
                    failed,
                    expected: 16,
                    value: (done > 0).then_some(0.9 + seed as f64 / 1e5),
                });
            }
        }
    }
    cells
}

pub(super) fn beat(name: &str, doing: Value, trouble: Value) -> Heartbeat {
    let worker = json!({
        "name": name, "host": "gpu7", "device": "NVIDIA H100", "version": "0.1.0"
    });
    let beat = json!({
        "worker": worker, "pid": 1, "at_ms": 60_000, "memory_bytes": 2_000_000_000_u64,
        "doing": doing, "trouble": trouble, "device_memory": 80_000_000_000_u64,
        "labels": ["h100"]
    });
    serde_json::from_value(beat).unwrap()
}

pub(super) fn doing(step: u32) -> Value {
    json!({
        "sweep": sweep_id("demo"), "job": job_id("almt", "mosei", 1112),
        "what": "train almt on mosei, seed 1112", "epoch": 13, "max_epochs": 200,
        "step": step, "steps": 100, "loss": 0.4321
    })
}

pub(super) fn beats() -> Vec<Heartbeat> {
    let fault = json!({
        "kind": "dataset", "what": "dataset mosei", "chain": ["no such file"]
    });
    let trouble = json!({
        "fault": fault, "since_ms": 1000, "times": 3, "next_try_ms": 70_000, "sits_out": true
    });
    vec![
        beat("gpu7-12-0", doing(40), Value::Null),
        beat("gpu7-12-1", Value::Null, Value::Null),
        beat("gpu8-7-0", Value::Null, trouble),
        beat("gpu9-4-0", Value::Null, Value::Null),
    ]
}

fn epoch(job: JobId, epoch: i32, loss: f64) -> EpochRow {
    EpochRow {
        job,
        epoch,
        losses: [
            ("loss".to_owned(), Some(loss)),
            ("text".to_owned(), Some(loss / 2.0)),
        ]
        .into(),
        metrics: [
            ("corr".to_owned(), None),
            ("mae".to_owned(), Some(loss * 2.0)),
        ]
        .into(),
        train_seconds: 4.0,
        eval_seconds: 1.0,
        best_for: Vec::new(),
    }
}

fn training() -> TrainingView {
    let seeds: Vec<Sibling> = [1111, 1112, 1113]
        .into_iter()
        .map(|seed| Sibling {
            job: job_id("almt", "mosei", seed),
            seed,
            state: if seed == 1111 {
                JobState::Failed
            } else {
                JobState::Running
            },
        })
        .collect();
    let epochs = seeds
        .iter()
        .enumerate()
        .flat_map(|(index, seed)| {
            (1..=12 * (index as i32 + 1))
                .map(move |at| epoch(seed.job, at, (1.0 + index as f64) / f64::from(at)))
        })
        .collect();
    let attempt = |outcome, errors: &[&str]| AttemptRow {
        attempt: AttemptId::derive(&[b"a"]),
        worker: "gpu7-12-0".to_owned(),
        host: "gpu7".to_owned(),
        device: "NVIDIA H100".to_owned(),
        version: "0.1.0".to_owned(),
        processor: String::new(),
        granted: now() - TimeDelta::minutes(20),
        started: None,
        resumed_after_epoch: None,
        ended: None,
        outcome,
        failure_kind: None,
        errors: errors.iter().map(|&error| error.to_owned()).collect(),
        peak_memory: None,
    };
    TrainingView {
        training: Training {
            job: job_id("almt", "mosei", 1112),
            kind: JobKind::Train,
            method: "almt".to_owned(),
            variant: String::new(),
            dataset: "mosei".to_owned(),
            seed: 1112,
            case_id: None,
            train_job: None,
            state: JobState::Running,
            failures: 1,
            losses: 0,
            progress: 1200,
            last_error: None,
            retried_at: None,
            started: None,
            finished: None,
            spec: None,
        },
        attempts: vec![
            attempt(
                Some(AttemptOutcome::Failed),
                &["training", "no more \x07threads"],
            ),
            attempt(None, &[]),
        ],
        seeds,
        epochs,
    }
}

fn failures() -> Vec<FailureGroup> {
    let group = |cause: &str, kind: &str, given_up| FailureGroup {
        cause: cause.to_owned(),
        errors: vec!["train almt on mosei".to_owned(), cause.to_owned()],
        kind: kind.to_owned(),
        given_up,
        jobs: 1,
        attempts: 1,
        evaluations_not_begun: if given_up { 16 } else { 0 },
        examples: vec!["train almt on mosei, seed 1111".to_owned()],
        example_jobs: vec![job_id("almt", "mosei", 1111)],
        workers: vec!["gpu7-12-0".to_owned()],
    };
    vec![
        group("the loss is not finite at epoch 3", "non_finite", true),
        group("no more threads", "retryable", false),
    ]
}

pub(super) fn picture() -> Picture {
    let sweep = sweep_id("demo");
    let drained = Drained {
        worker: "gpu9-4".to_owned(),
        by: "ann".to_owned(),
        since: now() - TimeDelta::hours(1),
        at_once: false,
    };
    Picture {
        sweeps: sweeps(),
        outlook: Some(Outlook {
            sweep,
            trained: (9, 18),
            evaluated: (87, 288),
            left: Some(Duration::from_secs(5400)),
        }),
        map: Some((sweep, Map::new(cells()))),
        drained: vec![drained],
        since: HashMap::from([("gpu7-12-0".to_owned(), now() - TimeDelta::minutes(20))]),
        training: Some(training()),
        failures: Some((sweep, failures())),
    }
}

/// Everything is known, and the newest sweep is chosen.
pub(super) fn state() -> State {
    let mut state = State::new(None, now());
    update(&mut state, Event::Loaded(Box::new(picture())), now());
    update(&mut state, Event::Workers(beats()), now());
    state
}
