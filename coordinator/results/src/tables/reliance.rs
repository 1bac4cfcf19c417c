//! What models rely on, as a table.

use super::{
    Block, ColumnMetric, Companion, CompanionValue, Row, Table, Value, layout, notes::about, paper,
};
use crate::statistics::reliance::{Change, complete, is_about};
use halfheard_shared::{
    benchmark::Benchmark,
    case::{Case, CaseOrMean, Damage},
    results::{Cells, Model, Results},
};
use std::collections::{BTreeMap, BTreeSet};

/// The changes of a damage on a dataset, by model and metric.
type Changes<'c> = BTreeMap<(&'c Model, &'c str), &'c Change>;

/// The values on the complete split, then the change under each damage. `not_measured` are cases that the
/// sweep does not have.
pub fn table(results: &Results, changes: &[Change], not_measured: &[Case]) -> Table {
    let datasets: BTreeSet<Benchmark> = changes.iter().map(|change| change.dataset).collect();
    let mut blocks = Vec::new();
    for dataset in datasets {
        let own = changes.iter().filter(|change| change.dataset == dataset);
        let mut damages: BTreeMap<Damage, Changes<'_>> = BTreeMap::new();
        for change in own {
            let key = (&change.model, change.metric);
            damages
                .entry(change.damage)
                .or_default()
                .insert(key, change);
        }
        let models: BTreeSet<&Model> = damages
            .values()
            .flat_map(|d| d.keys().map(|k| k.0))
            .collect();
        let mut models: Vec<Model> = models.into_iter().cloned().collect();
        layout::sort_models(&mut models);
        blocks.push(reference(&results.cells, dataset, &models));
        // By modality: what is missing, permuted and averaged of it side by side.
        let mut damages: Vec<_> = damages.into_iter().collect();
        damages.sort_by_key(|(damage, _)| {
            let letters = damage.set().map(|set| set.to_string()).unwrap_or_default();
            let place = halfheard_shared::case::MissingSet::PAPER.iter();
            (place.clone().position(|set| *set == letters), *damage)
        });
        let own = damages.iter();
        blocks.extend(own.map(|(damage, changes)| block(dataset, *damage, changes, &models)));
    }
    let mut notes = about(results, |_, case| case == complete() || is_about(&case));
    notes.extend([
        "r = 0: values on the complete test split; below: the change against it, ± its standard \
         deviation over seeds"
            .to_owned(),
        "95 % intervals: bootstrap over test samples and seeds, the same for both sides; each for \
         itself, not corrected for their number"
            .to_owned(),
        "missing: zeros; permuted: of other samples; averaged: the training split's mean. Permuting \
         leaves the distribution of the features as it is; zeros and means do not"
            .to_owned(),
    ]);
    notes.extend(ask(not_measured));
    Table {
        number: None,
        title: "Reliance: the change of each metric without what a modality says".to_owned(),
        stub: "Method",
        spread: true,
        blocks,
        notes,
    }
}

/// What to write into the spec for the cases that a sweep does not have.
pub fn ask(not_measured: &[Case]) -> Option<String> {
    if not_measured.is_empty() {
        return None;
    }
    let list = |kind: fn(&Case) -> Option<String>, key: &str| {
        let all: Vec<String> = not_measured.iter().filter_map(kind).collect();
        (!all.is_empty()).then(|| format!("`{key} = [{}]`", all.join(", ")))
    };
    let keys = [
        list(
            |case| case.rate().map(|rate| format!("{:?}", rate.value())),
            "rates",
        ),
        list(
            |case| case.missing().map(|set| format!("\"{set}\"")),
            "missing",
        ),
        list(
            |case| case.kind().is_none().then(|| format!("\"{case}\"")),
            "cases",
        ),
    ];
    let keys: Vec<String> = keys.into_iter().flatten().collect();
    Some(format!(
        "not measured in this sweep: add {} to its spec and submit it again; models that are trained \
         are not trained anew",
        keys.join(", ")
    ))
}

