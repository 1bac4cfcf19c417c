//! The command line of `worker`.

use crate::{
    exit::Exit,
    external::{GB, Limits},
    identity,
    settings::ConnectionFlags,
};
use clap::{Parser, ValueEnum};
use halfheard_models::{device, memory};
use halfheard_shared::{device::Devices, env};
use halfheard_telemetry::access::{Access, AccessError, is_loopback};
use std::{net::SocketAddr, num::NonZeroUsize, path::PathBuf, time::Duration};

/// Take jobs from the broker, train and evaluate the models, report the results.
#[derive(Parser, Clone, Debug)]
#[command(
    name = "worker",
    version = identity::VERSION,
    after_long_help = after_help(),
)]
pub(crate) struct Cli {
    /// Jobs to process at once, each in its own process [default: 1, or one per GPU that --device
    /// lists]
    #[arg(long, env = env::SLOTS, value_name = "N", overrides_with = "slots", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) slots: Option<u16>,

    /// Where to compute: auto, cpu, cuda:0, or a list cuda:0,cuda:1
    ///
    /// With auto, slot i computes on visible GPU i. Slots without a GPU do not start; without any GPU
    /// all slots compute on the CPU, and the first line of the log says why. A list is assigned in the
    /// same way; more slots than GPUs in the list are an error.
    #[arg(
        long,
        env = env::DEVICE,
        value_name = "DEVICE",
        overrides_with = "device",
        default_value_t
    )]
    pub(crate) device: Devices,

    /// Let several slots share a GPU: jobs may need an equal part of its memory each
    #[arg(long, env = env::SHARE_GPUS, value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) share_gpus: bool,

    /// CPU threads per slot [default: the cores divided by the slots]
    ///
    /// The last bits of the results depend on it: use the same number to reproduce them. Jobs of a
    /// spec with numerics = "portable" always use one thread.
    #[arg(long, env = env::THREADS, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) threads: Option<u16>,

    /// The worker's name in `coord status` [default: host and process]
    #[arg(
        long,
        env = env::WORKER_NAME,
        value_name = "NAME",
        overrides_with = "name"
    )]
    pub(crate) name: Option<String>,

    /// The team whose broker login this worker uses: its name begins with TEAM and a dot
    #[arg(long, env = env::TEAM, value_name = "TEAM", value_parser = team)]
    pub(crate) team: Option<String>,

    /// Save the state of a training job at least this often, also within an epoch
    ///
    /// A worker that crashes loses at most this much work. Saving never takes more than about a tenth
    /// of the time: large models are saved less often.
    #[arg(
        long,
        env = env::SAVE_EVERY,
        value_name = "SECONDS",
        default_value = "60",
        value_parser = seconds
    )]
    pub(crate) save_every: Duration,

    /// Shut down within this time
    ///
    /// A worker that is told to exit saves what it trains and hands its jobs back; what is not saved by
    /// then is lost. Give large models and slow artifact stores more, and the service manager at least
    /// 5 s more than this.
    #[arg(
        long,
        env = env::LEAVE_WITHIN,
        value_name = "SECONDS",
        default_value = "10",
        value_parser = leave_within
    )]
    pub(crate) leave_within: Duration,

    /// What a spec's needs may ask for: a100, or several separated by commas
    #[arg(
        long = "label",
        env = env::LABELS,
        value_name = "LABEL",
        value_delimiter = ',',
        value_parser = label
    )]
    pub(crate) labels: Vec<String>,

    /// Exit after this long without work [default: never]
    #[arg(
        long,
        value_name = "SECONDS",
        num_args = 0..=1,
        default_missing_value = "10",
        value_parser = seconds
    )]
    pub(crate) once: Option<Duration>,

    /// Print what the worker finds (libtorch, driver, GPUs, devices, threads) as JSON, test each
    /// device, and exit
    #[arg(long)]
    pub(crate) check: bool,

    /// Like --check, without testing the devices; for the supervisor and `coord run`
    #[arg(long, hide = true)]
    pub(crate) look: bool,

    /// Log format on stderr; RUST_LOG selects what to log
    #[arg(
        long,
        env = env::LOG_FORMAT,
        value_name = "FORMAT",
        default_value = "text"
    )]
    pub(crate) log_format: LogFormat,

    #[command(flatten)]
    pub(crate) measuring: MeasuringFlags,

    #[command(flatten)]
    pub(crate) http: HttpFlags,

    #[command(flatten)]
    pub(crate) external: ExternalFlags,

    #[command(flatten)]
    pub(crate) connection: ConnectionFlags,

    /// How this process computes; set by the supervisor
    #[arg(long, hide = true, default_value_t)]
    pub(crate) numerics: halfheard_models::numerics::Numerics,

    /// How many slots compute on this one's GPU; set by the supervisor
    #[arg(long, hide = true, value_name = "N", default_value = "1")]
    pub(crate) sharing: NonZeroUsize,

    /// Which slot this process is; set by the supervisor
    #[arg(long, hide = true)]
    pub(crate) slot: Option<usize>,
}

