//! Numbers with their places, and what all rules need of them.

use crate::tables::layout;
use halfheard_shared::{
    benchmark::Benchmark,
    case::{CaseKind, CaseOrMean},
    results::Model,
};
use serde::{Serialize, Serializer};
use std::collections::{BTreeMap, BTreeSet};

/// What a number is of, and where it is printed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Place {
    /// The paper's table; `None` in a sweep.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<u8>,
    /// The dataset.
    pub dataset: Benchmark,
    /// The model; empty for the whole dataset.
    #[serde(flatten)]
    pub model: Model,
    /// The seed of a number of one seed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// The metric's id; empty for all of them.
    pub metric: String,
    /// The case, or the mean over cases; `None` for all of them.
    #[serde(serialize_with = "text_or_empty")]
    pub case: Option<CaseOrMean>,
}

fn text_or_empty<S: Serializer>(
    case: &Option<CaseOrMean>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match case {
        Some(case) => serializer.collect_str(case),
        None => serializer.serialize_str(""),
    }
}

impl Place {
    /// A model on a dataset, without seed, metric and case.
    pub fn of_model(dataset: Benchmark, model: &Model) -> Self {
        Self {
            table: None,
            dataset,
            model: model.clone(),
            seed: None,
            metric: String::new(),
            case: None,
        }
    }

    /// The missing rate.
    pub(super) fn rate(&self) -> Option<f64> {
        Some(self.case?.rate()?.value())
    }

    /// The kind of the case or cases.
    pub(super) fn kind(&self) -> Option<CaseKind> {
        self.case.and_then(CaseOrMean::kind)
    }

    /// The case as text.
    pub(super) fn case_text(&self) -> String {
        self.case.map(|case| case.to_string()).unwrap_or_default()
    }

    /// Whether it is a mean over cases.
    pub(super) fn is_mean(&self) -> bool {
        matches!(self.case, Some(CaseOrMean::Mean(_)))
    }

    /// The printed name of the model.
    pub(super) fn label(&self) -> String {
        layout::label(&self.model)
    }
}

/// A number.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    /// Its place.
    pub place: Place,
    /// The value in the unit of results: fractions, MAE and correlation.
    pub value: f64,
    /// The largest rounding error, in the same unit: half a unit of the last digit, 0 if not rounded.
    pub half: f64,
    /// The printed standard deviation over seeds.
    pub std: Option<f64>,
    /// The number of test samples.
    pub samples: usize,
}

impl Cell {
    /// The value as printed.
    pub(super) fn text(&self) -> String {
        show(&self.place, self.value)
    }

    /// Whether both may be the same number, rounded.
    pub(super) fn agrees(&self, other: &Cell) -> bool {
        (self.value - other.value).abs() < (self.half + other.half) * 0.5 + 1e-9
    }
}

/// A value as tables print the metric of `place`.
pub(super) fn show(place: &Place, value: f64) -> String {
    if is_percent(place) {
        format!("{:.2}", value * 100.0)
    } else {
        format!("{value:.3}")
    }
}

/// Whether tables print its metric in percent.
pub(super) fn is_percent(place: &Place) -> bool {
    let metric = place.dataset.metric(&place.metric);
    metric.is_none_or(|metric| metric.percent)
}

/// A lower bound of the random difference of two similar measurements: a quarter of the standard error
/// from the size of the test split, in the unit of results.
pub(super) fn noise(cell: &Cell) -> f64 {
    let error = if is_percent(&cell.place) { 0.5 } else { 1.0 };
    0.25 * error / (cell.samples as f64).sqrt()
}

/// The median.
pub(super) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        n if n % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

/// Groups cells by a key of their places.
pub(super) fn by<'a, K: Ord>(
    cells: impl IntoIterator<Item = &'a Cell>,
    key: impl Fn(&Place) -> K,
) -> BTreeMap<K, Vec<&'a Cell>> {
    let mut groups: BTreeMap<K, Vec<&Cell>> = BTreeMap::new();
    for cell in cells {
        groups.entry(key(&cell.place)).or_default().push(cell);
    }
    groups
}

/// A column: one metric of one model over the cases of a kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ColumnKey {
    pub(super) table: Option<u8>,
    pub(super) dataset: Benchmark,
    pub(super) model: Model,
    pub(super) seed: Option<u64>,
    pub(super) metric: String,
    pub(super) kind: Option<CaseKind>,
}

/// The column of a number.
pub(super) fn column(place: &Place) -> ColumnKey {
    ColumnKey {
        table: place.table,
        dataset: place.dataset,
        model: place.model.clone(),
        seed: place.seed,
        metric: place.metric.clone(),
        kind: place.kind(),
    }
}

