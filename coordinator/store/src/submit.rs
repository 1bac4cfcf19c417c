//! Submission: a sweep and all its jobs, in one transaction.

use crate::{JobKind, JobState, Store, StoreError, benchmarks};
use halfheard_shared::{
    benchmark::Benchmark,
    ids::SweepId,
    matrix::{PlannedJob, PlannedWork},
    numerics::leave_out_default,
    wire::TrainSpec,
};
use std::{collections::BTreeSet, fmt::Write as _, sync::Arc};
use uuid::Uuid;

/// Bytes that are buffered before they are sent to Postgres.
const CHUNK: usize = 256 * 1024;

/// A sweep to submit.
#[derive(Clone, Debug)]
pub struct NewSweep {
    /// Derived from the resolved spec and the nonce.
    pub id: SweepId,
    /// The spec's name.
    pub name: String,
    /// Distinguishes sweeps of the same spec.
    pub nonce: Option<String>,
    /// The spec as written.
    pub spec: String,
    /// The spec with everything filled in.
    pub resolved: serde_json::Value,
    /// A sweep with a higher one is served first.
    pub priority: i32,
}

/// How many jobs of each kind a sweep has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct JobCounts {
    /// Training jobs.
    pub train: i64,
    /// Evaluation jobs.
    pub eval: i64,
    /// No-op jobs.
    pub noop: i64,
}

impl JobCounts {
    /// Jobs of all kinds.
    pub fn total(&self) -> i64 {
        self.train + self.eval + self.noop
    }
}

/// The outcome of a submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Submitted {
    /// False if the sweep existed already: then nothing was written.
    pub new: bool,
    /// The jobs of the sweep.
    pub jobs: JobCounts,
}

impl Store {
    /// Writes a sweep and its jobs in one transaction, the jobs as one COPY that streams from `jobs`:
    /// memory stays flat however many there are. An existing sweep is left unchanged, and `jobs` is not
    /// consumed.
    ///
    /// Training and no-op jobs start `ready`, evaluations `blocked`.
    ///
    /// # Errors
    ///
    /// The database's; results of another protocol under the same dataset name.
    pub async fn submit(
        &self,
        sweep: &NewSweep,
        jobs: impl IntoIterator<Item = PlannedJob>,
    ) -> Result<Submitted, StoreError> {
        let mut tx = self.pool().begin().await?;
        let written = sqlx::query!(
            "INSERT INTO sweep (id, name, nonce, spec, resolved, priority, train_jobs, eval_jobs)
             VALUES ($1, $2, $3, $4, $5, $6, 0, 0)
             ON CONFLICT (id) DO NOTHING",
            sweep.id.0,
            sweep.name,
            sweep.nonce,
            sweep.spec,
            sweep.resolved,
            sweep.priority,
        )
        .execute(&mut *tx)
        .await?
        .rows_affected();
        if written == 0 {
            let jobs = sqlx::query_as!(
                JobCounts,
                "SELECT train_jobs AS train, eval_jobs AS eval, noop_jobs AS noop
                 FROM sweep WHERE id = $1",
                sweep.id.0
            )
            .fetch_one(&mut *tx)
            .await?;
            return Ok(Submitted { new: false, jobs });
        }

        let mut rows = Rows::new(sweep.id);
        let mut copy = tx
            .copy_in_raw(
                "COPY job (id, sweep, position, kind, method, variant, dataset, seed, case_id,
                           train_job, config, state)
                 FROM STDIN",
            )
            .await?;
        for job in jobs {
            if let Err(error) = rows.push(&job) {
                copy.abort("cannot encode the jobs").await?;
                return Err(error);
            }
            if rows.text.len() >= CHUNK {
                copy.send(rows.text.as_bytes()).await?;
                rows.text.clear();
            }
        }
        copy.send(rows.text.as_bytes()).await?;
        copy.finish().await?;

        for dataset in &rows.datasets {
            benchmarks::register(&mut tx, sweep.id, *dataset).await?;
        }
        for (id, spec) in &rows.configs {
            sqlx::query!(
                "INSERT INTO config (id, spec) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING",
                id,
                spec
            )
            .execute(&mut *tx)
            .await?;
        }
        sqlx::query!(
            "UPDATE sweep SET train_jobs = $2, eval_jobs = $3, noop_jobs = $4 WHERE id = $1",
            sweep.id.0,
            rows.counts.train,
            rows.counts.eval,
            rows.counts.noop
        )
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(Submitted {
            new: true,
            jobs: rows.counts,
        })
    }
}

