//! Reports of the previous release: version 3 knew no peak memory.

use super::{
    CheckpointRef, CriterionResult, EpochLog, Failure, Fault, MAX_BYTES, PREVIOUS, ResultBody,
    ResultMessage, VERSION, WireError, WorkerInfo, decode_body, encode_as,
};
use crate::ids::{AttemptId, JobId};
use serde::{Deserialize, Serialize};

/// [`ResultMessage`] of version 3.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Message {
    job: JobId,
    attempt: AttemptId,
    worker: WorkerInfo,
    body: Body,
}

/// [`ResultBody`] of version 3.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Body {
    Started {
        resumed_after_epoch: u32,
    },
    Epoch(EpochLog),
    Trained {
        checkpoints: Vec<CheckpointRef>,
        epochs: u32,
        seconds: f64,
    },
    Evaluated {
        results: Vec<CriterionResult>,
        predictions: Vec<Vec<f32>>,
        seconds: f64,
    },
    Noop,
    Failed(Failure),
    HandedBack {
        after_epoch: u32,
    },
    Declined {
        after_epoch: u32,
        fault: Fault,
    },
}

/// Reads a report of this release or of the previous one.
///
/// # Errors
///
/// It is of neither, or damaged.
pub fn decode_report(bytes: &[u8]) -> Result<ResultMessage, WireError> {
    if bytes.len() > MAX_BYTES {
        return Err(WireError::TooLarge { bytes: bytes.len() });
    }
    match bytes.split_first() {
        None => Err(WireError::Empty),
        Some((&VERSION, rest)) => decode_body(rest),
        Some((&PREVIOUS, rest)) => Ok(decode_body::<Message>(rest)?.into()),
        Some((&found, _)) => Err(WireError::Version { found }),
    }
}

impl ResultMessage {
    /// Writes it as the previous release did.
    ///
    /// # Errors
    ///
    /// It is too large.
    pub fn encode_as_previous(&self) -> Result<Vec<u8>, WireError> {
        encode_as(PREVIOUS, &Message::from(self.clone()))
    }
}

impl From<Message> for ResultMessage {
    fn from(message: Message) -> Self {
        let body = match message.body {
            Body::Started {
                resumed_after_epoch,
            } => ResultBody::Started {
                resumed_after_epoch,
            },
            Body::Epoch(log) => ResultBody::Epoch(log),
            Body::Trained {
                checkpoints,
                epochs,
                seconds,
            } => ResultBody::Trained {
                checkpoints,
                epochs,
                seconds,
                peak_memory: 0,
            },
            Body::Evaluated {
                results,
                predictions,
                seconds,
            } => ResultBody::Evaluated {
                results,
                predictions,
                seconds,
                peak_memory: 0,
            },
            Body::Noop => ResultBody::Noop,
            Body::Failed(failure) => ResultBody::Failed(failure),
            Body::HandedBack { after_epoch } => ResultBody::HandedBack { after_epoch },
            Body::Declined { after_epoch, fault } => ResultBody::Declined { after_epoch, fault },
        };
        Self {
            job: message.job,
            attempt: message.attempt,
            worker: message.worker,
            body,
        }
    }
}

impl From<ResultMessage> for Message {
    fn from(message: ResultMessage) -> Self {
        let body = match message.body {
            ResultBody::Started {
                resumed_after_epoch,
            } => Body::Started {
                resumed_after_epoch,
            },
            ResultBody::Epoch(log) => Body::Epoch(log),
            ResultBody::Trained {
                checkpoints,
                epochs,
                seconds,
                ..
            } => Body::Trained {
                checkpoints,
                epochs,
                seconds,
            },
            ResultBody::Evaluated {
                results,
                predictions,
                seconds,
                ..
            } => Body::Evaluated {
                results,
                predictions,
                seconds,
            },
            ResultBody::Noop => Body::Noop,
            ResultBody::Failed(failure) => Body::Failed(failure),
            ResultBody::HandedBack { after_epoch } => Body::HandedBack { after_epoch },
            ResultBody::Declined { after_epoch, fault } => Body::Declined { after_epoch, fault },
            // The previous release ran no programs: it hears of an attempt that is under way.
            ResultBody::Output { .. } => Body::Started {
                resumed_after_epoch: 0,
            },
        };
        Self {
            job: message.job,
            attempt: message.attempt,
            worker: message.worker,
            body,
        }
    }
}
