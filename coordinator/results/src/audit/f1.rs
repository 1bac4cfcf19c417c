//! F1 that no prediction can have at that accuracy.
//!
//! With two classes of known size, a prediction is two numbers: the hits in each class. Trying all of
//! them gives the smallest and the largest weighted F1 at every accuracy. A printed pair is a mean of
//! such points over seeds and cases, so it is in their convex hull. With labels and predictions
//! swapped, F1 is weighted by the predicted classes and has a hull of its own.

use super::{
    Cell, Finding, Place, Rule, Severity,
    cell::show,
    classes::{Split, Splits, paired},
};
use halfheard_shared::benchmark::Benchmark;
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

/// The possible weighted F1 of predictions on a split.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Attainable {
    /// The F1 itself.
    pub(super) right: Hull,
    /// The F1 with labels and predictions swapped.
    pub(super) swapped: Hull,
}

/// The convex hull of all pairs of accuracy and F1, as corners by rising accuracy.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Hull {
    min: Vec<(f64, f64)>,
    max: Vec<(f64, f64)>,
}

impl Attainable {
    /// Tries all predictions of `split`; cached per split.
    pub(super) fn of(split: Split) -> Arc<Self> {
        static KNOWN: LazyLock<Mutex<HashMap<Split, Arc<Attainable>>>> =
            LazyLock::new(Mutex::default);
        // The cache is valid even if a thread panicked.
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(
            known
                .entry(split)
                .or_insert_with(|| Arc::new(Self::compute(split))),
        )
    }

    fn compute([negative, positive]: Split) -> Self {
        let samples = (negative + positive) as usize;
        // By number of hits: the smallest and the largest.
        let mut right = vec![(f64::INFINITY, f64::NEG_INFINITY); samples + 1];
        let mut swapped = right.clone();
        let (n0, n1, n) = (negative as f64, positive as f64, samples as f64);
        for hits0 in 0..=negative {
            for hits1 in 0..=positive {
                let predicted0 = (hits0 + positive - hits1) as f64;
                let predicted1 = n - predicted0;
                let f0 = 2.0 * hits0 as f64 / (n0 + predicted0);
                let f1 = 2.0 * hits1 as f64 / (n1 + predicted1);
                let hits = (hits0 + hits1) as usize;
                widen(&mut right[hits], (n0 * f0 + n1 * f1) / n);
                widen(&mut swapped[hits], (predicted0 * f0 + predicted1 * f1) / n);
            }
        }
        Self {
            right: Hull::around(&right),
            swapped: Hull::around(&swapped),
        }
    }
}

fn widen((min, max): &mut (f64, f64), value: f64) {
    *min = min.min(value);
    *max = max.max(value);
}

impl Hull {
    fn around(by_hits: &[(f64, f64)]) -> Self {
        let samples = (by_hits.len() - 1) as f64;
        let accuracy = |hits: usize| hits as f64 / samples;
        let points = by_hits.iter().enumerate();
        let upper = outline(points.clone().map(|(hits, p)| (accuracy(hits), p.1)));
        let lower = outline(points.map(|(hits, p)| (accuracy(hits), -p.0)));
        Self {
            min: lower.into_iter().map(|(x, y)| (x, -y)).collect(),
            max: upper,
        }
    }

    /// The smallest and the largest F1 at accuracies from `low` to `high`.
    pub(super) fn between(&self, low: f64, high: f64) -> (f64, f64) {
        // Bends in between do not matter: the range of a printed accuracy is far smaller.
        let (low, high) = (low.clamp(0.0, 1.0), high.clamp(0.0, 1.0));
        (
            at(&self.min, low).min(at(&self.min, high)),
            at(&self.max, low).max(at(&self.max, high)),
        )
    }

    /// Whether `accuracy` and `f1` may be rounded means of attainable pairs.
    pub(super) fn holds(&self, accuracy: &Cell, f1: &Cell) -> bool {
        let (min, max) = self.at_cell(accuracy);
        f1.value + f1.half >= min - 1e-9 && f1.value - f1.half <= max + 1e-9
    }

    fn at_cell(&self, accuracy: &Cell) -> (f64, f64) {
        self.between(
            accuracy.value - accuracy.half,
            accuracy.value + accuracy.half,
        )
    }
}

/// The corners of the upper hull, from left to right.
fn outline(points: impl Iterator<Item = (f64, f64)>) -> Vec<(f64, f64)> {
    let mut corners: Vec<(f64, f64)> = Vec::new();
    for point in points {
        while let [.., a, b] = corners.as_slice() {
            let turn = (b.0 - a.0) * (point.1 - a.1) - (b.1 - a.1) * (point.0 - a.0);
            if turn < 0.0 {
                break;
            }
            corners.pop();
        }
        corners.push(point);
    }
    corners
}

/// The outline's height at `x`.
fn at(corners: &[(f64, f64)], x: f64) -> f64 {
    let right = corners.partition_point(|corner| corner.0 < x);
    match (
        right.checked_sub(1).and_then(|i| corners.get(i)),
        corners.get(right),
    ) {
        (Some(a), Some(b)) => a.1 + (b.1 - a.1) * (x - a.0) / (b.0 - a.0),
        (Some(only), None) | (None, Some(only)) => only.1,
        (None, None) => f64::NAN,
    }
}

