//! Predictions of models that were trained elsewhere: results without a worker.
//!
//! They become done jobs of a sweep that asks for the same cases on the same dataset. A training job
//! stands for the model; it has no checkpoints, and nothing evaluates it again. The config says that
//! they are imported, and so does everything that shows where a number is from.

mod error;

pub use error::ImportError;

use crate::{Store, StoreError, sharing, tallies};
use halfheard_shared::{
    benchmark::Benchmark,
    case::Case,
    ids::{AttemptId, JobId, SweepId},
    matrix::{config_id, eval_job_id, train_job_id},
    metrics,
    results::Model,
    text::count,
    wire::TrainSpec,
};
use serde_json::{Value, json};
use sqlx::PgConnection;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use uuid::Uuid;

/// Who "worked" on imported results: no worker can have this name, because workers' names end with the
/// number of their slot.
pub const WORKER: &str = "import";
/// The epoch after which an imported model's predictions were made, of which nothing is known.
const EPOCH: i32 = 1;

/// The predictions of one model, trained with one seed, on one dataset.
#[derive(Clone, Debug)]
pub struct ImportedModel<'a> {
    /// The method's id, which is none of the registry's.
    pub method: &'a str,
    /// The variant; empty for the method itself.
    pub variant: &'a str,
    /// The seed that it was trained with.
    pub seed: u64,
    /// The dataset's name in the sweep.
    pub dataset: &'a str,
    /// Where the predictions are from: the file and its hash.
    pub source: &'a str,
    /// This machine.
    pub host: &'a str,
    /// For each case one value for each sample of the test split, in the file's order.
    pub cases: &'a BTreeMap<Case, Vec<f32>>,
}

/// What an import did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Cases whose predictions are new in the sweep.
    pub stored: Vec<Case>,
    /// Cases whose predictions were there already, the same.
    pub unchanged: Vec<Case>,
}

/// The test split of a sweep's dataset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsedSplit {
    /// The hash of the dataset file.
    pub blake3: String,
    /// Where it was when the sweep was submitted.
    pub path: String,
    /// Samples of the test split.
    pub samples: usize,
}

/// What the sweep knows of the dataset.
struct Ground {
    dataset: Benchmark,
    labels: Vec<f32>,
    /// The config of the sweep's first model on it.
    spec: Value,
}

/// A case to store.
struct New<'a> {
    case: Case,
    job: JobId,
    predictions: &'a [f32],
    metrics: metrics::Metrics,
}

impl Store {
    /// The test split that a sweep measures predictions on `dataset` against.
    ///
    /// # Errors
    ///
    /// The sweep does not use the dataset; the database's.
    pub async fn test_split(
        &self,
        sweep: SweepId,
        dataset: &str,
    ) -> Result<UsedSplit, ImportError> {
        let mut connection = self.pool().acquire().await.map_err(StoreError::from)?;
        let ground = ground(&mut connection, sweep, dataset).await?;
        let text = |key: &str| {
            ground.spec["data"][key]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        Ok(UsedSplit {
            blake3: text("blake3"),
            path: text("path"),
            samples: ground.labels.len(),
        })
    }

    /// The names of the datasets that a sweep uses, in the order of its jobs.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn datasets_of(&self, sweep: SweepId) -> Result<Vec<String>, StoreError> {
        datasets(&mut *self.pool().acquire().await?, sweep).await
    }

