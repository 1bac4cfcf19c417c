//! Reads a sweep's results in one transaction, each view once.

use super::{ResultsError, Snapshot, audit, snapshot::case};
use crate::Store;
use halfheard_shared::{
    benchmark::Benchmark,
    case::CaseOrMean,
    features,
    ids::{JobId, SweepId},
    results::{
        Cell, CellKey, Cells, Checkpoint, DatasetFile, Fact, Job, JobOutcome, Model, Protocol,
        Results, Sweep, Wanted,
    },
    wire::{Fidelity, Selection},
};

/// Reads a sweep's results.
///
/// # Errors
///
/// The database's; a dataset or case that this program does not know.
pub async fn load(store: &Store, sweep: SweepId, wanted: Wanted) -> Result<Results, ResultsError> {
    Snapshot::begin(store, sweep).await?.results(wanted).await
}

impl Snapshot {
    /// Reads everything but predictions and epochs, which are large.
    ///
    /// # Errors
    ///
    /// See [`load`].
    pub async fn results(&mut self, wanted: Wanted) -> Result<Results, ResultsError> {
        let sweep = self.sweep().await?;
        let checkpoints = if wanted.checkpoints {
            self.checkpoints().await?
        } else {
            Vec::new()
        };
        let provenance = if wanted.provenance {
            self.provenance().await?
        } else {
            Vec::new()
        };
        let audit = if wanted.audit {
            Some(audit::records(self).await?)
        } else {
            None
        };
        Ok(Results {
            sweep,
            known: self.known.all(),
            cells: self.cells().await?,
            jobs: self.jobs().await?,
            protocols: self.protocols().await?,
            processors: self.processors().await?,
            imported: self.imported().await?,
            external: self.external().await?,
            files: self.files().await?,
            provenance,
            checkpoints,
            audit,
        })
    }

    async fn sweep(&mut self) -> Result<Sweep, ResultsError> {
        let row = sqlx::query!(
            "SELECT name, created, spec FROM sweep WHERE id = $1",
            self.sweep.0
        )
        .fetch_one(&mut *self.tx)
        .await?;
        Ok(Sweep {
            id: self.sweep,
            name: row.name,
            created: row.created.into(),
            spec: row.spec,
        })
    }

    /// The means over seeds, and the means of these over the cases of a kind.
    async fn cells(&mut self) -> Result<Cells, ResultsError> {
        let rows = sqlx::query!(
            r#"SELECT dataset AS "dataset!", method AS "method!", variant AS "variant!",
                      case_id AS "case_id!", metric AS "metric!", mean, std, min,
                      max, seeds_completed AS "completed!", seeds_expected AS "expected!"
               FROM cell WHERE sweep = $1
               UNION ALL
               SELECT dataset, method, variant, 'r=mean', metric, mean, std, NULL, NULL,
                      cells_completed, cells_expected
               FROM table_overall WHERE sweep = $1
               UNION ALL
               SELECT dataset, method, variant, 'missing=mean', metric, mean, std, NULL, NULL,
                      cells_completed, cells_expected
               FROM table_missing_overall WHERE sweep = $1"#,
            self.sweep.0
        )
        .fetch_all(&mut *self.tx)
        .await?;
        let mut cells = Vec::with_capacity(rows.len());
        for row in rows {
            let dataset = self.known.named(&row.dataset)?;
            // A database of a newer program may have further metrics.
            let Some(metric) = dataset.metric(&row.metric) else {
                continue;
            };
            let key = CellKey {
                dataset,
                model: Model::new(row.method, row.variant),
                case: row.case_id.parse::<CaseOrMean>()?,
                metric: metric.id,
            };
            let cell = Cell {
                mean: row.mean,
                std: row.std,
                min: row.min,
                max: row.max,
                completed: row.completed,
                expected: row.expected,
            };
            cells.push((key, cell));
        }
        Ok(cells.into_iter().collect())
    }

    async fn jobs(&mut self) -> Result<Vec<Job>, ResultsError> {
        let rows = sqlx::query!(
            r#"SELECT id, dataset, method, variant, seed, case_id, state::text AS "state!",
                      last_error
               FROM sweep_job w JOIN job j ON j.id = w.job
               WHERE w.sweep = $1 AND j.kind <> 'noop' ORDER BY w.position"#,
            self.sweep.0
        )
        .fetch_all(&mut *self.tx)
        .await?;
        rows.into_iter()
            .map(|row| {
                Ok(Job {
                    id: JobId(row.id),
                    dataset: self.known.named(&row.dataset)?,
                    model: Model::new(row.method, row.variant),
                    seed: row.seed.cast_unsigned(),
                    case: case(row.case_id)?,
                    outcome: match row.state.as_str() {
                        "done" => JobOutcome::Done,
                        "failed" => JobOutcome::Failed,
                        "cancelled" => JobOutcome::Cancelled,
                        _ => JobOutcome::Open,
                    },
                    error: row.last_error,
                })
            })
            .collect()
    }

