//! A sweep of hand-made rows, and workers that ask and report without a broker.

use crate::postgres::Postgres;
use halfheard_shared::{
    benchmark::Benchmark,
    encoder::TokenIds,
    ids::{AttemptId, JobId, SweepId},
    matrix::config_id,
    numerics::Numerics,
    wire::{
        BlobRef, CheckpointRef, CriterionResult, EpochLog, Fidelity, Protocol, ResultBody,
        ResultMessage, Selection, TrainSpec, WorkerInfo,
    },
};
use halfheard_store::{
    Store,
    grants::{GrantedJob, Grants, Request, Room},
    ingest::IngestSummary,
    leases::Beat,
    lifecycle::RetryPolicy,
};
use std::{collections::BTreeMap, time::Duration};
use uuid::Uuid;

pub(crate) const LEASE: Duration = Duration::from_secs(30);
/// Samples of the test split.
pub(crate) const SAMPLES: usize = 3;
pub(crate) const EPOCHS: u32 = 4;

pub(crate) struct Scene {
    pub(crate) postgres: Postgres,
    pub(crate) sweep: SweepId,
    jobs: i64,
}

/// A worker's process.
pub(crate) struct Worker {
    pub(crate) info: WorkerInfo,
    pub(crate) session: Uuid,
    pub(crate) methods: Vec<String>,
    pub(crate) labels: Vec<String>,
    pub(crate) memory: u64,
    pub(crate) ask: u64,
    pub(crate) received: u64,
}

pub(crate) fn policy() -> RetryPolicy {
    RetryPolicy {
        delay: Duration::ZERO,
        ..RetryPolicy::default()
    }
}

pub(crate) fn spec() -> TrainSpec {
    let blob = |digit: &str| BlobRef {
        blake3: digit.repeat(64),
        path: String::new(),
    };
    TrainSpec {
        method: "lnln".into(),
        variant: String::new(),
        dataset: Benchmark::Mosi,
        data: blob("a"),
        encoder: blob("b"),
        tokens: TokenIds::BERT,
        seed: 0,
        max_epochs: EPOCHS,
        hyper: "{}".into(),
        protocol: Protocol {
            selection: Selection::Validation,
            train_missing: halfheard_shared::regime::Regime::Redrawn,
            erasure_seed: 1111,
            selection_rate: 500,
            fidelity: Fidelity::Reference,
            switched: Vec::new(),
        },
        numerics: Numerics::Machine,
    }
}

impl Scene {
    /// A running sweep without jobs.
    pub(crate) async fn new() -> Self {
        let postgres = Postgres::start().await;
        let pool = postgres.store.pool();
        sqlx::query("INSERT INTO config (id, spec) VALUES ($1, $2)")
            .bind(config_id(&spec()))
            .bind(serde_json::to_value(spec()).unwrap())
            .execute(pool)
            .await
            .unwrap();
        sqlx::query(
            "INSERT INTO dataset (blake3, name, train_samples, valid_samples, test_samples, test_labels)
             VALUES ($1, 'mosi', 1, 1, $2, '')",
        )
        .bind("a".repeat(64))
        .bind(SAMPLES as i32)
        .execute(pool)
        .await
        .unwrap();
        let mut scene = Self {
            postgres,
            sweep: SweepId::derive(&[b"none"]),
            jobs: 0,
        };
        scene.sweep = scene.sweep("first").await;
        scene
    }

    pub(crate) fn store(&self) -> &Store {
        &self.postgres.store
    }

    /// Another running sweep.
    pub(crate) async fn sweep(&mut self, name: &str) -> SweepId {
        let id = SweepId::derive(&[name.as_bytes()]);
        sqlx::query(
            "INSERT INTO sweep (id, name, spec, resolved, train_jobs, eval_jobs, noop_jobs)
             VALUES ($1, $2, '', '{}', 1000, 1000, 1000)",
        )
        .bind(id.0)
        .bind(name)
        .execute(self.store().pool())
        .await
        .unwrap();
        id
    }