/// An unattainable pair.
struct Impossible {
    place: Place,
    line: String,
    /// The distance of the F1 from the hull.
    outside: f64,
    swapped: bool,
}

/// Finds impossible F1: one finding per dataset and method, over all tables, with the farthest from the
/// hull first.
pub(super) fn check(cells: &[Cell], splits: &Splits) -> Vec<Finding> {
    let mut found: BTreeMap<(Benchmark, String), Vec<Impossible>> = BTreeMap::new();
    for (pair, accuracy, f1) in paired(cells) {
        let place = &f1.place;
        let Some(split) = splits.of(place.dataset, pair.accuracy) else {
            continue;
        };
        let attainable = Attainable::of(split);
        if attainable.right.holds(accuracy, f1) {
            continue;
        }
        let (min, max) = attainable.right.at_cell(accuracy);
        let table = match place.table {
            Some(table) => format!("Table {table}, "),
            None => String::new(),
        };
        let impossible = Impossible {
            place: place.clone(),
            line: format!(
                "{table}{} {} {}: accuracy {}, F1 {}; possible {} to {}",
                place.label(),
                place.metric,
                place.case_text(),
                accuracy.text(),
                f1.text(),
                show(place, min),
                show(place, max),
            ),
            outside: (min - f1.value).max(f1.value - max),
            swapped: attainable.swapped.holds(accuracy, f1),
        };
        let key = (place.dataset, place.model.method.clone());
        found.entry(key).or_default().push(impossible);
    }
    found
        .into_values()
        .map(|mut found| {
            let what = if found.iter().all(|impossible| impossible.swapped) {
                "no prediction has this F1 at that accuracy; some have it with labels and predictions \
                 swapped"
            } else {
                "no prediction has this F1 at that accuracy"
            };
            let places = found.iter().map(|i| i.place.clone()).collect();
            found.sort_by(|a, b| b.outside.total_cmp(&a.outside));
            let numbers = found.into_iter().map(|i| i.line).collect();
            Finding::new(Rule::ImpossibleF1, Severity::Error, what, places, numbers)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{super::cell::tests::cell, *};
    use halfheard_shared::metrics::evaluate;

    const SIMS: Split = [317, 140];

    fn pair(accuracy: f64, f1: f64) -> [Cell; 2] {
        [
            cell(10, "lnln", "acc2", "r=0.5", accuracy),
            cell(10, "lnln", "f1", "r=0.5", f1),
        ]
    }

    /// Checks against the metrics themselves, for predictions of all shapes.
    #[test]
    fn metrics_of_predictions_are_attainable() {
        let labels: Vec<f32> = (0..457).map(|i| if i < 317 { -0.5 } else { 0.5 }).collect();
        let attainable = Attainable::of(SIMS);
        for (wrong0, wrong1) in [(0, 0), (0, 140), (317, 0), (317, 140), (100, 20), (5, 130)] {
            let predictions: Vec<f32> = (0..457)
                .map(|i| {
                    let negative = if i < 317 {
                        i >= wrong0
                    } else {
                        i - 317 < wrong1
                    };
                    if negative { -0.4 } else { 0.4 }
                })
                .collect();
            let metrics = evaluate(Benchmark::Sims, &predictions, &labels).unwrap();
            let value = |id: &str| metrics[id].unwrap();
            let [accuracy, f1] = pair(value("acc2"), value("f1"));
            assert!(attainable.right.holds(&accuracy, &f1), "{wrong0} {wrong1}");
            let [accuracy, f1] = pair(value("acc2"), value("f1_swapped"));
            assert!(
                attainable.swapped.holds(&accuracy, &f1),
                "{wrong0} {wrong1}"
            );
        }
    }

    #[test]
    fn swapped_f1_is_recognized() {
        let splits = Splits::published();
        let found = check(&pair(0.6937, 0.8191), &splits);
        assert_eq!(found.len(), 1);
        assert!(found[0].what.contains("swapped"), "{}", found[0].what);
        assert!(found[0].numbers[0].contains("56.82 to"), "{:?}", found[0]);
        assert_eq!(check(&pair(0.6937, 0.5682), &splits), []);
        assert_eq!(check(&pair(0.75, 0.74), &splits), []);
        let found = check(&pair(0.75, 0.30), &splits);
        assert!(!found[0].what.contains("swapped"));
    }

    #[test]
    fn means_of_attainable_pairs_are_attainable() {
        let hull = &Attainable::of(SIMS).right;
        let ends = [(317.0 / 457.0, 0.568_170), (1.0, 1.0)];
        for share in [0.1, 0.5, 0.9] {
            let mean =
                |i: fn(&(f64, f64)) -> f64| share * i(&ends[0]) + (1.0 - share) * i(&ends[1]);
            let [accuracy, f1] = pair(mean(|e| e.0), mean(|e| e.1));
            assert!(hull.holds(&accuracy, &f1), "{share}");
        }
    }
}
