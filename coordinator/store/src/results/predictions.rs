//! The stored predictions of a sweep with their labels: confusion matrices, bootstrap intervals and
//! audits are computed from them, without any model.

use super::{ResultsError, Snapshot};
use crate::Store;
use halfheard_shared::{
    benchmark::Benchmark,
    ids::{JobId, SweepId},
    results::{Evaluation, Filter, Model, PredictionRows, Predictions},
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};
use uuid::Uuid;

impl Store {
    /// Loads the predictions of `sweep` that `filter` selects.
    ///
    /// # Errors
    ///
    /// See [`Snapshot::predictions`].
    pub async fn predictions(
        &self,
        sweep: SweepId,
        filter: &Filter,
    ) -> Result<Predictions, ResultsError> {
        Snapshot::begin(self, sweep)
            .await?
            .predictions(filter)
            .await
    }
}

/// Evaluations whose predictions are read at once.
const AT_ONCE: usize = 1000;

/// A filter as the statements have it: empty lists stand for all.
struct Selected {
    datasets: Vec<String>,
    methods: Vec<String>,
    cases: Vec<String>,
}

impl Selected {
    fn by(filter: &Filter) -> Self {
        Self {
            datasets: filter.datasets.iter().map(|d| d.id().to_owned()).collect(),
            methods: filter.methods.clone(),
            cases: filter.cases.iter().map(ToString::to_string).collect(),
        }
    }
}

impl Snapshot {
    /// Loads the predictions that `filter` selects.
    ///
    /// # Errors
    ///
    /// The database's; labels that are not stored; stored bytes that were changed.
    pub async fn predictions(&mut self, filter: &Filter) -> Result<Predictions, ResultsError> {
        let selected = Selected::by(filter);
        let labels = self.labels(&selected).await?;
        let mut evaluations = Vec::new();
        for jobs in self.evaluated_jobs(&selected).await?.chunks(AT_ONCE) {
            evaluations.extend(self.evaluations(jobs, &labels).await?);
        }
        Ok(Predictions {
            labels,
            evaluations,
        })
    }

    /// Hands all predictions to `write`, with their labels, by dataset, model, case and seed: a thousand evaluations
    /// are in memory at once, however many there are.
    ///
    /// # Errors
    ///
    /// As [`Self::predictions`], or those of `write`.
    pub(super) async fn each_prediction<E: From<ResultsError>>(
        &mut self,
        mut write: impl FnMut(PredictionRows) -> Result<(), E>,
    ) -> Result<(), E> {
        let selected = Selected::by(&Filter::default());
        let labels = self.labels(&selected).await?;
        for jobs in self.evaluated_jobs(&selected).await?.chunks(AT_ONCE) {
            for evaluation in self.evaluations(jobs, &labels).await? {
                let Some(labels) = labels.get(&evaluation.dataset) else {
                    continue;
                };
                let labels = Arc::clone(labels);
                write(PredictionRows { evaluation, labels })?;
            }
        }
        Ok(())
    }

    async fn labels(
        &mut self,
        selected: &Selected,
    ) -> Result<BTreeMap<Benchmark, Arc<[f32]>>, ResultsError> {
        // Nothing of a dataset may be evaluated yet: then it has no row.
        let rows = sqlx::query!(
            r#"SELECT DISTINCT j.dataset, d.test_samples, d.test_labels
               FROM tally j
               JOIN config c ON c.id = j.config
               JOIN dataset d ON d.blake3 = c.spec #>> '{data,blake3}'
               WHERE j.sweep = $1 AND j.kind = 'train'
                 AND (cardinality($2::text[]) = 0 OR j.dataset = ANY ($2))"#,
            self.sweep.0,
            &selected.datasets
        )
        .fetch_all(&mut *self.tx)
        .await?;
        let mut labels = BTreeMap::new();
        for row in rows {
            let dataset = self.known.named(&row.dataset)?;
            let samples = usize::try_from(row.test_samples).unwrap_or(0);
            let what = || format!("the labels of {}", dataset.title());
            labels.insert(dataset, numbers(&row.test_labels, samples, what)?);
        }
        Ok(labels)
    }