    async fn job(
        &mut self,
        kind: &str,
        state: &str,
        case: Option<&str>,
        train: Option<JobId>,
    ) -> JobId {
        self.jobs += 1;
        let id = JobId::derive(&[&self.jobs.to_le_bytes()]);
        let is_noop = kind == "noop";
        sqlx::query(
            "INSERT INTO job (id, sweep, position, kind, method, dataset, seed, case_id, train_job,
                              config, state)
             VALUES ($1, $2, $3, $4::job_kind, $5, $6, $3, $7, $8, $9, $10::job_state)",
        )
        .bind(id.0)
        .bind(self.sweep.0)
        .bind(self.jobs)
        .bind(kind)
        .bind(if is_noop { "" } else { "lnln" })
        .bind(if is_noop { "" } else { "mosi" })
        .bind(case)
        .bind(train.map(|train| train.0))
        .bind((!is_noop).then(|| config_id(&spec())))
        .bind(state)
        .execute(self.store().pool())
        .await
        .unwrap();
        sqlx::query("INSERT INTO sweep_job (sweep, position, job) VALUES ($1, $2, $3)")
            .bind(self.sweep.0)
            .bind(self.jobs)
            .bind(id.0)
            .execute(self.store().pool())
            .await
            .unwrap();
        id
    }

    pub(crate) async fn training(&mut self) -> JobId {
        self.job("train", "ready", None, None).await
    }

    /// An evaluation that waits for `train`, or is ready.
    pub(crate) async fn evaluation(&mut self, train: JobId, state: &str) -> JobId {
        self.job("eval", state, Some("r=0.5"), Some(train)).await
    }

    pub(crate) async fn noop(&mut self) -> JobId {
        self.job("noop", "ready", None, None).await
    }

    /// `state failures losses` of a job.
    pub(crate) async fn state(&self, job: JobId) -> (String, i32, i32) {
        sqlx::query_as("SELECT state::text, failures, losses FROM job WHERE id = $1")
            .bind(job.0)
            .fetch_one(self.store().pool())
            .await
            .unwrap()
    }

    pub(crate) async fn is(&self, job: JobId) -> String {
        self.state(job).await.0
    }

    /// `outcome failure_kind` of an attempt.
    pub(crate) async fn attempt(&self, attempt: AttemptId) -> (Option<String>, Option<String>) {
        sqlx::query_as("SELECT outcome::text, failure_kind FROM attempt WHERE id = $1")
            .bind(attempt.0)
            .fetch_one(self.store().pool())
            .await
            .unwrap()
    }

    /// Changes a job's row as its text says.
    pub(crate) async fn set(&self, job: JobId, what: &str) {
        sqlx::query(sqlx::AssertSqlSafe(format!(
            "UPDATE job SET {what} WHERE id = $1"
        )))
        .bind(job.0)
        .execute(self.store().pool())
        .await
        .unwrap();
    }

    /// Executes a statement.
    pub(crate) async fn execute(&self, statement: &'static str) {
        sqlx::query(statement)
            .execute(self.store().pool())
            .await
            .unwrap();
    }

    /// Lets all leases run out.
    pub(crate) async fn pass_time(&self) {
        self.execute(
            "UPDATE job SET lease_until = now() - interval '1 s' WHERE lease_until IS NOT NULL",
        )
        .await;
    }

    pub(crate) async fn ingest(&self, messages: &[ResultMessage]) -> IngestSummary {
        self.store().ingest(messages, &policy()).await.unwrap()
    }

    /// Ingests one message that is accepted.
    pub(crate) async fn report(
        &self,
        worker: &Worker,
        job: &GrantedJob,
        body: ResultBody,
    ) -> IngestSummary {
        let declined = matches!(body, ResultBody::Declined { .. });
        let summary = self.ingest(&[worker.says(job, body)]).await;
        assert_eq!(summary.rejected, []);
        if declined {
            // What was declined waits a moment, and these scenes do not.
            sqlx::query("UPDATE job SET not_before = '-infinity' WHERE state = 'ready'")
                .execute(self.store().pool())
                .await
                .unwrap();
        }
        summary
    }

    pub(crate) async fn grant(&self, requests: &[Request<'_>]) -> Grants {
        self.store()
            .grant(requests, LEASE, &policy())
            .await
            .unwrap()
    }
}

