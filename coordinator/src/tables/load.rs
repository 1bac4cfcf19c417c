//! Asks the database's views for a table.

use super::{
    Block, Column, ColumnMetric, Rank, Row, Table, Value,
    layout::{self, CaseKind, Layout, Scope},
};
use crate::store::Store;
use missbench_shared::{benchmark::Benchmark, case::MissingSet, ids::SweepId};
use sqlx::Row as _;
use std::collections::{BTreeMap, BTreeSet};

/// The most lines about what is missing.
const MISSING_LINES: usize = 10;

/// The values of a table by block, method and metric.
#[derive(Debug, Default)]
struct Values(BTreeMap<(String, Option<String>, Name, String), Value>);

/// Method and variant.
type Name = (String, String);

/// Loads table `layout` of a sweep.
///
/// # Errors
///
/// The database's.
pub async fn load(
    store: &Store,
    sweep: SweepId,
    name: &str,
    layout: Layout,
) -> Result<Table, sqlx::Error> {
    let values = values(store, sweep, layout).await?;
    let mut blocks = Vec::new();
    for &benchmark in layout.datasets {
        for case in cases(&values, benchmark, layout) {
            if let Some(block) = block(&values, benchmark, case) {
                blocks.push(block);
            }
        }
    }
    let notes = notes(store, sweep, name, layout).await?;
    Ok(Table {
        number: layout.number,
        title: layout.title.to_owned(),
        blocks,
        notes,
    })
}

async fn values(store: &Store, sweep: SweepId, layout: Layout) -> Result<Values, sqlx::Error> {
    let query = match (layout.scope, layout.kind) {
        (Scope::Overall, CaseKind::Rate) => {
            "SELECT dataset, NULL::text AS case_id, method, variant, metric, mean,
                    cells_done AS done, cells_asked AS asked
             FROM table_overall WHERE sweep = $1"
        }
        (Scope::Overall, CaseKind::Missing) => {
            "SELECT dataset, NULL::text AS case_id, method, variant, metric, mean,
                    cells_done AS done, cells_asked AS asked
             FROM table_missing_overall WHERE sweep = $1"
        }
        (Scope::Details, CaseKind::Rate) => {
            "SELECT dataset, case_id, method, variant, metric, mean,
                    seeds_done AS done, seeds_asked AS asked
             FROM cell WHERE sweep = $1 AND kind = 'r'"
        }
        (Scope::Details, CaseKind::Missing) => {
            "SELECT dataset, case_id, method, variant, metric, mean,
                    seeds_done AS done, seeds_asked AS asked
             FROM cell WHERE sweep = $1 AND kind = 'missing'"
        }
    };
    let rows = sqlx::query(query)
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
            done: row.try_get("done")?,
            asked: row.try_get("asked")?,
            rank: Rank::Other,
        };
        values.0.insert(key, value);
    }
    Ok(values)
}

