//! Reads long tables a page at a time.

use super::{ResultsError, Snapshot};
use crate::Store;
use futures::{Stream, TryStreamExt as _, pin_mut};
use halfheard_shared::{
    ids::SweepId,
    results::{ComparisonRow, EpochRow, Export, MeasurementRow, Rows},
};

/// Rows of a page, about.
const PAGE: usize = 100_000;

/// Hands all rows of `what` to `write`, page by page.
///
/// # Errors
///
/// The database's, or those of `write`.
pub async fn export<E: From<ResultsError>>(
    store: &Store,
    sweep: SweepId,
    what: Export,
    mut write: impl FnMut(Rows) -> Result<(), E>,
) -> Result<(), E> {
    match what {
        Export::Results => {
            let rows = sqlx::query_as!(
                MeasurementRow,
                r#"SELECT m.method AS "method!", m.variant AS "variant!", m.dataset AS "dataset!",
                          m.seed AS "seed!", m.case_id AS "case!",
                          case_kind(m.case_id) AS "kind!", case_rate(m.case_id)::float8 AS rate,
                          coalesce(case_missing(m.case_id), '') AS "missing!",
                          coalesce(case_mask(m.case_id)::text, '') AS "mask!",
                          m.metric AS "metric!", m.criterion AS "criterion!",
                          m.state::text AS "state!", m.value,
                          coalesce(t.processor, '') AS "trained_processor!",
                          coalesce(a.processor, '') AS "evaluated_processor!"
                   FROM measurement m
                   LEFT JOIN evaluation v ON v.job = m.job AND v.criterion = m.criterion
                   LEFT JOIN attempt a ON a.id = v.attempt
                   LEFT JOIN checkpoint k ON k.job = m.train_job AND k.criterion = m.criterion
                   LEFT JOIN attempt t ON t.id = k.attempt
                   WHERE m.sweep = $1
                   ORDER BY m.dataset, m.method, m.variant, m.case_id, m.seed, m.metric"#,
                sweep.0
            );
            pages(rows.fetch(store.pool()), |rows| write(Rows::Results(rows))).await
        }
        Export::Comparison => {
            let rows = sqlx::query_as!(
                ComparisonRow,
                r#"SELECT table_number::bigint AS "table!", method AS "method!",
                          variant AS "variant!", dataset AS "dataset!", case_id AS "case!",
                          metric AS "metric!", reproduced, reproduced_std, published, valid,
                          difference, coalesce(erratum, '') AS "erratum!",
                          seeds_completed AS "seeds_completed!", seeds_expected AS "seeds_expected!"
                   FROM comparison WHERE sweep = $1
                   ORDER BY table_number, dataset, method, variant, case_id, metric"#,
                sweep.0
            );
            pages(rows.fetch(store.pool()), |rows| {
                write(Rows::Comparison(rows))
            })
            .await
        }
        Export::Epochs => {
            let rows = sqlx::query_as!(
                EpochRow,
                r#"SELECT e.method AS "method!", e.variant AS "variant!", e.dataset AS "dataset!",
                          e.seed AS "seed!", e.epoch::bigint AS "epoch!", q.key AS "quantity!",
                          q.value::text::float8 AS value
                   FROM epoch e
                   CROSS JOIN LATERAL (
                       SELECT 'loss.' || key AS key, value FROM jsonb_each(e.losses)
                       UNION ALL
                       SELECT key, CASE jsonb_typeof(value) WHEN 'number' THEN value END
                       FROM jsonb_each(e.metrics)
                       UNION ALL
                       SELECT 'train_seconds', to_jsonb(e.train_seconds)
                       UNION ALL
                       SELECT 'eval_seconds', to_jsonb(e.eval_seconds)
                   ) q
                   WHERE e.sweep = $1
                   ORDER BY e.dataset, e.method, e.variant, e.seed, e.epoch, q.key"#,
                sweep.0
            );
            pages(rows.fetch(store.pool()), |rows| write(Rows::Epochs(rows))).await
        }
        Export::Predictions => {
            let mut snapshot = Snapshot::begin(store, sweep).await?;
            snapshot
                .each_prediction(|rows| write(Rows::Predictions(rows)))
                .await
        }
    }
}

async fn pages<T, E: From<ResultsError>>(
    rows: impl Stream<Item = Result<T, sqlx::Error>>,
    mut write: impl FnMut(Vec<T>) -> Result<(), E>,
) -> Result<(), E> {
    pin_mut!(rows);
    let mut page = Vec::new();
    while let Some(row) = rows.try_next().await.map_err(ResultsError::from)? {
        page.push(row);
        if page.len() >= PAGE {
            write(std::mem::take(&mut page))?;
        }
    }
    if page.is_empty() {
        return Ok(());
    }
    write(page)
}
