//! The broker: its stream, buckets and subjects, and how to ask for jobs and report about them.
//!
//! Layout on NATS, all under the installation's prefix ([`Names`]):
//!
//! | what | kind | holds |
//! |---|---|---|
//! | `P.ask.<worker>` | request, answered by the leader | [`Ask`]; the answer is an [`Answer`] |
//! | `P.tell.<worker>` | message from the leader | [`Tell`] |
//! | `P_RESULTS` | stream, work queue, file | `P.result.<worker>`: [`ResultMessage`] |
//! | `GATHER` | durable pull consumer of it | read by the leading coordinator |
//! | `P_WORKERS` | key-value bucket, memory, entries live 15 s | heartbeats as JSON, key = worker name |
//! | `P_ARTIFACTS` | object bucket, file | checkpoints, saved states, data, for `nats://` |
//!
//! There is no stream of jobs: who has a job is in its row alone, and a grant is the answer to a
//! request. `Nats-Msg-Id` deduplicates repeated reports within the broker's window; later ones are
//! harmless by the coordinator's upserts.

pub mod connection;
pub mod heartbeats;
mod names;
pub mod topology;
mod workers;

pub use crate::text::{MAX_WORKER, valid_worker};
pub use connection::{BrokerSettings, Tls};
pub use names::{DEFAULT_PREFIX, InvalidPrefix, Names};

use crate::{
    cryptography::refusal,
    error::{Hint, chain},
    retry::while_transient,
    wire::{Answer, Ask, PREVIOUS, ResultBody, ResultMessage, Tell, VERSION, WireError, encode},
};
use async_nats::jetstream::{
    self,
    consumer::PullConsumer,
    context::{PublishAckFuture, PublishErrorKind},
    kv,
    message::PublishMessage,
};
use std::time::Duration;

/// The coordinator's consumer of results.
pub const GATHER: &str = "GATHER";

/// How long a grant lasts without a sign of its worker.
pub const LEASE: Duration = Duration::from_secs(30);
/// How long the leader keeps a request for jobs while there is nothing to do.
pub const ASK_HOLD: Duration = Duration::from_secs(5);
/// How long a worker waits for the answer to a request.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(8);
/// How long a result may go without an acknowledgement: the coordinator needs milliseconds, and the
/// messages of a dead one should be redelivered soon.
pub const GATHER_ACK_WAIT: Duration = Duration::from_secs(10);
/// How long a heartbeat stays valid.
pub const HEARTBEAT_TTL: Duration = Duration::from_secs(15);
/// Interval between heartbeats.
pub const HEARTBEAT_EVERY: Duration = Duration::from_secs(3);

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
        ResultBody::Output { .. } => "output",
    };
    format!("{}.{what}", message.attempt)
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
    /// The broker's objects belong to another installation.
    #[error(
        "{what} on the broker belongs to installation {found}, and this database is installation {own}"
    )]
    Stranger {
        /// `stream halfheard_RESULTS`.
        what: String,
        /// The other installation.
        found: String,
        /// This one.
        own: String,
    },
}

impl BrokerError {
    /// Whether the same call may succeed later: the broker is away or its streams are being created.
    pub fn is_transient(&self) -> bool {
        match self {
            BrokerError::Publish { source, .. } => {
                source.kind() != PublishErrorKind::MaxPayloadExceeded
            }
            BrokerError::Layout { reason, .. } => !is_lasting(reason),
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
            | BrokerError::Stranger { .. } => false,
        }
    }
}

/// Whether JetStream refused for a reason that only its operator can end: it is off (10076, 10039), the
/// account has too few streams (10027) or consumers (10026), another stream has the subjects (10065) or
/// the name (10058).
fn is_lasting(reason: &str) -> bool {
    [10076, 10039, 10027, 10026, 10065, 10058]
        .iter()
        .any(|code| reason.contains(&format!("error code {code}")))
}

