//! `coord reliance`: what models rely on.

use super::{formats::TableFormat, table::named_or_newest};
use crate::{
    analysis::resample,
    config::Settings,
    local::connect::Database,
    output::{say, say_json},
};
use anyhow::ensure;
use halfheard_results::{
    statistics::{
        LEVEL,
        bootstrap::BootstrapOptions,
        reliance::{Change, changes, complete, is_about, not_measured},
    },
    tables::{
        reliance,
        render::{Format, render},
    },
};
use halfheard_shared::{
    case::Case,
    error::hinted,
    results::{Filter, Wanted},
};
use halfheard_store::{Store, results::Snapshot};
use serde::Serialize;
use std::{collections::BTreeSet, process::ExitCode};

/// Arguments of `coord reliance`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
A modality is taken away in three ways: its features are zeros (missing=a), those of other samples
(permuted=a), or the training split's mean (averaged=a; text has none). The change of a metric against
the complete test split (r=0) is what the model relies on. Only stored results and predictions are
read; nothing is trained or evaluated. A spec asks for all of it with

  rates = [0.0]
  missing = [\"l\", \"a\", \"v\"]
  cases = [\"permuted=l\", \"permuted=a\", \"permuted=v\", \"averaged=a\", \"averaged=v\"]

and `erasure_seeds` for several permutations, over which the change is averaged.

Examples:
  coord reliance                        of the newest sweep
  coord reliance full --dataset mosi    of one dataset
  coord reliance full --format csv      one row per change, for scripts")]
pub(crate) struct RelianceArgs {
    /// The sweep: its name, its id, or the beginning of its id [default: the newest]
    sweep: Option<String>,
    /// Only these datasets
    #[arg(long)]
    dataset: Vec<String>,
    /// The format [default: text, or json with --json]
    #[arg(long, value_enum)]
    format: Option<TableFormat>,
    /// The number of bootstrap resamples
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    draws: u32,
}

/// The report for programs.
#[derive(Serialize)]
struct Report<'r> {
    sweep: String,
    name: &'r str,
    /// The case that changes are against.
    reference: Case,
    level: f64,
    resamples: usize,
    changes: &'r [Change],
    /// Cases of single modalities that the sweep does not have.
    not_measured: &'r [Case],
}

/// Reports what models rely on.
///
/// # Errors
///
/// An unknown sweep or dataset; nothing is evaluated yet; the database cannot be reached.
pub(crate) async fn run(args: RelianceArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let database = Database::open(settings).await?;
    let outcome = report(&args, settings, &database).await;
    database.close().await;
    outcome
}

async fn report(
    args: &RelianceArgs,
    settings: &Settings,
    store: &Store,
) -> anyhow::Result<ExitCode> {
    let known = store.benchmarks().await?;
    let datasets = known.select(&args.dataset)?;
    let sweep = named_or_newest(store, args.sweep.as_deref()).await?;
    let mut snapshot = Snapshot::begin(store, sweep.id).await?;
    let results = snapshot.results(Wanted::default()).await?;
    let cases: BTreeSet<Case> = results
        .tally
        .iter()
        .filter_map(|tally| tally.case)
        .collect();
    let not_measured = not_measured(&cases);
    let own = cases.into_iter();
    let own: Vec<Case> = own.filter(|c| *c == complete() || is_about(c)).collect();
    let mut values = match own.is_empty() {
        true => Vec::new(),
        false => snapshot.seed_values(&own).await?,
    };
    values.retain(|value| datasets.is_empty() || datasets.contains(&value.dataset));
    let options = BootstrapOptions {
        resamples: args.draws as usize,
        ..BootstrapOptions::default()
    };
    let samples = match values.is_empty() {
        true => Default::default(),
        false => {
            let filter = Filter {
                datasets,
                cases: own,
                ..Filter::default()
            };
            resample(snapshot.predictions(&filter).await?, options).await?
        }
    };
    let changes = changes(&values, &samples);
    if changes.is_empty() {
        let asked = reliance::ask(&not_measured);
        ensure!(
            asked.is_some(),
            "no seed of sweep {} is evaluated on r=0 and under a damage yet",
            sweep.name
        );
        return Err(hinted(
            format!("sweep {} does not measure what models rely on", sweep.name),
            asked.unwrap_or_default(),
        )
        .into());
    }
    let default = match settings.json {
        true => Format::Json,
        false => Format::Text,
    };
    match args.format.map_or(default, Format::from) {
        Format::Json => say_json(&serde_json::to_string_pretty(&Report {
            sweep: sweep.id.to_string(),
            name: &sweep.name,
            reference: complete(),
            level: LEVEL,
            resamples: options.resamples,
            changes: &changes,
            not_measured: &not_measured,
        })?),
        Format::Csv => say(&reliance::csv(&changes)),
        format => {
            let table = reliance::table(&results, &changes, &not_measured);
            say(&render(&table, format, settings.color));
        }
    }
    Ok(ExitCode::SUCCESS)
}
