//! `coord demo`: a small sweep that needs no file.

use super::run::{self, RunArgs};
use crate::{config::Settings, http::HttpArgs};
use anyhow::Context as _;
use halfheard_shared::{
    atomic_file::{AtomicFile, DEFAULT_MODE},
    device::Devices,
};
use std::{io::Write as _, path::PathBuf, process::ExitCode};

/// The spec, part of the program.
const SPEC: &str = include_str!("../../../deploy/demo.toml");

/// Arguments of `coord demo`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Two methods on a small synthetic dataset, sixteen cases each, in some minutes. The spec is written to
demo.toml in the data folder: copy it to begin a sweep of your own, which `coord run` runs.

Examples:
  coord demo
  coord demo --http                     look at it in a browser meanwhile
  coord demo --data-dir /tmp/demo       with all files in that folder
  coord table 9                         more of its tables afterwards")]
pub(crate) struct DemoArgs {
    /// Number of workers, one process each [default: 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: Option<u16>,
    /// Device of the workers: cpu, cuda:0, auto [default: cpu]
    #[arg(long, value_name = "DEVICE")]
    device: Option<Devices>,
    #[command(flatten)]
    http: HttpArgs,
}

/// Runs the demo.
///
/// # Errors
///
/// As `coord run`; the data folder cannot be written.
pub(crate) async fn run(args: DemoArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let spec = write(settings)?;
    let args = RunArgs::of_spec(spec, args.workers, args.device, args.http);
    run::run(args, settings).await
}

fn write(settings: &Settings) -> anyhow::Result<PathBuf> {
    let folder = &settings.data_dir;
    let path = folder.join("demo.toml");
    let written = || -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        let mut file = AtomicFile::create(&path, DEFAULT_MODE)?;
        file.write_all(SPEC.as_bytes())?;
        file.persist()
    };
    written().with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}