/// How fast a slot is here; `coord tune-machine` asks for it.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Measuring")]
pub(crate) struct MeasuringFlags {
    /// Train METHOD on synthetic samples of MOSI's sizes for a while, print steps and memory as JSON,
    /// and exit; `coord tune-machine` does it for several numbers of slots and threads
    #[arg(long, value_name = "METHOD")]
    pub(crate) measure: Option<String>,

    /// How long to measure, at least one step
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    pub(crate) measure_seconds: Duration,

    /// The text encoder's folder
    #[arg(long, env = env::ENCODER_EN, value_name = "FOLDER")]
    pub(crate) measure_encoder: Option<PathBuf>,

    /// Print `ready` after the first step, and begin with the next line on standard input
    #[arg(long, hide = true)]
    pub(crate) measure_on_line: bool,
}

/// What machines that watch the worker are shown.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Metrics and health")]
pub(crate) struct HttpFlags {
    /// Serve /metrics (Prometheus), /healthz and /readyz of all slots at this address:
    /// 127.0.0.1:9351 [default: nowhere]
    ///
    /// /healthz fails when a slot's process says nothing or its work hangs, /readyz when a slot is not
    /// connected or sits out for a fault of its own; both say why in JSON.
    #[arg(long, env = env::WORKER_HTTP, value_name = "ADDRESS")]
    pub(crate) http: Option<SocketAddr>,

    /// A file with the token that /metrics asks for beyond loopback (Authorization: Bearer TOKEN)
    #[arg(long, env = env::WORKER_HTTP_TOKEN_FILE, value_name = "FILE")]
    pub(crate) http_token_file: Option<PathBuf>,

    /// Let everybody who reaches the address read /metrics
    #[arg(long, env = env::WORKER_HTTP_OPEN_METRICS, value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) http_open_metrics: bool,
}

impl HttpFlags {
    /// Who may read the metrics at `address`.
    ///
    /// # Errors
    ///
    /// The token cannot be read; the address is not loopback and nothing says who may.
    pub(crate) fn access(&self, address: SocketAddr) -> Result<Access, AccessError> {
        let access = match &self.http_token_file {
            Some(file) => Access::token_file(file)?,
            None => Access::Open,
        };
        let open = self.http_open_metrics;
        match access.clone().to_metrics(address, open) {
            Access::Open if access == Access::Open && !open && !is_loopback(address) => {
                Err(AccessError::Unprotected { address })
            }
            access => Ok(access),
        }
    }
}

/// Whether and how external programs run.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "External programs")]
pub(crate) struct ExternalFlags {
    /// Run the programs that specs bring as methods of their own
    ///
    /// A program runs with the rights of this worker's user: it reads what the user reads, and uses the
    /// network. Its environment holds no logins of the worker.
    #[arg(long, env = env::ALLOW_EXTERNAL, value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) allow_external: bool,

    /// Memory of a program, in gigabytes [default: the machine's, divided by the slots]
    #[arg(long, value_name = "GB", value_parser = positive)]
    pub(crate) external_memory: Option<f64>,

    /// What a program may write into its folder, in gigabytes
    #[arg(long, value_name = "GB", default_value = "20", value_parser = positive)]
    pub(crate) external_disk: f64,

    /// The largest state or checkpoint that a program may save, in gigabytes
    #[arg(long, value_name = "GB", default_value = "4", value_parser = positive)]
    pub(crate) external_state: f64,

    /// Processes of a program
    #[arg(long, value_name = "N", default_value = "256", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) external_processes: u32,

    /// How long a program may report nothing, in minutes
    #[arg(long, value_name = "MINUTES", default_value = "60", value_parser = positive)]
    pub(crate) external_silence: f64,

    /// How long a program may run, in hours
    #[arg(long, value_name = "HOURS", default_value = "72", value_parser = positive)]
    pub(crate) external_hours: f64,
}

