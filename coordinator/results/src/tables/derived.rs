//! Tables that the paper does not have: laziness, robustness, ranks.

use super::{
    Block, Column, ColumnMetric, Companion, CompanionValue, Row, Table, Value, layout, paper,
};
use crate::statistics::{
    LEVEL,
    bootstrap::BootstrapSamples,
    ranks::{Measurement, Ranks, ranks},
    robustness::robustness,
};
use halfheard_shared::{
    benchmark::Benchmark,
    case::{Case, CaseOrMean, MissingSet},
    results::{Cells, Model},
};
use std::collections::BTreeSet;

fn table(title: &str, blocks: Vec<Block>, notes: Vec<String>) -> Table {
    Table {
        number: None,
        title: title.to_owned(),
        stub: "Method",
        spread: false,
        blocks,
        notes,
    }
}

/// How far predicted classes are from the true ones, by missing rate and by set of missing modalities.
pub fn laziness(cells: &Cells) -> Table {
    let keys = || {
        cells
            .keys()
            .filter(|key| key.metric == "laziness" && key.case.case().is_some())
    };
    let datasets: BTreeSet<Benchmark> = keys().map(|key| key.dataset).collect();
    let blocks = datasets.into_iter().map(|dataset| {
        let own = || keys().filter(|key| key.dataset == dataset);
        let cases: BTreeSet<Case> = own().filter_map(|key| key.case.case()).collect();
        let models: BTreeSet<&Model> = own().map(|key| &key.model).collect();
        let columns = laziness_columns(&cases);
        let row = |model: Model| {
            let value = |case: &Case| {
                let cell = cells.get(dataset, &model, CaseOrMean::Case(*case), "laziness");
                cell.map_or(Value::MISSING, |cell| Value::from(*cell))
            };
            let mean = |(_, cases): &(String, Vec<Case>)| mean(cases.iter().map(value).collect());
            Row {
                label: layout::label(&model),
                cells: columns.iter().map(|column| vec![mean(column)]).collect(),
                model,
                companions: Vec::new(),
            }
        };
        let names = columns.iter().map(|(name, _)| name.as_str());
        block(
            dataset.id(),
            names,
            true,
            sorted(models).into_iter().map(row),
        )
    });
    table(
        "Laziness: how far predicted classes are from the true ones",
        blocks.collect(),
        vec![
            "total variation distance, in percent, between the distributions of predicted and true \
             classes (7; on SIMS 5; on custom datasets the most that they have): 0 if they agree; a \
             model that always predicts one class has 100 minus the share of that class"
                .to_owned(),
            "an accuracy with a high laziness reflects the share of a class, not the input"
                .to_owned(),
        ],
    )
}

/// One column per case, and after each kind of case its mean.
fn laziness_columns(cases: &BTreeSet<Case>) -> Vec<(String, Vec<Case>)> {
    let rates: Vec<Case> = cases
        .iter()
        .copied()
        .filter(|case| case.rate().is_some())
        .collect();
    let sets: Vec<Case> = MissingSet::PAPER
        .iter()
        .filter_map(|set| Some(Case::without(set.parse().ok()?)))
        .filter(|case| cases.contains(case))
        .collect();
    let mut columns = Vec::new();
    for (own, mean) in [(rates, "mean r"), (sets, "mean sets")] {
        if !own.is_empty() {
            columns.extend(own.iter().map(|case| (short(*case), vec![*case])));
            columns.push((mean.to_owned(), own));
        }
    }
    columns
}

/// The heading of a case's column: `0.3`, `-L`, `-LA`.
fn short(case: Case) -> String {
    match (case.rate(), case.missing()) {
        (Some(rate), _) => rate.to_string(),
        (_, Some(set)) => format!("-{}", set.to_string().to_uppercase()),
        _ => case.to_string(),
    }
}

