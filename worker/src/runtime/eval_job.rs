//! Processing evaluation jobs, the cases of one model together.

use super::{
    ending::Ending,
    engine::{EvalTask, FetchCheckpoint},
    eval_monitor::{EvalMonitor, Event},
    faults,
    health::Health,
    leases::JobLease,
    report::AttemptReporter,
    retry::{BEFORE_JOB, RESULT},
    slot::{ExitReason, Slot, describe},
    tables::Tables,
    traces,
    train_job::Inputs,
    watch::Phase,
};
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
    ids::JobId,
    text::count,
    wire::{CheckpointRef, FailureKind, Fault, FaultKind, ResultBody, TrainSpec, Work},
};
use halfheard_telemetry::traces::context;
use std::{path::Path, sync::Arc, time::SystemTime};
use tokio::{runtime::Handle, sync::mpsc};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

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
                    self.slot.voice(lease).started(0, 0);
                }
            }
            Event::Ended(case, seconds, memory, outcome) => {
                let Some(lease) = self.pending[case].take() else {
                    return;
                };
                let (slot, what) = (self.slot.clone(), self.what.clone());
                let context = context(lease.job.job, lease.attempt());
                let report = async move {
                    slot.case_ended(&what, lease, (seconds, memory), outcome)
                        .await
                };
                self.reports.push(report.instrument(context).boxed_local());
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
    pub(super) async fn evaluate(self: &Arc<Self>, jobs: Vec<JobLease>) {
        let Some(first) = jobs.first() else {
            return;
        };
        let Work::Eval { spec, .. } = first.job.work.clone() else {
            return;
        };
        let model = describe(&spec);
        let what = format!("evaluate {model}");
        self.set_activity(first, what.clone(), 0, jobs.len() as u32);
        for lease in &jobs {
            lease.set_at_work(true);
        }
        tracing::info!(model, cases = jobs.len(), "evaluating");
        self.watch.enter(Phase::Preparing);
        let began = SystemTime::now();
        let inputs = async {
            let inputs = self.inputs_or_ending(first, &spec, &what).await?;
            let tables = self.tables(&jobs, &spec, &what).await?;
            let cases = jobs.iter().filter_map(|lease| eval_case(lease, &tables));
            Ok((inputs, cases.collect()))
        };
        let inputs = self.unless_ended(first, inputs).await;
        for lease in &jobs {
            traces::part(lease.attempt(), "data", began);
        }
        match inputs {
            Ok(inputs) => self.run_evaluation(jobs, spec, what, inputs).await,
            Err(ending) => {
                self.watch.enter(Phase::Waiting);
                self.end_all(jobs, ending).await;
            }
        }
    }

    async fn run_evaluation(
        self: &Arc<Self>,
        jobs: Vec<JobLease>,
        spec: TrainSpec,
        what: String,
        (inputs, cases): (Inputs, Vec<EvalCase>),
    ) {
        let Inputs {
            data,
            encoder,
            external,
        } = inputs;
        let (events, mut received) = mpsc::unbounded_channel();
        let (shutdown, deadlines) = (self.shutdown.clone(), self.settings.deadlines);
        let (status, watch) = (self.status.clone(), self.watch.clone());
        let released = jobs.iter().map(|lease| Some(lease.released().clone()));
        let released: Vec<_> = released.collect();
        let is_external = external.is_some();
        let output = external.as_ref().map(|external| external.output.clone());
        let attempts: Vec<AttemptReporter> = jobs.iter().map(|lease| self.voice(lease)).collect();
        let task = EvalTask {
            spec: spec.clone(),
            external,
            data,
            encoder: encoder.clone(),
            cases,
            fetch: self.fetch_checkpoint(&spec),
            monitor: Box::new(move |memory| {
                Box::new(EvalMonitor {
                    shutdown,
                    deadlines,
                    released,
                    status,
                    watch,
                    memory,
                    events,
                    external: is_external,
                })
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
                    () = self.shutdown.deadline(deadlines.step()) => break None,
                }
            }
        };
        if let Some(captured) = output.and_then(|output| output.take()) {
            self.report_output(&attempts, captured).await;
        }
        // Events sent before the end.
        while let Ok(event) = received.try_recv() {
            batch.handle(event);
        }
        let rest = batch.take_rest();
        // What follows waits for the store and the broker.
        self.watch.enter(Phase::Waiting);
        let ending = match ended {
            None => {
                let cases = count(rest.len(), "case");
                tracing::warn!("a batch takes too long; handing {cases} back");
                Ending::HandBack { after_epoch: 0 }
            }
            // All have ended, the rest was taken away, or a shutdown is in progress.
            Some(Ok(Ok(_))) => Ending::HandBack { after_epoch: 0 },
            Some(Ok(Err(error))) => {
                let first = rest.first().map(|lease| lease.job.job);
                self.evaluation_failed(first, &what, &error, &spec, &encoder)
            }
            Some(Err(exited)) => {
                self.request_exit(ExitReason::Broken);
                Ending::failed(&what, &exited, FailureKind::Retryable)
            }
        };
        self.end_all(rest, ending).await;
        batch.finish_reports().await;
    }

    /// How jobs end whose evaluation failed; `first` is one of them.
    fn evaluation_failed(
        &self,
        first: Option<JobId>,
        what: &str,
        error: &TrainError,
        spec: &TrainSpec,
        encoder: &Path,
    ) -> Ending {
        match self.worker_fault(first, error, spec, encoder) {
            Some(fault) => Ending::Decline {
                after_epoch: 0,
                fault,
            },
            None => {
                let failure = failure(what, error);
                tracing::error!("{}", failure.chain.join(": "));
                Ending::Report(ResultBody::Failed(failure))
            }
        }
    }

    /// Stores and reports how one case ended.
    async fn case_ended(
        &self,
        what: &str,
        lease: JobLease,
        (seconds, peak_memory): (f64, u64),
        outcome: Result<CaseResult, TrainError>,
    ) {
        traces::case(lease.attempt(), seconds);
        // Its result waits for the store and the broker.
        lease.set_at_work(false);
        let ending = match outcome {
            // Features first, so that a result implies them.
            Ok(evaluated) => match self.store_features(&lease, evaluated.features).await {
                Ok(()) => Ending::Report(ResultBody::Evaluated {
                    results: evaluated.results,
                    predictions: evaluated.predictions,
                    seconds,
                    peak_memory,
                }),
                Err(_) if self.shutdown.is_requested() || lease.is_released() => {
                    Ending::HandBack { after_epoch: 0 }
                }
                Err(error) => Ending::failed(what, &error, FailureKind::Permanent),
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

    async fn store_features(
        &self,
        lease: &JobLease,
        features: Option<StoredFeatures>,
    ) -> Result<(), ArtifactError> {
        let (Work::Eval { case, .. }, Some(features)) = (&lease.job.work, features) else {
            return Ok(());
        };
        let key = Key::Features(features.checkpoint.parse()?, *case);
        self.retry_store(RESULT, lease.released(), async || {
            self.store.put(&key, features.content.clone()).await
        })
        .await
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
        // Cases are taken away one by one.
        let released = CancellationToken::new();
        let read = self.retry_store(BEFORE_JOB, &released, async || {
            self.store.get(&key, MAX_BYTES).await
        });
        match read.await {
            Ok(Some(content)) => Ok(content),
            Ok(None) => Err(self.replaced_store().await.unwrap_or_else(|| {
                unavailable(format!(
                    "the artifact store {} does not have it; do all workers use the same one?",
                    redacted(&self.settings.artifacts)
                ))
            })),
            Err(error @ ArtifactError::Damaged { .. }) => Err(unavailable(chain(&error))),
            Err(error) => Err(match faults::store_fault(&error) {
                Some(fault) => TrainError::Worker(fault),
                None => invalid(chain(&error)),
            }),
        }
    }
}

impl Slot {
    /// The fault of a store that is not the one that this worker opened: another folder is mounted in
    /// its place, or none.
    async fn replaced_store(&self) -> Option<TrainError> {
        let reason = match self.store.current_id().await {
            Ok(Some(id)) if id == self.store_id => return None,
            Ok(Some(_)) => {
                "it is another store than the one that this worker began with".to_owned()
            }
            Ok(None) => "it is empty: is it mounted?".to_owned(),
            Err(error) => chain(&error),
        };
        let fault = Fault::new(FaultKind::Store, "the artifact store", vec![reason]);
        Some(TrainError::Worker(fault))
    }
}

fn eval_case(lease: &JobLease, tables: &Tables) -> Option<EvalCase> {
    match &lease.job.work {
        Work::Eval {
            case,
            confusions,
            checkpoints,
            ..
        } => Some(EvalCase {
            case: *case,
            checkpoints: checkpoints.clone(),
            confusions: confusions
                .as_ref()
                .and_then(|hash| tables.get(hash))
                .cloned(),
        }),
        Work::Train(_) | Work::Noop => None,
    }
}
