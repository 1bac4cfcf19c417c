//! The stored predictions of a sweep, with the truth they are measured against: what confusion
//! matrices, bootstrap intervals and audits are computed from, without any model.

use crate::{Store, StoreError, benchmarks::Benchmarks};
use halfheard_shared::{
    benchmark::Benchmark,
    ids::{JobId, SweepId},
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};
use uuid::Uuid;

/// Why predictions cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PredictionsError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A dataset that the program does not know.
    #[error(
        "the sweep has predictions on `{0}`, which this program does not know: use a newer one"
    )]
    Dataset(String),
    /// The labels are not there.
    #[error(
        "the labels of {dataset}'s test split are not in the database (file {blake3}): \
         submit the sweep once more from where its data is; nothing is computed again"
    )]
    NoLabels {
        /// The dataset.
        dataset: Benchmark,
        /// Its file.
        blake3: String,
    },
    /// Stored bytes are no list of finite numbers of the split's size.
    #[error("{what} does not hold {samples} finite numbers: it was changed after it was stored")]
    Damaged {
        /// Of what.
        what: String,
        /// How many it should hold.
        samples: usize,
    },
}

impl From<sqlx::Error> for PredictionsError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// Which predictions to load; empty lists stand for all.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Methods' ids.
    pub methods: Vec<String>,
    /// Datasets.
    pub datasets: Vec<Benchmark>,
    /// Cases: `r=0.3`, `missing=la`.
    pub cases: Vec<String>,
}

/// A sweep's predictions.
#[derive(Clone, Debug, Default)]
pub struct Predictions {
    /// By dataset, the labels of its test split, `[samples]`.
    pub labels: BTreeMap<Benchmark, Arc<[f32]>>,
    /// One for each evaluation that is done: by dataset, method, variant, case and seed.
    pub evaluations: Vec<Evaluation>,
}

/// What a model predicts on one case.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// The job.
    pub job: JobId,
    /// The dataset.
    pub dataset: Benchmark,
    /// The method's id.
    pub method: String,
    /// The variant's id; empty for the method itself.
    pub variant: String,
    /// The seed of training.
    pub seed: u64,
    /// `r=0.3`, `missing=la`.
    pub case: String,
    /// By selection criterion, what the model of its checkpoint predicts, `[samples]` in the order
    /// of the test split. Criteria that chose the same checkpoint share it.
    pub by_criterion: BTreeMap<String, Arc<[f32]>>,
}

impl Evaluation {
    /// What `metric` is measured on: the prediction of the checkpoint that its family's criterion
    /// chose.
    pub fn of_metric(&self, metric: &str) -> Option<&Arc<[f32]>> {
        self.by_criterion.get(self.dataset.criterion_of(metric)?.id)
    }
}