/// Jobs as rows in COPY's text format.
struct Rows {
    sweep: SweepId,
    text: String,
    counts: JobCounts,
    /// The distinct configs so far; few, however many jobs there are.
    configs: Vec<(Uuid, serde_json::Value)>,
    /// The datasets so far that are not built in.
    datasets: BTreeSet<Benchmark>,
    /// The last spec and its config: jobs of one model follow each other.
    last: Option<(Arc<TrainSpec>, Uuid)>,
}

impl Rows {
    fn new(sweep: SweepId) -> Self {
        Self {
            sweep,
            text: String::with_capacity(CHUNK + 1024),
            counts: JobCounts::default(),
            configs: Vec::new(),
            datasets: BTreeSet::new(),
            last: None,
        }
    }

    fn push(&mut self, job: &PlannedJob) -> Result<(), StoreError> {
        let position = self.counts.total();
        let (kind, state) = match &job.work {
            PlannedWork::Train(_) => (JobKind::Train, JobState::Ready),
            PlannedWork::Eval { .. } => (JobKind::Eval, JobState::Blocked),
            PlannedWork::Noop => (JobKind::Noop, JobState::Ready),
        };
        match kind {
            JobKind::Train => self.counts.train += 1,
            JobKind::Eval => self.counts.eval += 1,
            JobKind::Noop => self.counts.noop += 1,
        }
        let sweep = self.sweep;
        // Writing to a String cannot fail.
        let _ = write!(self.text, "{}\t{sweep}\t{position}\t{kind}\t", job.id);
        let (spec, case, train) = match &job.work {
            PlannedWork::Train(spec) => (Some(spec), None, None),
            PlannedWork::Eval { train, spec, case } => (Some(spec), Some(case), Some(train)),
            PlannedWork::Noop => (None, None, None),
        };
        match spec {
            Some(spec) => {
                let config = self.config(spec)?;
                let seed = i64::try_from(spec.seed).map_err(|_| StoreError::TooLarge {
                    what: "the seed",
                    value: spec.seed,
                })?;
                for text in [&spec.method[..], &spec.variant, spec.dataset.id()] {
                    escape(&mut self.text, text);
                    self.text.push('\t');
                }
                let _ = write!(self.text, "{seed}\t");
                match case {
                    Some(case) => {
                        let _ = write!(self.text, "{case}\t");
                    }
                    None => self.text.push_str("\\N\t"),
                }
                match train {
                    Some(train) => {
                        let _ = write!(self.text, "{train}\t");
                    }
                    None => self.text.push_str("\\N\t"),
                }
                let _ = writeln!(self.text, "{config}\t{state}");
            }
            None => {
                let _ = writeln!(self.text, "\t\t\t0\t\\N\t\\N\t\\N\t{state}");
            }
        }
        Ok(())
    }

    /// The id of the config of `spec`, which does not depend on its seed.
    fn config(&mut self, spec: &Arc<TrainSpec>) -> Result<Uuid, StoreError> {
        if let Some((last, config)) = &self.last
            && Arc::ptr_eq(last, spec)
        {
            return Ok(*config);
        }
        if matches!(spec.dataset, Benchmark::Own(_)) {
            self.datasets.insert(spec.dataset);
        }
        let seedless = TrainSpec {
            seed: 0,
            ..TrainSpec::clone(spec)
        };
        let mut json = serde_json::to_value(&seedless)
            .map_err(|error| StoreError::stored("a training spec", error))?;
        leave_out_default(&mut json);
        let hash = blake3::hash(json.to_string().as_bytes());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash.as_bytes()[..16]);
        let config = uuid::Builder::from_custom_bytes(bytes).into_uuid();
        if !self.configs.iter().any(|(id, _)| *id == config) {
            self.configs.push((config, json));
        }
        self.last = Some((Arc::clone(spec), config));
        Ok(config)
    }
}

/// Appends `text`, escaped for COPY's text format.
fn escape(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_in_text_are_escaped() {
        let mut out = String::new();
        escape(&mut out, "a\tb\\N\nc\rd");
        assert_eq!(out, "a\\tb\\\\N\\nc\\rd");
    }
}
