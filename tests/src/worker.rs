//! A scripted worker: takes jobs as the real one does and answers by script, without libtorch.
//! What it "computes" derives from the job alone, so that every run comes out the same.

use anyhow::Result;
use async_nats::jetstream::{AckKind, Message, consumer::PullConsumer};
use futures::{StreamExt as _, future::try_join_all};
use halfheard_shared::{
    broker::{Broker, Queue},
    ids::AttemptId,
    wire::{
        CheckpointRef, CriterionResult, EpochLog, Failure, FailureKind, Fault, JobMessage,
        ResultBody, ResultMessage, Work, WorkerInfo, decode,
    },
};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// What the worker does with a job.
#[derive(Clone, Debug)]
pub enum Act {
    /// Completes it.
    Complete,
    /// Completes it and sends every message three times, in reverse order.
    Repeat,
    /// Fails with this chain.
    Fail(FailureKind, Vec<String>),
    /// Starts it and declines for a fault of its own.
    Decline(Fault),
    /// Starts it and vanishes; the broker keeps the message until its ack wait ends.
    Vanish,
    /// Starts it and hands it back.
    HandBack,
    /// Completes it with results that depend on the number.
    Differ(u8),
    /// Sends invalid messages, then completes it.
    SendInvalid,
    /// Completes it after a delay.
    Delay(Duration),
    /// Completes it when the token is cancelled.
    WaitFor(CancellationToken),
}

/// Decides what to do with a job, given the delivery's number.
pub type Script = Arc<dyn Fn(&JobMessage, u64) -> Act + Send + Sync>;

/// A running worker; it stops when dropped.
#[derive(Debug)]
pub struct ScriptedWorker {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl ScriptedWorker {
    /// Starts one that completes every job.
    pub fn completing(broker: &Broker, name: &str) -> Self {
        Self::start(broker, name, Arc::new(|_, _| Act::Complete))
    }

    /// Starts one with a script.
    pub fn start(broker: &Broker, name: &str, script: Script) -> Self {
        Self::on(broker, name, "", script)
    }

    /// Starts one on a kind of processor.
    pub fn on(broker: &Broker, name: &str, processor: &str, script: Script) -> Self {
        let stop = CancellationToken::new();
        let worker = Worker {
            broker: broker.clone(),
            info: WorkerInfo {
                name: name.to_owned(),
                host: "test".to_owned(),
                device: "cpu".to_owned(),
                version: "scripted".to_owned(),
                processor: processor.to_owned(),
            },
            script,
        };
        let task = tokio::spawn({
            let stop = stop.clone();
            async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = worker.run() => {}
                }
            }
        });
        Self { stop, task }
    }

    /// Aborts it, wherever it is.
    pub async fn kill(self) {
        self.task.abort();
    }
}

impl Drop for ScriptedWorker {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

struct Worker {
    broker: Broker,
    info: WorkerInfo,
    script: Script,
}

impl Worker {
    async fn run(&self) {
        loop {
            // The broker may be down, or its streams missing.
            if self.take_jobs().await.is_err() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }

    async fn take_jobs(&self) -> Result<()> {
        let eval = self.broker.jobs(Queue::Eval).await?;
        let train = self.broker.jobs(Queue::Train).await?;
        loop {
            let mut batch = fetch(&eval, 64).await?;
            if batch.is_empty() {
                batch = wait(&train, 1, Duration::from_millis(50)).await?;
            }
            try_join_all(batch.iter().map(|message| self.handle(message))).await?;
        }
    }

    async fn handle(&self, message: &Message) -> Result<()> {
        let job: JobMessage = decode(&message.payload)?;
        let delivery = message
            .info()
            .map(|info| info.delivered.unsigned_abs())
            .unwrap_or(1);
        let voice = Voice {
            worker: self,
            attempt: AttemptId::fresh(job.job, &self.info.name, delivery),
            job: &job,
        };
        let act = (self.script)(&job, delivery);
        let started = ResultBody::Started {
            delivery,
            resumed_after_epoch: 0,
        };
        if matches!(act, Act::Repeat) {
            for _ in 0..3 {
                for body in outcome(&job, 0).into_iter().rev() {
                    voice.say(body).await?;
                }
                voice.say(started.clone()).await?;
            }
            return acked(message).await;
        }
        voice.say(started).await?;
        match act {
            Act::Complete | Act::Repeat => {}
            Act::Delay(time) => tokio::time::sleep(time).await,
            Act::WaitFor(let_go) => let_go.cancelled().await,
            Act::Vanish => return Ok(()),
            Act::HandBack => {
                voice.say(ResultBody::HandedBack { after_epoch: 1 }).await?;
                let nak = message.double_ack_with(AckKind::Nak(None)).await;
                return nak.map_err(anyhow::Error::msg);
            }
            Act::Fail(kind, chain) => {
                voice
                    .say(ResultBody::Failed(Failure { chain, kind }))
                    .await?;
                return acked(message).await;
            }
            Act::Decline(fault) => {
                let after_epoch = 0;
                voice
                    .say(ResultBody::Declined { after_epoch, fault })
                    .await?;
                return acked(message).await;
            }
            Act::Differ(twist) => {
                for body in outcome(&job, twist) {
                    voice.say(body).await?;
                }
                return acked(message).await;
            }
            Act::SendInvalid => {
                self.broker
                    .jetstream()
                    .publish(format!("result.{}", job.sweep), "no message".into())
                    .await?
                    .await?;
            }
        }
        for body in outcome(&job, 0) {
            voice.say(body).await?;
        }
        acked(message).await
    }
}

/// One attempt, speaking.
struct Voice<'a> {
    worker: &'a Worker,
    attempt: AttemptId,
    job: &'a JobMessage,
}

impl Voice<'_> {
    async fn say(&self, body: ResultBody) -> Result<()> {
        self.worker
            .broker
            .deliver_result(&ResultMessage {
                sweep: self.job.sweep,
                job: self.job.job,
                attempt: self.attempt,
                publication: self.job.publication,
                worker: self.worker.info.clone(),
                at_ms: now_ms(),
                body,
            })
            .await?;
        Ok(())
    }
}

