//! What only the audit reads.

use super::{ResultsError, Snapshot, snapshot::case};
use crate::imported::WORKER;
use halfheard_shared::{
    ids::JobId,
    results::{AuditRecords, Build, Conflict, Model},
};

pub(super) async fn records(snapshot: &mut Snapshot) -> Result<AuditRecords, ResultsError> {
    let mut records = AuditRecords::default();
    let rows = sqlx::query!(
        "SELECT r.job, r.criterion, r.metric, r.value
         FROM sweep_job w
         JOIN job j ON j.id = w.job
         JOIN result r ON r.job = j.id
         WHERE w.sweep = $1 AND j.kind = 'eval'",
        snapshot.sweep.0
    )
    .fetch_all(&mut *snapshot.tx)
    .await?;
    for row in rows {
        let values = records.values.entry(JobId(row.job)).or_default();
        values.insert((row.criterion, row.metric), row.value);
    }
    let rows = sqlx::query!(
        r#"SELECT j.dataset, j.method, j.variant, j.seed, j.case_id, c.what,
                  a.worker, a.device, first.worker AS "first_worker?"
           FROM sweep_job w
           JOIN job j ON j.id = w.job
           JOIN conflict c ON c.job = j.id
           JOIN attempt a ON a.id = c.attempt
           LEFT JOIN LATERAL (
               SELECT b.worker FROM attempt b
               WHERE b.job = j.id AND b.outcome = 'done' AND b.id <> a.id
               ORDER BY b.ended LIMIT 1
           ) first ON true
           WHERE w.sweep = $1
           ORDER BY w.position, c.noticed, c.what"#,
        snapshot.sweep.0
    )
    .fetch_all(&mut *snapshot.tx)
    .await?;
    for row in rows {
        records.conflicts.push(Conflict {
            dataset: snapshot.known.named(&row.dataset)?,
            model: Model::new(row.method, row.variant),
            seed: row.seed.cast_unsigned(),
            case: case(row.case_id)?,
            what: row.what,
            worker: row.worker,
            device: row.device,
            first_worker: row.first_worker,
        });
    }
    let rows = sqlx::query!(
        "SELECT DISTINCT j.dataset, j.method, j.variant
         FROM tally j
         JOIN config c ON c.id = j.config
         WHERE j.sweep = $1 AND j.kind = 'train'
           AND c.spec #>> '{protocol,selection}' = 'test'
         ORDER BY 1, 2, 3",
        snapshot.sweep.0
    )
    .fetch_all(&mut *snapshot.tx)
    .await?;
    for row in rows {
        let dataset = snapshot.known.named(&row.dataset)?;
        let model = Model::new(row.method, row.variant);
        records.selected_on_test.push((dataset, model));
    }
    records.builds = builds(snapshot).await?;
    Ok(records)
}

async fn builds(snapshot: &mut Snapshot) -> Result<Vec<Build>, ResultsError> {
    let rows = sqlx::query!(
        r#"SELECT j.dataset, j.method, j.variant, j.kind = 'eval' AS "evaluations!", a.version,
                  a.device, a.processor, coalesce(c.spec ->> 'numerics', 'machine') AS "numerics!",
                  count(DISTINCT j.id) AS "jobs!"
           FROM sweep_job w
           JOIN job j ON j.id = w.job
           JOIN attempt a ON a.job = j.id
           LEFT JOIN config c ON c.id = j.config
           WHERE w.sweep = $1 AND j.kind <> 'noop' AND a.outcome = 'done'
             -- Imported predictions are no program's.
             AND a.worker <> $2
           GROUP BY 1, 2, 3, 4, 5, 6, 7, 8
           ORDER BY 1, 2, 3, 4, 5, 6, 7, 8"#,
        snapshot.sweep.0,
        WORKER
    )
    .fetch_all(&mut *snapshot.tx)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Build {
                dataset: snapshot.known.named(&row.dataset)?,
                model: Model::new(row.method, row.variant),
                evaluations: row.evaluations,
                version: row.version,
                device: row.device,
                numerics: row.numerics,
                processor: row.processor,
                jobs: usize::try_from(row.jobs).unwrap_or_default(),
            })
        })
        .collect()
}
