//! What the scripted worker "computes".

use halfheard_shared::wire::{
    CheckpointRef, CriterionResult, EpochLog, JobMessage, ResultBody, TrainSpec, Work,
};
use std::collections::BTreeMap;

/// What a job ends with: a function of the job, and of `twist`.
pub fn outcome(job: &JobMessage, twist: u8) -> Vec<ResultBody> {
    match &job.work {
        Work::Noop => vec![ResultBody::Noop],
        Work::Train(spec) => {
            let epochs = (1..=spec.max_epochs).map(|epoch| {
                ResultBody::Epoch(EpochLog {
                    epoch,
                    losses: BTreeMap::from([(
                        "loss".to_owned(),
                        1.0 / f64::from(epoch) + f64::from(twist),
                    )]),
                    metrics: BTreeMap::from([
                        ("mae".to_owned(), Some(0.1 * f64::from(epoch))),
                        ("corr".to_owned(), None),
                        ("validation_loss".to_owned(), Some(0.2 * f64::from(epoch))),
                    ]),
                    train_seconds: 0.5,
                    eval_seconds: 0.25,
                    best_for: vec!["mae".to_owned()],
                })
            });
            let checkpoints = spec
                .dataset
                .criteria()
                .iter()
                .map(|criterion| CheckpointRef {
                    criterion: criterion.id.to_owned(),
                    epoch: spec.max_epochs,
                    blake3: blake3::hash(&[job.job.as_bytes(), &[twist][..]].concat())
                        .to_hex()
                        .to_string(),
                    bytes: 1000,
                })
                .collect();
            epochs
                .chain([ResultBody::Trained {
                    checkpoints,
                    epochs: spec.max_epochs,
                    seconds: 1.5,
                    peak_memory: 0,
                }])
                .collect()
        }
        Work::Eval {
            spec,
            case,
            checkpoints,
            ..
        } => {
            let byte = |salt: u8| {
                let hash = blake3::hash(&[job.job.as_bytes(), &[salt, twist][..]].concat());
                hash.as_bytes()[0]
            };
            let result = |checkpoint: &CheckpointRef| CriterionResult {
                criterion: checkpoint.criterion.clone(),
                epoch: checkpoint.epoch,
                predictions: 0,
                metrics: metrics(spec, [byte(1), byte(2)]),
            };
            // As many as the test split of the tiny dataset has: others are not registered.
            let predictions = vec![
                (0..40)
                    .map(|n| f32::from(byte(n)) + case.to_string().len() as f32)
                    .collect(),
            ];
            vec![ResultBody::Evaluated {
                results: checkpoints.iter().map(result).collect(),
                predictions,
                seconds: 0.5,
                peak_memory: 0,
            }]
        }
    }
}

/// The metrics of a checkpoint; SIMS has other accuracies than the others.
fn metrics(spec: &TrainSpec, [mae, acc2]: [u8; 2]) -> BTreeMap<String, Option<f64>> {
    let all = [
        ("mae", Some(f64::from(mae) / 255.0)),
        ("acc2_nonzero", Some(f64::from(acc2) / 255.0)),
        ("corr", None),
    ];
    all.into_iter()
        .filter(|(metric, _)| spec.dataset.metric(metric).is_some())
        .map(|(metric, value)| (metric.to_owned(), value))
        .collect()
}
