//! Submission: a sweep and all its jobs, in one transaction.

use super::{JobKind, JobState, Store, StoreError, benchmarks};
use halfheard_shared::{
    benchmark::Benchmark,
    case::Case,
    ids::{JobId, SweepId},
    numerics::leave_out_default,
    wire::TrainSpec,
};
use std::{collections::BTreeSet, fmt::Write as _, sync::Arc};
use uuid::Uuid;

/// Bytes gathered before they go to Postgres.
const CHUNK: usize = 256 * 1024;

/// A sweep to be submitted.
#[derive(Clone, Debug)]
pub struct NewSweep {
    /// Derived from the resolved spec and the nonce.
    pub id: SweepId,
    /// The spec's name.
    pub name: String,
    /// What makes it another sweep of the same spec.
    pub nonce: Option<String>,
    /// The spec as written.
    pub spec: String,
    /// The spec with everything filled in.
    pub resolved: serde_json::Value,
    /// A higher one is served first.
    pub priority: i32,
}

/// A job to be submitted.
#[derive(Clone, Debug)]
pub struct NewJob {
    /// Its id.
    pub id: JobId,
    /// What to do.
    pub work: NewWork,
}

/// What a new job does.
#[derive(Clone, Debug)]
pub enum NewWork {
    /// Trains a model.
    Train(Arc<TrainSpec>),
    /// Evaluates a trained model.
    Eval {
        /// The job that trains it.
        train: JobId,
        /// What that trains.
        spec: Arc<TrainSpec>,
        /// The case.
        case: Case,
    },
    /// Nothing.
    Noop,
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

/// What came of a submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Submitted {
    /// False when the sweep was there already: then nothing was written.
    pub new: bool,
    /// Its jobs.
    pub jobs: JobCounts,
}

impl Store {
    /// Writes a sweep and its jobs in one transaction, the jobs as one COPY that streams from
    /// `jobs`: memory stays flat however many there are. A sweep that is there already is left as
    /// it is, and `jobs` is not asked for any.
    ///
    /// Training and no-op jobs start `ready`, evaluations `blocked`.
    pub async fn submit(
        &self,
        sweep: &NewSweep,
        jobs: impl IntoIterator<Item = NewJob>,
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
                copy.abort("the jobs cannot be written").await?;
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
            benchmarks::note(&mut tx, sweep.id, *dataset).await?;
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
    /// The datasets so far whose name says nothing of their protocol.
    datasets: BTreeSet<Benchmark>,
    /// The spec seen last and its config: jobs of one model follow each other.
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

    fn push(&mut self, job: &NewJob) -> Result<(), StoreError> {
        let counts = self.counts;
        let position = counts.train + counts.eval + counts.noop;
        let (kind, state) = match &job.work {
            NewWork::Train(_) => (JobKind::Train, JobState::Ready),
            NewWork::Eval { .. } => (JobKind::Eval, JobState::Blocked),
            NewWork::Noop => (JobKind::Noop, JobState::Ready),
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
            NewWork::Train(spec) => (Some(spec), None, None),
            NewWork::Eval { train, spec, case } => (Some(spec), Some(case), Some(train)),
            NewWork::Noop => (None, None, None),
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

    /// The id of what `spec` trains, whatever its seed.
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
        let mut json = serde_json::to_value(&seedless).map_err(|error| StoreError::Stored {
            what: "a training spec".to_owned(),
            reason: error.to_string(),
        })?;
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

/// Writes `text` as COPY's text format wants it.
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
    fn no_text_ends_a_field() {
        let mut out = String::new();
        escape(&mut out, "a\tb\\N\nc\rd");
        assert_eq!(out, "a\\tb\\\\N\\nc\\rd");
    }
}
