//! The arguments.

use crate::{http::HttpArgs, notify::NotifyArgs};
use halfheard_shared::{device::Devices, env};
use std::path::PathBuf;

/// Arguments of `coord run`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Starts a private nats-server and Postgres on free loopback ports, with their files below the data
folder, and workers. Submits the sweep, shows its progress, prints its tables, and stops everything
it started. Ctrl-C stops in an orderly way, a second Ctrl-C at once; the same command continues from
there.

Examples:
  coord run deploy/demo.toml                     the demo
  coord run deploy/real-mosi.toml --workers 4    with four workers
  coord run deploy/demo.toml --data-dir /tmp/d   with all files in that folder
  coord run deploy/demo.toml --keep              keep the servers running, for psql
  coord run deploy/demo.toml --http              look at it in a browser meanwhile
  coord run deploy/demo.toml --retry             run failed jobs again

Exit codes: 0 all jobs are done; 1 an error; 3 some jobs failed; 130 interrupted.")]
pub(crate) struct RunArgs {
    /// The spec, a TOML file
    pub(super) spec: PathBuf,
    /// Number of workers, one process each, which share the cores [default: as in the spec, or one
    /// per GPU; on the CPU what `coord tune-machine` found, or 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(super) workers: Option<u16>,
    /// CPU threads of each worker [default: what `coord tune-machine` found, or the cores divided by
    /// the workers]
    #[arg(long, env = env::THREADS, hide_env_values = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) threads: Option<u16>,
    /// Device of the workers: auto (one GPU each; the CPU without GPUs), cpu, cuda:0, or a list such
    /// as cuda:0,cuda:1 [default: as in the spec, or auto]
    #[arg(long, value_name = "DEVICE")]
    pub(super) device: Option<Devices>,
    /// Let several workers share a GPU; otherwise no more workers start than there are GPUs
    #[arg(long)]
    pub(super) share_gpus: bool,
    /// Run the external programs that the spec names, as yourself and without a sandbox: only for
    /// programs that you trust
    #[arg(long, env = env::ALLOW_EXTERNAL, hide_env_values = true, value_parser = clap::builder::FalseyValueParser::new())]
    pub(super) allow_external: bool,
    /// Keep the servers running after the sweep, until Ctrl-C
    #[arg(long)]
    pub(super) keep: bool,
    /// Show no map of models by datasets and seeds below the progress bars of a terminal
    #[arg(long)]
    pub(super) plain: bool,
    /// Run jobs again that failed before, as `coord retry` does
    #[arg(long)]
    pub(super) retry: bool,
    #[command(flatten)]
    pub(super) http: HttpArgs,
    #[command(flatten)]
    pub(super) notify: NotifyArgs,
}

impl RunArgs {
    /// Those of a plain `coord run SPEC`.
    pub(crate) fn of_spec(
        spec: PathBuf,
        workers: Option<u16>,
        device: Option<Devices>,
        http: HttpArgs,
    ) -> Self {
        Self {
            spec,
            workers,
            threads: env::process(env::THREADS).and_then(|text| text.parse().ok()),
            device,
            share_gpus: false,
            allow_external: false,
            keep: false,
            plain: false,
            retry: false,
            http,
            notify: NotifyArgs::default(),
        }
    }
}
