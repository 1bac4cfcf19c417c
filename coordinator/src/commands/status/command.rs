//! The command.

use super::{all::AllSweeps, sweep, workers::BrokerState};
use crate::{
    commands::watch::{Display, Forecast, Observer, Pace, Snapshot, follow},
    config::Settings,
    exit::Exit,
    local::Database,
    output::Output,
};
use halfheard_shared::shutdown::{Interrupted, Shutdown};
use halfheard_store::{Store, sweeps::SweepRow};
use std::{process::ExitCode, time::Duration};

/// How often `--watch` polls.
const POLL: Duration = Duration::from_secs(1);

/// Arguments of `coord status`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  coord status                all sweeps, and the live workers
  coord status demo           one sweep: its jobs, its models, its failures with their errors
  coord status demo --watch   until it is finished; exits with 3 if jobs failed")]
pub(crate) struct StatusArgs {
    /// The sweep: its name, its id, or a prefix of its id [default: all of them]
    sweep: Option<String>,
    /// Show progress until the sweep is finished [without a sweep: the newest]
    #[arg(long)]
    watch: bool,
}

/// Prints the progress of sweeps.
///
/// # Errors
///
/// The sweep is unknown or the database fails.
pub(crate) async fn run(args: StatusArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let database = Database::open(settings).await?;
    let outcome = show(&args, settings, &database).await;
    database.close().await;
    outcome
}

async fn show(args: &StatusArgs, settings: &Settings, store: &Store) -> anyhow::Result<ExitCode> {
    let output = Output::of(settings);
    let broker = BrokerState::connect(settings).await;
    let sweep = match &args.sweep {
        Some(text) => Some(store.find_sweep(text).await?),
        None if args.watch => store.sweeps().await?.into_iter().next(),
        None => None,
    };
    match sweep {
        Some(sweep) if args.watch => return watch(store, broker, sweep, output).await,
        Some(sweep) => {
            output.print_pretty(&sweep::Report::load(store, &broker, sweep).await?)?;
        }
        None => output.print_pretty(&AllSweeps::load(store, &broker, settings).await?)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows progress until the sweep is finished.
async fn watch(
    store: &Store,
    mut broker: BrokerState,
    sweep: SweepRow,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let interrupt = Shutdown::on_signals(Exit::Interrupted.code())?;
    let mut watch = Watch {
        store,
        output,
        display: match output.is_json() {
            true => Display::silent(sweep.id),
            false => Display::new(sweep.id),
        },
        pace: Pace::new(sweep.id),
        forecast: Forecast::new(sweep.id),
    };
    let ended = follow(store, broker.get(), sweep.id, POLL, &interrupt, &mut watch).await;
    watch.display.clear();
    match ended {
        Ok(snapshot) => {
            broker.ignore_error();
            output.print_pretty(&sweep::Report::load(store, &broker, sweep).await?)?;
            Ok(Exit::of_sweep(snapshot.progress.failed).into())
        }
        Err(error) if error.is::<Interrupted>() => Ok(Exit::Interrupted.into()),
        Err(error) => Err(error),
    }
}

struct Watch<'a> {
    store: &'a Store,
    output: Output,
    display: Display,
    pace: Pace,
    forecast: Forecast,
}

impl Observer for Watch<'_> {
    async fn show(&mut self, snapshot: &Snapshot) -> anyhow::Result<()> {
        let left = self.forecast.left(self.store, snapshot).await;
        if self.output.is_json() {
            let left = left.or(self.pace.left(snapshot));
            self.output.print(&sweep::Jobs::new(snapshot, left))?;
        } else {
            self.display.show(snapshot, left);
        }
        Ok(())
    }
}
