//! The broker: its streams, consumers and buckets, and how to publish jobs and results.
//!
//! Layout on NATS JetStream:
//!
//! | what | kind | holds |
//! |---|---|---|
//! | `JOBS` | stream, work queue, file | `job.train.<sweep>`, `job.eval.<sweep>` (no-op jobs too) |
//! | `TRAIN`, `EVAL` | durable pull consumers of `JOBS` | one per queue |
//! | `RESULTS` | stream, work queue, file | `result.<sweep>` |
//! | `GATHER` | durable pull consumer of `RESULTS` | read by the leading coordinator |
//! | `WORKERS` | key-value bucket, memory, entries live 15 s | heartbeats as JSON, key = worker name |
//! | `SWEEPS` | key-value bucket, file | key = sweep id, value a [`SweepControl`] |
//! | `ARTIFACTS` | object bucket, file | checkpoints, saved states, outcomes, data, for `nats://` |
//!
//! `Nats-Msg-Id` deduplicates repeated publications within the broker's window; later ones are
//! harmless by the worker's outcome marker and the coordinator's upserts.

pub mod connection;
pub mod topology;
mod workers;

pub use connection::{BrokerSettings, Tls};

use crate::{
    cryptography::refusal,
    error::{Hint, chain},
    ids::{JobId, SweepId},
    retry::while_transient,
    wire::{JobMessage, ResultBody, ResultMessage, WireError, Work, encode},
};
use async_nats::jetstream::{
    self,
    consumer::PullConsumer,
    context::{PublishAckFuture, PublishErrorKind},
    kv,
    message::PublishMessage,
};
use std::{fmt, str::FromStr, time::Duration};

/// The stream of jobs.
pub const JOBS: &str = "JOBS";
/// The stream of results.
pub const RESULTS: &str = "RESULTS";
/// The coordinator's consumer of results.
pub const GATHER: &str = "GATHER";
/// The bucket of heartbeats.
pub const WORKERS: &str = "WORKERS";
/// The bucket of sweep control.
pub const SWEEPS: &str = "SWEEPS";
/// The bucket of artifacts, for `nats://`.
pub const ARTIFACTS: &str = "ARTIFACTS";

/// How long a delivered message may go without an acknowledgement or an in-progress one before the
/// broker delivers it again.
pub const ACK_WAIT: Duration = Duration::from_secs(60);
/// The same for results: the coordinator needs milliseconds, and the messages of a dead one should be
/// redelivered soon.
pub const GATHER_ACK_WAIT: Duration = Duration::from_secs(10);
/// How long a heartbeat stays valid.
pub const HEARTBEAT_TTL: Duration = Duration::from_secs(15);
/// Interval between heartbeats.
pub const HEARTBEAT_EVERY: Duration = Duration::from_secs(3);
/// Deliveries of one publication after which the job counts as crashed.
pub const MAX_DELIVERIES: u64 = 5;

/// The two queues of jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Queue {
    /// Training.
    Train,
    /// Evaluation, and no-op jobs.
    Eval,
}

impl Queue {
    /// Both queues.
    pub const ALL: [Queue; 2] = [Queue::Train, Queue::Eval];

    /// The name of its consumer.
    pub fn consumer(self) -> &'static str {
        match self {
            Queue::Train => "TRAIN",
            Queue::Eval => "EVAL",
        }
    }

    /// The subject of its jobs of one sweep.
    pub fn subject(self, sweep: SweepId) -> String {
        format!("job.{self}.{sweep}")
    }

    /// The subjects of its jobs of all sweeps.
    pub fn filter(self) -> &'static str {
        match self {
            Queue::Train => "job.train.>",
            Queue::Eval => "job.eval.>",
        }
    }

    /// The queue that carries `work`.
    pub fn of(work: &Work) -> Self {
        match work {
            Work::Train(_) => Queue::Train,
            Work::Eval { .. } | Work::Noop => Queue::Eval,
        }
    }
}

impl fmt::Display for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Queue::Train => "train",
            Queue::Eval => "eval",
        })
    }
}

/// The subject of a sweep's results.
pub fn result_subject(sweep: SweepId) -> String {
    format!("result.{sweep}")
}

/// `Nats-Msg-Id` of a job: a retry is a new publication and so a new id.
pub fn job_message_id(job: JobId, publication: u32) -> String {
    format!("{job}.{publication}")
}