    async fn protocols(&mut self) -> Result<Vec<Protocol>, ResultsError> {
        let rows = sqlx::query!(
            "SELECT DISTINCT selection, fidelity, train_missing FROM sweep_protocol
             WHERE sweep = $1 ORDER BY 1, 2, 3",
            self.sweep.0
        )
        .fetch_all(&mut *self.tx)
        .await?;
        let protocols = rows.into_iter().map(|row| Protocol {
            selection: match row.selection.as_deref() {
                Some("test") => Selection::Test,
                _ => Selection::Validation,
            },
            fidelity: match row.fidelity.as_deref() {
                Some("corrected") => Fidelity::Corrected,
                _ => Fidelity::Reference,
            },
            train_missing: row.train_missing.unwrap_or(true),
        });
        Ok(protocols.collect())
    }

    async fn processors(&mut self) -> Result<Vec<String>, ResultsError> {
        Ok(sqlx::query_scalar!(
            "SELECT DISTINCT a.processor
             FROM sweep_job w JOIN job j ON j.id = w.job JOIN attempt a ON a.job = j.id
             WHERE w.sweep = $1 AND j.kind <> 'noop' AND a.outcome = 'done' AND a.processor <> ''
             ORDER BY 1",
            self.sweep.0
        )
        .fetch_all(&mut *self.tx)
        .await?)
    }

    /// The models whose predictions were imported.
    async fn imported(&mut self) -> Result<Vec<Model>, ResultsError> {
        Ok(sqlx::query!(
            "SELECT DISTINCT j.method, j.variant
             FROM sweep_job w JOIN job j ON j.id = w.job JOIN config c ON c.id = j.config
             WHERE w.sweep = $1 AND j.kind = 'train' AND c.spec ? 'imported'
             ORDER BY 1, 2",
            self.sweep.0
        )
        .fetch_all(&mut *self.tx)
        .await?
        .into_iter()
        .map(|row| Model::new(row.method, row.variant))
        .collect())
    }

