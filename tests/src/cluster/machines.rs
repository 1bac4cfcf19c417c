//! The workers of the simulated cluster, in a process of their own.

use super::journal::{Journal, Plan, life};
use crate::worker::{Act, Course, Event, Profile, ScriptedWorker, outcome};
use anyhow::Result;
use halfheard_shared::{
    broker::{Broker, BrokerSettings},
    wire::{FailureKind, JobMessage, ResultBody, Work},
};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Real seconds between heartbeats: the coordinator looks at them once a second.
const BEAT_EVERY: Duration = Duration::from_secs(1);
/// As the worker does.
const EVALUATIONS: u32 = 16;

/// Machines that are taken away.
#[derive(Clone, Copy, Debug)]
pub struct Spot {
    /// Their mean life.
    pub mean_life: f64,
    /// How long it takes until there is another.
    pub replaced_after: f64,
}

/// How the cluster works.
#[derive(Clone, Copy, Debug)]
pub struct Cluster {
    /// Workers, of one GPU each.
    pub workers: usize,
    /// Simulated seconds that pass in a second.
    pub speed: f64,
    /// If its machines are taken away.
    pub spot: Option<Spot>,
}

/// What the workers did.
#[derive(Clone, Copy, Debug)]
pub struct Totals {
    /// Seconds that GPUs worked.
    pub spent: f64,
    /// Workers that died.
    pub deaths: u64,
}

/// What all workers share: the clock, the artifact store's saved states and the account.
struct Shared {
    cluster: Cluster,
    began: Instant,
    journal: Mutex<Journal>,
}

impl Shared {
    fn now(&self) -> f64 {
        self.began.elapsed().as_secs_f64() * self.cluster.speed
    }

    fn real(&self, seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds / self.cluster.speed)
    }

    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn act(&self, worker: &str, job: &JobMessage) -> Act {
        let begun = self.journal().begin(worker, job, self.now());
        match begun {
            Ok((plan, wait)) => Act::Follow(self.course(job, &plan, wait)),
            Err(error) => Act::Fail(FailureKind::Permanent, vec![format!("{error:#}")]),
        }
    }

    /// What a worker says of a job that its GPU begins in `wait` seconds.
    fn course(&self, job: &JobMessage, plan: &Plan, wait: f64) -> Course {
        let at = |seconds: f64| self.real(wait + seconds);
        let mut course = Course::default();
        let mut end = outcome(job, 0);
        if let Plan::Train { training, from } = plan {
            let epoch = training.epoch_seconds();
            let steps = |state: f64| (state / training.step_seconds) as u64;
            let whole = training.seconds();
            course.resumed = steps(*from);
            course.resumed_after_epoch = (from / epoch + 1e-9) as u32;
            for mut body in std::mem::take(&mut end) {
                match &mut body {
                    ResultBody::Epoch(log)
                        if log.epoch > course.resumed_after_epoch
                            && log.epoch <= training.epochs =>
                    {
                        log.train_seconds = epoch;
                        log.eval_seconds = 0.0;
                        let ended = plan.seconds() - whole + epoch * f64::from(log.epoch);
                        course.events.push((at(ended), Event::Say(body)));
                    }
                    ResultBody::Trained {
                        checkpoints,
                        epochs,
                        seconds,
                        ..
                    } => {
                        (*epochs, *seconds) = (training.epochs, whole);
                        for checkpoint in checkpoints {
                            checkpoint.epoch = training.epochs;
                        }
                        end.push(body);
                    }
                    _ => {}
                }
            }
            for (after, state) in plan.saves() {
                course.events.push((at(after), Event::Saved(steps(state))));
            }
            course.events.sort_by_key(|(after, _)| *after);
        }
        for mut body in end {
            if let ResultBody::Evaluated {
                predictions,
                seconds,
                ..
            } = &mut body
                && let Work::Eval { spec, .. } = &job.work
            {
                *seconds = plan.seconds();
                // As many as a real worker sends.
                if let Some([_, _, test]) = spec.dataset.split_sizes() {
                    *predictions = vec![vec![0.0; test]];
                }
            }
            course.events.push((at(plan.seconds()), Event::Say(body)));
        }
        course
    }

    fn start(self: &Arc<Self>, broker: &Broker, name: &str) -> ScriptedWorker {
        let profile = Profile {
            evaluations: EVALUATIONS,
            // None is asked for while there is work, as the real worker does it.
            noops: 0,
            beat_every: BEAT_EVERY,
            ..Profile::named(name)
        };
        let (shared, worker) = (Arc::clone(self), name.to_owned());
        let script = move |job: &JobMessage, _| shared.act(&worker, job);
        ScriptedWorker::with(broker, profile, Arc::new(script))
    }

    /// One place in the cluster, with one machine after the other.
    async fn slot(self: Arc<Self>, broker: Broker, slot: usize) {
        let Some(spot) = self.cluster.spot else {
            let _worker = self.start(&broker, &format!("node{}-{}", slot / 8, slot % 8));
            return std::future::pending().await;
        };
        for number in 0.. {
            let name = format!("spot{slot}-{number}");
            let worker = self.start(&broker, &name);
            tokio::time::sleep(self.real(life(spot.mean_life, slot, number))).await;
            worker.kill().await;
            self.journal().end(&name, self.now());
            tokio::time::sleep(self.real(spot.replaced_after)).await;
        }
    }
}

/// Runs the workers until `end`.
///
/// # Errors
///
/// The broker refuses them.
pub async fn work(url: &str, cluster: Cluster, end: impl Future<Output = ()>) -> Result<Totals> {
    let broker = BrokerSettings::at(url).connect_with_retry().await?;
    let shared = Arc::new(Shared {
        cluster,
        began: Instant::now(),
        journal: Mutex::default(),
    });
    let mut slots = tokio::task::JoinSet::new();
    for slot in 0..cluster.workers {
        slots.spawn(Arc::clone(&shared).slot(broker.clone(), slot));
    }
    end.await;
    slots.shutdown().await;
    let now = shared.now();
    let (spent, deaths) = std::mem::take(&mut *shared.journal()).totals(now);
    Ok(Totals { spent, deaths })
}
