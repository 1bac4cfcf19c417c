//! What a table rests on, and what it lacks.

use super::layout::{self, CaseKind, Layout};
use halfheard_shared::{benchmark::Benchmark, ids::SweepId, numerics::Numerics};
use halfheard_store::Store;
use sqlx::Row as _;
use std::collections::BTreeMap;

/// The most lines about what is missing.
const MISSING_LINES: usize = 10;

/// What the table rests on.
pub(super) async fn notes(
    store: &Store,
    sweep: SweepId,
    name: &str,
    layout: Layout,
    datasets: &[Benchmark],
) -> Result<Vec<String>, sqlx::Error> {
    let ids: Vec<String> = datasets.iter().map(|d| d.id().to_owned()).collect();
    let mut notes = vec![format!("sweep {name} ({sweep})")];
    let protocols = sqlx::query(
        "SELECT DISTINCT selection, fidelity, train_missing FROM sweep_protocol
         WHERE sweep = $1 ORDER BY 1, 2, 3",
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
        let training = match row.try_get::<Option<bool>, _>("train_missing")? {
            Some(false) => "complete data",
            _ => "erased data",
        };
        notes.push(format!(
            "checkpoints chosen on {selection}; methods follow {fidelity}; trained on {training}"
        ));
    }
    notes.extend(processors(store, sweep).await?);
    let counts = sqlx::query(
        "SELECT count(DISTINCT seed) AS seeds, count(*) AS asked,
                count(*) FILTER (WHERE state = 'done') AS done,
                count(*) FILTER (WHERE state = 'failed') AS failed
         FROM job WHERE sweep = $1 AND kind = 'eval' AND dataset = ANY($2)
           AND case_id LIKE $3",
    )
    .bind(sweep.0)
    .bind(&ids)
    .bind(match layout.kind {
        CaseKind::Rate => "r=%",
        CaseKind::Missing => "missing=%",
    })
    .fetch_one(store.pool())
    .await?;
    let (seeds, asked): (i64, i64) = (counts.try_get("seeds")?, counts.try_get("asked")?);
    let (done, failed): (i64, i64) = (counts.try_get("done")?, counts.try_get("failed")?);
    if asked == 0 {
        // Of nothing there is nothing to say but whose nothing it is.
        notes.truncate(1);
        return Ok(notes);
    }
    let plural = if seeds == 1 { "seed" } else { "seeds" };
    notes.push(format!(
        "means over {seeds} {plural}; {done} of {asked} evaluations are here"
    ));
    if done < asked {
        notes.extend(missing(store, sweep, layout, &ids).await?);
    }
    if failed > 0 {
        notes.push(format!(
            "{failed} evaluations failed: see `coord status {}`",
            sweep.short()
        ));
    }
    Ok(notes)
}

/// The kinds of processors that results come from, and whether their bits depend on them.
async fn processors(store: &Store, sweep: SweepId) -> Result<Option<String>, sqlx::Error> {
    let kinds: Vec<String> = sqlx::query_scalar(
        "SELECT DISTINCT a.processor FROM job j JOIN attempt a ON a.job = j.id
         WHERE j.sweep = $1 AND j.kind <> 'noop' AND a.outcome = 'done' AND a.processor <> ''
         ORDER BY 1",
    )
    .bind(sweep.0)
    .fetch_all(store.pool())
    .await?;
    Ok(match &kinds[..] {
        [] => None,
        [one] if one == Numerics::Portable.as_str() => {
            Some("numerics: portable, the same bits on every x86-64 with AVX2".to_owned())
        }
        [one] => Some(format!("computed on {one}")),
        several => Some(format!(
            "computed on {} kinds of processors, whose last bits differ: {}",
            several.len(),
            several.join(", ")
        )),
    })
}

/// What is not here, a line for each model that lacks something.
async fn missing(
    store: &Store,
    sweep: SweepId,
    layout: Layout,
    ids: &[String],
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
    .bind(ids)
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
                layout::dataset_title(&dataset),
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