    /// Stores the predictions of a model that was trained elsewhere as results of a sweep, with all
    /// metrics, under every selection criterion. What is stored already must be the same.
    ///
    /// # Errors
    ///
    /// See [`ImportError`].
    pub async fn import_predictions(
        &self,
        sweep: SweepId,
        model: &ImportedModel<'_>,
    ) -> Result<Imported, ImportError> {
        let mut tx = sharing::begin(self).await?;
        let ground = ground(&mut tx, sweep, model.dataset).await?;
        check_method(&mut tx, sweep, model.method).await?;
        let tables = check_cases(&mut tx, sweep, model).await?;
        let job_of = |train, case: &Case| {
            let table = tables.get(&case.to_string());
            eval_job_id(train, case, table.map(String::as_str))
        };
        let (spec, config) = imported_config(&ground, model)?;
        let train = train_job_id(config, model.seed, None);
        let ids: Vec<Uuid> = model
            .cases
            .keys()
            .map(|case| job_of(train, case).0)
            .collect();
        let stored = stored_predictions(&mut tx, &ids).await?;

        let mut imported = Imported::default();
        let (mut new, mut other) = (Vec::new(), Vec::new());
        let mut all = vec![train];
        for (&case, predictions) in model.cases {
            let job = job_of(train, &case);
            all.push(job);
            match stored.get(&job.0) {
                Some(known) if *known == bytes(predictions) => imported.unchanged.push(case),
                Some(_) => other.push(case),
                None => {
                    let metrics = metrics::evaluate(ground.dataset, predictions, &ground.labels)
                        .map_err(|source| ImportError::Metrics { case, source })?;
                    new.push(New {
                        case,
                        job,
                        predictions,
                        metrics,
                    });
                    imported.stored.push(case);
                }
            }
        }
        if !other.is_empty() {
            return Err(ImportError::Conflict {
                model: describe(model),
                cases: list(&other),
            });
        }
        sqlx::query!(
            "INSERT INTO config (id, spec) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING",
            config,
            spec
        )
        .execute(&mut *tx)
        .await?;
        write_jobs(&mut tx, model, config, train, &new).await?;
        write_results(&mut tx, &ground, &new).await?;
        ask_for(&mut tx, sweep, &all).await?;
        tx.commit().await.map_err(StoreError::from)?;
        Ok(imported)
    }

    /// Deletes the imported predictions of a model from a sweep, on all of its datasets. Those that
    /// another sweep has, too, stay there. Returns how many jobs the sweep no longer has.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn delete_imported(
        &self,
        sweep: SweepId,
        method: &str,
        variant: &str,
        seed: Option<u64>,
    ) -> Result<u64, StoreError> {
        let seed = seed.map(seed_column).transpose()?;
        let mut tx = sharing::begin(self).await?;
        let mine: Vec<Uuid> = sqlx::query_scalar!(
            "DELETE FROM sweep_job w USING job j, config c
             WHERE w.sweep = $1 AND j.id = w.job AND c.id = j.config AND c.spec ? 'imported'
               AND j.method = $2 AND j.variant = $3 AND ($4::bigint IS NULL OR j.seed = $4)
             RETURNING w.job",
            sweep.0,
            method,
            variant,
            seed
        )
        .fetch_all(&mut *tx)
        .await?;
        sqlx::query!(
            "DELETE FROM job j WHERE j.id = ANY($1)
               AND NOT EXISTS (SELECT FROM sweep_job w WHERE w.job = j.id)",
            &mine
        )
        .execute(&mut *tx)
        .await?;
        // What stays is scheduled under a sweep that still has it.
        let others: Vec<Uuid> = sqlx::query_scalar!(
            "SELECT DISTINCT sweep FROM sweep_job WHERE job = ANY($1)",
            &mine
        )
        .fetch_all(&mut *tx)
        .await?;
        for other in others {
            sharing::reschedule(&mut tx, SweepId(other)).await?;
        }
        count_jobs(&mut tx, sweep).await?;
        tallies::recount(&mut tx, sweep).await?;
        tx.commit().await?;
        Ok(mine.len() as u64)
    }
}

async fn datasets(
    connection: &mut PgConnection,
    sweep: SweepId,
) -> Result<Vec<String>, StoreError> {
    Ok(sqlx::query_scalar!(
        "SELECT j.dataset FROM sweep_job w JOIN job j ON j.id = w.job
         WHERE w.sweep = $1 AND j.kind = 'train'
         GROUP BY j.dataset ORDER BY min(w.position)",
        sweep.0
    )
    .fetch_all(connection)
    .await?)
}

