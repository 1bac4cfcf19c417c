//! What rules look at: numbers with their places, and what every rule needs of them.

use crate::tables::layout;
use halfheard_shared::benchmark::Benchmark;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Where a number stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Place {
    /// The paper's table; `None` in a sweep.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<u8>,
    /// The dataset.
    pub dataset: Benchmark,
    /// The method's id.
    pub method: String,
    /// The variant's id; empty for the method itself.
    pub variant: String,
    /// The seed, where the number is of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// The metric's id; empty where it is about all of them.
    pub metric: String,
    /// `r=0.3`, `missing=la`, `r=mean`, `missing=mean`; empty where it is about all of them.
    pub case: String,
}

impl Place {
    /// The missing rate, if the case is one.
    pub fn rate(&self) -> Option<f64> {
        self.case.strip_prefix("r=")?.parse().ok()
    }

    /// Whether it is a mean over cases.
    pub fn is_mean(&self) -> bool {
        self.case.ends_with("=mean")
    }

    /// The method with its variant, as tables print it.
    pub fn label(&self) -> String {
        layout::label(&self.method, &self.variant)
    }
}

/// A number.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    /// Where it stands.
    pub place: Place,
    /// The value in the unit of results: fractions, MAE and correlation as they are.
    pub value: f64,
    /// How far it may be from what was measured, in the same unit: half a unit of its last digit, 0
    /// for one that was not rounded.
    pub half: f64,
    /// The spread over seeds that is printed beside it.
    pub std: Option<f64>,
    /// Samples of the split that it was measured on.
    pub samples: usize,
}

impl Cell {
    /// As tables print it.
    pub fn text(&self) -> String {
        show(&self.place, self.value)
    }

    /// Whether both may be the same number, rounded.
    pub fn agrees(&self, other: &Cell) -> bool {
        (self.value - other.value).abs() < (self.half + other.half) * 0.5 + 1e-9
    }
}

/// `value` as tables print the metric of `place`.
pub fn show(place: &Place, value: f64) -> String {
    if is_percent(place) {
        format!("{:.2}", value * 100.0)
    } else {
        format!("{value:.3}")
    }
}

/// Whether tables print it in percent.
pub fn is_percent(place: &Place) -> bool {
    let metric = place.dataset.metric(&place.metric);
    metric.is_none_or(|metric| metric.percent)
}

/// How far apart two measurements of nearly the same thing are by chance, at the least: a quarter of
/// the standard error that the size of the test split gives. In the unit of results.
pub fn noise(cell: &Cell) -> f64 {
    let error = if is_percent(&cell.place) { 0.5 } else { 1.0 };
    0.25 * error / (cell.samples as f64).sqrt()
}

/// The middle value.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        n if n % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

/// Cells that belong together, by a key.
pub fn by<'a, K: Ord>(
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
pub type ColumnKey = (
    Option<u8>,
    Benchmark,
    String,
    String,
    Option<u64>,
    String,
    bool,
);

/// The column that a number stands in.
pub fn column(place: &Place) -> ColumnKey {
    (
        place.table,
        place.dataset,
        place.method.clone(),
        place.variant.clone(),
        place.seed,
        place.metric.clone(),
        place.case.starts_with("r="),
    )
}

/// The most names of one kind in a summary.
const NAMES: usize = 4;

/// Where numbers are, in a few words.
pub fn summary(places: &[Place]) -> String {
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
    parts.push(names(places, |p| p.case.clone(), "cases"));
    parts.retain(|part| !part.is_empty());
    parts.join(", ")
}

/// The models; many variants of one method are only counted.
fn models(places: &[Place]) -> String {
    let methods: BTreeSet<&str> = places.iter().map(|p| p.method.as_str()).collect();
    let variants: BTreeSet<&str> = places.iter().map(|p| p.variant.as_str()).collect();
    match methods.first() {
        Some(method) if methods.len() == 1 && variants.len() > NAMES => {
            let name = layout::label(method, "");
            if variants.contains("") {
                format!("{name} and {} variants", variants.len() - 1)
            } else {
                format!("{} variants of {name}", variants.len())
            }
        }
        // What is about a whole dataset names no model.
        Some(&"") if methods.len() == 1 => String::new(),
        _ => names(places, Place::label, "models"),
    }
}

fn joined(items: impl IntoIterator<Item = u8>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    items.join(", ")
}

/// The distinct names among places in the order they come in; many are only counted.
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
            method: method.to_owned(),
            variant: String::new(),
            seed: None,
            metric: metric.to_owned(),
            case: case.to_owned(),
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
    fn the_middle_is_robust() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[1.0, 900.0, 2.0]), Some(2.0));
        assert_eq!(median(&[1.0, 2.0, 900.0, 4.0]), Some(3.0));
    }

    #[test]
    fn a_summary_counts_what_is_many() {
        let places: Vec<Place> = (0..10)
            .map(|tenth| cell(9, "lnln", "acc7", &format!("r=0.{tenth}"), 0.5).place)
            .collect();
        assert_eq!(summary(&places), "Table 9, MOSI, LNLN, Acc-7, 10 cases");
        let variants: Vec<Place> = places
            .iter()
            .enumerate()
            .map(|(i, place)| Place {
                variant: if i == 0 {
                    String::new()
                } else {
                    format!("v{i}")
                },
                case: "r=0".to_owned(),
                ..place.clone()
            })
            .collect();
        assert_eq!(
            summary(&variants),
            "Table 9, MOSI, LNLN and 9 variants, Acc-7, r=0"
        );
        assert_eq!(
            summary(&places[..2]),
            "Table 9, MOSI, LNLN, Acc-7, r=0.0 and r=0.1"
        );
    }
}
