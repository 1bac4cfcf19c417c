//! The command line.

use clap::Parser;
use std::path::PathBuf;

/// Run a sweep on a small cluster while everything fails, and compare its tables with those of an
/// undisturbed run.
#[derive(Parser, Clone, Debug)]
#[command(name = "campaign")]
pub struct Options {
    /// For how many minutes faults are made
    #[arg(long, env = "CHAOS_MINUTES", default_value_t = 30.0)]
    pub minutes: f64,
    /// From which the faults are drawn [default: the time]
    #[arg(long, env = "CHAOS_SEED")]
    pub seed: Option<u32>,
    /// Make the faults of this log again
    #[arg(long, env = "CHAOS_REPLAY", value_name = "FILE")]
    pub replay: Option<PathBuf>,
    /// Where logs and figures go
    #[arg(long, env = "CHAOS_OUT", default_value = "target/campaign")]
    pub out: PathBuf,
    /// The folder of `coord` and `worker` [default: this program's]
    #[arg(long, env = "CHAOS_PROGRAMS")]
    pub programs: Option<PathBuf>,
    /// Fail instead of leaving out what this machine does not allow
    #[arg(long)]
    pub complete: bool,
    /// Minutes without progress after which the campaign has failed
    #[arg(long, default_value_t = 5.0)]
    pub patience: f64,
}
