//! The command.

use super::{
    artifacts,
    finding::{Finding, Verdict},
    programs, servers, storage,
};
use crate::{
    config::Settings,
    exit::Exit,
    local::programs::{Part, Programs},
    output::Output,
};
use anstyle::{AnsiColor, Style};
use halfheard_shared::hash_cache::HashCache;
use serde::Serialize;
use std::{fmt, process::ExitCode};

/// Arguments of `coord doctor`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Each line is ok, a warning (something that only some uses need) or bad. Exits with 1 if anything is
bad.

Examples:
  coord doctor                          check that `coord run` works and that the cluster is reachable
  coord doctor --json                   for a node's health check
  coord doctor --checkpoints            list checkpoints that results refer to and the store lacks
  coord doctor --checkpoints --repair   have their trainings done again")]
pub(crate) struct DoctorArgs {
    /// Look for the checkpoints of all results in the artifact store
    #[arg(long)]
    checkpoints: bool,
    /// Have trainings done again whose checkpoints are missing; if the installation's store was lost, go
    /// on with this one
    #[arg(long, requires = "checkpoints")]
    repair: bool,
    /// Do not ask
    #[arg(long, requires = "repair")]
    yes: bool,
}

#[derive(Serialize)]
#[serde(transparent)]
struct Findings(Vec<Finding>);

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |finding: &Finding| finding.what.chars().count();
        let width = self.0.iter().map(width).max().unwrap_or(0);
        for finding in &self.0 {
            let (word, style) = match finding.verdict {
                Verdict::Ok => ("ok  ", AnsiColor::Green.on_default()),
                Verdict::Warn => ("warn", AnsiColor::Yellow.on_default()),
                Verdict::Bad => ("BAD ", AnsiColor::Red.on_default().bold()),
            };
            let style: Style = style;
            let (what, found) = (finding.what, &finding.found);
            writeln!(f, "{style}{word}{style:#}  {what:width$}  {found}")?;
            if let Some(remedy) = &finding.remedy {
                writeln!(f, "      {:width$}  -> {remedy}", "")?;
            }
        }
        Ok(())
    }
}

/// Checks everything.
///
/// # Errors
///
/// A repair fails; what else is wrong is what it prints.
pub(crate) async fn run(args: DoctorArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let programs = Programs::discover();
    let mut findings = vec![
        storage::config(settings),
        programs::server(&programs, Part::Nats, "nats-server"),
        programs::server(&programs, Part::Postgres, "PostgreSQL"),
        servers::broker(settings).await,
        servers::database(settings).await,
        programs::part(&programs, Part::Libtorch, "libtorch", Verdict::Bad),
    ];
    findings.extend(servers::limits(settings).await);
    findings.extend(programs::worker(&programs).await);
    findings.extend(programs::tuning(&programs, settings));
    let mut hashes = HashCache::open(&settings.data_dir);
    for (part, what) in [
        (Part::EncoderEn, "encoder (en)"),
        (Part::EncoderZh, "encoder (zh)"),
    ] {
        findings.push(programs::encoder(&programs, part, what, &mut hashes));
    }
    hashes.save();
    findings.push(storage::datasets(settings));
    findings.push(storage::writable(&settings.data_dir));
    findings.extend(storage::memory(settings, &programs));
    findings.push(storage::disk(settings));
    findings.extend(artifacts::store(settings).await);
    if args.checkpoints {
        findings.extend(artifacts::checkpoints(settings, args.repair, args.yes).await?);
    }

    let bad = findings
        .iter()
        .any(|finding| finding.verdict == Verdict::Bad);
    Output::of(settings).print_pretty(&Findings(findings))?;
    Ok(match bad {
        true => Exit::Error.into(),
        false => ExitCode::SUCCESS,
    })
}
