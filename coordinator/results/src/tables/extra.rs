//! Tables that the paper does not have: laziness, robustness, ranks.

use super::{
    Beside, Block, Column, ColumnMetric, Companion, Rank, Row, Table, Value, layout, load,
};
use crate::statistics::{
    bootstrap::{Drawn, Model},
    ranks::{Measured, Ranks, ranks},
    robustness::robustness,
};
use halfheard_shared::{benchmark::Benchmark, case::MissingSet, ids::SweepId};
use halfheard_store::{Store, StoreError};
use sqlx::Row as _;
use std::collections::{BTreeMap, BTreeSet};

/// Intervals hold this share.
const LEVEL: f64 = 0.95;

/// How far predicted classes are from the true ones, by missing rate and by set.
///
/// # Errors
///
/// The database's.
pub async fn laziness(store: &Store, sweep: SweepId) -> Result<Table, StoreError> {
    let rows = sqlx::query(
        "SELECT dataset, method, variant, case_id, mean, std, seeds_completed, seeds_expected
         FROM cell WHERE sweep = $1 AND metric = 'laziness'",
    )
    .bind(sweep.0)
    .fetch_all(store.pool())
    .await?;
    let mut values: BTreeMap<(String, Model, String), Value> = BTreeMap::new();
    for row in rows {
        let model = (row.try_get("method")?, row.try_get("variant")?);
        let value = Value {
            mean: row.try_get("mean")?,
            std: row.try_get("std")?,
            done: row.try_get("seeds_completed")?,
            asked: row.try_get("seeds_expected")?,
            rank: Rank::Other,
        };
        values.insert(
            (row.try_get("dataset")?, model, row.try_get("case_id")?),
            value,
        );
    }
    let mut blocks = Vec::new();
    let known = store.benchmarks().await?;
    let names: BTreeSet<&str> = values.keys().map(|key| key.0.as_str()).collect();
    let mut datasets: Vec<Benchmark> = names.iter().filter_map(|name| known.get(name)).collect();
    datasets.sort();
    for dataset in datasets {
        let own = || values.keys().filter(|key| key.0 == dataset.id());
        let cases: BTreeSet<&str> = own().map(|key| key.2.as_str()).collect();
        let models: BTreeSet<&Model> = own().map(|key| &key.1).collect();
        if cases.is_empty() {
            continue;
        }
        let rates: Vec<&str> = cases
            .iter()
            .copied()
            .filter(|c| c.starts_with("r="))
            .collect();
        let sets: Vec<&str> = MissingSet::PAPER
            .iter()
            .filter_map(|set| cases.get(format!("missing={set}").as_str()).copied())
            .collect();
        // A column a case, and after each kind its mean.
        let columns: Vec<(String, Vec<&str>)> = [(rates, "mean r"), (sets, "mean sets")]
            .into_iter()
            .filter(|(own, _)| !own.is_empty())
            .flat_map(|(own, mean)| {
                let single = own.iter().map(|case| (short(case), vec![*case]));
                single
                    .chain([(mean.to_owned(), own.clone())])
                    .collect::<Vec<_>>()
            })
            .collect();
        let row = |model: &Model| Row {
            method: model.0.clone(),
            variant: model.1.clone(),
            label: layout::label(&model.0, &model.1),
            cells: columns
                .iter()
                .map(|(_, cases)| {
                    let own = cases.iter().map(|case| {
                        let key = (dataset.id().to_owned(), model.clone(), (*case).to_owned());
                        values.get(&key).copied().unwrap_or(Value::MISSING)
                    });
                    vec![mean_of(own.collect())]
                })
                .collect(),
            companions: Vec::new(),
        };
        blocks.push(block(dataset.id(), &columns, true, sorted(models), row));
    }
    Ok(Table {
        number: None,
        title: "Laziness: how far predicted classes are from the true ones".to_owned(),
        stub: "Method",
        spread: false,
        blocks,
        notes: vec![
            "total variation distance, in percent, between the distributions of predicted and true \
             classes (7, on SIMS 5, on other datasets the most that they have): 0 where they agree; a model that always answers one class \
             stands at 100 less that class's share"
                .to_owned(),
            "an accuracy beside a high laziness rests on a class's share, not on the input"
                .to_owned(),
        ],
    })
}

/// `0.3`, `-L`, `-LA`: what a case's column is called.
fn short(case: &str) -> String {
    match case.split_once('=') {
        Some(("missing", set)) => format!("-{}", set.to_uppercase()),
        Some((_, rate)) => rate.to_owned(),
        None => case.to_owned(),
    }
}