impl ExternalFlags {
    /// The limits of programs; `None` if none may run.
    pub(crate) fn limits(&self, slots: usize) -> Option<Limits> {
        let bytes = |gigabytes: f64| (gigabytes * GB as f64) as u64;
        let machine = match memory::of_device(device::Device::Cpu) {
            // Unknown: the kernel limits it.
            0 => u64::MAX,
            all => all / slots.max(1) as u64,
        };
        self.allow_external.then(|| Limits {
            memory: self.external_memory.map_or(machine, bytes),
            disk: bytes(self.external_disk),
            processes: self.external_processes,
            silence: Duration::from_secs_f64(self.external_silence * 60.0),
            time: Duration::from_secs_f64(self.external_hours * 3600.0),
            file: bytes(self.external_state),
        })
    }
}

/// A positive number, within what a duration and a size hold.
fn positive(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    match number > 0.0 && number <= 1e6 {
        true => Ok(number),
        false => Err("it must be above 0 and at most 1,000,000".to_owned()),
    }
}

impl Cli {
    /// The requested number of slots.
    pub(crate) fn requested_slots(&self) -> usize {
        self.slots.map_or_else(|| self.device.slots(1), usize::from)
    }

    pub(crate) fn worker_name(&self) -> String {
        self.name.clone().unwrap_or_else(identity::default_name)
    }

    /// CPU threads for each of `slots` slots.
    pub(crate) fn threads_per_slot(&self, slots: usize) -> usize {
        self.threads
            .map_or_else(|| device::default_threads(slots), usize::from)
    }
}

/// The format of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Readable lines.
    Text,
    /// One JSON object per line.
    Json,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let invalid = || "not a number of seconds".to_owned();
    let seconds: f64 = text.parse().map_err(|_| invalid())?;
    Duration::try_from_secs_f64(seconds).map_err(|_| invalid())
}

/// The least and the most seconds that a shutdown may be given.
const LEAVE_WITHIN: std::ops::RangeInclusive<f64> = 1.0..=3600.0;

fn leave_within(text: &str) -> Result<Duration, String> {
    let time = seconds(text)?;
    match LEAVE_WITHIN.contains(&time.as_secs_f64()) {
        true => Ok(time),
        false => Err(format!(
            "not between {} and {} s",
            LEAVE_WITHIN.start(),
            LEAVE_WITHIN.end()
        )),
    }
}

/// The longest name of a team.
const MAX_TEAM: usize = 32;

/// One token of a subject on the broker.
fn team(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if text.is_empty() || text.len() > MAX_TEAM || !text.chars().all(allowed) {
        return Err(format!(
            "not a team: use letters, digits, `-` and `_`, at most {MAX_TEAM}"
        ));
    }
    Ok(text.to_owned())
}

/// The longest label.
const MAX_LABEL: usize = 64;

fn label(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let text = text.trim();
    if text.is_empty() || text.len() > MAX_LABEL || !text.chars().all(allowed) {
        return Err(format!(
            "not a label: use letters, digits, `-`, `_` and `.`, at most {MAX_LABEL}"
        ));
    }
    Ok(text.to_owned())
}