impl Store {
    /// Loads the predictions of `sweep` that `filter` lets through.
    ///
    /// # Errors
    ///
    /// The database's; labels that are not there; stored bytes that were changed.
    pub async fn predictions(
        &self,
        sweep: SweepId,
        filter: &Filter,
    ) -> Result<Predictions, PredictionsError> {
        let known = self.benchmarks().await?;
        let datasets: Vec<String> = filter.datasets.iter().map(|d| d.id().to_owned()).collect();
        let files = sqlx::query!(
            r#"SELECT DISTINCT j.dataset, c.spec #>> '{data,blake3}' AS "blake3!"
               FROM job j JOIN config c ON c.id = j.config
               WHERE j.sweep = $1 AND j.kind = 'train'
                 AND (cardinality($2::text[]) = 0 OR j.dataset = ANY ($2))"#,
            sweep.0,
            &datasets
        )
        .fetch_all(self.pool())
        .await?;
        let mut labels = BTreeMap::new();
        for file in files {
            let dataset = known.named(&file.dataset)?;
            let row = sqlx::query!(
                "SELECT test_samples, test_labels FROM dataset WHERE blake3 = $1",
                file.blake3
            )
            .fetch_optional(self.pool())
            .await?;
            // Nothing of the dataset may be evaluated yet.
            let Some(row) = row else { continue };
            let samples = usize::try_from(row.test_samples).unwrap_or(0);
            let what = || format!("the labels of {}", dataset.title());
            labels.insert(dataset, numbers(&row.test_labels, samples, what)?);
        }

        let mut vectors: HashMap<(Uuid, i32), Arc<[f32]>> = HashMap::new();
        let rows = sqlx::query!(
            r#"SELECT p.job, p.number, p.data, j.dataset
               FROM job j JOIN prediction p ON p.job = j.id
               WHERE j.sweep = $1 AND j.kind = 'eval' AND j.state = 'done'
                 AND (cardinality($2::text[]) = 0 OR j.dataset = ANY ($2))
                 AND (cardinality($3::text[]) = 0 OR j.method = ANY ($3))
                 AND (cardinality($4::text[]) = 0 OR j.case_id = ANY ($4))"#,
            sweep.0,
            &datasets,
            &filter.methods,
            &filter.cases
        )
        .fetch_all(self.pool())
        .await?;
        for row in rows {
            let dataset = known.named(&row.dataset)?;
            let Some(truth) = labels.get(&dataset) else {
                let blake3 = self.file_of(sweep, dataset).await?;
                return Err(PredictionsError::NoLabels { dataset, blake3 });
            };
            let what = || format!("prediction {} of job {}", row.number, row.job);
            vectors.insert(
                (row.job, row.number),
                numbers(&row.data, truth.len(), what)?,
            );
        }

        let rows = sqlx::query!(
            r#"SELECT j.id, j.method, j.variant, j.dataset, j.seed, j.case_id AS "case_id!",
                      e.criterion, e.prediction
               FROM job j JOIN evaluation e ON e.job = j.id
               WHERE j.sweep = $1 AND j.kind = 'eval' AND j.state = 'done'
                 AND (cardinality($2::text[]) = 0 OR j.dataset = ANY ($2))
                 AND (cardinality($3::text[]) = 0 OR j.method = ANY ($3))
                 AND (cardinality($4::text[]) = 0 OR j.case_id = ANY ($4))
               ORDER BY j.dataset, j.method, j.variant, j.case_id, j.seed, j.id"#,
            sweep.0,
            &datasets,
            &filter.methods,
            &filter.cases
        )
        .fetch_all(self.pool())
        .await?;
        let mut evaluations: Vec<Evaluation> = Vec::new();
        for row in rows {
            // Both queries see jobs that are done, whose rows stay; one that was done between them
            // is left for the next time.
            let Some(values) = vectors.get(&(row.id, row.prediction)) else {
                continue;
            };
            if evaluations.last().is_none_or(|last| last.job.0 != row.id) {
                evaluations.push(Evaluation {
                    job: JobId(row.id),
                    dataset: known.named(&row.dataset)?,
                    method: row.method,
                    variant: row.variant,
                    seed: row.seed.cast_unsigned(),
                    case: row.case_id,
                    by_criterion: BTreeMap::new(),
                });
            }
            if let Some(last) = evaluations.last_mut() {
                last.by_criterion.insert(row.criterion, Arc::clone(values));
            }
        }
        Ok(Predictions {
            labels,
            evaluations,
        })
    }

    /// The hash of the file that `sweep` has `dataset` from.
    async fn file_of(&self, sweep: SweepId, dataset: Benchmark) -> Result<String, StoreError> {
        let file = sqlx::query_scalar!(
            r#"SELECT c.spec #>> '{data,blake3}' AS "blake3!"
               FROM job j JOIN config c ON c.id = j.config
               WHERE j.sweep = $1 AND j.kind = 'train' AND j.dataset = $2 LIMIT 1"#,
            sweep.0,
            dataset.id()
        )
        .fetch_one(self.pool())
        .await?;
        Ok(file)
    }
}

impl Benchmarks {
    /// The dataset called `name`.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn named(&self, name: &str) -> Result<Benchmark, PredictionsError> {
        self.get(name)
            .ok_or_else(|| PredictionsError::Dataset(name.to_owned()))
    }
}

/// Reads little-endian single precision numbers.
fn numbers(
    bytes: &[u8],
    samples: usize,
    what: impl Fn() -> String,
) -> Result<Arc<[f32]>, PredictionsError> {
    let (chunks, rest) = bytes.as_chunks::<4>();
    let values: Arc<[f32]> = chunks
        .iter()
        .map(|bytes| f32::from_le_bytes(*bytes))
        .collect();
    if !rest.is_empty() || values.len() != samples || values.iter().any(|v| !v.is_finite()) {
        return Err(PredictionsError::Damaged {
            what: what(),
            samples,
        });
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_bytes_are_refused() {
        let good: Vec<u8> = [1.0f32, -2.5]
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect();
        let what = || "a prediction".to_owned();
        assert_eq!(*numbers(&good, 2, what).unwrap(), [1.0, -2.5]);
        assert!(numbers(&good, 3, what).is_err());
        assert!(numbers(&good[..7], 2, what).is_err());
        let nan: Vec<u8> = f32::NAN.to_le_bytes().to_vec();
        let error = numbers(&nan, 1, what).unwrap_err().to_string();
        assert!(error.contains("a prediction"), "{error}");
    }
}