impl Worker {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            info: WorkerInfo {
                name: name.into(),
                host: "host".into(),
                device: "cpu".into(),
                version: "1".into(),
                processor: "portable".into(),
            },
            session: Uuid::new_v4(),
            methods: vec!["lnln".into()],
            labels: Vec::new(),
            memory: 0,
            ask: 0,
            received: 0,
        }
    }

    /// Its next request.
    pub(crate) fn request<'a>(&'a mut self, room: Room, sweeps: &'a [SweepId]) -> Request<'a> {
        self.ask += 1;
        Request {
            worker: &self.info,
            session: self.session,
            ask: self.ask,
            received: self.received,
            room,
            methods: &self.methods,
            labels: &self.labels,
            memory: self.memory,
            sweeps,
            spread: 0,
        }
    }

    /// Asks for what there is and receives the answer.
    pub(crate) async fn ask(&mut self, scene: &Scene, room: Room) -> Vec<GrantedJob> {
        let sweeps = [scene.sweep];
        let mut grants = scene.grant(&[self.request(room, &sweeps)]).await;
        self.received = self.ask;
        grants.answers.remove(0)
    }

    /// Asks for a training and receives it.
    pub(crate) async fn train(&mut self, scene: &Scene) -> GrantedJob {
        let mut jobs = self.ask(scene, trainings(1)).await;
        assert_eq!(jobs.len(), 1);
        jobs.remove(0)
    }

    pub(crate) fn says(&self, job: &GrantedJob, body: ResultBody) -> ResultMessage {
        ResultMessage {
            job: job.job,
            attempt: job.attempt,
            worker: self.info.clone(),
            body,
        }
    }

    pub(crate) fn beat(&self, job: &GrantedJob, saved: u64, advanced: bool) -> Beat<'_> {
        Beat {
            attempt: job.attempt,
            worker: &self.info.name,
            session: self.session,
            saved,
            advanced,
        }
    }
}

pub(crate) fn trainings(trainings: u32) -> Room {
    Room {
        trainings,
        ..Room::default()
    }
}

pub(crate) fn evaluations(evaluations: u32) -> Room {
    Room {
        evaluations,
        ..Room::default()
    }
}

pub(crate) fn noops(noops: u32) -> Room {
    Room {
        noops,
        ..Room::default()
    }
}

pub(crate) fn started() -> ResultBody {
    ResultBody::Started {
        resumed_after_epoch: 0,
    }
}

pub(crate) fn epoch(epoch: u32, loss: f64) -> ResultBody {
    ResultBody::Epoch(EpochLog {
        epoch,
        losses: BTreeMap::from([("loss".to_owned(), loss)]),
        metrics: BTreeMap::from([("mae".to_owned(), Some(1.0))]),
        train_seconds: 1.0,
        eval_seconds: 1.0,
        best_for: Vec::new(),
    })
}

fn criteria() -> impl Iterator<Item = String> {
    let criteria = Benchmark::Mosi.criteria().iter();
    criteria.map(|criterion| criterion.id.to_owned())
}

/// The result of a training; `digit` makes its weights.
pub(crate) fn trained(digit: &str) -> ResultBody {
    ResultBody::Trained {
        checkpoints: criteria()
            .map(|criterion| CheckpointRef {
                criterion,
                epoch: 1,
                blake3: digit.repeat(64),
                bytes: 10,
            })
            .collect(),
        epochs: EPOCHS,
        seconds: 2.0,
        peak_memory: 1 << 30,
    }
}

/// The result of an evaluation: `value` for every sample.
pub(crate) fn evaluated(value: f32, samples: usize) -> ResultBody {
    ResultBody::Evaluated {
        results: criteria()
            .map(|criterion| CriterionResult {
                criterion,
                epoch: 1,
                predictions: 0,
                metrics: BTreeMap::from([("mae".to_owned(), Some(f64::from(value)))]),
            })
            .collect(),
        predictions: vec![vec![value; samples]],
        seconds: 0.5,
        peak_memory: 0,
    }
}