/// Whether the method's results in the sweep are imported ones: means must not mix them with those of
/// an external program.
async fn check_method(
    connection: &mut PgConnection,
    sweep: SweepId,
    method: &str,
) -> Result<(), ImportError> {
    let trained = sqlx::query_scalar!(
        r#"SELECT EXISTS (
               SELECT FROM sweep_job w JOIN job j ON j.id = w.job JOIN config c ON c.id = j.config
               WHERE w.sweep = $1 AND j.kind = 'train' AND j.method = $2
                 AND NOT c.spec ? 'imported') AS "trained!""#,
        sweep.0,
        method
    )
    .fetch_one(connection)
    .await?;
    match trained {
        true => Err(ImportError::Trained(method.to_owned())),
        false => Ok(()),
    }
}

async fn ground(
    connection: &mut PgConnection,
    sweep: SweepId,
    dataset: &str,
) -> Result<Ground, ImportError> {
    let row = sqlx::query!(
        r#"SELECT c.spec, d.test_labels
           FROM sweep_job w
           JOIN job j ON j.id = w.job
           JOIN config c ON c.id = j.config
           JOIN dataset d ON d.blake3 = c.spec #>> '{data,blake3}'
           WHERE w.sweep = $1 AND j.kind = 'train' AND j.dataset = $2
           ORDER BY c.spec ? 'imported', w.position LIMIT 1"#,
        sweep.0,
        dataset
    )
    .fetch_optional(&mut *connection)
    .await?;
    let Some(row) = row else {
        let have = datasets(connection, sweep).await?;
        let have = match have.is_empty() {
            true => "none".to_owned(),
            false => have.join(", "),
        };
        let name = dataset.to_owned();
        return Err(ImportError::Dataset { name, have });
    };
    let spec: TrainSpec = serde_json::from_value(row.spec.clone())
        .map_err(|error| StoreError::stored("a config", error))?;
    let (labels, _) = row.test_labels.as_chunks::<4>();
    Ok(Ground {
        dataset: spec.dataset,
        labels: labels
            .iter()
            .map(|label| f32::from_le_bytes(*label))
            .collect(),
        spec: row.spec,
    })
}

/// Checks that the sweep evaluates each case on this dataset. Returns the hashes of the tables of
/// confusions by the cases that need one.
async fn check_cases(
    tx: &mut PgConnection,
    sweep: SweepId,
    model: &ImportedModel<'_>,
) -> Result<HashMap<String, String>, ImportError> {
    let rows = sqlx::query!(
        r#"SELECT j.case_id AS "case!", min(j.confusions) AS confusions
           FROM sweep_job w JOIN job j ON j.id = w.job
           WHERE w.sweep = $1 AND j.kind = 'eval' AND j.dataset = $2
           GROUP BY j.case_id ORDER BY min(w.position)"#,
        sweep.0,
        model.dataset
    )
    .fetch_all(tx)
    .await?;
    let have: Vec<String> = rows.iter().map(|row| row.case.clone()).collect();
    let known: BTreeSet<&str> = have.iter().map(String::as_str).collect();
    let unknown: Vec<Case> = model
        .cases
        .keys()
        .filter(|case| !known.contains(case.to_string().as_str()))
        .copied()
        .collect();
    if unknown.is_empty() {
        let tables = rows.into_iter();
        return Ok(tables
            .filter_map(|row| Some((row.case, row.confusions?)))
            .collect());
    }
    Err(ImportError::Cases {
        dataset: model.dataset.to_owned(),
        unknown: list(&unknown),
        have: have.join(", "),
    })
}

