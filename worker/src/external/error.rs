//! How a program fails its attempt.

use halfheard_models::train::{LastWords, TrainError};

/// A failure that may not happen again: the program died, or took too much.
pub(super) fn died(what: impl Into<String>, last_words: Option<String>) -> TrainError {
    failed(what, last_words, true)
}

/// A failure that happens again: the program does not keep to what is agreed.
pub(super) fn misbehaved(what: impl Into<String>) -> TrainError {
    failed(what, None, false)
}

fn failed(what: impl Into<String>, last_words: Option<String>, retryable: bool) -> TrainError {
    TrainError::External {
        what: what.into(),
        retryable,
        last_words: last_words.map(LastWords),
    }
}

/// An error of this machine: a disk that is full, a file that cannot be made.
pub(super) fn machine(what: impl Into<String>, source: &dyn std::error::Error) -> TrainError {
    TrainError::External {
        what: format!(
            "{}: {}",
            what.into(),
            halfheard_shared::error::causes(source).join(": ")
        ),
        retryable: true,
        last_words: None,
    }
}
