//! F1 that no prediction can have at that accuracy.
//!
//! With two classes of known size, a prediction is two numbers: how many of each class it gets right.
//! All of them are tried, which gives the least and the largest weighted F1 at every accuracy. A
//! printed pair is a mean over seeds, and over cases, of such points, so it lies in their convex
//! hull. With truth and prediction swapped, F1 is weighted by what is predicted instead of what is
//! true, and has a hull of its own.

use super::{
    Cell, Finding, Place, Rule, Severity,
    cell::show,
    classes::{Split, Splits, beside},
};
use halfheard_shared::benchmark::Benchmark;
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

/// What weighted F1 means of predictions of a split can be.
#[derive(Clone, Debug, PartialEq)]
pub struct Attainable {
    /// The F1 itself.
    pub right: Hull,
    /// The F1 with truth and prediction swapped.
    pub swapped: Hull,
}

/// The outline of all pairs of accuracy and F1, as corners from the least accuracy to the largest.
#[derive(Clone, Debug, PartialEq)]
pub struct Hull {
    least: Vec<(f64, f64)>,
    most: Vec<(f64, f64)>,
}

impl Attainable {
    /// Tries all predictions of `split`. Splits that were tried before are remembered.
    pub fn of(split: Split) -> Arc<Self> {
        static KNOWN: LazyLock<Mutex<HashMap<Split, Arc<Attainable>>>> =
            LazyLock::new(Mutex::default);
        // Nothing panics while it is held, and what it holds is always whole.
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(
            known
                .entry(split)
                .or_insert_with(|| Arc::new(Self::compute(split))),
        )
    }

    fn compute([negative, positive]: Split) -> Self {
        let samples = (negative + positive) as usize;
        // By number of right answers: the least and the largest.
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

fn widen((least, most): &mut (f64, f64), value: f64) {
    *least = least.min(value);
    *most = most.max(value);
}

impl Hull {
    fn around(by_hits: &[(f64, f64)]) -> Self {
        let samples = (by_hits.len() - 1) as f64;
        let accuracy = |hits: usize| hits as f64 / samples;
        let points = by_hits.iter().enumerate();
        let upper = outline(points.clone().map(|(hits, p)| (accuracy(hits), p.1)));
        let lower = outline(points.map(|(hits, p)| (accuracy(hits), -p.0)));
        Self {
            least: lower.into_iter().map(|(x, y)| (x, -y)).collect(),
            most: upper,
        }
    }

    /// The least and the largest F1 at accuracies from `low` to `high`.
    pub fn between(&self, low: f64, high: f64) -> (f64, f64) {
        // Both outlines may bend in between; a printed accuracy is known to far less than a bend.
        let (low, high) = (low.clamp(0.0, 1.0), high.clamp(0.0, 1.0));
        (
            at(&self.least, low).min(at(&self.least, high)),
            at(&self.most, low).max(at(&self.most, high)),
        )
    }

    /// Whether `accuracy` and `f1` may be means of attainable ones, rounding allowed for.
    pub fn holds(&self, accuracy: &Cell, f1: &Cell) -> bool {
        let (least, most) = self.at_cell(accuracy);
        f1.value + f1.half >= least - 1e-9 && f1.value - f1.half <= most + 1e-9
    }

    fn at_cell(&self, accuracy: &Cell) -> (f64, f64) {
        self.between(
            accuracy.value - accuracy.half,
            accuracy.value + accuracy.half,
        )
    }
}

/// The corners that are not below any line between others, from left to right.
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

/// A pair that is not attainable.
struct Impossible {
    place: Place,
    line: String,
    /// How far the F1 is outside.
    outside: f64,
    swapped: bool,
}

/// Finds impossible F1: one finding for each dataset and method, over all tables. Those that are
/// farthest from what is possible come first.
pub fn check(cells: &[Cell], splits: &Splits) -> Vec<Finding> {
    let mut found: BTreeMap<(Benchmark, String), Vec<Impossible>> = BTreeMap::new();
    for (pair, accuracy, f1) in beside(cells) {
        let place = &f1.place;
        let Some(split) = splits.of(place.dataset, pair.accuracy) else {
            continue;
        };
        let attainable = Attainable::of(split);
        if attainable.right.holds(accuracy, f1) {
            continue;
        }
        let (least, most) = attainable.right.at_cell(accuracy);
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
                place.case,
                accuracy.text(),
                f1.text(),
                show(place, least),
                show(place, most),
            ),
            outside: (least - f1.value).max(f1.value - most),
            swapped: attainable.swapped.holds(accuracy, f1),
        };
        let key = (place.dataset, place.method.clone());
        found.entry(key).or_default().push(impossible);
    }
    found
        .into_values()
        .map(|mut found| {
            let what = if found.iter().all(|impossible| impossible.swapped) {
                "no prediction has this F1 at that accuracy; with truth and prediction swapped some \
                 have it"
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

    /// Against the metrics themselves, for answers of all shapes.
    #[test]
    fn what_predictions_have_is_attainable() {
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
    fn a_swapped_f1_shows_itself() {
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
    fn means_of_possible_pairs_are_possible() {
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
