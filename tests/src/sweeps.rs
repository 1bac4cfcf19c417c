//! Small sweeps.

use halfheard_shared::{
    benchmark::Benchmark,
    case::Case,
    encoder::TokenIds,
    ids::{JobId, SweepId},
    matrix::{PlannedJob, PlannedWork},
    wire::{BlobRef, Fidelity, Protocol, Selection, TrainSpec},
};
use halfheard_store::{submit::NewSweep, terms::Terms};
use std::sync::Arc;

/// A sweep with no jobs yet.
pub fn sweep(name: &str, priority: i32) -> NewSweep {
    NewSweep {
        id: SweepId::derive(&[name.as_bytes()]),
        name: name.to_owned(),
        nonce: None,
        spec: format!("name = \"{name}\""),
        resolved: serde_json::json!({ "name": name }),
        owner: "test".to_owned(),
        terms: Terms::with_priority(priority),
        flop: Default::default(),
    }
}

/// What the training job of `seed` trains.
pub fn train_spec(seed: u64) -> TrainSpec {
    TrainSpec {
        method: "lnln".into(),
        variant: String::new(),
        dataset: Benchmark::Mosi,
        data: BlobRef {
            blake3: "00".repeat(32),
            path: "mosi.safetensors".into(),
        },
        encoder: BlobRef {
            blake3: "11".repeat(32),
            path: "encoder".into(),
        },
        tokens: TokenIds::BERT,
        seed,
        max_epochs: 2,
        hyper: "{}".into(),
        protocol: Protocol {
            selection: Selection::Validation,
            train_missing: halfheard_shared::regime::Regime::Redrawn,
            erasure_seed: 1111,
            selection_rate: 500,
            fidelity: Fidelity::Reference,
            switched: Vec::new(),
        },
        numerics: halfheard_shared::numerics::Numerics::Machine,
    }
}

/// The training job of `seed`.
pub fn train_job(sweep: &NewSweep, seed: u64) -> JobId {
    JobId::derive(&[sweep.id.as_bytes(), b"train", &seed.to_le_bytes()])
}

/// The evaluation job of `seed` on `case`.
pub fn eval_job(sweep: &NewSweep, seed: u64, case: &str) -> JobId {
    JobId::derive(&[
        sweep.id.as_bytes(),
        b"eval",
        &seed.to_le_bytes(),
        case.as_bytes(),
    ])
}

/// One training and its evaluations for each seed.
pub fn matrix<'a>(
    sweep: &'a NewSweep,
    seeds: impl IntoIterator<Item = u64> + 'a,
    cases: &'a [&'a str],
) -> impl Iterator<Item = PlannedJob> + 'a {
    seeds.into_iter().flat_map(move |seed| {
        let spec = Arc::new(train_spec(seed));
        let train = train_job(sweep, seed);
        let evaluations = {
            let spec = Arc::clone(&spec);
            cases.iter().map(move |case| {
                let work = PlannedWork::Eval {
                    train,
                    spec: Arc::clone(&spec),
                    case: parse(case),
                    confusions: None,
                };
                PlannedJob::new(eval_job(sweep, seed, case), work)
            })
        };
        std::iter::once(PlannedJob::new(train, PlannedWork::Train(spec))).chain(evaluations)
    })
}

/// One training of `spec` and its evaluations.
pub fn matrix_of(sweep: &NewSweep, spec: TrainSpec, cases: &[&str]) -> Vec<PlannedJob> {
    let seed = spec.seed;
    let spec = Arc::new(spec);
    matrix(sweep, [seed], cases)
        .map(|mut job| {
            match &mut job.work {
                PlannedWork::Train(theirs) | PlannedWork::Eval { spec: theirs, .. } => {
                    *theirs = Arc::clone(&spec);
                }
                PlannedWork::Noop => {}
            }
            job
        })
        .collect()
}

#[expect(clippy::expect_used, reason = "cases are written out in the tests")]
fn parse(case: &str) -> Case {
    case.parse().expect("a case")
}

/// `count` no-op jobs.
pub fn noops(sweep: &NewSweep, count: u64) -> impl Iterator<Item = PlannedJob> + '_ {
    (0..count).map(|number| {
        let id = JobId::derive(&[sweep.id.as_bytes(), b"noop", &number.to_le_bytes()]);
        PlannedJob::new(id, PlannedWork::Noop)
    })
}
