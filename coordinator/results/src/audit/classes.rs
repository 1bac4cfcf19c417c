//! Two-class metrics against the classes of the test split: predictions that are all of one class, and
//! accuracies that such predictions would have, too.

use super::{
    Cell, Finding, Place, Rule, Severity,
    cell::{by, show},
};
use halfheard_shared::benchmark::Benchmark;
use std::collections::{BTreeMap, HashMap};

/// A two-class accuracy and the F1 of the same predictions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pair {
    /// The accuracy's id.
    pub(super) accuracy: &'static str,
    /// The F1's id.
    pub(super) f1: &'static str,
}

/// The pairs of a dataset.
pub(super) fn pairs(dataset: Benchmark) -> impl DoubleEndedIterator<Item = Pair> {
    let binaries = dataset.rules().binaries.iter();
    binaries.map(|binary| Pair {
        accuracy: binary.accuracy,
        f1: binary.f1,
    })
}

/// The number of test samples in each of two classes, negative first.
pub type Split = [u64; 2];

/// The splits of datasets, by two-class accuracy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Splits(BTreeMap<(Benchmark, &'static str), Split>);

impl Splits {
    /// The published test splits. MOSI: 379 negative, 30 neutral, 277 positive utterances; MOSEI: 1350,
    /// 1025, 2284; SIMS: 317 not above 0, 140 above. Counted on the labels of MOSI; for the other two
    /// they follow from the size of the split and the printed accuracies of predictions that are all of
    /// one class: 62.85, 71.02 and 69.37.
    pub fn published() -> Self {
        Self(BTreeMap::from([
            ((Benchmark::Mosi, "acc2_nonzero"), [379, 277]),
            ((Benchmark::Mosi, "acc2_nonneg"), [379, 307]),
            ((Benchmark::Mosei, "acc2_nonzero"), [1350, 2284]),
            ((Benchmark::Mosei, "acc2_nonneg"), [1350, 3309]),
            ((Benchmark::Sims, "acc2"), [317, 140]),
        ]))
    }

    /// Counts the classes of test labels.
    pub fn count(&mut self, dataset: Benchmark, labels: &[f32]) {
        let rules = dataset.rules();
        for binary in &rules.binaries {
            let mut split = [0, 0];
            let labels = labels.iter().map(|&label| rules.clip(label));
            for label in labels.filter(|label| binary.counts(*label)) {
                split[usize::from(binary.positive(label))] += 1;
            }
            self.0.insert((dataset, binary.accuracy), split);
        }
    }

    /// The split of a two-class accuracy, if it is known and has both classes.
    pub fn of(&self, dataset: Benchmark, accuracy: &str) -> Option<Split> {
        let mut known = self.0.iter();
        let (_, &split) = known.find(|((d, a), _)| *d == dataset && *a == accuracy)?;
        split.iter().all(|&count| count > 0).then_some(split)
    }

    /// The share of the most frequent class.
    fn majority(&self, dataset: Benchmark, accuracy: &str) -> Option<f64> {
        let [negative, positive] = self.of(dataset, accuracy)?;
        Some(negative.max(positive) as f64 / (negative + positive) as f64)
    }
}

/// Every accuracy with the F1 of the same predictions.
pub(super) fn paired(cells: &[Cell]) -> Vec<(Pair, &Cell, &Cell)> {
    let without_metric = |place: &Place| Place {
        metric: String::new(),
        ..place.clone()
    };
    let f1s: HashMap<(Place, &str), &Cell> = cells
        .iter()
        .filter(|cell| cell.place.metric.starts_with("f1"))
        .map(|cell| {
            let key = (without_metric(&cell.place), cell.place.metric.as_str());
            (key, cell)
        })
        .collect();
    let mut found = Vec::new();
    for accuracy in cells {
        let mut pairs = pairs(accuracy.place.dataset);
        let Some(pair) = pairs.find(|pair| pair.accuracy == accuracy.place.metric) else {
            continue;
        };
        if let Some(f1) = f1s.get(&(without_metric(&accuracy.place), pair.f1)) {
            found.push((pair, accuracy, *f1));
        }
    }
    found
}

