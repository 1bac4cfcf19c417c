//! Results that differ from the first one: a conflict, unless another kind of processor explains it.

use super::{Batch, rows::EpochColumns};
use crate::{
    StoreError,
    text::{NAME, bounded},
};
use halfheard_shared::wire::{ResultBody, ResultMessage};
use serde_json::json;
use sqlx::PgConnection;

/// How a differing result compares with the first one.
enum Comparison {
    /// It is of the same kind of processor, or one of the two is unknown.
    Same,
    /// It is the first of its kind of processor.
    First,
    /// It is a later one; the first of its kind had this digest.
    Later(Vec<u8>),
}

impl Batch<'_> {
    pub(super) async fn write_conflicts(&self, tx: &mut PgConnection) -> Result<(), StoreError> {
        for (message, kept, refused) in &self.conflicts {
            let (what, content) = match &message.body {
                ResultBody::Trained {
                    checkpoints,
                    epochs,
                    ..
                } => (
                    "trained",
                    json!({ "checkpoints": checkpoints, "epochs": epochs }),
                ),
                ResultBody::Evaluated { results, .. } => {
                    ("evaluated", json!({ "results": results }))
                }
                _ => continue,
            };
            let mut kept = kept.to_vec();
            match compare(tx, message, what, refused, &content).await? {
                Comparison::Same => {}
                Comparison::First => continue,
                Comparison::Later(digest) if digest == refused => continue,
                Comparison::Later(digest) => kept = digest,
            }
            tracing::warn!(job = %message.job, attempt = %message.attempt, what,
                "result differs from the first one; kept as a conflict");
            sqlx::query!(
                "INSERT INTO conflict (job, attempt, what, kept, refused, content)
                 VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
                message.job.0,
                message.attempt.0,
                what,
                kept,
                refused.as_slice(),
                content
            )
            .execute(&mut *tx)
            .await?;
        }
        Ok(())
    }
}

/// Compares the kind of processor of a differing result with that of the first one, and keeps the
/// result if it is the first of another kind.
async fn compare(
    tx: &mut PgConnection,
    message: &ResultMessage,
    what: &str,
    digest: &[u8],
    content: &serde_json::Value,
) -> Result<Comparison, StoreError> {
    let processor = bounded(&message.worker.processor, NAME);
    let first_processor = sqlx::query_scalar!(
        "SELECT a.processor FROM attempt a
         WHERE a.id = coalesce((SELECT attempt FROM checkpoint WHERE job = $1 LIMIT 1),
                               (SELECT attempt FROM evaluation WHERE job = $1 LIMIT 1))",
        message.job.0
    )
    .fetch_optional(&mut *tx)
    .await?
    .unwrap_or_default();
    if first_processor == processor || first_processor.is_empty() || processor.is_empty() {
        return Ok(Comparison::Same);
    }
    let inserted = sqlx::query!(
        "INSERT INTO other_processor (job, what, processor, attempt, digest, content)
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
        message.job.0,
        what,
        processor,
        message.attempt.0,
        digest,
        content
    )
    .execute(&mut *tx)
    .await?
    .rows_affected();
    if inserted > 0 {
        tracing::info!(job = %message.job, attempt = %message.attempt, what, processor,
            first_processor, "result of another kind of processor differs, as it may");
        return Ok(Comparison::First);
    }
    let earlier = sqlx::query_scalar!(
        "SELECT digest FROM other_processor WHERE job = $1 AND what = $2 AND processor = $3",
        message.job.0,
        what,
        processor
    )
    .fetch_one(&mut *tx)
    .await?;
    Ok(Comparison::Later(earlier))
}

/// Records the epochs that were trained twice and came out differently: those of another kind of
/// processor in `other_processor`, the rest in `conflict`.
pub(super) async fn write_epoch_conflicts(
    tx: &mut PgConnection,
    rows: &EpochColumns,
) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO other_processor (job, what, processor, attempt, digest, content)
         SELECT i.job, 'epoch ' || i.epoch, a.processor, i.attempt,
                substr(sha256(convert_to(i.losses::text || i.metrics::text, 'UTF8')), 1, 16),
                jsonb_build_object('losses', i.losses, 'metrics', i.metrics)
         FROM unnest($1::uuid[], $2::integer[], $3::uuid[], $4::jsonb[], $5::jsonb[])
              AS i (job, epoch, attempt, losses, metrics)
         JOIN epoch_log e USING (job, epoch)
         JOIN attempt a ON a.id = i.attempt
         JOIN attempt b ON b.id = e.attempt
         WHERE (e.losses <> i.losses OR e.metrics <> i.metrics)
           AND a.processor <> b.processor AND a.processor <> '' AND b.processor <> ''
         ON CONFLICT DO NOTHING",
        &rows.job,
        &rows.epoch,
        &rows.attempt,
        &rows.losses,
        &rows.metrics,
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!(
        "INSERT INTO conflict (job, attempt, what, kept, refused, content)
         SELECT i.job, i.attempt, 'epoch ' || i.epoch, coalesce(o.digest, d.kept), d.refused,
                jsonb_build_object('losses', i.losses, 'metrics', i.metrics)
         FROM unnest($1::uuid[], $2::integer[], $3::uuid[], $4::jsonb[], $5::jsonb[])
              AS i (job, epoch, attempt, losses, metrics)
         JOIN epoch_log e USING (job, epoch)
         JOIN attempt a ON a.id = i.attempt
         LEFT JOIN other_processor o ON o.job = i.job AND o.what = 'epoch ' || i.epoch
                                    AND o.processor = a.processor
         CROSS JOIN LATERAL (SELECT
             substr(sha256(convert_to(e.losses::text || e.metrics::text, 'UTF8')), 1, 16),
             substr(sha256(convert_to(i.losses::text || i.metrics::text, 'UTF8')), 1, 16)
         ) AS d (kept, refused)
         WHERE (e.losses <> i.losses OR e.metrics <> i.metrics)
           AND o.digest IS DISTINCT FROM d.refused
         ON CONFLICT DO NOTHING",
        &rows.job,
        &rows.epoch,
        &rows.attempt,
        &rows.losses,
        &rows.metrics,
    )
    .execute(&mut *tx)
    .await?;
    Ok(())
}
