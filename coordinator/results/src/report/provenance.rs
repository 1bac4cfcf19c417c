//! What a sweep's numbers rest on.

use halfheard_shared::{
    benchmark::{Benchmark, Kind},
    ids::SweepId,
};
use halfheard_store::{Store, StoreError};
use sqlx::Row as _;

/// Programs, devices, data and encoders of a sweep, each with how many evaluations rest on it.
///
/// # Errors
///
/// The database's.
pub(super) async fn facts(
    store: &Store,
    sweep: SweepId,
) -> Result<Vec<(String, String)>, StoreError> {
    // Evaluations are many, what they rest on is little: counted where they lie.
    let rows = sqlx::query(
        "WITH rested AS MATERIALIZED (
             SELECT dataset, data, encoder, trained_with, trained_on, evaluated_with, evaluated_on,
                    coalesce(nullif(' (' || trained_processor || ')', ' ()'), '') AS trained_kind,
                    coalesce(nullif(' (' || evaluated_processor || ')', ' ()'), '')
                        AS evaluated_kind,
                    numerics, count(DISTINCT job) AS jobs
             FROM provenance WHERE sweep = $1
             GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
         )
         SELECT 1 AS place, 'dataset ' || dataset AS what,
                'BLAKE3 ' || coalesce(data, 'unknown') AS value, sum(jobs)::bigint AS jobs
         FROM rested GROUP BY dataset, data
         UNION ALL
         SELECT 2, 'text encoder', 'BLAKE3 ' || coalesce(encoder, 'unknown'), sum(jobs)::bigint
         FROM rested GROUP BY encoder
         UNION ALL
         SELECT 3, 'trained with', 'worker ' || coalesce(trained_with, 'unknown') || ' on '
                || coalesce(trained_on, 'unknown') || trained_kind, sum(jobs)::bigint
         FROM rested GROUP BY trained_with, trained_on, trained_kind
         UNION ALL
         SELECT 4, 'evaluated with', 'worker ' || evaluated_with || ' on ' || evaluated_on
                || evaluated_kind, sum(jobs)::bigint
         FROM rested GROUP BY evaluated_with, evaluated_on, evaluated_kind
         UNION ALL
         SELECT 5, 'numerics', CASE numerics
                    WHEN 'portable' THEN 'portable: the same bits on every x86-64 with AVX2'
                    ELSE 'machine: the same bits on the same kind of processor' END,
                sum(jobs)::bigint
         FROM rested GROUP BY numerics
         ORDER BY place, what, value",
    )
    .bind(sweep.0)
    .fetch_all(store.pool())
    .await?;
    let mut facts = Vec::with_capacity(rows.len());
    for row in rows {
        let (what, value): (String, String) = (row.try_get("what")?, row.try_get("value")?);
        let jobs: i64 = row.try_get("jobs")?;
        facts.push((what, format!("{value} ({jobs} evaluations)")));
    }
    facts.extend(protocols(store, sweep).await?);
    let splits = sqlx::query(
        "SELECT DISTINCT j.dataset AS name, d.train_samples, d.valid_samples, d.test_samples
         FROM job j
         JOIN config c ON c.id = j.config
         JOIN dataset d ON d.blake3 = c.spec #>> '{data,blake3}'
         WHERE j.sweep = $1 AND j.kind = 'train' ORDER BY 1",
    )
    .bind(sweep.0)
    .fetch_all(store.pool())
    .await?;
    for row in splits {
        let name: String = row.try_get("name")?;
        let sizes: [i32; 3] = [
            row.try_get("train_samples")?,
            row.try_get("valid_samples")?,
            row.try_get("test_samples")?,
        ];
        facts.push((
            format!("splits of {name}"),
            format!(
                "{} training, {} validation, {} test samples",
                sizes[0], sizes[1], sizes[2]
            ),
        ));
    }
    Ok(facts)
}

/// The protocols of datasets whose names do not say it.
async fn protocols(store: &Store, sweep: SweepId) -> Result<Vec<(String, String)>, StoreError> {
    let names: Vec<String> = sqlx::query_scalar(
        "SELECT DISTINCT dataset FROM job WHERE sweep = $1 AND kind = 'train' ORDER BY 1",
    )
    .bind(sweep.0)
    .fetch_all(store.pool())
    .await?;
    let known = store.benchmarks().await?;
    let own = names.iter().filter_map(|name| known.get(name));
    let own = own.filter(|dataset| matches!(dataset, Benchmark::Own(_)));
    Ok(own
        .map(|dataset| {
            let protocol = match dataset.kind() {
                own @ Kind::Own(_) => format!("its own: {own}; nothing is published for it"),
                built_in => format!("that of {built_in}"),
            };
            (format!("protocol of {}", dataset.id()), protocol)
        })
        .collect())
}