/// `Nats-Msg-Id` of a result: each report of an attempt is published once.
pub fn result_message_id(message: &ResultMessage) -> String {
    let what = match &message.body {
        ResultBody::Started { .. } => "started",
        ResultBody::Epoch(log) => return format!("{}.epoch.{}", message.attempt, log.epoch),
        ResultBody::Trained { .. } => "trained",
        ResultBody::Evaluated { .. } => "evaluated",
        ResultBody::Noop => "noop",
        ResultBody::Failed(_) => "failed",
        ResultBody::HandedBack { .. } => "handed-back",
        ResultBody::Declined { .. } => "declined",
    };
    format!("{}.{what}", message.attempt)
}

/// What workers should do with a sweep's jobs: the value in the bucket `SWEEPS`, as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SweepControl {
    /// Continue. A sweep without an entry is running.
    Running,
    /// Start nothing new.
    Paused,
    /// Start nothing new, and stop what runs.
    Cancelled,
}

impl fmt::Display for SweepControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SweepControl::Running => "running",
            SweepControl::Paused => "paused",
            SweepControl::Cancelled => "cancelled",
        })
    }
}

impl FromStr for SweepControl {
    type Err = BrokerError;

    fn from_str(s: &str) -> Result<Self, BrokerError> {
        match s {
            "running" => Ok(SweepControl::Running),
            "paused" => Ok(SweepControl::Paused),
            "cancelled" => Ok(SweepControl::Cancelled),
            _ => Err(BrokerError::Control(s.to_owned())),
        }
    }
}

/// An error of the broker.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// Invalid address.
    #[error("invalid broker address: {reason}")]
    Address {
        /// The reason, without the address itself, which may hold a password.
        reason: String,
    },
    /// The credentials file cannot be read.
    #[error("cannot read the credentials file {path}")]
    Credentials {
        /// The path.
        path: String,
        /// The reason.
        source: std::io::Error,
    },
    /// Connection refused or authentication failed.
    #[error("cannot connect to the broker at {address}")]
    Connect {
        /// Without user and password.
        address: String,
        /// What to do.
        remedy: &'static str,
        /// The reason.
        source: async_nats::ConnectError,
    },
    /// A stream, consumer or bucket cannot be created or read.
    #[error("{what} cannot be {action} on the broker: {reason}")]
    Layout {
        /// `stream JOBS`.
        what: String,
        /// `created`, `opened`.
        action: &'static str,
        /// The reason.
        reason: String,
    },
    /// The broker did not accept a message.
    #[error("the broker did not accept a message on {subject}")]
    Publish {
        /// The message's subject.
        subject: String,
        /// The reason.
        source: jetstream::context::PublishError,
    },
    /// The message cannot be written.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// An invalid value in the bucket `SWEEPS`.
    #[error("`{0}` is not a sweep state")]
    Control(String),
}

impl BrokerError {
    /// Whether the same call may succeed later: the broker is away or its streams are being created.
    pub fn is_transient(&self) -> bool {
        match self {
            BrokerError::Publish { source, .. } => {
                source.kind() != PublishErrorKind::MaxPayloadExceeded
            }
            BrokerError::Layout { .. } => true,
            BrokerError::Connect { source, .. } => {
                refusal(source).is_none()
                    && !matches!(
                        source.kind(),
                        async_nats::ConnectErrorKind::ServerParse
                            | async_nats::ConnectErrorKind::Authentication
                            | async_nats::ConnectErrorKind::AuthorizationViolation
                            | async_nats::ConnectErrorKind::Tls
                    )
            }
            BrokerError::Address { .. }
            | BrokerError::Credentials { .. }
            | BrokerError::Wire(_)
            | BrokerError::Control(_) => false,
        }
    }
}

impl Hint for BrokerError {
    fn hint(&self) -> Option<String> {
        match self {
            BrokerError::Address { .. } => Some("write it as nats://host:4222".to_owned()),
            BrokerError::Connect { remedy, .. } => Some((*remedy).to_owned()),
            BrokerError::Control(_) => Some("use running, paused or cancelled".to_owned()),
            _ => None,
        }
    }
}

/// A connection to the broker. Cheap to clone; it reconnects automatically.
#[derive(Clone, Debug)]
pub struct Broker {
    client: async_nats::Client,
    jetstream: jetstream::Context,
    replicas: usize,
}

impl Broker {
    /// The plain client.
    pub fn client(&self) -> &async_nats::Client {
        &self.client
    }

    /// The JetStream context, for everything without a method here.
    pub fn jetstream(&self) -> &jetstream::Context {
        &self.jetstream
    }

    /// The consumer of one queue of jobs. Fails until a coordinator has created the streams.
    pub async fn jobs(&self, queue: Queue) -> Result<PullConsumer, BrokerError> {
        self.consumer(JOBS, queue.consumer()).await
    }

