//! `coord audit`: finds what is wrong or suspect, in the published tables or in a sweep.

use super::formats::AuditFormat;
use crate::{
    analysis,
    config::Settings,
    exit::Exit,
    local::connect::Database,
    output::{say, say_json},
};
use halfheard_results::audit::{
    self, Finding,
    render::{Format, render},
};
use halfheard_store::Store;
use std::process::ExitCode;

/// Arguments of `coord audit`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  coord audit published                      the paper's Tables 2 to 14; needs no database
  coord audit published --format markdown    the same, for a page
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
    /// The format [default: text, or json with --json]
    #[arg(long, value_enum)]
    format: Option<AuditFormat>,
}

/// Audits and prints the findings.
///
/// # Errors
///
/// An unknown sweep; the database cannot be reached.
pub(crate) async fn run(args: AuditArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let (subject, findings) = if args.what == "published" {
        let subject = "the published Tables 2 to 14".to_owned();
        (subject, audit::published())
    } else {
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
