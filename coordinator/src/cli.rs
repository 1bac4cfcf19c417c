//! The command line.

use crate::{
    commands,
    config::{ConnectionFlags, Settings},
    errors,
    exit::Exit,
};
use anyhow::Context as _;
use clap::{CommandFactory as _, Parser, Subcommand};
use halfheard_shared::{color, env, text::Printable};
use halfheard_telemetry::traces;
use std::{io::IsTerminal as _, process::ExitCode};

const TOUR: &str = "\
First steps, on this machine alone (with private servers, no settings needed):
  coord demo                          run a small sweep and print its tables
  coord run my.toml                   run a sweep of your own
  coord tune-machine                  find the best number of workers here, in a minute
  coord table 2                       print one of the tables again

On a cluster (settings: docs/guide/cluster.md):
  coord migrate                       prepare the database
  coord plan benchmark.toml           show what a spec expands to
  coord submit benchmark.toml         submit it; `coord serve` and workers do the rest
  coord slurm --partition gpu --max 8 have Slurm start workers while there is work
  coord status                        show progress; `coord top` shows it live, with keys
  coord workers                       what each worker does; `coord drain WORKER` ends its work
  coord logs JOB --follow             attempts, errors and epochs of a job as they come
  coord retry SWEEP                   run failed jobs again
  coord table 9 --format latex        print a table for a paper
  coord figure 2 --out curves.svg     draw curves
  coord report SWEEP --out FOLDER     everything on one page
  coord audit SWEEP                   find suspicious results
  coord certify SWEEP                 test which published numbers it reproduces
  coord gc                            delete artifacts that nobody needs
  coord backup FOLDER                 save the database

Settings come from flags, then environment variables (HALFHEARD_NATS_URL, HALFHEARD_NATS_CREDS,
HALFHEARD_DATABASE_URL, HALFHEARD_ARTIFACTS, HALFHEARD_DATA_DIR), then ~/.config/halfheard/config.toml.
HALFHEARD_NATS_URL_FILE and HALFHEARD_DATABASE_URL_FILE name files that hold the addresses.
Flags never hold passwords.";

/// Runs the benchmark of multimodal sentiment models on incomplete data.
///
/// A spec (benchmark.toml) says which methods are trained on which datasets and evaluated under which
/// missing data. `coord` turns it into jobs for workers, collects their results in Postgres, and prints
/// the paper's tables and figures.
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
    /// Log more on standard error: -v progress, -vv details (RUST_LOG takes precedence)
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Connections and output", hide_short_help = true)]
    verbose: u8,
    /// Write logs as JSON, one object per line
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
    /// Run a small sweep that needs no file, to see what comes out
    Demo(commands::demo::DemoArgs),
    /// Run a whole sweep on this machine: private servers, workers, tables
    Run(commands::run::RunArgs),
    /// Serve sweeps: dispatch jobs and collect results until stopped
    Serve(commands::serve::ServeArgs),
    /// Submit and retire Slurm jobs for workers, by the work that is left
    Slurm(commands::slurm::SlurmArgs),
    /// Show sweep progress
    Status(commands::status::StatusArgs),
    /// Watch and steer in a terminal: sweeps, maps, workers, curves, failures
    Top(commands::top::TopArgs),
    /// Show what each worker does
    Workers(commands::workers::WorkersArgs),
    /// Show a job's attempts, errors and epochs, and what its program wrote
    Logs(commands::logs::LogsArgs),
    /// Print a table of the paper from a sweep's results, beside the published numbers
    Table(commands::table::TableArgs),
    /// Show what models rely on: metrics without what each modality says
    Reliance(commands::reliance::RelianceArgs),
    /// Compare two models with paired bootstrap tests
    Compare(commands::compare::CompareArgs),
    /// Draw a figure of the paper as SVG or PNG: curves, labels, confusion, features, ranks
    Figure(commands::figure::FigureArgs),
    /// Generate a report: every table and figure, audits, provenance, on one page
    Report(commands::report::ReportArgs),
    /// Export a sweep's results to a Parquet or CSV file, for notebooks
    Export(commands::export::ExportArgs),
    /// Find errors and suspicious results in the published tables or in a sweep
    Audit(commands::audit::AuditArgs),
    /// Test which published numbers a sweep reproduces
    Certify(commands::certify::CertifyArgs),
    /// Import, create, list and check datasets
    Data(commands::data::DataArgs),
    /// Write the erased data of each case to files, for models that run elsewhere
    Cases(commands::cases::CasesArgs),
    /// Import or delete predictions of models that were trained elsewhere
    Predictions(commands::predictions::PredictionsArgs),
    /// Run failed jobs again, or continue a cancelled sweep
    Retry(commands::retry::RetryArgs),
    /// Pause a sweep, to make room for others
    Pause(commands::pause::PauseArgs),
    /// Resume a paused sweep
    Resume(commands::pause::PauseArgs),
    /// Change a sweep's priority
    Priority(commands::priority::PriorityArgs),
    /// Change a sweep's priority, share, limits or owner while it runs
    Set(commands::set::SetArgs),
    /// Cancel a sweep
    Cancel(commands::cancel::CancelArgs),
    /// Delete a sweep, with the results that only it has
    Delete(commands::delete::DeleteArgs),
    /// Grant a worker nothing more, or let it work again
    Drain(commands::drain::DrainArgs),
    /// Delete artifacts that nobody needs
    Gc(commands::gc::GcArgs),
    /// Save the database, and checkpoints, into a folder
    Backup(commands::backup::BackupArgs),
    /// Fill an empty database from a backup
    Restore(commands::restore::RestoreArgs),
    /// List messages of workers that were refused
    DeadLetters(commands::dead_letters::DeadLettersArgs),
    /// Update the database's schema
    Migrate(commands::migrate::MigrateArgs),
    /// Check the environment and suggest fixes
    Doctor(commands::doctor::DoctorArgs),
    /// Measure how many workers and threads train fastest on this machine's CPU
    TuneMachine(commands::tune_machine::TuneMachineArgs),
    /// Generate shell completions or manual pages
    Completions(commands::completions::CompletionsArgs),
}

