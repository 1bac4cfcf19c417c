//! Stored predictions: whether they have the stored metrics, differ between seeds, and vary.

use crate::audit::{Finding, Place, Rule, Severity};
use halfheard_shared::{
    benchmark::Benchmark,
    case::{Case, Rate},
    ids::JobId,
    metrics,
    results::{Evaluation, Predictions, StoredValues},
};
use std::{
    collections::{BTreeMap, HashMap},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
};

/// The most that stored and recomputed metrics may differ: sums in another order.
const SAME: f64 = 1e-9;
/// The share of one class from which predictions are collapsed ...
const LAZY: f64 = 0.95;
/// ... unless that share of the labels is of one class.
const LOPSIDED: f64 = 0.85;
/// The standard deviation, relative to the label range, below which predictions are constant.
const CONSTANT: f64 = 1e-3;

pub(super) fn check(
    predictions: &Predictions,
    stored: &HashMap<JobId, StoredValues>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for evaluations in models(predictions) {
        let dataset = evaluations[0].dataset;
        let Some(labels) = predictions.labels.get(&dataset) else {
            continue;
        };
        findings.extend(wrong(&evaluations, labels, stored));
        findings.extend(same_seeds(&evaluations));
        findings.extend(collapsed(&evaluations, labels));
    }
    findings
}

fn models(predictions: &Predictions) -> Vec<Vec<&Evaluation>> {
    let mut models: BTreeMap<_, Vec<&Evaluation>> = BTreeMap::new();
    for evaluation in &predictions.evaluations {
        let key = (evaluation.dataset, &evaluation.model);
        models.entry(key).or_default().push(evaluation);
    }
    models.into_values().collect()
}

fn place(evaluation: &Evaluation, metric: &str) -> Place {
    Place {
        seed: Some(evaluation.seed),
        case: Some(evaluation.case.into()),
        metric: metric.to_owned(),
        ..Place::of_model(evaluation.dataset, &evaluation.model)
    }
}

/// Finds stored metrics that do not match the stored predictions.
fn wrong(
    evaluations: &[&Evaluation],
    labels: &[f32],
    stored: &HashMap<JobId, StoredValues>,
) -> Option<Finding> {
    let (mut places, mut numbers) = (Vec::new(), Vec::new());
    for evaluation in evaluations {
        let Some(stored) = stored.get(&evaluation.job) else {
            continue;
        };
        for (criterion, values) in &evaluation.by_criterion {
            // The store returns finite numbers of the right count only.
            let Ok(measured) = metrics::evaluate(evaluation.dataset, values, labels) else {
                continue;
            };
            for (metric, measured) in measured {
                let key = (criterion.clone(), metric.clone());
                let Some(stored) = stored.get(&key) else {
                    continue;
                };
                let agree = match (stored, measured) {
                    (Some(stored), Some(measured)) => (stored - measured).abs() <= SAME,
                    (None, None) => true,
                    _ => false,
                };
                if !agree {
                    let text =
                        |value: Option<f64>| value.map_or("none".to_owned(), |v| v.to_string());
                    places.push(place(evaluation, &metric));
                    numbers.push(format!(
                        "seed {} {}: {metric} by {criterion} is stored as {}; the predictions have {}",
                        evaluation.seed,
                        evaluation.case,
                        text(*stored),
                        text(measured)
                    ));
                }
            }
        }
    }
    (!places.is_empty()).then(|| {
        Finding::new(
            Rule::WrongResult,
            Severity::Error,
            "stored metrics are not those of the stored predictions",
            places,
            numbers,
        )
    })
}

fn bits(values: &[f32]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for value in values {
        value.to_bits().hash(&mut hasher);
    }
    hasher.finish()
}

/// Finds seeds with equal predictions on the same case by the same criterion.
fn same_seeds(evaluations: &[&Evaluation]) -> Option<Finding> {
    let mut equal: BTreeMap<(Case, &str, u64), Vec<&Evaluation>> = BTreeMap::new();
    for evaluation in evaluations {
        for (criterion, values) in &evaluation.by_criterion {
            let key = (evaluation.case, criterion.as_str(), bits(values));
            equal.entry(key).or_default().push(evaluation);
        }
    }
    let mut cases: BTreeMap<(Case, Vec<u64>), Vec<&str>> = BTreeMap::new();
    let mut places = Vec::new();
    for ((case, criterion, _), same) in equal {
        if same.len() < 2 {
            continue;
        }
        places.extend(same.iter().map(|evaluation| place(evaluation, "")));
        let seeds = same.iter().map(|evaluation| evaluation.seed).collect();
        cases.entry((case, seeds)).or_default().push(criterion);
    }
    places.sort();
    places.dedup();
    let numbers = cases.into_iter().map(|((case, seeds), criteria)| {
        let seeds: Vec<String> = seeds.iter().map(u64::to_string).collect();
        format!(
            "{case}: seeds {} (checkpoints by {})",
            seeds.join(" and "),
            criteria.join(", ")
        )
    });
    (!places.is_empty()).then(|| {
        Finding::new(
            Rule::SameSeeds,
            Severity::Error,
            "seeds have bitwise equal predictions",
            places.clone(),
            numbers.collect(),
        )
    })
}

