//! The way of evaluations, a model's cases together, and of no-op jobs.

use super::{
    BEFORE, Slot, JobLease, after,
    engine::{EvalTask, FetchCheckpoint},
    eval_monitor::{EvalMonitor, Event},
    faults::{self, Need},
    health::Health,
    shutdown,
    report::deliver,
    words,
};
use futures::{
    FutureExt as _, StreamExt as _,
    future::{LocalBoxFuture, join_all},
    stream::FuturesUnordered,
};
use halfheard_models::train::{EvalCase, Evaluated, KeptFeatures, TrainError, failure};
use halfheard_shared::{
    artifacts::{ArtifactError, Hash, Key, MAX_BYTES},
    ids::AttemptId,
    wire::{FailureKind, Fault, FaultKind, ResultBody, TrainSpec, Work},
};
use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::{runtime::Handle, sync::mpsc, task::AbortHandle};

/// Evaluations of one model that were lease together. Each leaves when it is over.
struct Bundle {
    slot: Arc<Slot>,
    /// `evaluate lnln on mosi, seed 1111`.
    what: String,
    todo: Vec<Option<(JobLease, AttemptId)>>,
    /// Those that are being reported.
    reports: FuturesUnordered<LocalBoxFuture<'static, ()>>,
}

impl Bundle {
    fn hear(&mut self, event: Event) {
        match event {
            Event::Begins(cases) => {
                for (lease, attempt) in cases.iter().filter_map(|&i| self.todo[i].as_ref()) {
                    let body = ResultBody::Started {
                        delivery: lease.delivery,
                        resumed_after_epoch: 0,
                    };
                    self.slot
                        .reporter
                        .send(self.slot.report(lease, *attempt, body));
                }
            }
            Event::Ended(case, seconds, outcome) => {
                let Some((lease, attempt)) = self.todo[case].take() else {
                    return;
                };
                let (slot, what) = (self.slot.clone(), self.what.clone());
                self.reports.push(
                    async move {
                        slot.conclude_evaluation(&what, lease, attempt, seconds, outcome)
                            .await;
                    }
                    .boxed_local(),
                );
            }
        }
    }

    /// Those that nobody has heard of yet.
    fn rest(&mut self) -> Vec<(JobLease, AttemptId)> {
        self.todo.iter_mut().filter_map(Option::take).collect()
    }

    /// Waits until what is done is reported.
    async fn reported(&mut self) {
        while self.reports.next().await.is_some() {}
    }
}