fn after_help() -> String {
    format!(
        "\
How it works:
  A worker needs only the broker and the artifact store: no database, no open port. It
  asks for jobs, so nodes may come and go. It finds datasets and text encoders by their
  hash: in the data folder, at the path in the spec, or in the artifact store.

  SIGTERM or Ctrl-C shuts down gracefully: the worker takes no more jobs, saves what it
  trains, hands its jobs back and exits within 10 s (--leave-within). Signals within 2 s
  count as one, so all processes of a worker may be signaled together (pkill worker,
  scancel --full). A later second signal exits immediately; the jobs are granted again
  half a minute later. SIGUSR1 acts like SIGTERM but never exits immediately, however often it is sent.

  A worker that lacks what a job needs (a writable store, data, a method, a working
  device) declines the job, pauses for a growing time, and resumes once the fault has
  passed; `coord status` shows the fault. While the store is away or full, it keeps its
  results and waits. A step that takes ten times as long as the longest before, and at
  least a minute, hangs: the slot's process ends, and another is started.

  A GPU is used if libtorch_cuda.so of the same libtorch release is found in
  LIBTORCH/lib, beside the libtorch in use, or in LD_LIBRARY_PATH.

  OTEL_EXPORTER_OTLP_ENDPOINT sends traces of jobs to an OpenTelemetry collector, by OTLP
  over HTTP (docs/guide/tracing.md).

Examples:
  worker --slots 2 --device cpu           two jobs at once on this machine's CPU
  worker --slots 4                        one job on each of four GPUs
  worker --device cuda:1                  one job at a time on the second GPU
  worker --device cuda:0,cuda:2           one job on each of these two GPUs
  worker --slots 2 --device cuda:0 --share-gpus
                                          two jobs at once on the first GPU
  worker --once 30                        work until the queue is empty, for batch systems
  worker --http 127.0.0.1:9351            metrics for Prometheus, probes for Kubernetes
  worker --check                          check that this node is set up
  worker --measure almt --threads 4       how fast one slot with four threads trains

{}",
        Exit::help()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn command_line_is_valid() {
        Cli::command().debug_assert();
        let cli = Cli::try_parse_from(["worker", "--nats", "nats://h", "--once"]).unwrap();
        assert_eq!(cli.connection.nats_url.as_deref(), Some("nats://h"));
        assert_eq!(cli.once, Some(Duration::from_secs(10)));
        // The supervisor's flags follow the user's and override them.
        let flags = [
            "worker", "--name", "a", "--slots", "9", "--device", "auto", "--slot", "1", "--slots",
            "2", "--device", "cuda:1", "--name", "b",
        ];
        let cli = Cli::try_parse_from(flags).unwrap();
        assert_eq!(cli.name.as_deref(), Some("b"));
        assert_eq!(
            (cli.requested_slots(), cli.device),
            (2, Devices::Gpus(vec![1]))
        );
    }

    #[test]
    fn metrics_beyond_loopback_need_a_token_or_the_word_that_they_do_not() {
        let access = |flags: &[&str]| {
            let flags = ["worker", "--http"].iter().chain(flags);
            let http = Cli::try_parse_from(flags).unwrap().http;
            http.access(http.http.unwrap())
        };
        assert_eq!(access(&["127.0.0.1:0"]).unwrap(), Access::Open);
        assert!(access(&["0.0.0.0:0"]).is_err());
        assert_eq!(
            access(&["0.0.0.0:0", "--http-open-metrics"]).unwrap(),
            Access::Open
        );
        let missing = access(&["0.0.0.0:0", "--http-token-file", "/missing"]).unwrap_err();
        assert!(missing.to_string().contains("/missing"));
    }

    #[test]
    fn gpu_list_requests_one_slot_per_gpu() {
        let slots = |flags: &[&str]| {
            let flags = ["worker"].iter().chain(flags);
            Cli::try_parse_from(flags).unwrap().requested_slots()
        };
        assert_eq!(slots(&[]), 1);
        assert_eq!(slots(&["--device", "cuda:0,cuda:2"]), 2);
        assert_eq!(slots(&["--device", "cuda:0,cuda:2", "--slots", "1"]), 1);
        let error = Cli::try_parse_from(["worker", "--device", "gpu"]).unwrap_err();
        assert!(error.to_string().contains("cuda:0,cuda:1"), "{error}");
    }

    #[test]
    fn labels_and_shutdown_time_are_checked() {
        let parse = |flags: &[&str]| {
            let flags = ["worker"].iter().chain(flags);
            Cli::try_parse_from(flags).map_err(|error| error.to_string())
        };
        let cli = parse(&["--label", "a100,rack-3", "--label", "nvlink"]).unwrap();
        assert_eq!(cli.labels, ["a100", "rack-3", "nvlink"]);
        assert!(parse(&["--label", "a b"]).unwrap_err().contains("label"));
        assert_eq!(
            parse(&["--team", "red"]).unwrap().team.as_deref(),
            Some("red")
        );
        assert!(parse(&["--team", "a.b"]).unwrap_err().contains("team"));
        assert_eq!(cli.leave_within, Duration::from_secs(10));
        let cli = parse(&["--leave-within", "90"]).unwrap();
        assert_eq!(cli.leave_within, Duration::from_secs(90));
        assert!(
            parse(&["--leave-within", "0"])
                .unwrap_err()
                .contains("between 1")
        );
    }

    #[test]
    fn help_lists_exit_codes_and_signals() {
        let help = Cli::command().render_long_help().to_string();
        assert!(help.contains("Exit codes"));
        assert!(help.contains("SIGTERM"));
    }
}