/// The mean over cases; without it while any is missing.
fn mean(values: Vec<Value>) -> Value {
    if let [one] = values[..] {
        return one;
    }
    let means: Vec<f64> = values.iter().filter_map(|value| value.mean).collect();
    let complete = means.len() == values.len() && !values.is_empty();
    Value {
        mean: complete.then(|| means.iter().sum::<f64>() / means.len() as f64),
        completed: values.iter().filter(|value| value.completed > 0).count() as i64,
        expected: values.len() as i64,
        ..Value::MISSING
    }
}

fn sorted(models: BTreeSet<&Model>) -> Vec<Model> {
    let mut models: Vec<Model> = models.into_iter().cloned().collect();
    layout::sort_models(&mut models);
    models
}

/// A value that is not a mean over results.
fn single(mean: Option<f64>) -> Value {
    Value {
        mean,
        completed: 1,
        expected: 1,
        ..Value::MISSING
    }
}

/// A block of columns with one number each, where lower is better.
fn block<'a>(
    name: &str,
    columns: impl Iterator<Item = &'a str>,
    percent: bool,
    rows: impl Iterator<Item = Row>,
) -> Block {
    let column = |name: &str| Column {
        name: name.to_owned(),
        metrics: vec![ColumnMetric {
            id: name.to_owned(),
            higher_is_better: false,
            percent,
        }],
    };
    let mut block = Block {
        dataset: name.to_owned(),
        case: None,
        columns: columns.map(column).collect(),
        rows: rows.collect(),
    };
    block.rank();
    block
}

/// How much of each metric remains over all missing rates, with its interval.
pub fn robustness_table(samples: &BootstrapSamples) -> Table {
    let datasets = samples.datasets().into_iter();
    table(
        "Robustness: the area under each curve over missing rates",
        datasets
            .filter_map(|dataset| robustness_block(samples, dataset))
            .collect(),
        vec![
            "the area from r = 0 to the highest rate (trapezoidal rule) relative to a flat curve: 1 \
             if nothing is lost; above 1 for an error (MAE), which grows"
                .to_owned(),
            "accuracies do not fall to 0 but to chance, so a method that is poor at r = 0 loses \
             little: compare Tables 9 and 10"
                .to_owned(),
        ],
    )
}

fn robustness_block(samples: &BootstrapSamples, dataset: Benchmark) -> Option<Block> {
    let own = samples.cells.keys().filter(|key| key.0 == dataset);
    let models: BTreeSet<&Model> = own.map(|key| &key.1).collect();
    let mut columns = paper::columns(dataset);
    for metric in columns.iter_mut().flat_map(|column| &mut column.metrics) {
        // A ratio to the metric at r = 0, not the metric itself.
        metric.percent = false;
    }
    let mut rows = Vec::new();
    for model in sorted(models) {
        let of = |metric: &ColumnMetric| robustness(samples, dataset, &model, &metric.id, LEVEL);
        let cells: Vec<Vec<Value>> = columns
            .iter()
            .map(|column| {
                let metrics = column.metrics.iter();
                metrics
                    .map(|metric| single(of(metric).map(|found| found.share)))
                    .collect()
            })
            .collect();
        if cells.iter().flatten().all(|value| value.mean.is_none()) {
            continue;
        }
        let interval = |metric: &ColumnMetric| match of(metric).and_then(|found| found.interval) {
            Some((low, high)) => CompanionValue::Interval(low, high),
            None => CompanionValue::Nothing,
        };
        let intervals = columns.iter();
        let intervals = intervals.map(|column| column.metrics.iter().map(interval).collect());
        rows.push(Row {
            label: layout::label(&model),
            cells,
            companions: vec![Companion {
                label: "95 % interval".to_owned(),
                cells: intervals.collect(),
            }],
            model,
        });
    }
    if rows.is_empty() {
        return None;
    }
    let mut block = Block {
        dataset: dataset.id().to_owned(),
        case: None,
        columns,
        rows,
    };
    block.rank();
    Some(block)
}