    /// The external programs with their bundles.
    async fn external(&mut self) -> Result<Vec<(String, String)>, ResultsError> {
        Ok(sqlx::query!(
            r#"SELECT DISTINCT j.method, p.bundle AS "bundle!"
               FROM sweep_job w JOIN job j ON j.id = w.job JOIN config c ON c.id = j.config
               CROSS JOIN LATERAL (SELECT (c.spec ->> 'hyper')::jsonb #>> '{program,bundle}')
                   AS p (bundle)
               WHERE w.sweep = $1 AND j.kind = 'train' AND p.bundle IS NOT NULL
               ORDER BY 1, 2"#,
            self.sweep.0
        )
        .fetch_all(&mut *self.tx)
        .await?
        .into_iter()
        .map(|row| (row.method, row.bundle))
        .collect())
    }

    async fn files(&mut self) -> Result<Vec<DatasetFile>, ResultsError> {
        let rows = sqlx::query!(
            "SELECT DISTINCT j.dataset, d.blake3, d.train_samples, d.valid_samples,
                    d.test_samples, d.test_labels
             FROM sweep_job w
             JOIN job j ON j.id = w.job
             JOIN config c ON c.id = j.config
             JOIN dataset d ON d.blake3 = c.spec #>> '{data,blake3}'
             WHERE w.sweep = $1 AND j.kind = 'train'
             ORDER BY j.dataset, d.blake3",
            self.sweep.0
        )
        .fetch_all(&mut *self.tx)
        .await?;
        rows.into_iter()
            .map(|row| {
                let sizes = [row.train_samples, row.valid_samples, row.test_samples];
                let (labels, _) = row.test_labels.as_chunks::<4>();
                Ok(DatasetFile {
                    dataset: self.known.named(&row.dataset)?,
                    blake3: row.blake3,
                    sizes: sizes.map(|size| usize::try_from(size).unwrap_or(0)),
                    test_labels: labels.iter().map(|b| f32::from_le_bytes(*b)).collect(),
                })
            })
            .collect()
    }

    async fn checkpoints(&mut self) -> Result<Vec<Checkpoint>, ResultsError> {
        let rows = sqlx::query!(
            "SELECT j.dataset, j.method, j.variant, j.seed, k.blake3
             FROM sweep_job w
             JOIN job j ON j.id = w.job
             JOIN checkpoint k ON k.job = j.id AND k.criterion = $2
             WHERE w.sweep = $1 AND j.kind = 'train'
             ORDER BY j.dataset, j.method, j.variant, j.seed",
            self.sweep.0,
            features::CRITERION
        )
        .fetch_all(&mut *self.tx)
        .await?;
        let mut checkpoints = Vec::with_capacity(rows.len());
        for row in rows {
            // A hash in another form has no features.
            let Ok(hash) = row.blake3.parse() else {
                continue;
            };
            checkpoints.push(Checkpoint {
                dataset: self.known.named(&row.dataset)?,
                model: Model::new(row.method, row.variant),
                seed: row.seed.cast_unsigned(),
                hash,
            });
        }
        Ok(checkpoints)
    }

    /// Counted in the database: evaluations are many, what they rest on is little.
    async fn provenance(&mut self) -> Result<Vec<Fact>, ResultsError> {
        Ok(sqlx::query_as!(
            Fact,
            r#"WITH basis AS MATERIALIZED (
                   SELECT dataset, data, encoder, trained_with, trained_on, evaluated_with,
                          evaluated_on,
                          coalesce(nullif(' (' || trained_processor || ')', ' ()'), '')
                              AS trained_kind,
                          coalesce(nullif(' (' || evaluated_processor || ')', ' ()'), '')
                              AS evaluated_kind,
                          numerics, imported, count(DISTINCT job) AS jobs
                   FROM provenance WHERE sweep = $1
                   GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
               ), fact AS (
                   SELECT 1 AS place, 'dataset ' || dataset AS name,
                          'BLAKE3 ' || coalesce(data, 'unknown') AS value, sum(jobs)::bigint AS jobs
                   FROM basis GROUP BY dataset, data
                   UNION ALL
                   SELECT 2, 'text encoder', 'BLAKE3 ' || coalesce(encoder, 'unknown'),
                          sum(jobs)::bigint
                   FROM basis WHERE NOT imported GROUP BY encoder
                   UNION ALL
                   SELECT 3, 'trained with', 'worker ' || coalesce(trained_with, 'unknown')
                          || ' on ' || coalesce(trained_on, 'unknown') || trained_kind,
                          sum(jobs)::bigint
                   FROM basis WHERE NOT imported
                   GROUP BY trained_with, trained_on, trained_kind
                   UNION ALL
                   SELECT 4, 'evaluated with', 'worker ' || evaluated_with || ' on '
                          || evaluated_on || evaluated_kind, sum(jobs)::bigint
                   FROM basis WHERE NOT imported
                   GROUP BY evaluated_with, evaluated_on, evaluated_kind
                   UNION ALL
                   SELECT 5, 'numerics', CASE numerics
                              WHEN 'portable'
                              THEN 'portable: the same bits on every x86-64 with AVX2'
                              ELSE 'machine: the same bits on the same kind of processor' END,
                          sum(jobs)::bigint
                   FROM basis WHERE NOT imported GROUP BY numerics
                   UNION ALL
                   SELECT 6, 'imported predictions', evaluated_with, sum(jobs)::bigint
                   FROM basis WHERE imported GROUP BY evaluated_with
               )
               SELECT name AS "name!", value AS "value!", jobs AS "evaluations!"
               FROM fact ORDER BY place, name, value"#,
            self.sweep.0
        )
        .fetch_all(&mut *self.tx)
        .await?)
    }
}

impl Snapshot {
    /// The datasets and methods of which an evaluation is done.
    ///
    /// # Errors
    ///
    /// The database's; a dataset that this program does not know.
    pub async fn evaluated(&mut self) -> Result<Vec<(Benchmark, String)>, ResultsError> {
        let rows = sqlx::query!(
            "SELECT DISTINCT j.dataset, j.method
             FROM sweep_job w JOIN job j ON j.id = w.job
             WHERE w.sweep = $1 AND j.kind = 'eval' AND j.state = 'done' ORDER BY 1, 2",
            self.sweep.0
        )
        .fetch_all(&mut *self.tx)
        .await?;
        let rows = rows.into_iter();
        rows.map(|row| Ok((self.known.named(&row.dataset)?, row.method)))
            .collect()
    }
}
