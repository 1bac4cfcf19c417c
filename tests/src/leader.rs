//! A scripted coordinator, for tests of a worker without a database: it grants what the test offers,
//! keeps what it hears and settles what is reported.

use anyhow::{Context as _, Result, ensure};
use async_nats::jetstream::AckKind;
use futures::StreamExt as _;
use halfheard_shared::{
    broker::{Broker, topology::Installation},
    ids::{AttemptId, JobId, SweepId},
    wire::{
        Answer, Ask, Heartbeat, Held, JobMessage, ResultBody, ResultMessage, Tell, Work,
        decode_report,
    },
};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::task::JoinHandle;
use uuid::Uuid;

/// How long it keeps a request while it has nothing.
const HOLD: Duration = Duration::from_millis(500);

/// What the coordinator knows and does.
#[derive(Debug, Default)]
struct State {
    /// Jobs to grant, in order.
    offered: VecDeque<JobMessage>,
    asks: Vec<Ask>,
    beats: Vec<Heartbeat>,
    reports: Vec<ResultMessage>,
    /// Answers nobody.
    silent: bool,
    /// Refuses workers for this reason.
    refusal: Option<String>,
    /// Leaves final reports unsettled.
    unsettled: bool,
}

/// A running coordinator; it stops when dropped.
#[derive(Debug)]
pub struct ScriptedLeader {
    broker: Broker,
    state: Arc<Mutex<State>>,
    installation: Installation,
    tasks: Vec<JoinHandle<()>>,
}

/// A job with an attempt that nobody else has.
pub fn granted(work: Work) -> JobMessage {
    let job = JobId(Uuid::new_v4());
    again(&JobMessage {
        sweep: SweepId::derive(&[b"scripted"]),
        job,
        attempt: AttemptId(job.0),
        work,
    })
}

/// The same job as another attempt.
pub fn again(job: &JobMessage) -> JobMessage {
    JobMessage {
        attempt: AttemptId(Uuid::new_v4()),
        ..job.clone()
    }
}

/// Whether a report ends its attempt.
pub fn is_final(body: &ResultBody) -> bool {
    !matches!(body, ResultBody::Started { .. } | ResultBody::Epoch(_))
}