/// The blocks' cases, in the paper's order.
fn cases(values: &Values, benchmark: Benchmark, layout: Layout) -> Vec<Option<String>> {
    if layout.scope == Scope::Overall {
        return vec![None];
    }
    let of_dataset = values.0.keys().filter(|key| key.0 == benchmark.id());
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

/// One block, or `None` where the sweep has nothing of it.
fn block(values: &Values, benchmark: Benchmark, case: Option<String>) -> Option<Block> {
    let mut methods: Vec<&Name> = values
        .0
        .keys()
        .filter(|key| key.0 == benchmark.id() && key.1 == case)
        .map(|key| &key.2)
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    if methods.is_empty() {
        return None;
    }
    methods.sort_by_key(|(method, variant)| (layout::method_order(method), method, variant));
    let metric_of = |id: &&str| {
        let metric = benchmark.metrics().iter().find(|m| m.id == *id);
        ColumnMetric {
            id: (*id).to_owned(),
            higher_is_better: metric.is_none_or(|m| m.higher_is_better),
            percent: metric.is_some_and(|m| m.percent),
        }
    };
    let columns: Vec<Column> = layout::columns(benchmark)
        .iter()
        .map(|(name, metrics)| Column {
            name: (*name).to_owned(),
            metrics: metrics.iter().map(metric_of).collect(),
        })
        .collect();
    let rows = methods
        .into_iter()
        .map(|name| {
            let value = |metric: &ColumnMetric| {
                let key = (
                    benchmark.id().to_owned(),
                    case.clone(),
                    name.clone(),
                    metric.id.clone(),
                );
                values.0.get(&key).copied().unwrap_or(Value {
                    mean: None,
                    done: 0,
                    asked: 0,
                    rank: Rank::Other,
                })
            };
            Row {
                method: name.0.clone(),
                variant: name.1.clone(),
                label: layout::label(&name.0, &name.1),
                cells: columns
                    .iter()
                    .map(|column| column.metrics.iter().map(value).collect())
                    .collect(),
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

/// What the table rests on.
async fn notes(
    store: &Store,
    sweep: SweepId,
    name: &str,
    layout: Layout,
) -> Result<Vec<String>, sqlx::Error> {
    let mut notes = vec![format!("sweep {name} ({sweep})")];
    let protocols = sqlx::query(
        "SELECT DISTINCT selection, fidelity FROM sweep_protocol WHERE sweep = $1 ORDER BY 1, 2",
    )
    .bind(sweep.0)
    .fetch_all(store.pool())
    .await?;
    for row in protocols {
        let selection: Option<String> = row.try_get("selection")?;
        let fidelity: Option<String> = row.try_get("fidelity")?;
        let selection = match selection.as_deref() {
            Some("test") => "the test split, as the paper's code does",
            _ => "the validation split",
        };
        let fidelity = match fidelity.as_deref() {
            Some("corrected") => "the papers where they and the reference code differ",
            _ => "the reference code",
        };
        notes.push(format!(
            "checkpoints chosen on {selection}; methods follow {fidelity}"
        ));
    }
    let counts = sqlx::query(
        "SELECT count(DISTINCT seed) AS seeds, count(*) AS asked,
                count(*) FILTER (WHERE state = 'done') AS done,
                count(*) FILTER (WHERE state = 'failed') AS failed
         FROM job WHERE sweep = $1 AND kind = 'eval' AND dataset = ANY($2)
           AND case_id LIKE $3",
    )
    .bind(sweep.0)
    .bind(
        layout
            .datasets
            .iter()
            .map(|d| d.id().to_owned())
            .collect::<Vec<_>>(),
    )
    .bind(match layout.kind {
        CaseKind::Rate => "r=%",
        CaseKind::Missing => "missing=%",
    })
    .fetch_one(store.pool())
    .await?;
    let (seeds, asked): (i64, i64) = (counts.try_get("seeds")?, counts.try_get("asked")?);
    let (done, failed): (i64, i64) = (counts.try_get("done")?, counts.try_get("failed")?);
    let plural = if seeds == 1 { "seed" } else { "seeds" };
    notes.push(format!(
        "means over {seeds} {plural}; {done} of {asked} evaluations are here"
    ));
    if done < asked {
        notes.extend(missing(store, sweep, layout).await?);
    }
    if failed > 0 {
        notes.push(format!(
            "{failed} evaluations failed: see `coord status {}`",
            sweep.short()
        ));
    }
    Ok(notes)
}

/// What is not here, a line for each model that lacks something.
async fn missing(
    store: &Store,
    sweep: SweepId,
    layout: Layout,
) -> Result<Vec<String>, sqlx::Error> {
    let kind = match layout.kind {
        CaseKind::Rate => "r=%",
        CaseKind::Missing => "missing=%",
    };
    let rows = sqlx::query(
        "SELECT method, variant, dataset, seed,
                count(*) AS asked, count(*) FILTER (WHERE state = 'done') AS done
         FROM job
         WHERE sweep = $1 AND kind = 'eval' AND dataset = ANY ($2) AND case_id LIKE $3
         GROUP BY method, variant, dataset, seed
         ORDER BY dataset, method, variant, seed",
    )
    .bind(sweep.0)
    .bind(ids(layout))
    .bind(kind)
    .fetch_all(store.pool())
    .await?;
    // By model: its seeds, and which of them lack something.
    let mut models: BTreeMap<(String, String), (usize, Vec<String>)> = BTreeMap::new();
    for row in rows {
        let method: String = row.try_get("method")?;
        let label = layout::label(&method, &row.try_get::<String, _>("variant")?);
        let dataset: String = row.try_get("dataset")?;
        let (seed, asked): (i64, i64) = (row.try_get("seed")?, row.try_get("asked")?);
        let done: i64 = row.try_get("done")?;
        let (seeds, lacking) = models.entry((dataset, label)).or_default();
        *seeds += 1;
        if done < asked {
            lacking.push(format!("seed {seed} ({done} of {asked})"));
        }
    }
    let mut lines: Vec<String> = models
        .into_iter()
        .filter(|(_, (_, lacking))| !lacking.is_empty())
        .map(|((dataset, label), (seeds, lacking))| {
            format!(
                "missing of {label} on {}: {}; {} of {seeds} seeds are whole",
                dataset.to_uppercase(),
                lacking.join(", "),
                seeds - lacking.len()
            )
        })
        .collect();
    let more = lines.len().saturating_sub(MISSING_LINES);
    if more > 0 {
        lines.truncate(MISSING_LINES);
        lines.push(format!("and of {more} more"));
    }
    Ok(lines)
}

/// The ids of a table's datasets.
fn ids(layout: Layout) -> Vec<String> {
    let ids = layout.datasets.iter().map(|dataset| dataset.id());
    ids.map(str::to_owned).collect()
}
