//! The way of evaluations, a model's cases together, and of no-op jobs.

use super::{Slot, Taken, engine::EvalTask, leaving, report::deliver, words};
use crate::train::{EvalCase, Evaluated, KeptFeatures, TrainError, failure};
use futures::future::join_all;
use missbench_shared::{
    artifacts::{ArtifactError, Key, MAX_BYTES},
    ids::AttemptId,
    wire::{FailureKind, ResultBody, Work},
};
use std::sync::{Arc, atomic::Ordering};
use tokio::runtime::Handle;

impl Slot {
    /// Evaluates jobs of one trained model.
    pub(super) async fn evaluate(self: &Arc<Self>, group: Vec<Taken>) {
        let mut todo: Vec<(Taken, AttemptId)> = Vec::new();
        for taken in group {
            let attempt = self.attempt(&taken);
            // A first delivery has no earlier outcome.
            let again = taken.delivery > 1 || taken.job.publication > 1;
            let earlier = match again {
                true => self.earlier_outcome(&taken).await,
                false => None,
            };
            if let Some(body @ ResultBody::Evaluated { .. }) = earlier {
                let report = self.report(&taken, attempt, body);
                self.conclude(&taken, report).await;
            } else if self.is_crashing(&taken).await {
                let error = TrainError::Spec(format!(
                    "delivered {} times, and no worker lived to say how it ended",
                    taken.delivery
                ));
                let body = Self::failure("evaluate", &error, FailureKind::Crashed);
                let report = self.report(&taken, attempt, body);
                self.conclude(&taken, report).await;
            } else {
                todo.push((taken, attempt));
            }
        }
        let Some((first, _)) = todo.first() else {
            return;
        };
        let Work::Eval { spec, .. } = first.job.work.clone() else {
            return;
        };
        let what = format!("evaluate {} on {} case(s)", words(&spec), todo.len());
        self.doing(first, what.clone(), 0);
        tracing::info!(train = %words(&spec), cases = todo.len(), "evaluating");
        for (taken, attempt) in &todo {
            let body = ResultBody::Started {
                delivery: taken.delivery,
                resumed_after_epoch: 0,
            };
            self.reporter.send(self.report(taken, *attempt, body));
        }
        let (data, encoder) = match self.inputs(&spec).await {
            Ok(both) => both,
            Err(error) => {
                let body = Self::failure(&what, &error, error.kind());
                return self.conclude_all(todo, |_| body.clone()).await;
            }
        };
        let cases = todo
            .iter()
            .filter_map(|(taken, _)| match &taken.job.work {
                Work::Eval {
                    case, checkpoints, ..
                } => Some(EvalCase {
                    case: *case,
                    checkpoints: checkpoints.clone(),
                }),
                Work::Train(_) | Work::Noop => None,
            })
            .collect();
        let task = EvalTask {
            spec,
            data,
            encoder,
            cases,
            fetch: self.fetch_checkpoint(),
        };
        let ended = tokio::select! {
            ended = self.engine.evaluate(task) => ended,
            () = self.leaving.past(leaving::STEP) => {
                tracing::warn!("the evaluation takes too long: its jobs go back");
                for (taken, attempt) in todo {
                    self.give_back(taken, attempt).await;
                }
                return;
            }
        };
        match ended {
            Ok(Ok(evaluated)) => {
                let ended = todo.into_iter().zip(evaluated);
                join_all(ended.map(async |((taken, attempt), evaluated)| {
                    match self.keep_evaluated(&what, &taken, evaluated).await {
                        Some(body) => {
                            let report = self.report(&taken, attempt, body);
                            self.conclude(&taken, report).await;
                        }
                        None => self.give_back(taken, attempt).await,
                    }
                }))
                .await;
            }
            Ok(Err(error)) => {
                if error.breaks_the_process() {
                    self.broken.store(true, Ordering::Relaxed);
                }
                let failure = failure(&what, &error);
                tracing::error!("{}", failure.chain.join(": "));
                self.conclude_all(todo, |_| ResultBody::Failed(failure.clone()))
                    .await;
            }
            Err(gone) => {
                self.broken.store(true, Ordering::Relaxed);
                let body = Self::failure(&what, &gone, FailureKind::Retryable);
                self.conclude_all(todo, |_| body.clone()).await;
            }
        }
    }

