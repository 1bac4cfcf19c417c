//! Processing evaluation jobs, the cases of one model together.

use super::{
    ending::Ending,
    engine::{EvalTask, FetchCheckpoint},
    eval_monitor::{EvalMonitor, Event},
    faults,
    health::Health,
    leases::JobLease,
    retry::{BEFORE_JOB, for_result},
    slot::{ExitReason, Slot, describe},
};
use crate::shutdown;
use futures::{
    FutureExt as _, StreamExt as _,
    future::{LocalBoxFuture, join_all},
    stream::FuturesUnordered,
};
use halfheard_models::train::{CaseResult, EvalCase, StoredFeatures, TrainError, failure};
use halfheard_shared::{
    address::redacted,
    artifacts::{ArtifactError, Key, MAX_BYTES},
    error::chain,
    hash::{Hash, InvalidHash},
    text::count,
    wire::{CheckpointRef, FailureKind, Fault, FaultKind, ResultBody, TrainSpec, Work},
};
use std::{path::PathBuf, sync::Arc};
use tokio::{runtime::Handle, sync::mpsc};

/// Evaluation jobs of one model that were taken together. Each leaves when it ends.
struct Batch {
    slot: Arc<Slot>,
    /// `evaluate lnln on mosi, seed 1111`.
    what: String,
    pending: Vec<Option<JobLease>>,
    reports: FuturesUnordered<LocalBoxFuture<'static, ()>>,
}

impl Batch {
    fn handle(&mut self, event: Event) {
        match event {
            Event::Started(cases) => {
                for lease in cases.iter().filter_map(|&i| self.pending[i].as_ref()) {
                    let body = ResultBody::Started {
                        delivery: lease.delivery,
                        resumed_after_epoch: 0,
                    };
                    self.slot.reporter.send(self.slot.report(lease, body));
                }
            }
            Event::Ended(case, seconds, outcome) => {
                let Some(lease) = self.pending[case].take() else {
                    return;
                };
                let (slot, what) = (self.slot.clone(), self.what.clone());
                let report = async move { slot.case_ended(&what, lease, seconds, outcome).await };
                self.reports.push(report.boxed_local());
            }
        }
    }

    /// Takes the jobs that have not ended.
    fn take_rest(&mut self) -> Vec<JobLease> {
        self.pending.iter_mut().filter_map(Option::take).collect()
    }

    /// Waits until every ended job is reported.
    async fn finish_reports(&mut self) {
        while self.reports.next().await.is_some() {}
    }
}

impl Slot {
    /// Evaluates jobs of one trained model. Each is reported when it ends.
    pub(super) async fn evaluate(self: &Arc<Self>, group: Vec<JobLease>) {
        let mut jobs = Vec::new();
        for lease in group {
            let Some(lease) = self.decline_if_blocked(lease).await else {
                continue;
            };
            match self.ended_before(&lease).await {
                None => jobs.push(lease),
                Some(ending) => self.end(lease, ending).await,
            }
        }
        if let Some(fault) = self.blocking_fault() {
            let after_epoch = 0;
            return self
                .end_all(jobs, Ending::Decline { after_epoch, fault })
                .await;
        }
        let Some(first) = jobs.first() else {
            return;
        };
        let Work::Eval { spec, .. } = first.job.work.clone() else {
            return;
        };
        let model = describe(&spec);
        let what = format!("evaluate {model}");
        self.set_activity(first, what.clone(), 0, jobs.len() as u32);
        tracing::info!(model, cases = jobs.len(), "evaluating");
        match self.inputs_or_ending(first.job.job, &spec, &what).await {
            Ok(inputs) => self.run_evaluation(jobs, spec, what, inputs).await,
            Err(ending) => self.end_all(jobs, ending).await,
        }
    }

