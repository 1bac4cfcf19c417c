//! The paper's tables.

use super::{
    Block, Column, ColumnMetric, Rank, Row, Table, Value,
    layout::{self, Layout, Rows, Scope},
    notes::notes,
};
use halfheard_shared::{
    benchmark::Benchmark,
    case::{Case, CaseOrMean, MissingSet},
    results::{Cell, CellKey, Cells, Model, Results},
};
use std::collections::BTreeSet;

impl From<Cell> for Value {
    fn from(cell: Cell) -> Self {
        Self {
            mean: cell.mean,
            std: cell.std,
            completed: cell.completed,
            expected: cell.expected,
            rank: Rank::Other,
        }
    }
}

/// Table `layout` of a sweep, with a laziness column if wanted.
pub fn table(results: &Results, layout: Layout, laziness: bool) -> Table {
    let cells = &results.cells;
    let mut table = without_notes(cells, layout, laziness);
    let datasets = layout.datasets(&datasets(cells, layout));
    table.notes = notes(results, layout, &datasets);
    let absent = absent(cells, layout);
    if !table.blocks.is_empty() && !absent.is_empty() {
        let note = format!("not in this sweep: {}", absent.join(", "));
        table.notes.push(note);
    }
    table
}

fn without_notes(cells: &Cells, layout: Layout, laziness: bool) -> Table {
    let mut blocks: Vec<Block> = Vec::new();
    let mut shown: Vec<Benchmark> = Vec::new();
    for dataset in layout.datasets(&datasets(cells, layout)) {
        let mut columns = columns(dataset);
        if laziness {
            insert_laziness(&mut columns);
        }
        let own = cases(cells, dataset, layout).into_iter();
        let own = own.filter_map(|case| block(cells, dataset, case, layout, columns.clone()));
        let before = blocks.len();
        blocks.extend(own);
        if blocks.len() > before {
            shown.push(dataset);
        }
    }
    Table {
        number: Some(layout.number),
        title: layout.title_on(&shown),
        stub: "Method",
        spread: layout.spread,
        blocks,
        notes: Vec::new(),
    }
}

/// The keys of a table's cells.
fn keys(cells: &Cells, layout: Layout) -> impl Iterator<Item = &CellKey> {
    cells.keys().filter(move |key| match layout.scope {
        Scope::Overall => key.case == CaseOrMean::Mean(layout.kind),
        Scope::Details => key.case.case().is_some() && key.case.kind() == Some(layout.kind),
    })
}

/// The datasets that there are cells of.
fn datasets(cells: &Cells, layout: Layout) -> Vec<Benchmark> {
    let datasets: BTreeSet<Benchmark> = keys(cells, layout).map(|key| key.dataset).collect();
    datasets.into_iter().collect()
}

/// The rows of the paper's table that a sweep does not have.
fn absent(cells: &Cells, layout: Layout) -> Vec<String> {
    if layout.rows == Rows::Methods {
        return Vec::new();
    }
    let present: BTreeSet<(Benchmark, &Model)> = keys(cells, layout)
        .map(|key| (key.dataset, &key.model))
        .collect();
    let mut labels = Vec::new();
    for dataset in layout.datasets(&datasets(cells, layout)) {
        for model in layout::listed_rows(layout.number, dataset) {
            if !present.contains(&(dataset, &model)) {
                let label = layout::row_label(layout.rows, dataset, &model);
                labels.push(format!("{label} on {}", dataset.title()));
            }
        }
    }
    labels
}

/// The cases of the blocks, in the paper's order; of an overall table one block without a case.
fn cases(cells: &Cells, dataset: Benchmark, layout: Layout) -> Vec<Option<Case>> {
    if layout.scope == Scope::Overall {
        return vec![None];
    }
    let own = keys(cells, layout).filter(|key| key.dataset == dataset);
    let cases: BTreeSet<Case> = own.filter_map(|key| key.case.case()).collect();
    let mut cases: Vec<Case> = cases.into_iter().collect();
    // Stable: sets that the paper does not have follow in their order, as rates do.
    cases.sort_by_key(|case| {
        let set = case.missing().map(|set| set.to_string());
        let mut paper = MissingSet::PAPER.iter();
        let known = set.and_then(|set| paper.position(|known| *known == set));
        known.unwrap_or(MissingSet::PAPER.len())
    });
    cases.into_iter().map(Some).collect()
}

/// The models of a block's rows.
fn models(cells: &Cells, dataset: Benchmark, case: CaseOrMean, layout: Layout) -> Vec<Model> {
    let own = cells.keys();
    let own = own.filter(|key| key.dataset == dataset && key.case == case);
    let present: BTreeSet<&Model> = own.map(|key| &key.model).collect();
    if layout.rows != Rows::Methods {
        let mut listed = layout::listed_rows(layout.number, dataset);
        listed.retain(|model| present.contains(model));
        return listed;
    }
    let present = present.into_iter();
    let mut models: Vec<Model> = present
        .filter(|model| !layout::is_ablation(model))
        .cloned()
        .collect();
    layout::sort_models(&mut models);
    models
}

/// The columns of a dataset.
pub(super) fn columns(dataset: Benchmark) -> Vec<Column> {
    let metric_of = |id: &&str| {
        let metric = dataset.metric(id);
        ColumnMetric {
            id: (*id).to_owned(),
            higher_is_better: metric.is_none_or(|m| m.higher_is_better),
            percent: metric.is_some_and(|m| m.percent),
        }
    };
    layout::columns(dataset)
        .into_iter()
        .map(|(name, metrics)| Column {
            name,
            metrics: metrics.iter().map(metric_of).collect(),
        })
        .collect()
}

/// Adds a laziness column after the accuracies.
fn insert_laziness(columns: &mut Vec<Column>) {
    let accuracies = columns.iter().take_while(|c| c.name.starts_with("Acc"));
    let laziness = Column {
        name: "Laziness".to_owned(),
        metrics: vec![ColumnMetric {
            id: "laziness".to_owned(),
            higher_is_better: false,
            percent: true,
        }],
    };
    columns.insert(accuracies.count(), laziness);
}

/// One block; `None` if the sweep has no row of it.
fn block(
    cells: &Cells,
    dataset: Benchmark,
    case: Option<Case>,
    layout: Layout,
    columns: Vec<Column>,
) -> Option<Block> {
    let at = layout.case_or_mean(case);
    let rows: Vec<Row> = models(cells, dataset, at, layout)
        .into_iter()
        .map(|model| {
            let value = |metric: &ColumnMetric| {
                let cell = cells.get(dataset, &model, at, &metric.id);
                cell.map_or(Value::MISSING, |cell| Value::from(*cell))
            };
            Row {
                label: layout::row_label(layout.rows, dataset, &model),
                cells: columns
                    .iter()
                    .map(|column| column.metrics.iter().map(value).collect())
                    .collect(),
                model,
                companions: Vec::new(),
            }
        })
        .collect();
    if rows.is_empty() {
        return None;
    }
    let mut block = Block {
        dataset: dataset.id().to_owned(),
        case,
        columns,
        rows,
    };
    block.rank();
    Some(block)
}