    /// The coordinator's consumer of results.
    pub async fn results(&self) -> Result<PullConsumer, BrokerError> {
        self.consumer(RESULTS, GATHER).await
    }

    async fn consumer(&self, stream: &str, name: &str) -> Result<PullConsumer, BrokerError> {
        self.jetstream
            .get_consumer_from_stream(name, stream)
            .await
            .map_err(|error| opened(format!("consumer {name} of stream {stream}"), &error))
    }

    /// The bucket of heartbeats.
    pub async fn workers(&self) -> Result<kv::Store, BrokerError> {
        self.bucket(WORKERS).await
    }

    /// The bucket of sweep control.
    pub async fn sweeps(&self) -> Result<kv::Store, BrokerError> {
        self.bucket(SWEEPS).await
    }

    async fn bucket(&self, name: &str) -> Result<kv::Store, BrokerError> {
        self.jetstream
            .get_key_value(name)
            .await
            .map_err(|error| opened(format!("bucket {name}"), &error))
    }

    /// Sends a job without waiting; [`Sent::confirmed`] waits until the broker has it on disk. Many
    /// jobs may be in flight.
    pub async fn send_job(&self, message: &JobMessage) -> Result<Sent, BrokerError> {
        let subject = Queue::of(&message.work).subject(message.sweep);
        let id = job_message_id(message.job, message.publication);
        self.send(subject, &id, encode(message)?).await
    }

    /// Publishes a job and waits until the broker has it on disk. Returns whether it was a duplicate.
    pub async fn publish_job(&self, message: &JobMessage) -> Result<bool, BrokerError> {
        self.send_job(message).await?.confirmed().await
    }

    /// Sends a result; see [`Broker::send_job`].
    pub async fn send_result(&self, message: &ResultMessage) -> Result<Sent, BrokerError> {
        let subject = result_subject(message.sweep);
        let id = result_message_id(message);
        self.send(subject, &id, encode(message)?).await
    }

    /// Publishes a result and waits until the broker has it on disk; tries once. Returns whether
    /// it was a duplicate.
    pub async fn publish_result(&self, message: &ResultMessage) -> Result<bool, BrokerError> {
        self.send_result(message).await?.confirmed().await
    }

    /// Publishes a result and retries while the broker is away. Fails only if a retry cannot help: the
    /// message is too large or cannot be encoded.
    pub async fn deliver_result(&self, message: &ResultMessage) -> Result<bool, BrokerError> {
        while_transient(
            || self.publish_result(message),
            BrokerError::is_transient,
            |error| {
                let error = chain(error);
                tracing::warn!(job = %message.job, error, "cannot publish a result; retrying");
            },
        )
        .await
    }

    async fn send(&self, subject: String, id: &str, payload: Vec<u8>) -> Result<Sent, BrokerError> {
        let publish = PublishMessage::build()
            .message_id(id)
            .payload(payload.into());
        match self.jetstream.send_publish(subject.clone(), publish).await {
            Ok(ack) => Ok(Sent { ack, subject }),
            Err(source) => Err(BrokerError::Publish { subject, source }),
        }
    }
}

/// A message that the broker has not confirmed yet.
#[must_use = "a message that is not confirmed may be lost"]
#[derive(Debug)]
pub struct Sent {
    ack: PublishAckFuture,
    subject: String,
}

impl Sent {
    /// Waits until the broker has it on disk. Returns whether it was a duplicate that the
    /// broker dropped.
    pub async fn confirmed(self) -> Result<bool, BrokerError> {
        match self.ack.await {
            Ok(ack) => Ok(ack.duplicate),
            Err(source) => Err(BrokerError::Publish {
                subject: self.subject,
                source,
            }),
        }
    }
}

/// Wraps an error of opening `what` on the broker.
fn opened(what: String, error: &dyn std::error::Error) -> BrokerError {
    BrokerError::Layout {
        what,
        action: "opened",
        reason: chain(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_match_their_queue() {
        let sweep = SweepId::derive(&[b"s"]);
        for queue in Queue::ALL {
            let prefix = queue.filter().trim_end_matches('>');
            assert!(queue.subject(sweep).starts_with(prefix));
        }
        assert_eq!(Queue::of(&Work::Noop), Queue::Eval);
    }

    #[test]
    fn sweep_control_round_trips() {
        for control in [
            SweepControl::Running,
            SweepControl::Paused,
            SweepControl::Cancelled,
        ] {
            assert_eq!(
                control.to_string().parse::<SweepControl>().unwrap(),
                control
            );
        }
        assert!("stopped".parse::<SweepControl>().is_err());
    }
}