    /// How a job ends before it starts, if it does.
    async fn ended_before(&self, lease: &JobLease) -> Option<Ending> {
        let what = "evaluate";
        // A first delivery has no earlier outcome.
        let redelivered = lease.delivery > 1 || lease.job.publication > 1;
        let earlier = match redelivered {
            true => self.earlier_outcome(lease).await,
            false => Ok(None),
        };
        match earlier {
            Ok(Some(body @ ResultBody::Evaluated { .. })) => Some(Ending::Report(body)),
            Ok(_) if self.is_crashing(lease).await => Some(Ending::crashed(what, lease.delivery)),
            Ok(_) => None,
            Err(error) => Some(self.store_failed(lease, what, &error)),
        }
    }

    async fn run_evaluation(
        self: &Arc<Self>,
        jobs: Vec<JobLease>,
        spec: TrainSpec,
        what: String,
        (data, encoder): (PathBuf, PathBuf),
    ) {
        let cancellation = self.sweeps.watch_cancellation(jobs[0].job.sweep);
        let (events, mut received) = mpsc::unbounded_channel();
        let task = EvalTask {
            spec: spec.clone(),
            data,
            encoder: encoder.clone(),
            cases: jobs.iter().filter_map(eval_case).collect(),
            fetch: self.fetch_checkpoint(&spec),
            monitor: Box::new(EvalMonitor {
                shutdown: self.shutdown.clone(),
                cancelled: cancellation.flag(),
                status: self.status.clone(),
                events,
            }),
        };
        let mut batch = Batch {
            slot: self.clone(),
            what: what.clone(),
            pending: jobs.into_iter().map(Some).collect(),
            reports: FuturesUnordered::new(),
        };
        let ended = {
            let engine = self.engine.evaluate(task);
            tokio::pin!(engine);
            loop {
                tokio::select! {
                    Some(event) = received.recv() => batch.handle(event),
                    Some(()) = batch.reports.next() => {}
                    ended = &mut engine => break Some(ended),
                    () = self.shutdown.deadline(shutdown::STEP_DEADLINE) => break None,
                }
            }
        };
        // Events sent before the end.
        while let Ok(event) = received.try_recv() {
            batch.handle(event);
        }
        let rest = batch.take_rest();
        match ended {
            None => {
                let cases = count(rest.len(), "case");
                tracing::warn!("a batch takes too long; handing {cases} back");
                self.hand_back_cases(rest).await;
            }
            Some(Ok(Ok(_))) if cancellation.is_cancelled() => {
                let body = ResultBody::HandedBack { after_epoch: 0 };
                self.end_all(rest, Ending::Report(body)).await;
            }
            // All have ended, or a shutdown is in progress.
            Some(Ok(Ok(_))) => self.hand_back_cases(rest).await,
            Some(Ok(Err(error))) => {
                let first = rest.first().map(|lease| lease.job.job);
                let ending = match self.worker_fault(first, &error, &spec, &encoder) {
                    Some(fault) => Ending::Decline {
                        after_epoch: 0,
                        fault,
                    },
                    None => {
                        let failure = failure(&what, &error);
                        tracing::error!("{}", failure.chain.join(": "));
                        Ending::Report(ResultBody::Failed(failure))
                    }
                };
                self.end_all(rest, ending).await;
            }
            Some(Err(exited)) => {
                self.request_exit(ExitReason::Broken);
                let ending = Ending::failed(&what, &exited, FailureKind::Retryable);
                self.end_all(rest, ending).await;
            }
        }
        batch.finish_reports().await;
    }

    /// Stores and reports how one case ended.
    async fn case_ended(
        &self,
        what: &str,
        lease: JobLease,
        seconds: f64,
        outcome: Result<CaseResult, TrainError>,
    ) {
        let ending = match outcome {
            Ok(evaluated) => match self.store_evaluation(&lease, seconds, evaluated).await {
                Ok(body) => Ending::Report(body),
                Err(_) if self.shutdown.is_requested() => return self.hand_back_case(lease).await,
                Err(error) => self.store_failed_after(&lease, what, &error, 0),
            },
            Err(error) => {
                let failure = failure(what, &error);
                tracing::error!(job = %lease.job.job, "{}", failure.chain.join(": "));
                Ending::Report(ResultBody::Failed(failure))
            }
        };
        let completed = matches!(ending, Ending::Report(ResultBody::Evaluated { .. }));
        self.end(lease, ending).await;
        if completed && self.status.suspension().is_none() {
            self.status.health(Health::job_completed);
        }
    }