/// Finds predictions that are constant or nearly all of one class: a warning if nothing is missing, else
/// a note.
fn collapsed(evaluations: &[&Evaluation], labels: &[f32]) -> Vec<Finding> {
    let mut found: BTreeMap<Severity, (Vec<Place>, Vec<String>)> = BTreeMap::new();
    for evaluation in evaluations {
        let mut kinds: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        let mut seen: Vec<(&Arc<[f32]>, Option<String>)> = Vec::new();
        for (criterion, values) in &evaluation.by_criterion {
            let known = seen.iter().find(|(other, _)| Arc::ptr_eq(other, values));
            let lazy = match known {
                Some((_, lazy)) => lazy.clone(),
                None => {
                    let lazy = laziness(evaluation.dataset, values, labels);
                    seen.push((values, lazy.clone()));
                    lazy
                }
            };
            if let Some(lazy) = lazy {
                kinds.entry(lazy).or_default().push(criterion);
            }
        }
        if kinds.is_empty() {
            continue;
        }
        let complete = Case::at_rate(Rate::ZERO);
        let severity = if evaluation.case == complete {
            Severity::Warning
        } else {
            Severity::Note
        };
        let entry = found.entry(severity).or_default();
        entry.0.push(place(evaluation, ""));
        entry.1.extend(kinds.into_iter().map(|(lazy, criteria)| {
            format!(
                "seed {} {}: {lazy} (checkpoints by {})",
                evaluation.seed,
                evaluation.case,
                criteria.join(", ")
            )
        }));
    }
    found
        .into_iter()
        .map(|(severity, (places, numbers))| {
            Finding::new(
                Rule::Collapsed,
                severity,
                "predictions are constant or nearly all of one class",
                places,
                numbers,
            )
        })
        .collect()
}

/// The models whose every evaluation is collapsed by every criterion, with the seeds unless all of them
/// are.
pub(super) fn collapsed_models(predictions: &Predictions) -> Vec<String> {
    let mut names = Vec::new();
    for evaluations in models(predictions) {
        let first = evaluations[0];
        let Some(labels) = predictions.labels.get(&first.dataset) else {
            continue;
        };
        let mut seeds: BTreeMap<u64, bool> = BTreeMap::new();
        for evaluation in &evaluations {
            let lazy = evaluation
                .by_criterion
                .iter()
                .all(|(_, values)| laziness(evaluation.dataset, values, labels).is_some());
            *seeds.entry(evaluation.seed).or_insert(true) &= lazy;
        }
        let lazy: Vec<String> = seeds
            .iter()
            .filter(|(_, lazy)| **lazy)
            .map(|(seed, _)| seed.to_string())
            .collect();
        if lazy.is_empty() {
            continue;
        }
        let mut name = format!("{} on {}", first.model, first.dataset);
        if lazy.len() < seeds.len() {
            let plural = if lazy.len() == 1 { "" } else { "s" };
            name.push_str(&format!(" (seed{plural} {})", lazy.join(", ")));
        }
        names.push(name);
    }
    names
}

/// How predictions hardly vary, if they do.
fn laziness(dataset: Benchmark, values: &[f32], labels: &[f32]) -> Option<String> {
    let count = values.len() as f64;
    let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / count;
    let variance = values
        .iter()
        .map(|&v| (f64::from(v) - mean).powi(2))
        .sum::<f64>()
        / count;
    let range = dataset.label_span();
    if variance.sqrt() < CONSTANT * range {
        return Some(format!(
            "all near {mean:.3}, standard deviation {:.1e}",
            variance.sqrt()
        ));
    }
    let kind = dataset.kind();
    let neutral = kind.neutral();
    let fine = |value: f32| kind.class_of(value);
    let two = |value: f32| usize::from(value > neutral);
    let share = |class: &dyn Fn(f32) -> usize, name: &str| {
        let (class_of, predicted) = most_frequent(values, class)?;
        let (_, labeled) = most_frequent(labels, class)?;
        (predicted > LAZY && labeled < LOPSIDED).then(|| {
            let what = match (name, class_of) {
                ("two", 0) => format!("not above {neutral}"),
                ("two", _) => format!("above {neutral}"),
                (_, class) => format!("of class {}", kind.classes()[class]),
            };
            format!("{:.1} % {what}", predicted * 100.0)
        })
    };
    share(&fine, "fine").or_else(|| share(&two, "two"))
}

/// The most frequent class with its share.
fn most_frequent(values: &[f32], class: &dyn Fn(f32) -> usize) -> Option<(usize, f64)> {
    let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
    for &value in values {
        *counts.entry(class(value)).or_default() += 1;
    }
    let (class, count) = counts.into_iter().max_by_key(|(_, count)| *count)?;
    Some((class, count as f64 / values.len() as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constant_and_one_class_predictions_are_lazy() {
        let labels: Vec<f32> = (0..100).map(|i| (i as f32 - 50.0) / 20.0).collect();
        let lazy = |values: Vec<f32>| laziness(Benchmark::Mosi, &values, &labels);
        assert_eq!(lazy(labels.clone()), None);
        let text = lazy(vec![0.7; 100]).unwrap();
        assert!(text.starts_with("all near 0.700"), "{text}");
        let text = lazy((0..100).map(|i| 0.6 + i as f32 / 200.0).collect());
        assert_eq!(text.as_deref(), Some("100.0 % of class 1"));
        let text = lazy((0..100).map(|i| 0.1 + i as f32 / 40.0).collect());
        assert_eq!(text.as_deref(), Some("100.0 % above 0"));
        // Predictions may be as imbalanced as the labels.
        let positive = vec![1.0; 100];
        let values: Vec<f32> = (0..100).map(|i| 0.6 + i as f32 / 200.0).collect();
        assert_eq!(laziness(Benchmark::Mosi, &values, &positive), None);
    }
}