/// The values that changes are of.
fn reference(cells: &Cells, dataset: Benchmark, models: &[Model]) -> Block {
    let columns = paper::columns(dataset);
    let row = |model: &Model| {
        let value = |metric: &ColumnMetric| {
            let cell = cells.get(dataset, model, CaseOrMean::Case(complete()), &metric.id);
            cell.map_or(Value::MISSING, |cell| Value::from(*cell))
        };
        Row {
            label: layout::label(model),
            cells: columns
                .iter()
                .map(|column| column.metrics.iter().map(value).collect())
                .collect(),
            companions: Vec::new(),
            model: model.clone(),
        }
    };
    Block {
        dataset: dataset.id().to_owned(),
        case: Some(complete()),
        rows: models.iter().map(row).collect(),
        columns,
    }
}

fn block(dataset: Benchmark, damage: Damage, changes: &Changes<'_>, models: &[Model]) -> Block {
    let columns = paper::columns(dataset);
    let row = |model: &Model| {
        let get = |metric: &ColumnMetric| changes.get(&(model, metric.id.as_str())).copied();
        let value = |metric: &ColumnMetric| match get(metric) {
            Some(change) => Value {
                mean: Some(change.change),
                std: change.seed_std,
                completed: change.seeds as i64,
                expected: change.seeds as i64,
                ..Value::MISSING
            },
            None => Value::MISSING,
        };
        let interval = |metric: &ColumnMetric| match get(metric).and_then(|c| c.interval) {
            Some((low, high)) => CompanionValue::Interval(low, high),
            None => CompanionValue::Nothing,
        };
        let intervals: Vec<Vec<CompanionValue>> = columns
            .iter()
            .map(|column| column.metrics.iter().map(interval).collect())
            .collect();
        let is_there = |value: &CompanionValue| *value != CompanionValue::Nothing;
        let companion = intervals.iter().flatten().any(is_there).then(|| Companion {
            label: "95 % interval".to_owned(),
            cells: intervals,
        });
        Row {
            label: layout::label(model),
            cells: columns
                .iter()
                .map(|column| column.metrics.iter().map(value).collect())
                .collect(),
            companions: companion.into_iter().collect(),
            model: model.clone(),
        }
    };
    Block {
        dataset: dataset.id().to_owned(),
        case: Some(damage.into()),
        rows: models.iter().map(row).collect(),
        columns,
    }
}

/// One row per change, for spreadsheets and scripts.
pub fn csv(changes: &[Change]) -> String {
    let mut out = String::from(
        "dataset,method,variant,case,metric,complete,damaged,change,seed_std,low,high,seeds,masks\n",
    );
    for change in changes {
        let number = |value: Option<f64>| value.map(|value| value.to_string()).unwrap_or_default();
        let (low, high) = change.interval.unzip();
        // Ids have neither commas nor quotes, and no damage of whole modalities does.
        let fields = [
            change.dataset.id().to_owned(),
            change.model.method.clone(),
            change.model.variant.clone(),
            change.damage.to_string(),
            change.metric.to_owned(),
            change.complete.to_string(),
            change.damaged.to_string(),
            change.change.to_string(),
            number(change.seed_std),
            number(low),
            number(high),
            change.seeds.to_string(),
            change.masks.to_string(),
        ];
        out.push_str(&fields.join(","));
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_ask_for_is_in_the_keys_of_a_spec() {
        let cases = ["r=0", "missing=l", "permuted=l", "averaged=a"];
        let cases: Vec<Case> = cases.iter().map(|case| case.parse().unwrap()).collect();
        let asked = ask(&cases).unwrap();
        assert!(
            asked.contains(
                "add `rates = [0.0]`, `missing = [\"l\"]`, `cases = [\"permuted=l\", \"averaged=a\"]`"
            ),
            "{asked}"
        );
        assert_eq!(ask(&[]), None);
    }

    #[test]
    fn change_is_a_row_with_its_interval() {
        let change = Change {
            dataset: Benchmark::Mosi,
            model: Model::new("lnln", "no-dmc"),
            damage: "permuted=a".parse().unwrap(),
            metric: "mae",
            complete: 1.0,
            damaged: 1.25,
            change: 0.25,
            seed_std: None,
            seeds: 1,
            masks: 1,
            interval: Some((0.125, 0.5)),
        };
        let text = csv(&[change]);
        let row = "mosi,lnln,no-dmc,permuted=a,mae,1,1.25,0.25,,0.125,0.5,1,1";
        assert_eq!(text.lines().nth(1), Some(row));
    }
}