    /// Stores an evaluation's features and then its outcome, so that an outcome in the store implies
    /// its features. Returns what to report.
    async fn store_evaluation(
        &self,
        lease: &JobLease,
        seconds: f64,
        evaluated: CaseResult,
    ) -> Result<ResultBody, ArtifactError> {
        self.store_features(lease, seconds, evaluated.features)
            .await?;
        let body = ResultBody::Evaluated {
            results: evaluated.results,
            predictions: evaluated.predictions,
            seconds,
        };
        Ok(self.keep_outcome(lease, body).await)
    }

    async fn store_features(
        &self,
        lease: &JobLease,
        seconds: f64,
        features: Option<StoredFeatures>,
    ) -> Result<(), ArtifactError> {
        let (Work::Eval { case, .. }, Some(features)) = (&lease.job.work, features) else {
            return Ok(());
        };
        let key = Key::Features(features.checkpoint.parse()?, *case);
        self.retry_transient(for_result(seconds), async || {
            self.store.put(&key, features.content.clone()).await
        })
        .await
    }

    /// Hands back a job of which nothing is kept.
    async fn hand_back_case(&self, lease: JobLease) {
        let body = ResultBody::HandedBack { after_epoch: 0 };
        self.reporter.send(self.report(&lease, body));
        self.hand_back_unstarted(lease).await;
    }

    async fn hand_back_cases(&self, jobs: Vec<JobLease>) {
        join_all(jobs.into_iter().map(|lease| self.hand_back_case(lease))).await;
    }

    async fn end_all(&self, jobs: Vec<JobLease>, ending: Ending) {
        let end = |lease| self.end(lease, ending.clone());
        join_all(jobs.into_iter().map(end)).await;
    }

    /// Fetches checkpoints for the compute thread.
    fn fetch_checkpoint(self: &Arc<Self>, spec: &TrainSpec) -> FetchCheckpoint {
        let (slot, runtime) = (self.clone(), Handle::current());
        let model = describe(spec);
        Box::new(move |checkpoint| runtime.block_on(slot.checkpoint(checkpoint, &model)))
    }

    async fn checkpoint(
        &self,
        checkpoint: &CheckpointRef,
        model: &str,
    ) -> Result<bytes::Bytes, TrainError> {
        let invalid = |what: String| TrainError::Weights {
            checkpoint: checkpoint.blake3.clone(),
            what,
        };
        let hash: Hash = checkpoint
            .blake3
            .parse()
            .map_err(|error: InvalidHash| invalid(error.to_string()))?;
        let unavailable = |reason: String| {
            let what = format!("checkpoint {hash} of {model}");
            TrainError::Worker(Fault::new(FaultKind::Checkpoint, what, vec![reason]))
        };
        let key = Key::Checkpoint(hash.clone());
        let read = self.retry_transient(BEFORE_JOB, async || self.store.get(&key, MAX_BYTES).await);
        match read.await {
            Ok(Some(content)) => Ok(content),
            Ok(None) => Err(unavailable(format!(
                "the artifact store {} does not have it; do all workers use the same one?",
                redacted(&self.settings.artifacts)
            ))),
            Err(error @ ArtifactError::Damaged { .. }) => Err(unavailable(chain(&error))),
            Err(error) => Err(match faults::store_fault(&error) {
                Some(fault) => TrainError::Worker(fault),
                None => invalid(chain(&error)),
            }),
        }
    }
}

fn eval_case(lease: &JobLease) -> Option<EvalCase> {
    match &lease.job.work {
        Work::Eval {
            case, checkpoints, ..
        } => Some(EvalCase {
            case: *case,
            checkpoints: checkpoints.clone(),
        }),
        Work::Train(_) | Work::Noop => None,
    }
}