/// Ends a task when it is dropped.
struct Ends(AbortHandle);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Slot {
    /// Evaluates jobs of one trained model. Each is reported when it is done.
    pub(super) async fn evaluate(self: &Arc<Self>, group: Vec<JobLease>) {
        let mut todo: Vec<(JobLease, AttemptId)> = Vec::new();
        for lease in group {
            let attempt = self.attempt(&lease);
            if let Some(fault) = self.stands_still() {
                self.decline(lease, attempt, 0, &fault).await;
                continue;
            }
            // A first delivery has no earlier outcome.
            let again = lease.delivery > 1 || lease.job.publication > 1;
            let earlier = match again {
                true => self.earlier_outcome(&lease).await,
                false => Ok(None),
            };
            match earlier {
                Ok(Some(body @ ResultBody::Evaluated { .. })) => {
                    let report = self.report(&lease, attempt, body);
                    self.report_and_ack(&lease, report).await;
                }
                Ok(_) if self.is_crashing(&lease).await => {
                    let error = TrainError::Spec(format!(
                        "delivered {} times, and no worker lived to say how it ended",
                        lease.delivery
                    ));
                    let body = Self::failure("evaluate", &error, FailureKind::Crashed);
                    let report = self.report(&lease, attempt, body);
                    self.report_and_ack(&lease, report).await;
                }
                Ok(_) => todo.push((lease, attempt)),
                Err(error) => {
                    self.no_store(lease, attempt, "evaluate", &error).await;
                }
            }
        }
        if let Some(fault) = self.stands_still() {
            return self.decline_all(todo, &fault).await;
        }
        let Some((first, _)) = todo.first() else {
            return;
        };
        let Work::Eval { spec, .. } = first.job.work.clone() else {
            return;
        };
        let what = format!("evaluate {}", words(&spec));
        self.evaluating(first, what.clone(), todo.len());
        tracing::info!(train = %words(&spec), cases = todo.len(), "evaluating");
        let (data, encoder) = match self.inputs(&spec).await {
            Ok(both) => both,
            Err(error) => {
                let Some(fault) = faults::of_blob(&error, &spec) else {
                    let body = Self::failure(&what, &error, FailureKind::Permanent);
                    return self.report_and_ack_all(todo, &body).await;
                };
                self.met(first.job.job, &fault, Need::Inputs(Box::new(spec)));
                return self.decline_all(todo, &fault).await;
            }
        };
        let sweep = first.job.sweep;
        let cancelled = Arc::new(AtomicBool::new(false));
        let watching = tokio::spawn({
            let (sweeps, cancelled) = (self.sweeps.clone(), cancelled.clone());
            async move {
                sweeps.cancelled(sweep).await;
                cancelled.store(true, Ordering::Relaxed);
            }
        });
        let _watching = Ends(watching.abort_handle());
        let cases = todo
            .iter()
            .filter_map(|(lease, _)| match &lease.job.work {
                Work::Eval {
                    case, checkpoints, ..
                } => Some(EvalCase {
                    case: *case,
                    checkpoints: checkpoints.clone(),
                }),
                Work::Train(_) | Work::Noop => None,
            })
            .collect();
        let (events, mut heard) = mpsc::unbounded_channel();
        let task = EvalTask {
            spec: spec.clone(),
            data,
            encoder: encoder.clone(),
            cases,
            fetch: self.fetch_checkpoint(&spec),
            watch: Box::new(EvalMonitor {
                shutdown: self.shutdown.clone(),
                cancelled: cancelled.clone(),
                status: self.status.clone(),
                events,
            }),
        };
        let mut bundle = Bundle {
            slot: self.clone(),
            what: what.clone(),
            todo: todo.into_iter().map(Some).collect(),
            reports: FuturesUnordered::new(),
        };
        let ended = {
            let engine = self.engine.evaluate(task);
            tokio::pin!(engine);
            loop {
                tokio::select! {
                    Some(event) = heard.recv() => bundle.hear(event),
                    Some(()) = bundle.reports.next() => {}
                    ended = &mut engine => break Some(ended),
                    () = self.shutdown.deadline(shutdown::STEP_DEADLINE) => break None,
                }
            }
        };
        // Whatever it said before its end.
        while let Ok(event) = heard.try_recv() {
            bundle.hear(event);
        }
        let rest = bundle.rest();
        match ended {
            None => {
                tracing::warn!("a batch takes too long: {} case(s) go back", rest.len());
                self.give_back_all(rest).await;
            }
            Some(Ok(Ok(_))) if cancelled.load(Ordering::Relaxed) => {
                for (lease, attempt) in rest {
                    let body = ResultBody::HandedBack { after_epoch: 0 };
                    let report = self.report(&lease, attempt, body);
                    self.report_and_ack(&lease, report).await;
                }
            }
            // All are done, or the worker leaves.
            Some(Ok(Ok(_))) => self.give_back_all(rest).await,
            Some(Ok(Err(error))) => {
                if error.breaks_the_process() {
                    self.broken.store(true, Ordering::Relaxed);
                }
                self.end_all(rest, &what, &error, &spec, &encoder).await;
            }
            Some(Err(gone)) => {
                self.broken.store(true, Ordering::Relaxed);
                let body = Self::failure(&what, &gone, FailureKind::Retryable);
                self.report_and_ack_all(rest, &body).await;
            }
        }
        bundle.reported().await;
    }

    /// What the worker is doing, for the heartbeat.
    fn evaluating(&self, first: &JobLease, what: String, cases: usize) {
        self.doing(first, what, 0);
        self.status.update(|doing| {
            doing.case = 1;
            doing.cases = cases as u32;
        });
    }

    /// Ends what was not done because of an error that concerns all of it.
    async fn end_all(
        &self,
        rest: Vec<(JobLease, AttemptId)>,
        what: &str,
        error: &TrainError,
        spec: &TrainSpec,
        encoder: &Path,
    ) {
        let Some(fault) = faults::of_training(error, spec, encoder) else {
            let failure = failure(what, error);
            tracing::error!("{}", failure.chain.join(": "));
            return self.report_and_ack_all(rest, &ResultBody::Failed(failure)).await;
        };
        let need = match (fault.kind, &fault.what) {
            (FaultKind::Dataset | FaultKind::Encoder, _) => Need::Inputs(Box::new(spec.clone())),
            (FaultKind::Checkpoint, what) => what
                .split_whitespace()
                .find_map(|word| word.parse::<Hash>().ok())
                .map_or(Need::Kind, Need::Checkpoint),
            _ => Need::Kind,
        };
        if let Some((first, _)) = rest.first() {
            self.met(first.job.job, &fault, need);
        }
        self.decline_all(rest, &fault).await;
    }

    /// Stores and reports how one case ended.
    async fn conclude_evaluation(
        &self,
        what: &str,
        lease: JobLease,
        attempt: AttemptId,
        seconds: f64,
        outcome: Result<Evaluated, TrainError>,
    ) {
        let body = match outcome {
            Ok(evaluated) => match self.keep_evaluated(&lease, seconds, evaluated).await {
                Ok(body) => body,
                Err(_) if self.shutdown.is_requested() => return self.give_back(lease, attempt).await,
                Err(error) => match faults::of_store(&error) {
                    Some(fault) => {
                        self.met(lease.job.job, &fault, Need::Kind);
                        return self.decline(lease, attempt, 0, &fault).await;
                    }
                    None => Self::failure(what, &error, FailureKind::Permanent),
                },
            },
            Err(error) => {
                let failure = failure(what, &error);
                tracing::error!(job = %lease.job.job, "{}", failure.chain.join(": "));
                ResultBody::Failed(failure)
            }
        };
        let done = matches!(body, ResultBody::Evaluated { .. });
        let report = self.report(&lease, attempt, body);
        self.report_and_ack(&lease, report).await;
        if done && self.status.sitting_out().is_none() {
            self.status.health(Health::worked);
        }
    }

