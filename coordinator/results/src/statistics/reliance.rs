//! What a model relies on: the change of each metric when modalities are zeroed, permuted among the
//! samples or averaged, against the complete test split.
//!
//! Permuting breaks the link to a sample and leaves the distribution of features as it is (Breiman
//! 2001, section 10: permutation importance); zeros and means are inputs that a model may never have
//! seen. A model that does not change under any of them does not use the modality.

use super::{LEVEL, bootstrap::BootstrapSamples, interval, spread};
use halfheard_shared::{
    benchmark::Benchmark,
    case::{Case, Damage, MissingSet, Modality, Rate},
    results::{Model, SeedValue},
};
use serde::{Serialize, Serializer};
use std::collections::{BTreeMap, BTreeSet};

/// The change of one metric of one model under one damage.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// The dataset.
    pub dataset: Benchmark,
    /// The model.
    #[serde(flatten)]
    pub model: Model,
    /// `missing=a`, `permuted=a` or `averaged=a`.
    #[serde(rename = "case", serialize_with = "as_text")]
    pub damage: Damage,
    /// The metric's id.
    pub metric: &'static str,
    /// The mean over seeds on the complete split.
    pub complete: f64,
    /// The mean over the same seeds, and over masks, under the damage.
    pub damaged: f64,
    /// The latter minus the former.
    pub change: f64,
    /// The standard deviation of the change over seeds; `None` with fewer than two.
    pub seed_std: Option<f64>,
    /// Seeds that were evaluated on both.
    pub seeds: usize,
    /// Erasure seeds that the damage was drawn with.
    pub masks: usize,
    /// The interval of the change over test samples and seeds, both resampled in pairs; `None` without
    /// predictions, or where some seeds lack a case.
    pub interval: Option<(f64, f64)>,
}

fn as_text<S: Serializer>(damage: &Damage, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(damage)
}

/// The complete test split.
pub fn complete() -> Case {
    Case::at_rate(Rate::ZERO)
}

/// Whether reliance is read from a case.
pub fn is_about(case: &Case) -> bool {
    matches!(
        case.damage,
        Damage::Missing(_) | Damage::Permuted(_) | Damage::Averaged(_)
    )
}

/// The cases of single modalities that the report needs and a sweep with `cases` does not have.
pub fn not_measured(cases: &BTreeSet<Case>) -> Vec<Case> {
    let of = |modality| {
        let set = MissingSet::of(modality);
        let averaged = (modality != Modality::Text).then_some(Damage::Averaged(set));
        let all = [Damage::Missing(set), Damage::Permuted(set)];
        all.into_iter().chain(averaged)
    };
    let damages: BTreeSet<Damage> = cases.iter().map(|case| case.damage).collect();
    let needed = Modality::ALL.into_iter().flat_map(of).map(Case::from);
    std::iter::once(complete())
        .chain(needed)
        .filter(|case| !damages.contains(&case.damage))
        .collect()
}

/// By seed, the value on each case.
type Seeds = BTreeMap<u64, BTreeMap<Case, Option<f64>>>;