fn mean_of(values: Vec<Value>) -> Value {
    if let [one] = values[..] {
        return one;
    }
    let known: Vec<f64> = values.iter().filter_map(|value| value.mean).collect();
    let whole = known.len() == values.len() && !values.is_empty();
    Value {
        mean: whole.then(|| known.iter().sum::<f64>() / known.len() as f64),
        done: values.iter().filter(|value| value.done > 0).count() as i64,
        asked: values.len() as i64,
        ..Value::MISSING
    }
}

fn sorted(models: BTreeSet<&Model>) -> Vec<&Model> {
    let mut models: Vec<&Model> = models.into_iter().collect();
    models.sort_by_key(|model| (layout::method_order(&model.0), *model));
    models
}

/// A block of columns that show one lower-is-better number each.
fn block<T>(
    name: &str,
    columns: &[(String, T)],
    percent: bool,
    models: Vec<&Model>,
    row: impl Fn(&Model) -> Row,
) -> Block {
    let mut block = Block {
        dataset: name.to_owned(),
        case: None,
        columns: columns
            .iter()
            .map(|(name, _)| Column {
                name: name.clone(),
                metrics: vec![ColumnMetric {
                    id: name.clone(),
                    higher_is_better: false,
                    percent,
                }],
            })
            .collect(),
        rows: models.into_iter().map(row).collect(),
    };
    block.rank();
    block
}

/// How much of each metric is left over all missing rates, with its interval.
pub fn robustness_table(drawn: &Drawn) -> Table {
    let mut blocks = Vec::new();
    for dataset in drawn.datasets() {
        let own = drawn.cells.keys().filter(|key| key.0 == dataset);
        let models: BTreeSet<&Model> = own.map(|key| &key.1).collect();
        let mut columns = load::columns(dataset);
        for metric in columns.iter_mut().flat_map(|column| &mut column.metrics) {
            // A share of what is at r = 0, not the metric itself.
            metric.percent = false;
        }
        let mut rows = Vec::new();
        for model in sorted(models) {
            let of = |metric: &ColumnMetric| robustness(drawn, dataset, model, &metric.id, LEVEL);
            let each = |cell: &dyn Fn(&ColumnMetric) -> Value| -> Vec<Vec<Value>> {
                let columns = columns.iter();
                columns
                    .map(|c| c.metrics.iter().map(cell).collect())
                    .collect()
            };
            let cells = each(&|metric| Value {
                mean: of(metric).map(|found| found.share),
                done: 1,
                asked: 1,
                ..Value::MISSING
            });
            if cells.iter().flatten().all(|value| value.mean.is_none()) {
                continue;
            }
            let interval = |metric: &ColumnMetric| {
                let found = of(metric).and_then(|found| found.interval);
                found.map_or(Beside::Nothing, |(low, high)| Beside::Interval(low, high))
            };
            let intervals = columns.iter();
            let intervals = intervals.map(|c| c.metrics.iter().map(interval).collect());
            rows.push(Row {
                method: model.0.clone(),
                variant: model.1.clone(),
                label: layout::label(&model.0, &model.1),
                cells,
                companions: vec![Companion {
                    label: "95 % interval".to_owned(),
                    cells: intervals.collect(),
                }],
            });
        }
        if rows.is_empty() {
            continue;
        }
        let mut block = Block {
            dataset: dataset.id().to_owned(),
            case: None,
            columns,
            rows,
        };
        block.rank();
        blocks.push(block);
    }
    Table {
        number: None,
        title: "Robustness: the area under each curve over missing rates".to_owned(),
        stub: "Method",
        spread: false,
        blocks,
        notes: vec![
            "the area from r = 0 to the highest rate (trapezoidal rule) as a share of what it were \
             if nothing were lost: 1 is a flat curve; of an error (MAE), which grows, it is above 1"
                .to_owned(),
            "accuracies do not fall to 0 but to chance, so that a method that is bad at r = 0 loses \
             little: read it beside Tables 9 and 10"
                .to_owned(),
        ],
    }
}

