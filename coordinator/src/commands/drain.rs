//! `coord drain`.

use super::status::BrokerState;
use crate::{config::Settings, local::Database, output::Output, submission};
use halfheard_shared::{
    error::hinted,
    text::{count, plain, valid_worker},
    wire::Heartbeat,
};
use halfheard_store::{
    Store,
    drained::{Drained, HOST, title},
};
use serde::Serialize;
use std::{fmt, process::ExitCode};

/// How many names are listed for somebody who may have mistyped one.
const NAMED: usize = 8;
/// The most characters of a machine's name.
const MAX_HOST: usize = 190;

/// Arguments of `coord drain`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
A drained worker is granted nothing more; what it has, it finishes. That survives restarts of the
worker and of the coordinator, until --undo.

Examples:
  coord drain gpu7-12            a worker with all its slots (`coord workers` lists them)
  coord drain gpu7-12-0 --now    one slot; its jobs are saved and go to others, uncounted
  coord drain gpu7 --host        every worker of a machine, also those that start later
  coord drain gpu7 --host --undo let them work again")]
pub(crate) struct DrainArgs {
    /// The worker: the name of a slot, or of a worker with all its slots
    worker: String,
    /// The name is a machine's: all its workers
    #[arg(long)]
    host: bool,
    /// Take back what it has: it saves a state, and others go on from there
    #[arg(long, conflicts_with = "undo")]
    now: bool,
    /// Let it work again
    #[arg(long)]
    undo: bool,
}

#[derive(Serialize)]
struct Outcome {
    worker: String,
    drained: bool,
    changed: bool,
    at_once: bool,
    /// Jobs that were taken back.
    taken_back: u64,
    /// Live slots that it is about; unknown if the broker does not answer.
    slots: Option<Vec<String>>,
    /// Jobs that these still have.
    held_jobs: usize,
    /// Live slots that it is not about.
    #[serde(skip)]
    others: Vec<String>,
    /// Names that still keep some of these slots drained.
    also_drained: Vec<String>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = title(&self.worker);
        match (self.drained, self.changed) {
            (true, true) => write!(f, "{name}: drained")?,
            (true, false) => write!(f, "{name}: is already drained")?,
            (false, true) => write!(f, "{name}: may work again")?,
            (false, false) => write!(f, "{name}: was not drained under this name")?,
        }
        if self.at_once {
            let jobs = count(self.taken_back as usize, "job");
            write!(f, "; {jobs} taken back, which it saves now")?;
        } else if self.drained && self.held_jobs > 0 {
            let jobs = count(self.held_jobs, "job");
            write!(f, "; it finishes {jobs} (--now takes them back)")?;
        }
        for other in &self.also_drained {
            write!(f, "\nstill drained under the name {}", title(other))?;
        }
        Ok(())
    }
}

/// Drains a worker, or lets it work again.
///
/// # Errors
///
/// The name cannot be a worker's, or the database fails.
pub(crate) async fn run(args: DrainArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let worker = name(&args)?;
    let database = Database::open(settings).await?;
    let outcome = change(&args, worker, settings, &database).await;
    database.close().await;
    let outcome = outcome?;
    let output = Output::of(settings);
    match &outcome.slots {
        Some(slots) if slots.is_empty() && outcome.drained => output.note(unknown(&outcome)),
        None => {
            output.note("the broker does not answer, so it is unknown whether such a worker lives")
        }
        Some(_) => {}
    }
    output.print(&outcome)?;
    Ok(ExitCode::SUCCESS)
}

/// The name under which it is kept.
fn name(args: &DrainArgs) -> anyhow::Result<String> {
    let name = &args.worker;
    let possible = match args.host {
        true => !name.is_empty() && name.chars().count() <= MAX_HOST && plain(name) == *name,
        false => valid_worker(name),
    };
    if !possible {
        let what = if args.host { "machine" } else { "worker" };
        let message = format!("no {what} can have the name `{}`", plain(name));
        return Err(hinted(message, "`coord workers` lists workers and their machines").into());
    }
    Ok(match args.host {
        true => format!("{HOST}{name}"),
        false => name.clone(),
    })
}

fn unknown(outcome: &Outcome) -> String {
    let live: Vec<&str> = outcome
        .others
        .iter()
        .take(NAMED)
        .map(String::as_str)
        .collect();
    match live.is_empty() {
        true => "no worker lives; one of this name will be drained when it starts".to_owned(),
        false => format!(
            "no live worker has this name; one will be drained when it starts (live: {}{})",
            plain(&live.join(", ")),
            if outcome.others.len() > NAMED {
                ", …"
            } else {
                ""
            }
        ),
    }
}

async fn change(
    args: &DrainArgs,
    worker: String,
    settings: &Settings,
    store: &Store,
) -> anyhow::Result<Outcome> {
    let broker = BrokerState::connect(settings).await;
    let live = match broker.error() {
        None => Some(broker.live_workers().await),
        Some(_) => None,
    };
    let (changed, taken_back) = match args.undo {
        true => (store.undrain(&worker).await?, 0),
        false => {
            let changed = store.drain(&worker, &submission::user()).await?;
            let taken_back = match args.now {
                true => store.take_back(&worker).await?,
                false => 0,
            };
            (changed, taken_back)
        }
    };
    let drained = store.drained().await?;
    let covers = |name: &Drained, beat: &&Heartbeat| name.covers(&beat.worker);
    let this = Drained {
        worker: worker.clone(),
        by: String::new(),
        since: chrono::Utc::now(),
        at_once: false,
    };
    let beats = live.as_deref().unwrap_or_default();
    let (mine, others): (Vec<&Heartbeat>, Vec<_>) =
        beats.iter().partition(|beat| covers(&this, beat));
    let also = drained.iter().filter(|name| {
        args.undo && name.worker != worker && mine.iter().any(|beat| covers(name, beat))
    });
    let names = |beats: &[&Heartbeat]| beats.iter().map(|beat| beat.worker.name.clone()).collect();
    Ok(Outcome {
        drained: !args.undo,
        changed,
        at_once: args.now,
        taken_back,
        held_jobs: mine.iter().map(|beat| beat.holds.len()).sum(),
        slots: live.as_ref().map(|_| names(&mine)),
        others: names(&others),
        also_drained: also.map(|name| name.worker.clone()).collect(),
        worker,
    })
}