/// The most names of a kind in a summary.
const NAMES: usize = 4;

/// A short description of places.
pub(super) fn summary(places: &[Place]) -> String {
    let mut parts = Vec::new();
    let tables: BTreeSet<u8> = places.iter().filter_map(|p| p.table).collect();
    match tables.len() {
        0 => {}
        1 => parts.push(format!("Table {}", joined(tables))),
        _ => parts.push(format!("Tables {}", joined(tables))),
    }
    parts.push(names(places, |p| p.dataset.title(), "datasets"));
    parts.push(models(places));
    parts.push(names(
        places,
        |p| p.seed.map_or(String::new(), |seed| format!("seed {seed}")),
        "seeds",
    ));
    parts.push(names(
        places,
        |p| {
            let metric = p.dataset.metric(&p.metric);
            metric.map_or(p.metric.clone(), |metric| metric.name.to_owned())
        },
        "metrics",
    ));
    parts.push(names(places, Place::case_text, "cases"));
    parts.retain(|part| !part.is_empty());
    parts.join(", ")
}

/// The models; many variants of one method are counted.
fn models(places: &[Place]) -> String {
    let methods: BTreeSet<&str> = places.iter().map(|p| p.model.method.as_str()).collect();
    let variants: BTreeSet<&str> = places.iter().map(|p| p.model.variant.as_str()).collect();
    match methods.first() {
        Some(method) if methods.len() == 1 && variants.len() > NAMES => {
            let name = layout::label(&Model::new(*method, ""));
            if variants.contains("") {
                format!("{name} and {} variants", variants.len() - 1)
            } else {
                format!("{} variants of {name}", variants.len())
            }
        }
        // Places of whole datasets have no model.
        Some(&"") if methods.len() == 1 => String::new(),
        _ => names(places, Place::label, "models"),
    }
}

/// The texts in order, `a and b`.
pub(super) fn joined_text(items: impl IntoIterator<Item = String>) -> String {
    items.into_iter().collect::<Vec<_>>().join(" and ")
}

fn joined(items: impl IntoIterator<Item = u8>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    items.join(", ")
}

/// The distinct names among places, in order; many are counted.
fn names(places: &[Place], name: impl Fn(&Place) -> String, plural: &str) -> String {
    let mut found: Vec<String> = Vec::new();
    for place in places {
        let name = name(place);
        if !name.is_empty() && !found.contains(&name) {
            found.push(name);
        }
    }
    if found.len() > NAMES {
        format!("{} {plural}", found.len())
    } else {
        found.join(" and ")
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A number as printed in `table`: percent with two decimals, others with three.
    pub(crate) fn cell(table: u8, method: &str, metric: &str, case: &str, value: f64) -> Cell {
        let place = Place {
            table: Some(table),
            dataset: if table == 3 || table == 10 {
                Benchmark::Sims
            } else {
                Benchmark::Mosi
            },
            model: Model::new(method, ""),
            seed: None,
            metric: metric.to_owned(),
            case: Some(case.parse().unwrap()),
        };
        let digits = if is_percent(&place) { 1e4 } else { 1e3 };
        Cell {
            value: (value * digits).round() / digits,
            half: 0.5 / digits,
            std: None,
            samples: place.dataset.split_sizes().unwrap()[2],
            place,
        }
    }

    #[test]
    fn median_is_robust() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[1.0, 900.0, 2.0]), Some(2.0));
        assert_eq!(median(&[1.0, 2.0, 900.0, 4.0]), Some(3.0));
    }

    #[test]
    fn summary_counts_many_names() {
        let places: Vec<Place> = (0..10)
            .map(|tenth| {
                cell(
                    9,
                    "lnln",
                    "acc7",
                    &format!("r={}", f64::from(tenth) / 10.0),
                    0.5,
                )
                .place
            })
            .collect();
        assert_eq!(summary(&places), "Table 9, MOSI, LNLN, Acc-7, 10 cases");
        let variants: Vec<Place> = places
            .iter()
            .enumerate()
            .map(|(i, place)| Place {
                model: match i {
                    0 => Model::new("lnln", ""),
                    _ => Model::new("lnln", format!("v{i}")),
                },
                case: Some("r=0".parse().unwrap()),
                ..place.clone()
            })
            .collect();
        assert_eq!(
            summary(&variants),
            "Table 9, MOSI, LNLN and 9 variants, Acc-7, r=0"
        );
        assert_eq!(
            summary(&places[..2]),
            "Table 9, MOSI, LNLN, Acc-7, r=0 and r=0.1"
        );
    }
}