/// Finds pairs of accuracy and F1 of predictions that are all of one class. One note per table and
/// dataset: without language, many models collapse to this.
pub(super) fn one_class(cells: &[Cell], splits: &Splits) -> Vec<Finding> {
    type Found<'a> = Vec<(&'a Cell, &'a Cell)>;
    let mut found: BTreeMap<(Option<u8>, Benchmark), Found<'_>> = BTreeMap::new();
    for (pair, accuracy, f1) in paired(cells) {
        let place = &accuracy.place;
        let Some(split) = splits.of(place.dataset, pair.accuracy) else {
            continue;
        };
        let samples = (split[0] + split[1]) as f64;
        let is_one_class = split.iter().any(|&count| {
            let share = count as f64 / samples;
            let right = 2.0 * share / (1.0 + share);
            let near = |cell: &Cell, value: f64| (cell.value - value).abs() <= cell.half + 1e-9;
            near(accuracy, share) && (near(f1, share * right) || near(f1, right))
        });
        if is_one_class && !place.is_mean() {
            let key = (place.table, place.dataset);
            found.entry(key).or_default().push((accuracy, f1));
        }
    }
    found
        .into_values()
        .map(|pairs| {
            let models: BTreeMap<String, Vec<&(&Cell, &Cell)>> =
                pairs.iter().fold(BTreeMap::new(), |mut models, pair| {
                    let models_of: &mut Vec<_> = models.entry(pair.0.place.label()).or_default();
                    models_of.push(pair);
                    models
                });
            let numbers = models
                .into_iter()
                .map(|(model, pairs)| {
                    let mut cases: Vec<String> = pairs
                        .iter()
                        .map(|(accuracy, _)| accuracy.place.case_text())
                        .collect();
                    cases.dedup();
                    let mut texts: Vec<String> = pairs
                        .iter()
                        .map(|(accuracy, f1)| format!("{} / {}", accuracy.text(), f1.text()))
                        .collect();
                    texts.sort();
                    texts.dedup();
                    cases.sort_unstable();
                    cases.dedup();
                    format!("{model}: {} ({})", cases.join(" "), texts.join(", "))
                })
                .collect();
            Finding::new(
                Rule::OneClass,
                Severity::Note,
                "accuracy and F1 are those of predictions that are all of one class",
                pairs
                    .iter()
                    .flat_map(|(accuracy, f1)| [accuracy.place.clone(), f1.place.clone()])
                    .collect(),
                numbers,
            )
        })
        .collect()
}

/// Finds two-class accuracies that are not better than the share of the most frequent class. With
/// complete inputs that is a warning; with damaged ones, a note if worse by more than chance (three
/// standard errors).
pub(super) fn majority(cells: &[Cell], splits: &Splits) -> Vec<Finding> {
    let of_complete = |cell: &&Cell| cell.place.rate() == Some(0.0);
    let share = |cell: &Cell| splits.majority(cell.place.dataset, &cell.place.metric);
    let accuracies = || cells.iter().filter(|cell| share(cell).is_some());
    let complete = by(accuracies().filter(of_complete), |p| {
        (p.table, p.dataset, p.model.clone(), p.seed)
    });
    let mut findings: Vec<Finding> = complete
        .into_values()
        .filter_map(|cells| {
            below(&cells, share, 0.0).map(|(places, numbers)| {
                Finding::new(
                    Rule::Majority,
                    Severity::Warning,
                    "with nothing missing, not better than always predicting the most frequent class",
                    places,
                    numbers,
                )
            })
        })
        .collect();
    let damaged = by(
        accuracies().filter(|cell| !of_complete(cell) && !cell.place.is_mean()),
        |p| (p.table, p.dataset),
    );
    findings.extend(damaged.into_values().filter_map(|cells| {
        let margin = 3.0 * 0.5 / (cells.first()?.samples as f64).sqrt();
        below(&cells, share, margin).map(|(places, numbers)| {
            Finding::new(
                Rule::Majority,
                Severity::Note,
                "worse than always predicting the most frequent class, by more than chance",
                places,
                numbers,
            )
        })
    }));
    findings
}

