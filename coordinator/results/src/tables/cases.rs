//! Every case of a sweep, with the spread over seeds and, of cases under several masks, over masks.

use super::{
    Block, ColumnMetric, Companion, CompanionValue, Row, Table, Value, layout, notes::about, paper,
};
use crate::statistics::spread;
use halfheard_shared::{
    benchmark::Benchmark,
    case::{Case, CaseOrMean, Damage},
    results::{Cells, Model, Results},
    text::count,
};
use std::collections::{BTreeMap, BTreeSet};

/// The cases of one dataset, with their masks: the sweep's own first.
type Damages = BTreeMap<Damage, Vec<Case>>;

/// All cases of a sweep: one block each.
pub fn table(results: &Results) -> Table {
    let cells = &results.cells;
    let mut of: BTreeMap<Benchmark, Damages> = BTreeMap::new();
    for key in cells.keys() {
        if let Some(case) = key.case.case() {
            let masks = of.entry(key.dataset).or_default();
            let masks = masks.entry(case.damage).or_default();
            if !masks.contains(&case) {
                masks.push(case);
            }
        }
    }
    let mut blocks = Vec::new();
    for (dataset, damages) in &of {
        // In the order of text: the sweep's own mask comes first.
        let damages = damages.values();
        blocks.extend(damages.filter_map(|masks| block(cells, *dataset, masks)));
    }
    let mut notes = about(results, |_, _| true);
    if of
        .values()
        .flat_map(BTreeMap::values)
        .any(|masks| masks.len() > 1)
    {
        notes.push(
            "± is the standard deviation over seeds; below a row, the mean over masks and the \
             standard deviation over masks of the means over seeds"
                .to_owned(),
        );
    } else {
        notes.push(
            "± is the standard deviation over seeds; for that over masks, add `erasure_seeds = \
             [1112, …]` to the spec"
                .to_owned(),
        );
    }
    Table {
        number: None,
        title: "Cases: every damage that the sweep tests".to_owned(),
        stub: "Method",
        spread: true,
        blocks,
        notes,
    }
}

/// One case: by its first mask, and over all of them below.
fn block(cells: &Cells, dataset: Benchmark, masks: &[Case]) -> Option<Block> {
    let case = *masks.first()?;
    let columns = paper::columns(dataset);
    let get = |model: &Model, case: Case, metric: &ColumnMetric| {
        let found = cells.get(dataset, model, CaseOrMean::Case(case), &metric.id);
        found.map_or(Value::MISSING, |cell| Value::from(*cell))
    };
    let over_masks = |model: &Model, metric: &ColumnMetric| {
        let means = masks.iter().map(|mask| get(model, *mask, metric).mean);
        let means: Option<Vec<f64>> = means.collect();
        match means.and_then(|means| spread(&means)) {
            Some((mean, std)) => CompanionValue::Other(mean, std),
            None => CompanionValue::Nothing,
        }
    };
    let own = cells.keys();
    let own = own.filter(|key| key.dataset == dataset && key.case == CaseOrMean::Case(case));
    let models: BTreeSet<&Model> = own.map(|key| &key.model).collect();
    let mut models: Vec<Model> = models.into_iter().cloned().collect();
    layout::sort_models(&mut models);
    let row = |model: Model| {
        let of = |value: &dyn Fn(&ColumnMetric) -> Value| -> Vec<Vec<Value>> {
            let columns = columns.iter();
            columns
                .map(|column| column.metrics.iter().map(value).collect())
                .collect()
        };
        let companion = (masks.len() > 1).then(|| Companion {
            label: format!("over {}", count(masks.len(), "mask")),
            cells: columns
                .iter()
                .map(|column| {
                    let metrics = column.metrics.iter();
                    metrics.map(|metric| over_masks(&model, metric)).collect()
                })
                .collect(),
        });
        Row {
            label: layout::label(&model),
            cells: of(&|metric| get(&model, case, metric)),
            companions: companion.into_iter().collect(),
            model,
        }
    };
    let rows = models.into_iter().map(row).collect();
    let mut block = Block {
        dataset: dataset.id().to_owned(),
        case: Some(case),
        columns,
        rows,
    };
    block.rank();
    Some(block)
}

#[cfg(test)]
mod tests {
    use super::*;
    use halfheard_shared::results::{Cell, CellKey};

    fn cells(values: &[(&str, f64)]) -> Cells {
        let cell = |(case, mean): &(&str, f64)| {
            let key = CellKey {
                dataset: Benchmark::Mosi,
                model: Model::new("lnln", ""),
                case: case.parse().unwrap(),
                metric: "mae",
            };
            let cell = Cell {
                mean: Some(*mean),
                std: Some(0.01),
                completed: 3,
                expected: 3,
                ..Cell::default()
            };
            (key, cell)
        };
        values.iter().map(cell).collect()
    }

    #[test]
    fn masks_of_a_case_are_below_it() {
        let cells = cells(&[("r=0.5", 1.0), ("r=0.5@7", 1.2), ("r=0.5@8", 1.1)]);
        let masks = ["r=0.5", "r=0.5@7", "r=0.5@8"].map(|case| case.parse().unwrap());
        let block = block(&cells, Benchmark::Mosi, &masks).unwrap();
        let column = block.columns.iter().position(|c| c.name == "MAE").unwrap();
        let row = &block.rows[0];
        assert_eq!(row.cells[column][0].mean, Some(1.0));
        assert_eq!(row.companions[0].label, "over 3 masks");
        let CompanionValue::Other(mean, Some(std)) = row.companions[0].cells[column][0] else {
            panic!("{row:?}");
        };
        assert!(
            (mean - 1.1).abs() < 1e-12 && (std - 0.1).abs() < 1e-12,
            "{mean} {std}"
        );
    }

    #[test]
    fn mean_over_masks_waits_for_all_of_them() {
        let cells = cells(&[("r=0.5", 1.0)]);
        let masks = ["r=0.5", "r=0.5@7"].map(|case| case.parse().unwrap());
        let block = block(&cells, Benchmark::Mosi, &masks).unwrap();
        let companions = &block.rows[0].companions[0].cells;
        assert!(
            companions
                .iter()
                .flatten()
                .all(|value| *value == CompanionValue::Nothing),
            "{companions:?}"
        );
    }
}