impl Command {
    /// Returns the log level without -v: a daemon logs what it does, a command only what is wrong.
    fn log_level(&self) -> &'static str {
        match self {
            Self::Serve(_) => "info",
            _ => "warn",
        }
    }

    /// Returns whether it only prints: then a closed pipe (`coord table 2 | head`) ends it quietly.
    fn only_prints(&self) -> bool {
        !matches!(
            self,
            Self::Serve(_) | Self::Run(_) | Self::Demo(_) | Self::Top(_) | Self::TuneMachine(_)
        )
    }
}

/// Runs `coord` with the arguments of this process.
///
/// The runtime is started here and not by the program: what is awaited is compiled where that is asked for, and this
/// library is compiled in several threads.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    color::set(cli.connections.color.into());
    let result = tokio::runtime::Runtime::new()
        .context("the threads of the program cannot be started")
        .and_then(|runtime| runtime.block_on(cli.run()));
    match result {
        Ok(code) => code,
        Err(error) => {
            errors::PRINTER.print(error.as_ref());
            Exit::Error.into()
        }
    }
}

impl Cli {
    async fn run(self) -> anyhow::Result<ExitCode> {
        self.start_logging();
        if self.command.only_prints() {
            exit_on_closed_pipe();
        }
        let mut settings = Settings::resolve(&self.connections, &env::process)?;
        settings.use_running_servers();
        tracing::debug!(?settings, "settings");
        match self.command {
            Command::Plan(args) => commands::plan::run(args, &settings).await,
            Command::Submit(args) => commands::submit::run(args, &settings).await,
            Command::Demo(args) => commands::demo::run(args, &settings).await,
            Command::Run(args) => commands::run::run(args, &settings).await,
            Command::Slurm(args) => commands::slurm::run(args, &settings).await,
            Command::Status(args) => commands::status::run(args, &settings).await,
            Command::Top(args) => commands::top::run(args, &settings).await,
            Command::Workers(args) => commands::workers::run(args, &settings).await,
            Command::Logs(args) => commands::logs::run(args, &settings).await,
            Command::Serve(args) => commands::serve::run(args, &settings).await,
            Command::Table(args) => commands::table::run(args, &settings).await,
            Command::Reliance(args) => commands::reliance::run(args, &settings).await,
            Command::Compare(args) => commands::compare::run(args, &settings).await,
            Command::Figure(args) => commands::figure::run(args, &settings).await,
            Command::Report(args) => commands::report::run(args, &settings).await,
            Command::Export(args) => commands::export::run(args, &settings).await,
            Command::Audit(args) => commands::audit::run(args, &settings).await,
            Command::Certify(args) => commands::certify::run(args, &settings).await,
            Command::Data(args) => commands::data::run(args, &settings).await,
            Command::Cases(args) => commands::cases::run(args, &settings).await,
            Command::Predictions(args) => commands::predictions::run(args, &settings).await,
            Command::Retry(args) => commands::retry::run(args, &settings).await,
            Command::Pause(args) => commands::pause::pause(args, &settings).await,
            Command::Resume(args) => commands::pause::resume(args, &settings).await,
            Command::Priority(args) => commands::priority::run(args, &settings).await,
            Command::Drain(args) => commands::drain::run(args, &settings).await,
            Command::Set(args) => commands::set::run(args, &settings).await,
            Command::Cancel(args) => commands::cancel::run(args, &settings).await,
            Command::Delete(args) => commands::delete::run(args, &settings).await,
            Command::Gc(args) => commands::gc::run(args, &settings).await,
            Command::Backup(args) => commands::backup::run(args, &settings).await,
            Command::Restore(args) => commands::restore::run(args, &settings).await,
            Command::DeadLetters(args) => commands::dead_letters::run(args, &settings).await,
            Command::Migrate(args) => commands::migrate::run(args, &settings).await,
            Command::Doctor(args) => commands::doctor::run(args, &settings).await,
            Command::TuneMachine(args) => commands::tune_machine::run(args, &settings).await,
            Command::Completions(args) => commands::completions::run(args, Self::command()),
        }
    }

    fn start_logging(&self) {
        use tracing_subscriber::{EnvFilter, fmt};
        if matches!(self.command, Command::Top(_)) && std::io::stderr().is_terminal() {
            // Logs would be written over the drawing, which says itself what is wrong.
            return;
        }
        let level = match self.verbose {
            0 => self.command.log_level(),
            1 => "info",
            _ => "debug",
        };
        let filter = EnvFilter::try_from_default_env()
            .unwrap_or_else(|_| EnvFilter::new(format!("warn,halfheard={level}")));
        let logs = fmt()
            .with_env_filter(traces::in_logs(filter, self.log_json))
            .with_ansi(color::stderr())
            .with_writer(|| Printable(std::io::stderr()));
        // Fails only if a subscriber is set, and then that one is used.
        let _ = if self.log_json {
            logs.json().try_init()
        } else {
            logs.with_target(false).try_init()
        };
    }
}

fn exit_on_closed_pipe() {
    use nix::sys::signal::{SigHandler, Signal, signal};
    // SAFETY: the default disposition runs none of our code.
    let _ = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_definition_is_valid() {
        Cli::command().debug_assert();
    }
}