impl Hint for BrokerError {
    fn hint(&self) -> Option<String> {
        match self {
            BrokerError::Layout { reason, .. } if is_lasting(reason) => Some(
                "its operator must change that: `coord doctor` says what Halfheard needs"
                    .to_owned(),
            ),
            BrokerError::Address { .. } => Some("write it as nats://host:4222".to_owned()),
            BrokerError::Connect { remedy, .. } => Some((*remedy).to_owned()),
            BrokerError::Stranger { .. } => Some(
                "give this installation a prefix of its own (nats_prefix, HALFHEARD_NATS_PREFIX), the same for coord and its workers"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

/// A connection to the broker. Cheap to clone; it reconnects automatically.
#[derive(Clone, Debug)]
pub struct Broker {
    client: async_nats::Client,
    jetstream: jetstream::Context,
    names: Names,
    replicas: usize,
    artifacts_max_bytes: Option<u64>,
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

    /// The names of this installation's subjects, stream and buckets.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// The coordinator's consumer of results.
    pub async fn results(&self) -> Result<PullConsumer, BrokerError> {
        let stream = self.names.results_stream();
        self.jetstream
            .get_consumer_from_stream(GATHER, &stream)
            .await
            .map_err(|error| opened(format!("consumer {GATHER} of stream {stream}"), &error))
    }

    /// The bucket of heartbeats.
    pub async fn workers(&self) -> Result<kv::Store, BrokerError> {
        let name = self.names.workers_bucket();
        self.jetstream
            .get_key_value(&name)
            .await
            .map_err(|error| opened(format!("bucket {name}"), &error))
    }

    /// Asks for jobs and waits for the answer. `None` if no coordinator leads, none answered in
    /// time, or the broker is away: the worker asks again.
    ///
    /// # Errors
    ///
    /// The answer cannot be read: the coordinator is of another release.
    pub async fn ask(&self, ask: &Ask) -> Result<Option<Answer>, WireError> {
        // The client would keep it and send it, with others, when the broker is back.
        if self.client.connection_state() != async_nats::connection::State::Connected {
            return Ok(None);
        }
        // Numbers and strings only: serialization cannot fail.
        let json = serde_json::to_vec(ask).unwrap_or_default();
        let request = self
            .client
            .request(self.names.ask(&ask.worker.name), json.into());
        match tokio::time::timeout(ANSWER_TIMEOUT, request).await {
            Ok(Ok(answer)) => Answer::decode(&answer.payload).map(Some),
            Ok(Err(error)) => {
                tracing::debug!(%error, "no answer to a request for jobs");
                Ok(None)
            }
            Err(_) => Ok(None),
        }
    }

    /// Tells a worker something; whether it arrives does not matter.
    pub async fn tell(&self, worker: &str, tell: &Tell) {
        // Ids only: serialization cannot fail.
        let json = serde_json::to_vec(tell).unwrap_or_default();
        let told = self.client.publish(self.names.tell(worker), json.into());
        if let Err(error) = told.await {
            tracing::debug!(%error, worker, "cannot tell a worker");
        }
    }

    /// Sends a result; see [`Sent::confirmed`].
    pub async fn send_result(&self, message: &ResultMessage) -> Result<Sent, BrokerError> {
        self.send_result_as(VERSION, message).await
    }

    /// Sends a result as this release or the previous one writes it.
    pub async fn send_result_as(
        &self,
        version: u8,
        message: &ResultMessage,
    ) -> Result<Sent, BrokerError> {
        let subject = self.names.result(&message.worker.name);
        let id = result_message_id(message);
        let payload = match version {
            PREVIOUS => message.encode_as_previous()?,
            _ => encode(message)?,
        };
        self.send(subject, &id, payload).await
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

/// Whether the broker itself wrote a message, out of one of its streams. A login that may read a
/// bucket can have the answer sent to any subject, with a payload of its choice, so that what
/// should come from a worker or the leader and has this header is nobody's.
pub fn reflected(headers: Option<&async_nats::HeaderMap>) -> bool {
    headers.is_some_and(|headers| headers.get(async_nats::header::NATS_STREAM).is_some())
}

/// Wraps an error of opening `what` on the broker.
fn opened(what: String, error: &dyn std::error::Error) -> BrokerError {
    BrokerError::Layout {
        what,
        action: "opened",
        reason: chain(error),
    }
}