impl ScriptedLeader {
    /// Starts one.
    pub async fn start(broker: &Broker) -> Result<Self> {
        let installation = Installation {
            id: Uuid::new_v4(),
            name: "scripted".to_owned(),
        };
        broker.ensure(&installation).await?;
        let client = broker.client();
        let asks = client.subscribe(broker.names().asks()).await?;
        let beats = client.subscribe(broker.names().heartbeats()).await?;
        client.flush().await?;
        let state: Arc<Mutex<State>> = Arc::default();
        let tasks = vec![
            tokio::spawn(answer(broker.clone(), state.clone(), asks)),
            tokio::spawn(hear(state.clone(), beats)),
            tokio::spawn(collect(broker.clone(), state.clone())),
        ];
        Ok(Self {
            broker: broker.clone(),
            state,
            installation,
            tasks,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Makes the broker's objects again, after it lost its storage.
    pub async fn ensure(&self) -> Result<()> {
        Ok(self.broker.ensure(&self.installation).await?)
    }

    /// Grants a job to whoever asks next.
    pub fn offer(&self, job: &JobMessage) {
        self.state().offered.push_back(job.clone());
    }

    /// Answers nobody any more, or again.
    pub fn silence(&self, silent: bool) {
        self.state().silent = silent;
    }

    /// Refuses every worker for this reason.
    pub fn refuse(&self, reason: Option<&str>) {
        self.state().refusal = reason.map(str::to_owned);
    }

    /// Leaves final reports unsettled, or settles those to come.
    pub fn leave_unsettled(&self, unsettled: bool) {
        self.state().unsettled = unsettled;
    }

    /// Tells a worker that an attempt is not its.
    pub async fn release(&self, worker: &str, attempt: AttemptId) {
        let attempts = vec![attempt];
        self.broker.tell(worker, &Tell::Released { attempts }).await;
    }

    /// Every request so far.
    pub fn asks(&self) -> Vec<Ask> {
        self.state().asks.clone()
    }

    /// The last heartbeat.
    pub fn beat(&self) -> Option<Heartbeat> {
        self.state().beats.last().cloned()
    }

    /// All heartbeats so far.
    pub fn beats(&self) -> Vec<Heartbeat> {
        self.state().beats.clone()
    }

    /// What the last heartbeat says of an attempt.
    pub fn held(&self, attempt: AttemptId) -> Option<Held> {
        let holds = self.beat()?.holds;
        holds.into_iter().find(|held| held.attempt == attempt)
    }

    /// The reports of an attempt so far, repetitions included.
    pub fn reports(&self, attempt: AttemptId) -> Vec<ResultBody> {
        let state = self.state();
        let reports = state.reports.iter();
        reports
            .filter(|report| report.attempt == attempt)
            .map(|report| report.body.clone())
            .collect()
    }

    /// How the attempt ended, if it has.
    pub fn ending(&self, attempt: AttemptId) -> Option<ResultBody> {
        self.reports(attempt).into_iter().find(is_final)
    }

    /// Waits until an attempt ends.
    pub async fn ended(&self, attempt: AttemptId) -> Result<ResultBody> {
        let what = format!("attempt {attempt} to end");
        self.until(&what, || self.ending(attempt)).await
    }

    /// Waits until there is something.
    pub async fn until<T>(&self, what: &str, look: impl Fn() -> Option<T>) -> Result<T> {
        let since = Instant::now();
        loop {
            if let Some(found) = look() {
                return Ok(found);
            }
            ensure!(
                since.elapsed() < crate::PATIENCE,
                "waited in vain for {what}; last heartbeat: {:?}",
                self.beat()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for ScriptedLeader {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes from the offers what fits a request.
fn fitting(state: &mut State, ask: &Ask) -> Vec<JobMessage> {
    let mut room = (ask.trainings, ask.evaluations, ask.noops);
    let mut jobs = Vec::new();
    state.offered.retain(|job| {
        let room = match &job.work {
            Work::Train(_) => &mut room.0,
            Work::Eval { .. } => &mut room.1,
            Work::Noop => &mut room.2,
        };
        let fits = *room > 0;
        if fits {
            *room -= 1;
            jobs.push(job.clone());
        }
        !fits
    });
    jobs
}

async fn answer(broker: Broker, state: Arc<Mutex<State>>, mut asks: async_nats::Subscriber) {
    while let Some(message) = asks.next().await {
        let (Ok(ask), Some(reply)) = (
            serde_json::from_slice::<Ask>(&message.payload),
            message.reply,
        ) else {
            continue;
        };
        let wire = ask.wire;
        lock(&state).asks.push(ask.clone());
        let (state, broker) = (state.clone(), broker.clone());
        tokio::spawn(async move {
            let since = Instant::now();
            let answer = loop {
                {
                    let mut state = lock(&state);
                    if state.silent {
                        return;
                    }
                    // A later request of the worker takes its place.
                    let of_worker = |other: &&Ask| other.worker.name == ask.worker.name;
                    let newest = state.asks.iter().rev().find(of_worker);
                    if newest.is_some_and(|newest| newest.number != ask.number) {
                        return;
                    }
                    if let Some(reason) = &state.refusal {
                        break Answer::Refused(reason.clone());
                    }
                    let jobs = fitting(&mut state, &ask);
                    let room = ask.trainings + ask.evaluations + ask.noops;
                    if !jobs.is_empty() || room == 0 || since.elapsed() > HOLD {
                        break Answer::Grants(jobs);
                    }
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            };
            if let Ok(payload) = answer.encode_for(wire) {
                let _ = broker.client().publish(reply, payload.into()).await;
            }
        });
    }
}

async fn hear(state: Arc<Mutex<State>>, mut beats: async_nats::Subscriber) {
    while let Some(message) = beats.next().await {
        if let Ok(beat) = serde_json::from_slice(&message.payload) {
            lock(&state).beats.push(beat);
        }
    }
}

/// Collects reports, however often the broker is away.
async fn collect(broker: Broker, state: Arc<Mutex<State>>) {
    loop {
        if let Err(error) = collect_until_error(&broker, &state).await {
            tracing::debug!(%error, "the scripted coordinator collects again");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn collect_until_error(broker: &Broker, state: &Mutex<State>) -> Result<()> {
    let consumer = broker.results().await?;
    loop {
        let batch = consumer
            .batch()
            .max_messages(256)
            .expires(Duration::from_millis(300));
        let mut batch = batch.messages().await?;
        while let Some(message) = batch.next().await {
            let message = message.map_err(anyhow::Error::msg)?;
            let report = decode_report(&message.payload).context("a report")?;
            message
                .ack_with(AckKind::Ack)
                .await
                .map_err(anyhow::Error::msg)?;
            let settles = {
                let mut state = lock(state);
                state.reports.push(report.clone());
                is_final(&report.body) && !state.unsettled
            };
            if settles {
                let attempts = vec![report.attempt];
                let tell = Tell::Released { attempts };
                broker.tell(&report.worker.name, &tell).await;
            }
        }
    }
}
