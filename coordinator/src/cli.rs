//! The command line: what there is, what it says about itself, and how it ends.

use crate::{
    commands,
    config::{ConnectionFlags, Settings},
    exit::Exit,
};
use clap::{CommandFactory as _, Parser, Subcommand};
use std::{io::IsTerminal as _, process::ExitCode};

const TOUR: &str = "\
A first look, on this machine alone (starts private servers, needs no settings):
  coord run deploy/demo.toml          run a small sweep and print its tables
  coord table 2                       print a table of it again

On a cluster (settings: docs/guide/cluster.md):
  coord migrate                       prepare the database
  coord plan benchmark.toml           see what a spec expands to
  coord submit benchmark.toml         submit it; `coord serve` and workers do the rest
  coord status                        see how far it is
  coord retry SWEEP                   set going again what failed
  coord table 9 --format latex        take the results away
  coord figure 2 --out curves.svg     as curves
  coord report SWEEP --out FOLDER     all of it on one page
  coord audit SWEEP                   find what is suspect in them

Settings come from flags, then from variables (HALFHEARD_NATS_URL, HALFHEARD_NATS_CREDS,
HALFHEARD_DATABASE_URL, HALFHEARD_ARTIFACTS, HALFHEARD_DATA_DIR), then from
~/.config/halfheard/config.toml. A password is never taken from a flag.";

/// Runs the benchmark of multimodal sentiment models on incomplete data.
///
/// A spec (benchmark.toml) says which methods are trained on which datasets and tested under which
/// missing data; `coord` turns it into jobs for workers, gathers their results in Postgres, and
/// prints the paper's tables and figures.
#[derive(Parser, Debug)]
#[command(
    name = "coord",
    version,
    after_help = format!("{TOUR}\n\n{}", Exit::help()),
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 100
)]
pub struct Cli {
    #[command(flatten)]
    connections: ConnectionFlags,
    /// Say more on standard error: -v what happens, -vv in detail (RUST_LOG has the last word)
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Connections and output", hide_short_help = true)]
    verbose: u8,
    /// Write logs as JSON, one object a line
    #[arg(
        long,
        global = true,
        help_heading = "Connections and output",
        hide_short_help = true
    )]
    log_json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Show what a spec expands to, and what of it is done
    Plan(commands::plan::PlanArgs),
    /// Submit a spec as a sweep
    Submit(commands::submit::SubmitArgs),
    /// Run a whole sweep on this machine: private servers, workers, tables
    Run(commands::run::RunArgs),
    /// Serve sweeps: dispatch jobs and gather results until told to stop
    Serve(commands::serve::ServeArgs),
    /// Print how far the sweeps are
    Status(commands::status::StatusArgs),
    /// Print a table of the paper from a sweep's results, beside the published numbers
    Table(commands::table::TableArgs),
    /// Say where one of two models is really better
    Compare(commands::compare::CompareArgs),
    /// Draw a figure of the paper as SVG or PNG: curves, labels, confusion, features, ranks
    Figure(commands::figure::FigureArgs),
    /// Write a sweep up: every table and figure, audits, provenance, on one page
    Report(commands::report::ReportArgs),
    /// Write a sweep's results to a Parquet or CSV file, for notebooks
    Export(commands::export::ExportArgs),
    /// Find what is wrong or suspect in the published tables or in a sweep
    Audit(commands::audit::AuditArgs),
    /// Import, make, list and check datasets
    Data(commands::data::DataArgs),
    /// Set jobs going again that failed, or a sweep that was cancelled
    Retry(commands::retry::RetryArgs),
    /// Begin nothing more of a sweep, to make room for others
    Pause(commands::pause::PauseArgs),
    /// Let a paused sweep go on
    Resume(commands::pause::PauseArgs),
    /// Cancel a sweep
    Cancel(commands::cancel::CancelArgs),
    /// Bring the database up to date
    Migrate(commands::migrate::MigrateArgs),
    /// Look at what is here and what is missing, with a remedy for each
    Doctor(commands::doctor::DoctorArgs),
    /// Write completions for a shell, or the manual pages
    Completions(commands::completions::CompletionsArgs),
}

impl Command {
    /// What is logged without -v: a daemon tells what it does, a command only what is wrong.
    fn log_level(&self) -> &'static str {
        match self {
            Command::Serve(_) => "info",
            _ => "warn",
        }
    }

    /// Whether it only prints and ends: then a reader that goes away (`coord table 2 | head`) ends
    /// it quietly.
    fn only_prints(&self) -> bool {
        !matches!(self, Command::Serve(_) | Command::Run(_))
    }
}

impl Cli {
    /// The command line's description, for completions and manual pages.
    pub fn description() -> clap::Command {
        Self::command()
    }

    /// Does what the command line asks for.
    ///
    /// # Errors
    ///
    /// Whatever the command meets; [`crate::show_error::show`] prints it.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        self.start_logging();
        if self.command.only_prints() {
            end_quietly_without_reader();
        }
        let mut settings = Settings::resolve(&self.connections, &halfheard_shared::env::process)?;
        settings.adopt_running();
        tracing::debug!(?settings, "settings");
        match self.command {
            Command::Plan(args) => commands::plan::run(args, &settings).await,
            Command::Submit(args) => commands::submit::run(args, &settings).await,
            Command::Run(args) => commands::run::run(args, &settings).await,
            Command::Status(args) => commands::status::run(args, &settings).await,
            Command::Serve(args) => commands::serve::run(args, &settings).await,
            Command::Table(args) => commands::table::run(args, &settings).await,
            Command::Compare(args) => commands::compare::run(args, &settings).await,
            Command::Figure(args) => commands::figure::run(args, &settings).await,
            Command::Report(args) => commands::report::run(args, &settings).await,
            Command::Export(args) => commands::export::run(args, &settings).await,
            Command::Audit(args) => commands::audit::run(args, &settings).await,
            Command::Data(args) => commands::data::run(args, &settings).await,
            Command::Retry(args) => commands::retry::run(args, &settings).await,
            Command::Pause(args) => commands::pause::pause(args, &settings).await,
            Command::Resume(args) => commands::pause::resume(args, &settings).await,
            Command::Cancel(args) => commands::cancel::run(args, &settings).await,
            Command::Migrate(args) => commands::migrate::run(args, &settings).await,
            Command::Doctor(args) => commands::doctor::run(args, &settings).await,
            Command::Completions(args) => commands::completions::run(args, &settings).await,
        }
    }

    fn start_logging(&self) {
        use tracing_subscriber::{EnvFilter, fmt};
        let level = match self.verbose {
            0 => self.command.log_level(),
            1 => "info",
            _ => "debug",
        };
        let filter = EnvFilter::try_from_default_env()
            .unwrap_or_else(|_| EnvFilter::new(format!("warn,halfheard={level}")));
        let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let logs = fmt()
            .with_env_filter(filter)
            .with_ansi(colour)
            .with_writer(std::io::stderr);
        // Fails only where a subscriber is set already, and then that one serves.
        let _ = if self.log_json {
            logs.json().try_init()
        } else {
            logs.with_target(false).try_init()
        };
    }
}

fn end_quietly_without_reader() {
    use nix::sys::signal::{SigHandler, Signal, signal};
    // SAFETY: the default disposition runs no code of ours.
    let _ = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::description().debug_assert();
    }
}
