//! The command line of `worker`.

use crate::{exit, settings::ConnectionFlags};
use clap::{Parser, ValueEnum};
use halfheard_models::device;
use halfheard_shared::device::Devices;
use std::time::Duration;

/// Takes jobs from the broker, trains and evaluates the models, reports the results.
#[derive(Parser, Clone, Debug)]
#[command(
    name = "worker",
    version = crate::VERSION,
    after_long_help = concat_help(),
)]
pub struct Cli {
    /// How many jobs to work on at once, each in a process of its own [default: 1, or one for each
    /// GPU that --device lists]
    #[arg(long, env = "HALFHEARD_SLOTS", value_name = "N", overrides_with = "slots", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub slots: Option<u16>,

    /// Where to compute: auto, cpu, cuda:0, or a list cuda:0,cuda:1
    ///
    /// Under auto, slot i computes on GPU i of those that are visible; slots for which there is no GPU
    /// left do not start, and where there is no GPU at all, all compute on the CPU and the first line
    /// of the log says why. A list is given out in the same way, and more slots than it has GPUs are
    /// refused.
    #[arg(
        long,
        env = "HALFHEARD_DEVICE",
        value_name = "DEVICE",
        overrides_with = "device",
        default_value_t
    )]
    pub device: Devices,

    /// Let several slots compute on one GPU, which needs the memory for all of them
    #[arg(long, env = "HALFHEARD_SHARE_GPUS", value_parser = clap::builder::FalseyValueParser::new())]
    pub share_gpus: bool,

    /// CPU threads of each slot [default: the cores, shared out among the slots]
    ///
    /// The last bits of results depend on it: to get the same bits again, use the same number.
    /// Jobs of a spec with numerics = "portable" are computed on one, whatever this says.
    #[arg(long, env = "HALFHEARD_THREADS", value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,

    /// The worker's name in `coord status` [default: host and process]
    #[arg(
        long,
        env = "HALFHEARD_WORKER_NAME",
        value_name = "NAME",
        overrides_with = "name"
    )]
    pub name: Option<String>,

    /// Save a training's state at least this often between epochs, in seconds
    ///
    /// A worker that dies loses at most this much work. Saving never takes more than about a tenth
    /// of the time, so that large models are saved less often.
    #[arg(
        long,
        env = "HALFHEARD_SAVE_EVERY",
        value_name = "SECONDS",
        default_value = "60",
        value_parser = seconds
    )]
    pub save_every: Duration,

    /// Leave when there was nothing to do for so many seconds [default: stay]
    #[arg(
        long,
        value_name = "SECONDS",
        num_args = 0..=1,
        default_missing_value = "10",
        value_parser = seconds
    )]
    pub once: Option<Duration>,

    /// Print what this worker finds (libtorch, driver, GPUs, each slot's device, threads) as JSON,
    /// compute something on each device, and leave
    #[arg(long)]
    pub check: bool,

    /// As --check, without computing anything: for the supervisor and for `coord run`
    #[arg(long, hide = true)]
    pub look: bool,

    /// How to log, to standard error; what to log comes from RUST_LOG
    #[arg(
        long,
        env = "HALFHEARD_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text"
    )]
    pub log_format: LogFormat,

    #[command(flatten)]
    #[expect(
        missing_docs,
        reason = "a doc comment would become the help text of the flags"
    )]
    pub connection: ConnectionFlags,

    /// How this process computes: set by the supervisor for its children
    #[arg(long, hide = true, default_value_t)]
    pub numerics: halfheard_models::numerics::Numerics,

    /// Which slot this process is: set by the supervisor for its children
    #[arg(long, hide = true)]
    pub slot: Option<usize>,
}

impl Cli {
    /// How many slots are asked for.
    pub fn asked_slots(&self) -> usize {
        self.slots.map_or_else(|| self.device.slots(1), usize::from)
    }

    /// CPU threads of each of `slots` slots.
    pub fn threads_of(&self, slots: usize) -> usize {
        self.threads
            .map_or_else(|| device::default_threads(slots), usize::from)
    }
}

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no number of seconds");
    let seconds: f64 = text.parse().map_err(|_| wrong())?;
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}

fn concat_help() -> String {
    format!(
        "\
How it works:
  A worker needs the broker and the artifact store, and nothing else: no database, no
  open port. It pulls jobs, so that nodes may come and go. Datasets and text encoders
  are found by their hash: in the data folder, at the path that the spec names, or in
  the artifact store.

  SIGTERM or Ctrl-C: takes no more jobs, saves what it trains, hands its jobs back and
  leaves within 10 s. Signals within 2 s are one, so that all processes of a worker may
  be told together (pkill worker, scancel --full). A second one later: leaves at once;
  the broker gives its jobs to another worker after a minute. SIGUSR1: as SIGTERM, and
  never \"at once\", however often it comes.

  A worker that lacks what a job needs (a store it cannot write, data, a method, a device
  that broke) hands the job back for another one, takes none for a while that grows, and
  goes on by itself once that is mended; `coord status` says what it is.

  A GPU is used when libtorch_cuda.so of the same libtorch release is found: in
  LIBTORCH/lib, beside the libtorch in use, or in LD_LIBRARY_PATH.

Examples:
  worker --slots 2 --device cpu           two jobs at once on this machine's CPU
  worker --slots 4                        a job on each of four GPUs
  worker --device cuda:1                  one job at a time on the second GPU
  worker --device cuda:0,cuda:2           a job on each of these two
  worker --slots 2 --device cuda:0 --share-gpus
                                          two jobs at once on the first GPU
  worker --once 30                        work until the queue is empty, for batch systems
  worker --check                          is this node set up?

{}",
        exit::HELP
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        let cli = Cli::try_parse_from(["worker", "--nats", "nats://h", "--once"]).unwrap();
        assert_eq!(cli.connection.nats_url.as_deref(), Some("nats://h"));
        assert_eq!(cli.once, Some(Duration::from_secs(10)));
        // The supervisor's own name comes behind the user's flags and wins.
        let flags = [
            "worker", "--name", "a", "--slots", "9", "--device", "auto", "--slot", "1", "--slots",
            "2", "--device", "cuda:1", "--name", "b",
        ];
        let cli = Cli::try_parse_from(flags).unwrap();
        assert_eq!(cli.name.as_deref(), Some("b"));
        assert_eq!((cli.asked_slots(), cli.device), (2, Devices::Gpus(vec![1])));
    }

    #[test]
    fn a_list_of_gpus_asks_for_a_slot_on_each() {
        let slots = |flags: &[&str]| {
            let flags = ["worker"].iter().chain(flags);
            Cli::try_parse_from(flags).unwrap().asked_slots()
        };
        assert_eq!(slots(&[]), 1);
        assert_eq!(slots(&["--device", "cuda:0,cuda:2"]), 2);
        assert_eq!(slots(&["--device", "cuda:0,cuda:2", "--slots", "1"]), 1);
        let error = Cli::try_parse_from(["worker", "--device", "gpu"]).unwrap_err();
        assert!(error.to_string().contains("cuda:0,cuda:1"), "{error}");
    }

    #[test]
    fn help_never_shows_the_environment() {
        let help = Cli::command().render_long_help().to_string();
        assert!(help.contains("Exit codes"));
        assert!(help.contains("SIGTERM"));
    }
}
