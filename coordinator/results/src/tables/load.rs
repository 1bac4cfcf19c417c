//! Asks the database's views for a table.

use super::{
    Block, Column, ColumnMetric, Rank, Row, Table, Value,
    layout::{self, CaseKind, Layout, Rows, Scope},
    notes::notes,
};
use halfheard_shared::{benchmark::Benchmark, case::MissingSet, ids::SweepId};
use halfheard_store::{Store, StoreError};
use sqlx::Row as _;
use std::collections::{BTreeMap, BTreeSet};

/// The values of a table by dataset, case, method and metric: all metrics, also those that the
/// table does not print.
#[derive(Debug, Default)]
pub struct Values {
    cells: BTreeMap<Key, Value>,
    /// The datasets that there are values of.
    datasets: Vec<Benchmark>,
}

/// Dataset, case, model, metric.
type Key = (String, Option<String>, Name, String);

/// Method and variant.
type Name = (String, String);

impl Values {
    /// One of them.
    pub fn get(
        &self,
        dataset: &str,
        case: Option<&str>,
        (method, variant): (&str, &str),
        metric: &str,
    ) -> Option<&Value> {
        self.cells.get(&(
            dataset.to_owned(),
            case.map(str::to_owned),
            (method.to_owned(), variant.to_owned()),
            metric.to_owned(),
        ))
    }

    /// A dataset by its name.
    pub fn dataset(&self, name: &str) -> Option<Benchmark> {
        self.datasets
            .iter()
            .copied()
            .find(|known| known.id() == name)
    }
}

/// Loads table `layout` of a sweep, with a column of laziness where that is asked for.
///
/// # Errors
///
/// The database's.
pub async fn load(
    store: &Store,
    sweep: SweepId,
    name: &str,
    layout: Layout,
    laziness: bool,
) -> Result<Table, StoreError> {
    let values = values(store, sweep, layout).await?;
    let mut table = blocks(&values, layout, laziness);
    let shown = layout.datasets(&values.datasets);
    table.notes = notes(store, sweep, name, layout, &shown).await?;
    let absent = absent(&values, layout);
    if !table.blocks.is_empty() && !absent.is_empty() {
        table
            .notes
            .push(format!("not in this sweep: {}", absent.join(", ")));
    }
    Ok(table)
}