    /// The evaluations that are done, by dataset, model, case and seed.
    async fn evaluated_jobs(&mut self, selected: &Selected) -> Result<Vec<Uuid>, ResultsError> {
        Ok(sqlx::query_scalar!(
            r#"SELECT j.id
               FROM sweep_job w
               JOIN job j ON j.id = w.job
               WHERE w.sweep = $1 AND j.kind = 'eval' AND j.state = 'done'
                 AND (cardinality($2::text[]) = 0 OR j.dataset = ANY ($2))
                 AND (cardinality($3::text[]) = 0 OR j.method = ANY ($3))
                 AND (cardinality($4::text[]) = 0 OR j.case_id = ANY ($4))
               ORDER BY j.dataset, j.method, j.variant, j.case_id, j.seed, j.id"#,
            self.sweep.0,
            &selected.datasets,
            &selected.methods,
            &selected.cases
        )
        .fetch_all(&mut *self.tx)
        .await?)
    }

    /// The prediction vectors of these evaluations, by job and number.
    async fn vectors(
        &mut self,
        jobs: &[Uuid],
        labels: &BTreeMap<Benchmark, Arc<[f32]>>,
    ) -> Result<HashMap<(Uuid, i32), Arc<[f32]>>, ResultsError> {
        let rows = sqlx::query!(
            r#"SELECT p.job, p.number, p.data, j.dataset
               FROM job j JOIN prediction p ON p.job = j.id
               WHERE j.id = ANY ($1)"#,
            jobs
        )
        .fetch_all(&mut *self.tx)
        .await?;
        let mut vectors = HashMap::new();
        for row in rows {
            let dataset = self.known.named(&row.dataset)?;
            let Some(truth) = labels.get(&dataset) else {
                let blake3 = self.file_of(dataset).await?;
                return Err(ResultsError::NoLabels { dataset, blake3 });
            };
            let what = || format!("prediction {} of job {}", row.number, row.job);
            let values = numbers(&row.data, truth.len(), what)?;
            vectors.insert((row.job, row.number), values);
        }
        Ok(vectors)
    }

    /// These evaluations with their predictions, in the same order.
    async fn evaluations(
        &mut self,
        jobs: &[Uuid],
        labels: &BTreeMap<Benchmark, Arc<[f32]>>,
    ) -> Result<Vec<Evaluation>, ResultsError> {
        let vectors = self.vectors(jobs, labels).await?;
        let rows = sqlx::query!(
            r#"SELECT j.id, j.method, j.variant, j.dataset, j.seed, j.case_id AS "case_id!",
                      e.criterion, e.prediction
               FROM unnest($1::uuid[]) WITH ORDINALITY AS asked (id, place)
               JOIN job j ON j.id = asked.id
               JOIN evaluation e ON e.job = j.id
               ORDER BY asked.place"#,
            jobs
        )
        .fetch_all(&mut *self.tx)
        .await?;
        let mut evaluations: Vec<Evaluation> = Vec::new();
        for row in rows {
            let Some(values) = vectors.get(&(row.id, row.prediction)) else {
                continue;
            };
            if evaluations.last().is_none_or(|last| last.job.0 != row.id) {
                evaluations.push(Evaluation {
                    job: JobId(row.id),
                    dataset: self.known.named(&row.dataset)?,
                    model: Model::new(row.method, row.variant),
                    seed: row.seed.cast_unsigned(),
                    case: row.case_id.parse()?,
                    by_criterion: BTreeMap::new(),
                });
            }
            if let Some(last) = evaluations.last_mut() {
                last.by_criterion.insert(row.criterion, Arc::clone(values));
            }
        }
        Ok(evaluations)
    }

    /// The hash of the file that the sweep has `dataset` from.
    async fn file_of(&mut self, dataset: Benchmark) -> Result<String, ResultsError> {
        Ok(sqlx::query_scalar!(
            r#"SELECT c.spec #>> '{data,blake3}' AS "blake3!"
               FROM sweep_job w
               JOIN job j ON j.id = w.job
               JOIN config c ON c.id = j.config
               WHERE w.sweep = $1 AND j.kind = 'train' AND j.dataset = $2 LIMIT 1"#,
            self.sweep.0,
            dataset.id()
        )
        .fetch_one(&mut *self.tx)
        .await?)
    }
}

/// Reads little-endian single precision numbers.
fn numbers(
    bytes: &[u8],
    samples: usize,
    what: impl Fn() -> String,
) -> Result<Arc<[f32]>, ResultsError> {
    let (chunks, rest) = bytes.as_chunks::<4>();
    let values: Arc<[f32]> = chunks
        .iter()
        .map(|bytes| f32::from_le_bytes(*bytes))
        .collect();
    if !rest.is_empty() || values.len() != samples || values.iter().any(|v| !v.is_finite()) {
        return Err(ResultsError::Damaged {
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