    /// Puts an evaluation's features and then its outcome into the store, so that an outcome that
    /// is there has its features. What is returned is to be reported.
    async fn keep_evaluated(
        &self,
        lease: &JobLease,
        seconds: f64,
        evaluated: Evaluated,
    ) -> Result<ResultBody, ArtifactError> {
        self.keep_features(lease, seconds, evaluated.features)
            .await?;
        let body = ResultBody::Evaluated {
            results: evaluated.results,
            predictions: evaluated.predictions,
            seconds,
        };
        Ok(self.keep_outcome(lease, body).await)
    }

    async fn keep_features(
        &self,
        lease: &JobLease,
        seconds: f64,
        features: Option<KeptFeatures>,
    ) -> Result<(), ArtifactError> {
        let (Work::Eval { case, .. }, Some(features)) = (&lease.job.work, features) else {
            return Ok(());
        };
        let key = Key::Features(features.checkpoint.parse()?, *case);
        self.retry_transient(after(seconds), async || {
            self.store.put(&key, features.content.clone()).await
        })
        .await
    }

    /// Gives a job back that nothing is left of.
    async fn give_back(&self, lease: JobLease, attempt: AttemptId) {
        let body = ResultBody::HandedBack { after_epoch: 0 };
        self.reporter.send(self.report(&lease, attempt, body));
        self.hand_back_unstarted(lease).await;
    }

    async fn give_back_all(&self, rest: Vec<(JobLease, AttemptId)>) {
        join_all(
            rest.into_iter()
                .map(async |(lease, attempt)| self.give_back(lease, attempt).await),
        )
        .await;
    }

    async fn decline_all(&self, rest: Vec<(JobLease, AttemptId)>, fault: &Fault) {
        join_all(
            rest.into_iter()
                .map(async |(lease, attempt)| self.decline(lease, attempt, 0, fault).await),
        )
        .await;
    }

    async fn report_and_ack_all(&self, rest: Vec<(JobLease, AttemptId)>, body: &ResultBody) {
        join_all(rest.iter().map(async |(lease, attempt)| {
            let report = self.report(lease, *attempt, body.clone());
            self.report_and_ack(lease, report).await;
        }))
        .await;
    }

    /// Brings a checkpoint from the store to libtorch's thread.
    fn fetch_checkpoint(self: &Arc<Self>, spec: &TrainSpec) -> FetchCheckpoint {
        let (slot, runtime) = (self.clone(), Handle::current());
        let model = words(spec);
        Box::new(move |checkpoint| {
            let hash: Hash = checkpoint
                .blake3
                .parse()
                .map_err(|error| TrainError::Weights {
                    checkpoint: checkpoint.blake3.clone(),
                    what: format!("{error}"),
                })?;
            let lacks = |why: String| {
                let what = format!("checkpoint {hash} of {model}");
                TrainError::Worker(Fault::new(FaultKind::Checkpoint, what, vec![why]))
            };
            let key = Key::Checkpoint(hash.clone());
            let content = runtime
                .block_on(slot.retry_transient(BEFORE, async || slot.store.get(&key, MAX_BYTES).await));
            match content {
                Ok(Some(content)) => Ok(content),
                Ok(None) => Err(lacks(format!(
                    "the artifact store {} does not have it; do all workers use the same one?",
                    slot.settings.artifacts
                ))),
                Err(error @ ArtifactError::Damaged { .. }) => Err(lacks(crate::chain(&error))),
                Err(error) => Err(match faults::of_store(&error) {
                    Some(fault) => TrainError::Worker(fault),
                    None => TrainError::Weights {
                        checkpoint: checkpoint.blake3.clone(),
                        what: crate::chain(&error),
                    },
                }),
            }
        })
    }

    /// No-op jobs: reported and acknowledged, many under way at once.
    pub(super) async fn noop(self: &Arc<Self>, all: Vec<JobLease>) {
        let Ok(permits) = self
            .noops
            .clone()
            .acquire_many_owned(all.len() as u32)
            .await
        else {
            return;
        };
        let slot = self.clone();
        tokio::spawn(async move {
            // All reports are on their way before the first is waited for.
            let mut sent = Vec::with_capacity(all.len());
            for lease in all {
                let attempt = slot.attempt(&lease);
                let report = slot.report(&lease, attempt, ResultBody::Noop);
                let on_its_way = slot.broker.send_result(&report).await;
                sent.push((lease, report, on_its_way));
            }
            for (lease, report, on_its_way) in sent {
                let confirmed = match on_its_way {
                    Ok(on_its_way) => on_its_way.confirmed().await.is_ok(),
                    Err(_) => false,
                };
                if confirmed || deliver(&slot.broker, &report).await {
                    lease.done_unconfirmed().await;
                }
            }
            drop(permits);
        });
    }
}
