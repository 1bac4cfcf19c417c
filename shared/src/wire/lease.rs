//! Who has a job: requests for jobs, grants, and what keeps or ends a grant.
//!
//! A worker asks, the leading coordinator grants out of the database, and the worker's heartbeats
//! keep what it was granted. Nothing here needs to arrive: a lost request or answer is repeated by
//! the next request, a lost heartbeat by the next one, a lost [`Tell`] follows from the next heartbeat.

use super::{JobMessage, WireError, WorkerInfo, decode_body, encode_as};
use crate::ids::{AttemptId, JobId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A worker's request for jobs, as JSON: a NATS request on [`crate::broker::Names::ask`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// Who.
    pub worker: WorkerInfo,
    /// The process. Grants to another session of this worker are lost: its process is dead.
    pub session: Uuid,
    /// The number of this request within the session, from 1.
    pub number: u64,
    /// The last request whose answer arrived, 0 for none. What was granted in answer to later ones
    /// is granted again.
    pub received: u64,
    /// The last token that a coordinator asked this session to repeat: who repeats it is alive.
    #[serde(default)]
    pub proof: Option<u64>,
    /// Training jobs that it can take.
    #[serde(default)]
    pub trainings: u32,
    /// Evaluation jobs that it can take.
    #[serde(default)]
    pub evaluations: u32,
    /// No-op jobs that it can take.
    #[serde(default)]
    pub noops: u32,
    /// The version in which it reads answers and writes reports.
    pub wire: u8,
    /// The ids of the methods that it has.
    #[serde(default)]
    pub methods: Vec<String>,
    /// Its labels, such as `a100`.
    #[serde(default)]
    pub labels: Vec<String>,
    /// Bytes of its device's memory; 0 if unknown.
    #[serde(default)]
    pub memory: u64,
    /// The id of its artifact store.
    #[serde(default)]
    pub store: Option<String>,
}

/// The coordinator's answer to an [`Ask`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// These jobs are the worker's; none if there is nothing to do.
    Grants(Vec<JobMessage>),
    /// The worker is to take no jobs, for this reason.
    Refused(String),
    /// The worker is to ask again at once with this token as [`Ask::proof`]: a coordinator that has
    /// just begun to lead cannot tell a living session from the late requests of a dead one. It is no
    /// answer that [`Ask::received`] counts.
    Prove(u64),
}

impl Answer {
    /// Writes it for a worker that reads `version`.
    ///
    /// # Errors
    ///
    /// It is too large; no release of that version can be answered.
    pub fn encode_for(&self, version: u8) -> Result<Vec<u8>, WireError> {
        // It is the same in both versions.
        match version {
            super::VERSION | super::PREVIOUS => encode_as(version, self),
            found => Err(WireError::Version { found }),
        }
    }

    /// Reads what [`Answer::encode_for`] wrote.
    ///
    /// # Errors
    ///
    /// It was written for another release.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        match bytes.split_first() {
            None => Err(WireError::Empty),
            _ if bytes.len() > super::MAX_BYTES => Err(WireError::TooLarge { bytes: bytes.len() }),
            Some((&(super::VERSION | super::PREVIOUS), rest)) => decode_body(rest),
            Some((&found, _)) => Err(WireError::Version { found }),
        }
    }
}

/// What a worker was granted and has not settled, in its heartbeat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The attempt.
    pub attempt: AttemptId,
    /// Its job.
    pub job: JobId,
    /// Whether work on it has begun.
    pub begun: bool,
    /// Grows as the work advances: steps, batches, files read. Only whether it changes matters.
    pub progress: u64,
    /// Training steps in the state that the attempt began from.
    #[serde(default)]
    pub resumed: u64,
    /// Training steps in the last state that is safely stored. Beyond `resumed`, the attempt has
    /// advanced the job: what it did outlives it.
    pub saved: u64,
    /// How long the present phase may take without progress, in seconds. 0: no limit, because
    /// nothing is being computed (the job waits in the worker, or for the store).
    pub patience_s: u32,
}

/// What the leader tells a worker, as JSON on [`crate::broker::Names::tell`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tell {
    /// These are not the worker's (any more): it stops those at work and forgets those reported.
    Released {
        /// The attempts.
        attempts: Vec<AttemptId>,
    },
}