async fn acked(message: &Message) -> Result<()> {
    message.double_ack().await.map_err(anyhow::Error::msg)
}

async fn fetch(consumer: &PullConsumer, count: usize) -> Result<Vec<Message>> {
    let mut batch = consumer.fetch().max_messages(count).messages().await?;
    let mut messages = Vec::new();
    while let Some(message) = batch.next().await {
        messages.push(message.map_err(anyhow::Error::msg)?);
    }
    Ok(messages)
}

async fn wait(consumer: &PullConsumer, count: usize, time: Duration) -> Result<Vec<Message>> {
    let mut batch = consumer
        .batch()
        .max_messages(count)
        .expires(time)
        .messages()
        .await?;
    let mut messages = Vec::new();
    while let Some(message) = batch.next().await {
        messages.push(message.map_err(anyhow::Error::msg)?);
    }
    Ok(messages)
}

fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| {
            u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
        })
}

/// What a job ends with: a function of the job, and of `twist`.
pub fn outcome(job: &JobMessage, twist: u8) -> Vec<ResultBody> {
    let criteria = ["acc2_nonzero", "acc7", "mae"];
    match &job.work {
        Work::Noop => vec![ResultBody::Noop],
        Work::Train(spec) => {
            let epochs = (1..=spec.max_epochs).map(|epoch| {
                ResultBody::Epoch(EpochLog {
                    epoch,
                    losses: BTreeMap::from([(
                        "loss".to_owned(),
                        1.0 / f64::from(epoch) + f64::from(twist),
                    )]),
                    metrics: BTreeMap::from([
                        ("mae".to_owned(), Some(0.1 * f64::from(epoch))),
                        ("corr".to_owned(), None),
                    ]),
                    train_seconds: 0.5,
                    eval_seconds: 0.25,
                    best_for: vec!["mae".to_owned()],
                })
            });
            let checkpoints = criteria
                .iter()
                .map(|criterion| CheckpointRef {
                    criterion: (*criterion).to_owned(),
                    epoch: spec.max_epochs,
                    blake3: blake3::hash(&[job.job.as_bytes(), &[twist][..]].concat())
                        .to_hex()
                        .to_string(),
                    bytes: 1000,
                })
                .collect();
            epochs
                .chain([ResultBody::Trained {
                    checkpoints,
                    epochs: spec.max_epochs,
                    seconds: 1.5,
                }])
                .collect()
        }
        Work::Eval {
            case, checkpoints, ..
        } => {
            let byte = |salt: u8| {
                let hash = blake3::hash(&[job.job.as_bytes(), &[salt, twist][..]].concat());
                hash.as_bytes()[0]
            };
            let results = checkpoints
                .iter()
                .map(|checkpoint| CriterionResult {
                    criterion: checkpoint.criterion.clone(),
                    epoch: checkpoint.epoch,
                    predictions: 0,
                    metrics: BTreeMap::from([
                        ("mae".to_owned(), Some(f64::from(byte(1)) / 255.0)),
                        ("acc2_nonzero".to_owned(), Some(f64::from(byte(2)) / 255.0)),
                        ("corr".to_owned(), None),
                    ]),
                })
                .collect();
            let predictions = vec![
                (0..8)
                    .map(|n| f32::from(byte(n)) + case.to_string().len() as f32)
                    .collect(),
            ];
            vec![ResultBody::Evaluated {
                results,
                predictions,
                seconds: 0.5,
            }]
        }
    }
}