/// The table that `values` make, with nothing said of what it rests on.
pub fn blocks(values: &Values, layout: Layout, laziness: bool) -> Table {
    let mut blocks: Vec<Block> = Vec::new();
    for benchmark in layout.datasets(&values.datasets) {
        for case in cases(values, benchmark, layout) {
            let columns = match laziness {
                true => with_laziness(benchmark),
                false => columns(benchmark),
            };
            blocks.extend(block(values, benchmark, case, layout, columns));
        }
    }
    let mut shown: Vec<Benchmark> = Vec::new();
    for dataset in blocks
        .iter()
        .filter_map(|block| values.dataset(&block.dataset))
    {
        if !shown.contains(&dataset) {
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

/// The rows of the paper's table that a sweep does not have.
fn absent(values: &Values, layout: Layout) -> Vec<String> {
    let mut labels: Vec<String> = Vec::new();
    for benchmark in layout.datasets(&values.datasets) {
        if layout.rows == Rows::Methods {
            break;
        }
        for (method, variant) in layout::listed_rows(layout.number, benchmark) {
            let has = values.cells.keys().any(|(dataset, _, name, _)| {
                dataset == benchmark.id() && name.0 == method && name.1 == variant
            });
            let label = layout::row_label(layout.rows, benchmark, method, variant);
            let label = format!("{label} on {}", benchmark.title());
            if !has {
                labels.push(label);
            }
        }
    }
    labels
}

/// What the views are asked for a table: its one parameter is the sweep's id.
pub fn query(layout: Layout) -> &'static str {
    match (layout.scope, layout.kind) {
        (Scope::Overall, CaseKind::Rate) => {
            "SELECT dataset, NULL::text AS case_id, method, variant, metric, mean, std,
                    cells_completed AS done, cells_expected AS asked
             FROM table_overall WHERE sweep = $1"
        }
        (Scope::Overall, CaseKind::Missing) => {
            "SELECT dataset, NULL::text AS case_id, method, variant, metric, mean, std,
                    cells_completed AS done, cells_expected AS asked
             FROM table_missing_overall WHERE sweep = $1"
        }
        (Scope::Details, CaseKind::Rate) => {
            "SELECT dataset, case_id, method, variant, metric, mean, std,
                    seeds_completed AS done, seeds_expected AS asked
             FROM cell WHERE sweep = $1 AND kind = 'r'"
        }
        (Scope::Details, CaseKind::Missing) => {
            "SELECT dataset, case_id, method, variant, metric, mean, std,
                    seeds_completed AS done, seeds_expected AS asked
             FROM cell WHERE sweep = $1 AND kind = 'missing'"
        }
    }
}

/// Asks the views for a table's values.
///
/// # Errors
///
/// The database's.
pub async fn values(store: &Store, sweep: SweepId, layout: Layout) -> Result<Values, StoreError> {
    let known = store.benchmarks().await?;
    let rows = sqlx::query(query(layout))
        .bind(sweep.0)
        .fetch_all(store.pool())
        .await?;
    let mut values = Values::default();
    for row in rows {
        let key = (
            row.try_get("dataset")?,
            row.try_get("case_id")?,
            (row.try_get("method")?, row.try_get("variant")?),
            row.try_get("metric")?,
        );
        let value = Value {
            mean: row.try_get("mean")?,
            std: row.try_get("std")?,
            done: row.try_get("done")?,
            asked: row.try_get("asked")?,
            rank: Rank::Other,
        };
        values.cells.insert(key, value);
    }
    let names: BTreeSet<&str> = values.cells.keys().map(|key| key.0.as_str()).collect();
    values.datasets = names
        .into_iter()
        .filter_map(|name| known.get(name))
        .collect();
    values.datasets.sort();
    Ok(values)
}

/// The blocks' cases, in the paper's order.
fn cases(values: &Values, benchmark: Benchmark, layout: Layout) -> Vec<Option<String>> {
    if layout.scope == Scope::Overall {
        return vec![None];
    }
    let of_dataset = values.cells.keys().filter(|key| key.0 == benchmark.id());
    let found: BTreeSet<&String> = of_dataset.filter_map(|key| key.1.as_ref()).collect();
    let mut cases: Vec<String> = found.into_iter().cloned().collect();
    let place = |case: &String| {
        let set = case.strip_prefix("missing=").unwrap_or_default();
        let known = MissingSet::PAPER.iter().position(|p| *p == set);
        known.unwrap_or(MissingSet::PAPER.len())
    };
    // Rates sort as text: 0, 0.1, … 0.9.
    cases.sort_by(|a, b| place(a).cmp(&place(b)).then_with(|| a.cmp(b)));
    cases.into_iter().map(Some).collect()
}

/// Its rows: methods and variants that the sweep has.
fn rows(values: &Values, benchmark: Benchmark, case: Option<&String>, layout: Layout) -> Vec<Name> {
    let found: BTreeSet<&Name> = values
        .cells
        .keys()
        .filter(|key| key.0 == benchmark.id() && key.1.as_ref() == case)
        .map(|key| &key.2)
        .collect();
    if layout.rows != Rows::Methods {
        return layout::listed_rows(layout.number, benchmark)
            .into_iter()
            .map(|(method, variant)| (method.to_owned(), variant.to_owned()))
            .filter(|name| found.contains(name))
            .collect();
    }
    let mut names: Vec<Name> = found
        .into_iter()
        .filter(|(method, variant)| !layout::is_ablation(method, variant))
        .cloned()
        .collect();
    names.sort_by(|a, b| {
        let order = |name: &Name| layout::method_order(&name.0);
        order(a).cmp(&order(b)).then_with(|| a.cmp(b))
    });
    names
}

/// The columns of a dataset.
pub(super) fn columns(benchmark: Benchmark) -> Vec<Column> {
    let metric_of = |id: &&str| {
        let metric = benchmark.metric(id);
        ColumnMetric {
            id: (*id).to_owned(),
            higher_is_better: metric.is_none_or(|m| m.higher_is_better),
            percent: metric.is_some_and(|m| m.percent),
        }
    };
    layout::columns(benchmark)
        .iter()
        .map(|(name, metrics)| Column {
            name: name.clone(),
            metrics: metrics.iter().map(metric_of).collect(),
        })
        .collect()
}

/// The same with laziness behind the accuracies.
fn with_laziness(benchmark: Benchmark) -> Vec<Column> {
    let mut columns = columns(benchmark);
    let accuracies = columns.iter().take_while(|c| c.name.starts_with("Acc"));
    let place = accuracies.count();
    let laziness = Column {
        name: "Laziness".to_owned(),
        metrics: vec![ColumnMetric {
            id: "laziness".to_owned(),
            higher_is_better: false,
            percent: true,
        }],
    };
    columns.insert(place, laziness);
    columns
}

/// One block, or `None` where the sweep has nothing of it.
fn block(
    values: &Values,
    benchmark: Benchmark,
    case: Option<String>,
    layout: Layout,
    columns: Vec<Column>,
) -> Option<Block> {
    let names = rows(values, benchmark, case.as_ref(), layout);
    if names.is_empty() {
        return None;
    }
    let rows = names
        .into_iter()
        .map(|name| {
            let value = |metric: &ColumnMetric| {
                let name = (name.0.as_str(), name.1.as_str());
                let found = values.get(benchmark.id(), case.as_deref(), name, &metric.id);
                found.copied().unwrap_or(Value::MISSING)
            };
            Row {
                label: layout::row_label(layout.rows, benchmark, &name.0, &name.1),
                cells: columns
                    .iter()
                    .map(|column| column.metrics.iter().map(value).collect())
                    .collect(),
                method: name.0,
                variant: name.1,
                companions: Vec::new(),
            }
        })
        .collect();
    let mut block = Block {
        dataset: benchmark.id().to_owned(),
        case,
        columns,
        rows,
    };
    block.rank();
    Some(block)
}