/// The config of an imported model: the sweep's protocol and data, and nothing of how it was trained.
fn imported_config(
    ground: &Ground,
    model: &ImportedModel<'_>,
) -> Result<(Value, Uuid), StoreError> {
    let mut spec = ground.spec.clone();
    spec["method"] = json!(model.method);
    spec["variant"] = json!(model.variant);
    spec["hyper"] = json!("{}");
    spec["max_epochs"] = json!(EPOCH);
    spec["encoder"] = json!({ "blake3": "", "path": "" });
    let decoded: TrainSpec = serde_json::from_value(spec.clone())
        .map_err(|error| StoreError::stored("a config", error))?;
    spec["imported"] = json!(true);
    Ok((spec, config_id(&decoded)))
}

/// The predictions that are stored for these jobs.
async fn stored_predictions(
    tx: &mut PgConnection,
    jobs: &[Uuid],
) -> Result<HashMap<Uuid, Vec<u8>>, StoreError> {
    Ok(sqlx::query!(
        "SELECT job, data FROM prediction WHERE job = ANY($1) AND number = 0",
        jobs
    )
    .fetch_all(tx)
    .await?
    .into_iter()
    .map(|row| (row.job, row.data))
    .collect())
}

/// Writes the training job that stands for the model, and the new evaluation jobs, all of them done.
async fn write_jobs(
    tx: &mut PgConnection,
    model: &ImportedModel<'_>,
    config: Uuid,
    train: JobId,
    new: &[New<'_>],
) -> Result<(), StoreError> {
    let jobs: Vec<Uuid> = std::iter::once(train)
        .chain(new.iter().map(|new| new.job))
        .map(|job| job.0)
        .collect();
    let cases: Vec<Option<String>> = std::iter::once(None)
        .chain(new.iter().map(|new| Some(new.case.to_string())))
        .collect();
    let attempts: Vec<Uuid> = jobs.iter().map(|job| attempt_of(JobId(*job)).0).collect();
    sqlx::query!(
        "INSERT INTO job (id, position, kind, method, variant, dataset, seed, case_id, train_job,
                          config, state, attempt, worker, started, finished)
         SELECT i.id, 0, CASE WHEN i.case_id IS NULL THEN 'train' ELSE 'eval' END::job_kind,
                $4, $5, $6, $7, i.case_id,
                CASE WHEN i.case_id IS NULL THEN NULL ELSE $8::uuid END, $9, 'done', i.attempt,
                $10, now(), now()
         FROM unnest($1::uuid[], $2::text[], $3::uuid[]) AS i (id, case_id, attempt)
         ON CONFLICT (id) DO NOTHING",
        &jobs,
        &cases as &[Option<String>],
        &attempts,
        model.method,
        model.variant,
        model.dataset,
        seed_column(model.seed)?,
        train.0,
        config,
        WORKER
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!(
        "INSERT INTO attempt (id, job, worker, session, host, device, version, started, ended,
                              outcome)
         SELECT i.id, i.job, $3, $4, $5, 'imported', $6, now(), now(), 'done'
         FROM unnest($1::uuid[], $2::uuid[]) AS i (id, job)
         ON CONFLICT (id) DO NOTHING",
        &attempts,
        &jobs,
        WORKER,
        Uuid::nil(),
        model.host,
        model.source
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Writes predictions and metrics: the same under each criterion, because what was selected how is the
/// model's own affair.
async fn write_results(
    tx: &mut PgConnection,
    ground: &Ground,
    new: &[New<'_>],
) -> Result<(), StoreError> {
    let jobs: Vec<Uuid> = new.iter().map(|new| new.job.0).collect();
    let attempts: Vec<Uuid> = new.iter().map(|new| attempt_of(new.job).0).collect();
    let data: Vec<Vec<u8>> = new.iter().map(|new| bytes(new.predictions)).collect();
    let criteria: Vec<&str> = ground.dataset.criteria().iter().map(|c| c.id).collect();
    let samples = i32::try_from(ground.labels.len()).unwrap_or(i32::MAX);
    sqlx::query!(
        "INSERT INTO prediction (job, number, samples, data)
         SELECT i.job, 0, $3, i.data FROM unnest($1::uuid[], $2::bytea[]) AS i (job, data)",
        &jobs,
        &data,
        samples
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!(
        "INSERT INTO evaluation (job, criterion, epoch, prediction, attempt)
         SELECT i.job, criterion, $4, 0, i.attempt
         FROM unnest($1::uuid[], $2::uuid[]) AS i (job, attempt), unnest($3::text[]) AS criterion",
        &jobs,
        &attempts,
        &criteria as &[&str],
        EPOCH
    )
    .execute(&mut *tx)
    .await?;
    let (mut of, mut ids, mut values) = (Vec::new(), Vec::new(), Vec::new());
    for new in new {
        for (metric, value) in &new.metrics {
            of.push(new.job.0);
            ids.push(metric.as_str());
            values.push(*value);
        }
    }
    sqlx::query!(
        "INSERT INTO result (job, criterion, metric, value)
         SELECT i.job, criterion, i.metric, i.value
         FROM unnest($1::uuid[], $2::text[], $3::float8[]) AS i (job, metric, value),
              unnest($4::text[]) AS criterion",
        &of,
        &ids as &[&str],
        &values as &[Option<f64>],
        &criteria as &[&str]
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Lets the sweep ask for these jobs, after those that it asks for already.
async fn ask_for(tx: &mut PgConnection, sweep: SweepId, jobs: &[JobId]) -> Result<(), StoreError> {
    let jobs: Vec<Uuid> = jobs.iter().map(|job| job.0).collect();
    sqlx::query!(
        "INSERT INTO sweep_job (sweep, position, job)
         SELECT $1, last.position + row_number() OVER (ORDER BY i.place), i.job
         FROM unnest($2::uuid[]) WITH ORDINALITY AS i (job, place),
              (SELECT coalesce(max(position), -1) AS position FROM sweep_job WHERE sweep = $1)
              AS last
         WHERE NOT EXISTS (SELECT FROM sweep_job w WHERE w.sweep = $1 AND w.job = i.job)",
        sweep.0,
        &jobs
    )
    .execute(&mut *tx)
    .await?;
    count_jobs(tx, sweep).await?;
    sharing::reschedule(tx, sweep).await?;
    Ok(())
}

/// Writes how many jobs of each kind the sweep asks for.
async fn count_jobs(tx: &mut PgConnection, sweep: SweepId) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE sweep SET train_jobs = n.train, eval_jobs = n.eval
         FROM (SELECT count(*) FILTER (WHERE j.kind = 'train') AS train,
                      count(*) FILTER (WHERE j.kind = 'eval') AS eval
               FROM sweep_job w JOIN job j ON j.id = w.job WHERE w.sweep = $1) n
         WHERE id = $1",
        sweep.0
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// The one attempt at an imported job.
fn attempt_of(job: JobId) -> AttemptId {
    AttemptId(JobId::derive(&[job.as_bytes(), b"import"]).0)
}

fn seed_column(seed: u64) -> Result<i64, StoreError> {
    i64::try_from(seed).map_err(|_| StoreError::TooLarge {
        what: "the seed",
        value: seed,
    })
}

fn bytes(predictions: &[f32]) -> Vec<u8> {
    predictions.iter().flat_map(|x| x.to_le_bytes()).collect()
}

fn describe(model: &ImportedModel<'_>) -> String {
    let name = Model::new(model.method, model.variant);
    format!("{name} with seed {} on {}", model.seed, model.dataset)
}

/// A few cases by name.
fn list(cases: &[Case]) -> String {
    const NAMED: usize = 4;
    let named: Vec<String> = cases.iter().take(NAMED).map(Case::to_string).collect();
    let named = named.join(", ");
    match cases.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named} and {}", count(more, "other case")),
    }
}