fn below(
    cells: &[&Cell],
    share: impl Fn(&Cell) -> Option<f64>,
    margin: f64,
) -> Option<(Vec<Place>, Vec<String>)> {
    let (mut places, mut numbers) = (Vec::new(), Vec::new());
    for cell in cells {
        let share = share(cell)?;
        if cell.value + cell.half <= share - margin {
            places.push(cell.place.clone());
            numbers.push(format!(
                "{} {} {}: {}, the class has {}",
                cell.place.label(),
                cell.place.metric,
                cell.place.case_text(),
                cell.text(),
                show(&cell.place, share)
            ));
        }
    }
    (!places.is_empty()).then_some((places, numbers))
}

#[cfg(test)]
mod tests {
    use super::{super::cell::tests::cell, *};

    #[test]
    fn splits_match_published_sizes_and_one_class_accuracies() {
        let splits = Splits::published();
        for dataset in Benchmark::ALL {
            let [.., test] = dataset.split_sizes().unwrap();
            let all = pairs(dataset).next_back().unwrap();
            let split = splits.of(dataset, all.accuracy).unwrap();
            assert_eq!(split[0] + split[1], test as u64, "{dataset}");
            for pair in pairs(dataset) {
                let [negative, positive] = splits.of(dataset, pair.accuracy).unwrap();
                let share = negative.max(positive) as f64 / (negative + positive) as f64;
                let accuracy = format!("{:.2}", share * 100.0);
                let f1 = format!("{:.2}", share * 2.0 * share / (1.0 + share) * 100.0);
                let numbers = halfheard_shared::published::numbers();
                let printed = numbers.iter().any(|n| {
                    n.dataset == dataset
                        && n.metric == pair.accuracy
                        && n.printed == accuracy
                        && numbers.iter().any(|other| {
                            (other.table, other.method, other.case) == (n.table, n.method, n.case)
                                && other.metric == pair.f1
                                && other.printed == f1
                        })
                });
                assert!(printed, "{dataset} {accuracy} {f1}");
            }
        }
    }

    #[test]
    fn labels_are_counted_as_by_metrics() {
        let mut splits = Splits::default();
        splits.count(Benchmark::Mosi, &[-1.0, 0.0, 0.0, 2.0, 3.0]);
        assert_eq!(splits.of(Benchmark::Mosi, "acc2_nonzero"), Some([1, 2]));
        assert_eq!(splits.of(Benchmark::Mosi, "acc2_nonneg"), Some([1, 4]));
        splits.count(Benchmark::Sims, &[-1.0, 0.0, 1.0]);
        assert_eq!(splits.of(Benchmark::Sims, "acc2"), Some([2, 1]));
        splits.count(Benchmark::Sims, &[1.0]);
        assert_eq!(splits.of(Benchmark::Sims, "acc2"), None);
    }

    #[test]
    fn one_class_predictions_are_recognized_swapped_too() {
        let splits = Splits::published();
        let cells = |f1| {
            [
                cell(10, "lnln", "acc2", "r=0.9", 0.693_654),
                cell(10, "lnln", "f1", "r=0.9", f1),
            ]
        };
        assert_eq!(one_class(&cells(0.5682), &splits).len(), 1);
        assert_eq!(one_class(&cells(0.8191), &splits).len(), 1);
        assert_eq!(one_class(&cells(0.60), &splits), []);
    }

    #[test]
    fn accuracy_at_the_majority_share_is_found() {
        let splits = Splits::published();
        let of = |case, value| majority(&[cell(10, "lnln", "acc2", case, value)], &splits);
        assert_eq!(of("r=0", 0.68)[0].severity, Severity::Warning);
        assert_eq!(of("r=0", 0.70), []);
        // Of damaged inputs only what chance does not explain.
        assert_eq!(of("r=0.9", 0.68), []);
        assert_eq!(of("r=0.9", 0.60)[0].severity, Severity::Note);
    }
}
