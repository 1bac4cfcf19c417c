//! What the audit reads of a sweep.

use super::Place;
use halfheard_shared::{benchmark::Benchmark, ids::SweepId};
use halfheard_store::{Store, predictions::PredictionsError};
use sqlx::Row as _;
use std::collections::{BTreeMap, HashMap};
use uuid::Uuid;

/// A sweep's jobs with what came of them.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub jobs: Vec<Job>,
    pub results: HashMap<Uuid, Results>,
    pub conflicts: Vec<Conflict>,
    pub files: Vec<File>,
    /// Models that chose checkpoints on the test split.
    pub chosen_on_test: Vec<Place>,
}

/// By criterion and metric; an undefined value is `None`.
pub(super) type Results = BTreeMap<(String, String), Option<f64>>;

/// A training, or with a case, an evaluation.
#[derive(Debug)]
pub(super) struct Job {
    pub id: Uuid,
    pub dataset: Benchmark,
    pub method: String,
    pub variant: String,
    pub seed: u64,
    pub case: Option<String>,
    pub state: String,
    pub error: Option<String>,
}

impl Job {
    pub fn is_done(&self) -> bool {
        self.state == "done"
    }

    pub fn place(&self) -> Place {
        Place {
            seed: Some(self.seed),
            case: self.case.clone().unwrap_or_default(),
            ..place(self.dataset, &self.method, &self.variant)
        }
    }
}

/// A result that differs from the one that was there.
#[derive(Debug)]
pub(super) struct Conflict {
    pub place: Place,
    pub what: String,
    pub worker: String,
    pub device: String,
    pub first_worker: Option<String>,
}

/// A dataset's file.
#[derive(Debug)]
pub(super) struct File {
    pub dataset: Benchmark,
    pub blake3: String,
    pub sizes: [usize; 3],
}

/// A model, without seed, metric and case.
pub(super) fn place(dataset: Benchmark, method: &str, variant: &str) -> Place {
    Place {
        table: None,
        dataset,
        method: method.to_owned(),
        variant: variant.to_owned(),
        seed: None,
        metric: String::new(),
        case: String::new(),
    }
}

pub(super) async fn load(store: &Store, sweep: SweepId) -> Result<Loaded, PredictionsError> {
    let known = store.benchmarks().await?;
    let mut loaded = Loaded::default();
    let rows = sqlx::query(
        "SELECT id, dataset, method, variant, seed, case_id, state::text AS state, last_error
         FROM job WHERE sweep = $1 AND kind <> 'noop' ORDER BY position",
    )
    .bind(sweep.0)
    .fetch_all(store.pool())
    .await?;
    for row in rows {
        loaded.jobs.push(Job {
            id: row.try_get("id")?,
            dataset: known.named(row.try_get("dataset")?)?,
            method: row.try_get("method")?,
            variant: row.try_get("variant")?,
            seed: row.try_get::<i64, _>("seed")?.cast_unsigned(),
            case: row.try_get("case_id")?,
            state: row.try_get("state")?,
            error: row.try_get("last_error")?,
        });
    }
    let rows = sqlx::query(
        "SELECT r.job, r.criterion, r.metric, r.value
         FROM job j JOIN result r ON r.job = j.id
         WHERE j.sweep = $1 AND j.kind = 'eval'",
    )
    .bind(sweep.0)
    .fetch_all(store.pool())
    .await?;
    for row in rows {
        let key = (row.try_get("criterion")?, row.try_get("metric")?);
        let results = loaded.results.entry(row.try_get("job")?).or_default();
        results.insert(key, row.try_get("value")?);
    }
    let rows = sqlx::query(
        "SELECT j.dataset, j.method, j.variant, j.seed, j.case_id, c.what,
                a.worker, a.device, first.worker AS first_worker
         FROM job j
         JOIN conflict c ON c.job = j.id
         JOIN attempt a ON a.id = c.attempt
         LEFT JOIN LATERAL (
             SELECT b.worker FROM attempt b
             WHERE b.job = j.id AND b.outcome = 'done' AND b.id <> a.id
             ORDER BY b.ended LIMIT 1
         ) first ON true
         WHERE j.sweep = $1
         ORDER BY j.position, c.noticed, c.what",
    )
    .bind(sweep.0)
    .fetch_all(store.pool())
    .await?;
    for row in rows {
        let dataset = known.named(row.try_get("dataset")?)?;
        loaded.conflicts.push(Conflict {
            place: Place {
                seed: Some(row.try_get::<i64, _>("seed")?.cast_unsigned()),
                case: row
                    .try_get::<Option<String>, _>("case_id")?
                    .unwrap_or_default(),
                ..place(dataset, row.try_get("method")?, row.try_get("variant")?)
            },
            what: row.try_get("what")?,
            worker: row.try_get("worker")?,
            device: row.try_get("device")?,
            first_worker: row.try_get("first_worker")?,
        });
    }
    let rows = sqlx::query(
        "SELECT DISTINCT d.blake3, j.dataset, d.train_samples, d.valid_samples, d.test_samples
         FROM job j
         JOIN config c ON c.id = j.config
         JOIN dataset d ON d.blake3 = c.spec #>> '{data,blake3}'
         WHERE j.sweep = $1 AND j.kind = 'train'
         ORDER BY j.dataset, d.blake3",
    )
    .bind(sweep.0)
    .fetch_all(store.pool())
    .await?;
    for row in rows {
        let size = |name| -> Result<usize, sqlx::Error> {
            Ok(usize::try_from(row.try_get::<i32, _>(name)?).unwrap_or(0))
        };
        loaded.files.push(File {
            dataset: known.named(row.try_get("dataset")?)?,
            blake3: row.try_get("blake3")?,
            sizes: [
                size("train_samples")?,
                size("valid_samples")?,
                size("test_samples")?,
            ],
        });
    }
    let rows = sqlx::query(
        "SELECT DISTINCT j.dataset, j.method, j.variant
         FROM job j JOIN config c ON c.id = j.config
         WHERE j.sweep = $1 AND j.kind = 'train'
           AND c.spec #>> '{protocol,selection}' = 'test'
         ORDER BY 1, 2, 3",
    )
    .bind(sweep.0)
    .fetch_all(store.pool())
    .await?;
    for row in rows {
        let dataset = known.named(row.try_get("dataset")?)?;
        let (method, variant) = (row.try_get("method")?, row.try_get("variant")?);
        loaded.chosen_on_test.push(place(dataset, method, variant));
    }
    Ok(loaded)
}