/// All changes: by dataset, model, damage and metric. `samples` are the resampled predictions of the
/// same cases, if there are any.
pub fn changes(values: &[SeedValue], samples: &BootstrapSamples) -> Vec<Change> {
    let mut metrics: BTreeMap<(Benchmark, &Model, &'static str), Seeds> = BTreeMap::new();
    for value in values {
        let seeds = metrics
            .entry((value.dataset, &value.model, value.metric))
            .or_default();
        let cases = seeds.entry(value.seed).or_default();
        cases.insert(value.case, value.value);
    }
    let mut found = Vec::new();
    for ((dataset, model, metric), seeds) in &metrics {
        let cases = seeds.values().flat_map(BTreeMap::keys);
        let mut damages: BTreeMap<Damage, BTreeSet<Case>> = BTreeMap::new();
        for case in cases.filter(|case| is_about(case)) {
            damages.entry(case.damage).or_default().insert(*case);
        }
        for (damage, masks) in damages {
            let change = change((*dataset, model, metric), damage, &masks, seeds, samples);
            found.extend(change);
        }
    }
    found.sort_by(|a, b| {
        let key = |change: &Change| (change.dataset, change.model.clone(), change.damage);
        key(a).cmp(&key(b))
    });
    found
}

fn change(
    (dataset, model, metric): (Benchmark, &Model, &'static str),
    damage: Damage,
    masks: &BTreeSet<Case>,
    seeds: &Seeds,
    samples: &BootstrapSamples,
) -> Option<Change> {
    let mut pairs: Vec<(f64, f64)> = Vec::new();
    for cases in seeds.values() {
        let of = |case| cases.get(case).copied().flatten();
        let damaged: Option<Vec<f64>> = masks.iter().map(of).collect();
        // A seed counts when all of its masks are there: means over other masks are not comparable.
        if let (Some(complete), Some(damaged)) = (of(&complete()), damaged) {
            pairs.push((complete, spread(&damaged)?.0));
        }
    }
    let mean = |of: fn(&(f64, f64)) -> f64| spread(&pairs.iter().map(of).collect::<Vec<f64>>());
    let (change, seed_std) = mean(|pair| pair.1 - pair.0)?;
    let is_paired = pairs.len() == seeds.len();
    Some(Change {
        dataset,
        model: model.clone(),
        damage,
        metric,
        complete: mean(|pair| pair.0)?.0,
        damaged: mean(|pair| pair.1)?.0,
        change,
        seed_std,
        seeds: pairs.len(),
        masks: masks.len(),
        interval: is_paired
            .then(|| resampled((dataset, model, metric), masks, samples))
            .flatten(),
    })
}

/// The interval of the change. All cells share the resamples, so their differences are paired.
fn resampled(
    (dataset, model, metric): (Benchmark, &Model, &str),
    masks: &BTreeSet<Case>,
    samples: &BootstrapSamples,
) -> Option<(f64, f64)> {
    let get = |case| Some(samples.metric(dataset, model, case, metric)?.1);
    let mut differences: Vec<f32> = get(complete())?.iter().map(|value| -value).collect();
    let share = 1.0 / masks.len() as f32;
    for mask in masks {
        for (difference, value) in differences.iter_mut().zip(get(*mask)?) {
            *difference += value * share;
        }
    }
    interval(&differences, LEVEL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::{
        bootstrap::{BootstrapOptions, resample},
        sums,
    };
    use halfheard_shared::{
        ids::JobId,
        metrics,
        results::{Evaluation, Predictions},
    };
    use std::sync::Arc;

    const SAMPLES: usize = 150;

    /// A model that adds what it hears to what it reads, and ignores what it sees: permuting audio
    /// shifts its parts among the samples.
    fn predicted(case: &str, seed: u64, labels: &[f32]) -> Vec<f32> {
        let shift = match case {
            "permuted=a" => 40,
            "permuted=a@7" => 77,
            _ => 0,
        };
        let predict = |i: usize| {
            let audio = match case {
                "missing=a" => 0.0,
                "averaged=a" => 0.1,
                _ => 0.6 * labels[(i + shift) % SAMPLES],
            };
            0.4 * labels[i] + audio + 0.01 * (seed as f32) * ((i * 37 % 11) as f32 - 5.0)
        };
        (0..SAMPLES).map(predict).collect()
    }

    fn evaluated(cases: &[&str], seeds: &[u64]) -> (Vec<SeedValue>, Predictions) {
        let dataset = Benchmark::Mosi;
        let labels: Arc<[f32]> = (0..SAMPLES)
            .map(|i| ((i * 7919) % 601) as f32 / 100.0 - 3.0)
            .collect();
        let (mut values, mut evaluations) = (Vec::new(), Vec::new());
        for case in cases {
            for &seed in seeds {
                let predictions: Arc<[f32]> = predicted(case, seed, &labels).into();
                let measured = metrics::evaluate(dataset, &predictions, &labels).unwrap();
                let case: Case = case.parse().unwrap();
                let of = |metric: &&'static str| SeedValue {
                    dataset,
                    model: Model::new("lnln", ""),
                    seed,
                    case,
                    metric,
                    value: measured.get(*metric).copied().flatten(),
                };
                values.extend(sums::ids(dataset).iter().map(of));
                evaluations.push(Evaluation {
                    job: JobId::derive(&[case.to_string().as_bytes(), &seed.to_le_bytes()]),
                    dataset,
                    model: Model::new("lnln", ""),
                    seed,
                    case,
                    by_criterion: sums::criteria(dataset)
                        .iter()
                        .map(|c| ((*c).to_owned(), Arc::clone(&predictions)))
                        .collect(),
                });
            }
        }
        let predictions = Predictions {
            labels: [(dataset, labels)].into(),
            evaluations,
        };
        (values, predictions)
    }

    fn mae(changes: &[Change], damage: &str) -> Change {
        let mut all = changes.iter();
        let found = all.find(|c| c.metric == "mae" && c.damage.to_string() == damage);
        found.unwrap().clone()
    }

    #[test]
    fn model_that_hears_and_does_not_see_relies_on_audio_alone() {
        let cases = [
            "r=0",
            "missing=a",
            "permuted=a",
            "averaged=a",
            "missing=v",
            "permuted=v",
        ];
        let (values, predictions) = evaluated(&cases, &[1, 2, 3]);
        let samples = resample(&predictions, BootstrapOptions::default(), |_| {});
        let changes = changes(&values, &samples);
        for damage in ["missing=a", "permuted=a", "averaged=a"] {
            let change = mae(&changes, damage);
            let (low, high) = change.interval.unwrap();
            assert!(
                0.3 < low && low < change.change && change.change < high,
                "{change:?}"
            );
            assert!((change.damaged - change.complete - change.change).abs() < 1e-12);
            assert!(
                change.seeds == 3 && change.seed_std.unwrap() < 0.1,
                "{change:?}"
            );
        }
        for damage in ["missing=v", "permuted=v"] {
            let change = mae(&changes, damage);
            assert_eq!((change.change, change.seed_std), (0.0, Some(0.0)));
            assert_eq!(change.interval, Some((0.0, 0.0)));
        }
    }

    #[test]
    fn permutations_of_several_masks_are_averaged() {
        let (values, predictions) = evaluated(&["r=0", "permuted=a", "permuted=a@7"], &[1, 2]);
        let samples = resample(&predictions, BootstrapOptions::default(), |_| {});
        let both = mae(&changes(&values, &samples), "permuted=a");
        let single = |case: &str| {
            let case: Case = case.parse().unwrap();
            let own: Vec<SeedValue> = values
                .iter()
                .filter(|value| value.case == case || value.case == complete())
                .cloned()
                .collect();
            mae(&changes(&own, &samples), "permuted=a").change
        };
        let (first, second) = (single("permuted=a"), single("permuted=a@7"));
        assert_ne!(first, second);
        assert!((both.change - f64::midpoint(first, second)).abs() < 1e-9);
        assert_eq!(both.masks, 2);
        assert!(both.interval.is_some());
    }

    #[test]
    fn seed_without_a_case_is_left_out_and_nothing_is_resampled() {
        let (mut values, predictions) = evaluated(&["r=0", "missing=a"], &[1, 2]);
        let missing: Case = "missing=a".parse().unwrap();
        values.retain(|value| value.case != missing || value.seed != 2);
        let samples = resample(&predictions, BootstrapOptions::default(), |_| {});
        let change = mae(&changes(&values, &samples), "missing=a");
        assert_eq!(
            (change.seeds, change.seed_std, change.interval),
            (1, None, None)
        );
    }

    #[test]
    fn what_is_not_measured_is_named() {
        let cases = [
            "r=0",
            "missing=l",
            "permuted=a@7",
            "averaged=v",
            "missing=la",
        ];
        let cases = cases.iter().map(|case| case.parse().unwrap()).collect();
        let named: Vec<String> = not_measured(&cases).iter().map(Case::to_string).collect();
        assert_eq!(
            named,
            [
                "permuted=l",
                "missing=a",
                "averaged=a",
                "missing=v",
                "permuted=v"
            ]
        );
        let all = not_measured(&BTreeSet::new());
        assert_eq!(all.len(), 9);
        assert_eq!(all[0].to_string(), "r=0");
    }
}
