//! `coord audit`: finds what is wrong or suspect, in the published tables or in a sweep.

use super::formats::AuditFormat;
use crate::{
    analysis,
    config::Settings,
    exit::Exit,
    local::connect::Database,
    output::{say, say_json},
};
use anyhow::Context as _;
use halfheard_results::audit::{
    self, Finding, other,
    render::{Format, render},
};
use halfheard_store::Store;
use std::{path::PathBuf, process::ExitCode};

/// Arguments of `coord audit`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  coord audit published                      the paper's Tables 2 to 14; needs no database
  coord audit published --format markdown    the same, for a page
  coord audit published --against ours.csv   with the numbers of one more paper
  coord audit demo                           a sweep: its jobs, results and stored predictions

A finding tells what is wrong, where, with which numbers, and why it matters:
  error    cannot be right: contradicts arithmetic, or another number
  warning  is probably wrong, or makes a result doubtful
  note     may be right, but is worth knowing
Findings about published numbers show known errata, which the rules do not consult.

Exits with 0 without errors and warnings, else with 4.")]
pub(crate) struct AuditArgs {
    /// `published` for the paper's tables; or a sweep: its name, its id, or the beginning of its id
    #[arg(value_name = "published|SWEEP")]
    what: String,
    /// Compare the published tables with a CSV file of another paper's numbers, as printed: paper,
    /// year, dataset, method, variant, case_id, metric, printed, source
    #[arg(long, value_name = "CSV")]
    against: Option<PathBuf>,
    /// The format [default: text, or json with --json]
    #[arg(long, value_enum)]
    format: Option<AuditFormat>,
}

/// Audits and prints the findings.
///
/// # Errors
///
/// An unknown sweep; the database cannot be reached; an unreadable file of another paper's numbers.
pub(crate) async fn run(args: AuditArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let (subject, findings) = if args.what == "published" {
        let subject = "the published Tables 2 to 14".to_owned();
        let others = match &args.against {
            Some(file) => {
                let text = std::fs::read_to_string(file)
                    .with_context(|| format!("cannot read {}", file.display()))?;
                other::read(&text).with_context(|| format!("invalid {}", file.display()))?
            }
            None => Vec::new(),
        };
        (subject, audit::published_beside(&others))
    } else {
        anyhow::ensure!(
            args.against.is_none(),
            "--against compares the published tables, not a sweep: use `coord audit published`"
        );
        let database = Database::open(settings).await?;
        let outcome = of_sweep(&database, &args.what).await;
        database.close().await;
        outcome?
    };
    let default = if settings.json {
        Format::Json
    } else {
        Format::Text
    };
    let format = args.format.map_or(default, Format::from);
    let text = render(&subject, &findings, format, settings.color);
    match format {
        Format::Json => say_json(&text),
        Format::Text | Format::Markdown => say(&text),
    }
    Ok(if findings.iter().any(Finding::counts) {
        Exit::Findings.into()
    } else {
        ExitCode::SUCCESS
    })
}

async fn of_sweep(store: &Store, text: &str) -> anyhow::Result<(String, Vec<Finding>)> {
    let sweep = store.find_sweep(text).await?;
    let subject = format!("sweep {} ({})", sweep.name, sweep.id);
    Ok((subject, analysis::audit(store, sweep.id).await?))
}