    /// Puts an evaluation's features and then its outcome into the store, so that an outcome that
    /// is there has its features. What is returned is to be reported; `None`: the store is away and
    /// the worker leaves, so the job goes back.
    async fn keep_evaluated(
        &self,
        what: &str,
        taken: &Taken,
        evaluated: Evaluated,
    ) -> Option<ResultBody> {
        match self.keep_features(taken, evaluated.features).await {
            Ok(()) => {
                let body = ResultBody::Evaluated {
                    results: evaluated.results,
                    predictions: evaluated.predictions,
                };
                Some(self.keep_outcome(taken, body).await)
            }
            Err(_) if self.leaving.is_asked() => None,
            Err(error) => {
                let kind = if error.is_retryable() {
                    FailureKind::Retryable
                } else {
                    FailureKind::Permanent
                };
                Some(Self::failure(what, &error, kind))
            }
        }
    }

    async fn keep_features(
        &self,
        taken: &Taken,
        features: Option<KeptFeatures>,
    ) -> Result<(), ArtifactError> {
        let (Work::Eval { case, .. }, Some(features)) = (&taken.job.work, features) else {
            return Ok(());
        };
        let key = Key::Features(features.checkpoint.parse()?, *case);
        self.patiently(async || self.store.put(&key, features.content.clone()).await)
            .await
    }

    /// Gives a job back that nothing is left of.
    async fn give_back(&self, taken: Taken, attempt: AttemptId) {
        let body = ResultBody::HandedBack { after_epoch: 0 };
        self.reporter.send(self.report(&taken, attempt, body));
        self.hand_back_unstarted(taken).await;
    }

    async fn conclude_all(
        &self,
        todo: Vec<(Taken, AttemptId)>,
        body: impl Fn(usize) -> ResultBody,
    ) {
        join_all(todo.iter().enumerate().map(async |(i, (taken, attempt))| {
            let report = self.report(taken, *attempt, body(i));
            self.conclude(taken, report).await;
        }))
        .await;
    }

    /// Brings a checkpoint from the store to libtorch's thread.
    fn fetch_checkpoint(self: &Arc<Self>) -> super::engine::FetchCheckpoint {
        let (slot, runtime) = (self.clone(), Handle::current());
        Box::new(move |checkpoint| {
            let unusable = |what: String| TrainError::Weights {
                checkpoint: checkpoint.blake3.clone(),
                what,
            };
            let hash = checkpoint
                .blake3
                .parse()
                .map_err(|e| unusable(format!("{e}")))?;
            let key = Key::Checkpoint(hash);
            let content =
                runtime.block_on(slot.patiently(async || slot.store.get(&key, MAX_BYTES).await));
            match content {
                Ok(Some(content)) => Ok(content),
                Ok(None) => Err(unusable("it is not in the artifact store".to_owned())),
                Err(error) => Err(unusable(crate::chain(&error))),
            }
        })
    }

    /// No-op jobs: reported and acknowledged, many under way at once.
    pub(super) async fn noop(self: &Arc<Self>, all: Vec<Taken>) {
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
            for taken in all {
                let attempt = slot.attempt(&taken);
                let report = slot.report(&taken, attempt, ResultBody::Noop);
                let on_its_way = slot.broker.send_result(&report).await;
                sent.push((taken, report, on_its_way));
            }
            for (taken, report, on_its_way) in sent {
                let confirmed = match on_its_way {
                    Ok(on_its_way) => on_its_way.confirmed().await.is_ok(),
                    Err(_) => false,
                };
                if confirmed || deliver(&slot.broker, &report).await {
                    taken.done_unconfirmed().await;
                }
            }
            drop(permits);
        });
    }
}
