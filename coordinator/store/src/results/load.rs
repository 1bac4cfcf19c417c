//! Reads a sweep's results in one transaction, each view once.

use super::{ResultsError, Snapshot, audit, snapshot::case};
use crate::Store;
use halfheard_shared::{
    benchmark::Benchmark,
    case::Rate,
    features,
    ids::{JobId, SweepId},
    results::{
        Cells, Checkpoint, DatasetFile, Fact, Job, JobOutcome, JobTally, Model, Protocol, Results,
        Sweep, Wanted,
    },
    wire::Selection,
};

/// The most jobs of a sweep that are read one by one where counts do as well: as long as it takes to read so many, nobody
/// waits.
const JOBS_READ: u64 = 20_000;

/// Reads a sweep's results.
///
/// # Errors
///
/// The database's; a dataset or case that this program does not know.
pub async fn load(store: &Store, sweep: SweepId, wanted: Wanted) -> Result<Results, ResultsError> {
    Snapshot::begin(store, sweep).await?.results(wanted).await
}

/// How far a job in a state is.
fn outcome(state: &str) -> JobOutcome {
    match state {
        "done" => JobOutcome::Done,
        "failed" => JobOutcome::Failed,
        "cancelled" => JobOutcome::Cancelled,
        _ => JobOutcome::Open,
    }
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
        let tally = self.tally().await?;
        let protocols = self.protocols().await?;
        let both = protocols.iter().any(|p| p.selection == Selection::Both);
        let cells_on_test = match both {
            true => self.cells_on_test().await?,
            false => Cells::default(),
        };
        Ok(Results {
            sweep,
            known: self.known.all(),
            cells: self.cells().await?,
            cells_on_test,
            jobs: match wanted.audit || JobTally::all(&tally) <= JOBS_READ {
                true => Some(self.jobs().await?),
                false => None,
            },
            tally,
            protocols,
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

    async fn tally(&mut self) -> Result<Vec<JobTally>, ResultsError> {
        let rows = sqlx::query!(
            r#"SELECT dataset, method, variant, case_id,
                      CASE WHEN state IN ('done', 'failed', 'cancelled') THEN state::text ELSE 'open' END
                          AS "outcome!",
                      sum(jobs)::bigint AS "jobs!"
               FROM tally
               WHERE sweep = $1 AND kind <> 'noop'
               GROUP BY 1, 2, 3, 4, 5 HAVING sum(jobs) > 0
               ORDER BY 1, 2, 3, 4, 5"#,
            self.sweep.0
        )
        .fetch_all(&mut *self.tx)
        .await?;
        rows.into_iter()
            .map(|row| {
                Ok(JobTally {
                    dataset: self.known.named(&row.dataset)?,
                    model: Model::new(row.method, row.variant),
                    case: case(row.case_id)?,
                    outcome: outcome(&row.outcome),
                    jobs: row.jobs.unsigned_abs(),
                })
            })
            .collect()
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
                    outcome: outcome(&row.state),
                    error: row.last_error,
                })
            })
            .collect()
    }

    /// The protocols by which its models are trained.
    ///
    /// # Errors
    ///
    /// The database's; a protocol of a newer program.
    pub async fn protocols(&mut self) -> Result<Vec<Protocol>, ResultsError> {
        let rows = sqlx::query!(
            r#"SELECT selection, selection_rate, erasure_seed, fidelity, train_missing,
                      switched AS "switched!", methods AS "methods!"
               FROM sweep_protocol WHERE sweep = $1
               ORDER BY selection, fidelity, train_missing, methods"#,
            self.sweep.0
        )
        .fetch_all(&mut *self.tx)
        .await?;
        let unknown = ResultsError::Protocol;
        rows.into_iter()
            .map(|row| {
                let text = |text: Option<String>| serde_json::Value::from(text.unwrap_or_default());
                let (selection, fidelity) = (text(row.selection), text(row.fidelity));
                let selection_rate = row.selection_rate.and_then(|rate| Rate::new(rate).ok());
                let erasure_seed = row.erasure_seed.and_then(|seed| u32::try_from(seed).ok());
                let train_missing = row.train_missing.and_then(|regime| regime.parse().ok());
                Ok(Protocol {
                    selection: serde_json::from_value(selection)
                        .map_err(|_| unknown("selection"))?,
                    selection_rate: selection_rate.ok_or_else(|| unknown("selection_rate"))?,
                    erasure_seed: erasure_seed.ok_or_else(|| unknown("erasure_seed"))?,
                    fidelity: serde_json::from_value(fidelity).map_err(|_| unknown("fidelity"))?,
                    train_missing: train_missing.ok_or_else(|| unknown("train_missing"))?,
                    switched: row
                        .switched
                        .iter()
                        .map(|id| id.parse())
                        .collect::<Result<_, _>>()
                        .map_err(|_| unknown("faults"))?,
                    models: row
                        .methods
                        .iter()
                        .filter_map(|id| id.parse().ok())
                        .collect(),
                })
            })
            .collect()
    }

    async fn processors(&mut self) -> Result<Vec<String>, ResultsError> {
        Ok(sqlx::query_scalar!(
            r#"SELECT DISTINCT p.processor AS "processor!"
               FROM tally_metric t CROSS JOIN LATERAL (VALUES (t.trained), (t.evaluated)) AS p (processor)
               WHERE t.sweep = $1 AND p.processor <> ''
               ORDER BY 1"#,
            self.sweep.0
        )
        .fetch_all(&mut *self.tx)
        .await?)
    }

    /// The models whose predictions were imported.
    async fn imported(&mut self) -> Result<Vec<Model>, ResultsError> {
        Ok(sqlx::query!(
            "SELECT DISTINCT j.method, j.variant
             FROM tally j JOIN config c ON c.id = j.config
             WHERE j.sweep = $1 AND j.kind = 'train' AND c.spec ? 'imported'
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
               FROM tally j JOIN config c ON c.id = j.config
               CROSS JOIN LATERAL (SELECT (c.spec ->> 'hyper')::jsonb #>> '{program,bundle}')
                   AS p (bundle)
               WHERE j.sweep = $1 AND j.kind = 'train' AND p.bundle IS NOT NULL
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
             FROM tally j
             JOIN config c ON c.id = j.config
             JOIN dataset d ON d.blake3 = c.spec #>> '{data,blake3}'
             WHERE j.sweep = $1 AND j.kind = 'train'
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
                          numerics, imported, coalesce(train_missing, 'unknown') AS regime,
                          array_to_string(switched, ', ') AS switched,
                          count(DISTINCT job) AS jobs
                   FROM provenance WHERE sweep = $1
                   GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13
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
                              WHEN 'bf16'
                              THEN 'bf16: products of matrices in bfloat16, the same bits on the same kind of processor'
                              ELSE 'machine: the same bits on the same kind of processor' END,
                          sum(jobs)::bigint
                   FROM basis WHERE NOT imported GROUP BY numerics
                   UNION ALL
                   SELECT 6, 'training regime', regime, sum(jobs)::bigint
                   FROM basis WHERE NOT imported GROUP BY regime
                   UNION ALL
                   SELECT 7, 'switched faults', switched, sum(jobs)::bigint
                   FROM basis WHERE NOT imported AND switched <> '' GROUP BY switched
                   UNION ALL
                   SELECT 8, 'imported predictions', evaluated_with, sum(jobs)::bigint
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
            "SELECT j.dataset, j.method
             FROM tally j
             WHERE j.sweep = $1 AND j.kind = 'eval' AND j.state = 'done'
             GROUP BY 1, 2 HAVING sum(j.jobs) > 0 ORDER BY 1, 2",
            self.sweep.0
        )
        .fetch_all(&mut *self.tx)
        .await?;
        let rows = rows.into_iter();
        rows.map(|row| Ok((self.known.named(&row.dataset)?, row.method)))
            .collect()
    }
}