/// The means to rank methods by: those over all seeds of a case. Ablations of one method would crowd
/// the ranks of methods and are left out.
pub fn measurements(cells: &Cells) -> Vec<Measurement> {
    let complete = cells
        .iter()
        .filter(|(key, cell)| cell.completed == cell.expected && !layout::is_ablation(&key.model));
    complete
        .filter_map(|(key, cell)| {
            Some(Measurement {
                method: layout::label(&key.model),
                dataset: key.dataset,
                // Masks of one rate are no further cells to rank by.
                case: key.case.case().filter(|case| case.kind().is_some())?,
                metric: key.metric,
                value: cell.mean?,
            })
        })
        .collect()
}

/// The mean ranks, on each dataset and on all.
pub fn ranks_table(measurements: &[Measurement]) -> Table {
    let of = |dataset: Option<Benchmark>| -> Option<Ranks> {
        let own = measurements.iter();
        let own = own.filter(|m| dataset.is_none_or(|dataset| m.dataset == dataset));
        ranks(&own.cloned().collect::<Vec<_>>())
    };
    let mut columns: Vec<(String, Ranks)> = Vec::new();
    let datasets: BTreeSet<Benchmark> = measurements.iter().map(|m| m.dataset).collect();
    for dataset in datasets {
        columns.extend(of(Some(dataset)).map(|ranks| (dataset.title(), ranks)));
    }
    if columns.len() > 1 {
        columns.extend(of(None).map(|ranks| ("all".to_owned(), ranks)));
    }
    let Some((_, last)) = columns.last() else {
        return table("Mean ranks", Vec::new(), Vec::new());
    };
    let row = |(label, _): &(String, f64)| Row {
        model: Model::new(label.as_str(), ""),
        label: label.clone(),
        cells: columns
            .iter()
            .map(|(_, ranks)| {
                let mut own = ranks.mean.iter().filter(|(other, _)| other == label);
                vec![single(own.next().map(|(_, rank)| *rank))]
            })
            .collect(),
        companions: Vec::new(),
    };
    let names = columns.iter().map(|(name, _)| name.as_str());
    let block = block("mean rank", names, false, last.mean.iter().map(row));
    let mut notes = vec![
        "mean rank over cells (one dataset and one case each), averaged over the paper's metrics: 1 \
         is always best"
            .to_owned(),
    ];
    for (name, ranks) in &columns {
        if let Some(difference) = ranks.critical_difference {
            notes.push(format!(
                "{name}: {} cells; means further apart than {difference:.3} differ at the level 0.05 \
                 (Nemenyi)",
                ranks.cells
            ));
        }
    }
    notes.push(
        "cells of one dataset share its samples: the critical difference is a lower bound"
            .to_owned(),
    );
    table("Mean ranks", vec![block], notes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_has_a_short_heading() {
        assert_eq!(short("r=0.3".parse().unwrap()), "0.3");
        assert_eq!(short("missing=la".parse().unwrap()), "-LA");
    }

    #[test]
    fn mean_of_cases_needs_all_of_them() {
        let value = |mean: Option<f64>| Value {
            mean,
            completed: i64::from(mean.is_some()),
            expected: 1,
            ..Value::MISSING
        };
        let both = mean(vec![value(Some(0.2)), value(Some(0.4))]);
        assert!((both.mean.unwrap() - 0.3).abs() < 1e-12);
        let part = mean(vec![value(Some(0.2)), value(None)]);
        assert_eq!((part.mean, part.completed, part.expected), (None, 1, 2));
    }

    #[test]
    fn ranks_table_notes_cells_and_critical_difference() {
        let measurements = [("A", 0.5), ("B", 0.4)].map(|(method, value)| Measurement {
            method: method.to_owned(),
            dataset: Benchmark::Sims,
            case: "r=0".parse().unwrap(),
            metric: "acc2",
            value,
        });
        let table = ranks_table(&measurements);
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