/// Means over seeds of whole cells, to be ranked.
///
/// # Errors
///
/// The database's.
pub async fn measured(store: &Store, sweep: SweepId) -> Result<Vec<Measured>, StoreError> {
    let known = store.benchmarks().await?;
    let rows = sqlx::query(
        "SELECT method, variant, dataset, case_id, metric, mean
         FROM cell WHERE sweep = $1 AND mean IS NOT NULL AND seeds_completed = seeds_expected",
    )
    .bind(sweep.0)
    .fetch_all(store.pool())
    .await?;
    let mut measured = Vec::with_capacity(rows.len());
    for row in rows {
        let (method, variant): (String, String) = (row.try_get("method")?, row.try_get("variant")?);
        let dataset: String = row.try_get("dataset")?;
        let Some(dataset) = known.get(&dataset) else {
            continue;
        };
        // The ablations of one method would crowd the ranks of methods.
        if !layout::is_ablation(&method, &variant) {
            measured.push((
                layout::label(&method, &variant),
                dataset,
                row.try_get("case_id")?,
                row.try_get("metric")?,
                row.try_get("mean")?,
            ));
        }
    }
    Ok(measured)
}

/// The mean ranks, on each dataset and on all.
pub fn ranks_table(measured: &[Measured]) -> Table {
    let of = |dataset: Option<Benchmark>| -> Option<Ranks> {
        let own = measured.iter();
        let own = own.filter(|m| dataset.is_none_or(|dataset| m.1 == dataset));
        ranks(&own.cloned().collect::<Vec<_>>())
    };
    let mut columns: Vec<(String, Ranks)> = Vec::new();
    let datasets: BTreeSet<Benchmark> = measured.iter().map(|m| m.1).collect();
    for dataset in datasets {
        columns.extend(of(Some(dataset)).map(|ranks| (dataset.title(), ranks)));
    }
    let all = of(None);
    if columns.len() > 1 {
        columns.extend(all.clone().map(|ranks| ("all".to_owned(), ranks)));
    }
    let mut blocks = Vec::new();
    let mut notes = Vec::new();
    if let Some((_, last)) = columns.last() {
        let models: Vec<Model> = last
            .mean
            .iter()
            .map(|(label, _)| (label.clone(), String::new()))
            .collect();
        let row = |model: &Model| Row {
            method: model.0.clone(),
            variant: String::new(),
            label: model.0.clone(),
            cells: columns
                .iter()
                .map(|(_, ranks)| {
                    let own = ranks.mean.iter().find(|(label, _)| *label == model.0);
                    vec![Value {
                        mean: own.map(|(_, rank)| *rank),
                        done: 1,
                        asked: 1,
                        ..Value::MISSING
                    }]
                })
                .collect(),
            companions: Vec::new(),
        };
        blocks.push(block(
            "mean rank",
            &columns,
            false,
            models.iter().collect(),
            row,
        ));
        notes.push(
            "mean rank over cells (a dataset and a case each), averaged over the paper's metrics: 1 \
             is always best"
                .to_owned(),
        );
        for (name, ranks) in &columns {
            if let Some(difference) = ranks.critical_difference {
                notes.push(format!(
                    "{name}: {} cells; means further apart than {difference:.3} differ at the level \
                     0.05 (Nemenyi)",
                    ranks.cells
                ));
            }
        }
        notes.push(
            "cells of one dataset share its samples: take the critical difference as the least"
                .to_owned(),
        );
    }
    Table {
        number: None,
        title: "Mean ranks".to_owned(),
        stub: "Method",
        spread: false,
        blocks,
        notes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_have_short_names() {
        assert_eq!(short("r=0.3"), "0.3");
        assert_eq!(short("missing=la"), "-LA");
    }

    #[test]
    fn a_mean_of_cases_needs_all_of_them() {
        let value = |mean| Value {
            mean,
            done: i64::from(mean.is_some()),
            asked: 1,
            ..Value::MISSING
        };
        let mean = mean_of(vec![value(Some(0.2)), value(Some(0.4))]);
        assert!((mean.mean.unwrap() - 0.3).abs() < 1e-12);
        let part = mean_of(vec![value(Some(0.2)), value(None)]);
        assert_eq!((part.mean, part.done, part.asked), (None, 1, 2));
    }

    #[test]
    fn ranks_say_what_counts() {
        let measured: Vec<Measured> = [("A", 0.5), ("B", 0.4)]
            .map(|(label, value)| {
                let metric = "acc2".to_owned();
                (
                    label.to_owned(),
                    Benchmark::Sims,
                    "r=0".to_owned(),
                    metric,
                    value,
                )
            })
            .into();
        let table = ranks_table(&measured);
        let block = &table.blocks[0];
        assert_eq!(block.rows[0].label, "A");
        assert_eq!(block.rows[0].cells[0][0].mean, Some(1.0));
        assert!(
            table.notes[1].starts_with("SIMS: 1 cells; "),
            "{:?}",
            table.notes
        );
        assert!(ranks_table(&[]).blocks.is_empty());
    }
}
