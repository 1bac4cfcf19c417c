//! `coord dead-letters`.

use crate::{config::Settings, local::Database, output::Output};
use chrono::{DateTime, Utc};
use halfheard_shared::{
    text::plain,
    wire::{ResultBody, ResultMessage, decode_report},
};
use halfheard_store::dead_letters::DeadLetter;
use serde::Serialize;
use std::{fmt, process::ExitCode};

/// Arguments of `coord dead-letters`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
A message is refused when it does not fit its job: an attempt that was never granted, another worker's
attempt, results of the wrong shape. The table dead_letter keeps the last thousand.")]
pub(crate) struct DeadLettersArgs {
    /// How many to show, newest first
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
}

#[derive(Serialize)]
struct Letter {
    received: DateTime<Utc>,
    subject: String,
    sequence: i64,
    reason: String,
    bytes: usize,
    /// What it says, as far as it can be read.
    message: Option<ResultMessage>,
}

#[derive(Serialize)]
struct Letters {
    dead_letters: Vec<Letter>,
}

impl From<DeadLetter> for Letter {
    fn from(letter: DeadLetter) -> Self {
        Self {
            received: letter.received,
            subject: plain(&letter.subject),
            sequence: letter.sequence,
            reason: plain(&letter.reason),
            bytes: letter.payload.len(),
            message: decode_report(&letter.payload).ok(),
        }
    }
}

impl fmt::Display for Letters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.dead_letters.is_empty() {
            return write!(f, "no dead letters");
        }
        for letter in &self.dead_letters {
            writeln!(
                f,
                "{} {}: {}",
                letter.received.format("%Y-%m-%d %H:%M:%S UTC"),
                letter.subject,
                letter.reason
            )?;
            match &letter.message {
                Some(message) => writeln!(
                    f,
                    "  {} of job {}, attempt {}, by {}",
                    kind(&message.body),
                    message.job,
                    message.attempt,
                    plain(&message.worker.name)
                )?,
                None => writeln!(f, "  {} bytes that cannot be read", letter.bytes)?,
            }
        }
        Ok(())
    }
}

fn kind(body: &ResultBody) -> &'static str {
    match body {
        ResultBody::Started { .. } => "a start",
        ResultBody::Epoch(_) => "an epoch",
        ResultBody::Trained { .. } => "a trained model",
        ResultBody::Evaluated { .. } => "an evaluation",
        ResultBody::Noop => "a no-op",
        ResultBody::Output { .. } => "the output of a program",
        ResultBody::Failed(_) => "a failure",
        ResultBody::HandedBack { .. } => "a job handed back",
        ResultBody::Declined { .. } => "a job declined",
    }
}

/// Lists messages that were refused.
///
/// # Errors
///
/// The database fails.
pub(crate) async fn run(args: DeadLettersArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let database = Database::open(settings).await?;
    let letters = database.dead_letters(args.limit).await;
    database.close().await;
    let dead_letters = letters?.into_iter().map(Letter::from).collect();
    Output::of(settings).print_pretty(&Letters { dead_letters })?;
    Ok(ExitCode::SUCCESS)
}
