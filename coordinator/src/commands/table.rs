//! `coord table`: prints a table of the paper, or one that the paper lacks, from a sweep's results.

use super::formats::TableFormat;
use crate::{
    analysis::tables::{self, Beside, TableRequest, Which},
    config::Settings,
    local::connect::Database,
    output::{say, say_json},
};
use halfheard_results::{
    statistics::bootstrap::BootstrapOptions,
    tables::{
        layout::Layout,
        paper,
        render::{Format, render},
    },
};
use halfheard_shared::{error::hinted, results::Wanted};
use halfheard_store::{
    Store,
    results::{Snapshot, load},
    sweeps::SweepRow,
};
use std::{process::ExitCode, sync::Arc};

/// Arguments of `coord table`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  coord table 2                          the newest sweep's overall table
  coord table 2 --compare published      ours, the paper's and the difference
  coord table 3 --compare other-sweep    two sweeps
  coord table 9 --format latex           each missing rate, for a paper
  coord table 2 --intervals              with 95 % bootstrap intervals
  coord table 2 --optimism               by how much checkpoints look better that the test split chose
  coord table laziness                   how far predicted classes are from the true ones
  coord table cases                      every case of the sweep, with the spread over masks
  coord table curves                     areas under curves over rates, AUILC

Tables 2 and 3 are means over missing rates, 4 to 7 ablations and loss weights of LNLN, 8 has
standard deviations over seeds, 9 and 10 each rate, 11 and 12 means over missing modalities, 13 and
14 each set. Best values are bold (* in a pipe), second best underlined (' in a pipe); … marks
missing values, – undefined ones.

A sweep with `selection = \"both\"` keeps the checkpoints that the validation split chose, which tables
show, and those that the test split chose: --selection test shows these, --optimism both.")]
pub(crate) struct TableArgs {
    /// The table: its number in the paper, 2 to 14, or cases, curves, laziness, robustness, ranks
    #[arg(value_name = "TABLE")]
    which: Which,
    /// The sweep: its name, its id, or the beginning of its id [default: the newest]
    #[arg(long)]
    sweep: Option<String>,
    /// The format [default: text, or json with --json]
    #[arg(long, value_enum)]
    format: Option<TableFormat>,
    /// Add other numbers and the differences: `published`, or those of a sweep
    #[arg(long, value_name = "WHOSE")]
    compare: Option<String>,
    /// Add 95 % bootstrap intervals over test samples and seeds
    #[arg(long)]
    intervals: bool,
    /// The number of bootstrap resamples
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    draws: u32,
    /// Add a laziness column: how far predicted classes are from the true ones
    #[arg(long)]
    laziness: bool,
    /// The split that chose the checkpoints, of a sweep with `selection = "both"`
    #[arg(long, value_enum, value_name = "SPLIT", default_value_t = Chosen::Validation)]
    selection: Chosen,
    /// Add what checkpoints have that the test split chose, and by how much that looks better: of a
    /// sweep with `selection = "both"`
    #[arg(long, conflicts_with = "selection")]
    optimism: bool,
}

/// Which of the checkpoints of a sweep that selects on both splits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Chosen {
    /// Those that the validation split chose
    Validation,
    /// Those that the test split chose
    Test,
}

/// Prints a table.
///
/// # Errors
///
/// An unknown sweep; the database cannot be reached.
pub(crate) async fn run(args: TableArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let database = Database::open(settings).await?;
    let outcome = show(&args, settings, &database).await;
    database.close().await;
    outcome
}

async fn show(args: &TableArgs, settings: &Settings, store: &Store) -> anyhow::Result<ExitCode> {
    let sweep = named_or_newest(store, args.sweep.as_deref()).await?;
    let default = if settings.json {
        Format::Json
    } else {
        Format::Text
    };
    let format = args.format.map_or(default, Format::from);
    let options = BootstrapOptions {
        resamples: args.draws as usize,
        ..BootstrapOptions::default()
    };
    let beside = match args.compare.as_deref() {
        // Only tables of the paper have other numbers beside theirs.
        Some(_) if args.which.layout().is_none() => None,
        None => None,
        Some("published") => Some(Beside::Published),
        Some(other) => {
            let SweepRow { id, name, .. } = store.find_sweep(other).await?;
            Some(Beside::Sweep { id, name })
        }
    };
    let request = TableRequest {
        which: args.which,
        laziness: args.laziness,
        beside,
        intervals: args.intervals,
        on_test: args.selection == Chosen::Test,
        optimism: args.optimism,
        options,
    };
    let mut snapshot = Snapshot::begin(store, sweep.id).await?;
    let results = Arc::new(snapshot.results(Wanted::default()).await?);
    let table = tables::table(store, results, &mut snapshot, &request).await?;
    let text = render(&table, format, settings.color);
    match format {
        Format::Json => say_json(&text),
        _ => say(&text),
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints tables of a sweep on standard output.
///
/// # Errors
///
/// The database's.
pub(crate) async fn print(
    store: &Store,
    sweep: &SweepRow,
    layouts: &[Layout],
    color: bool,
) -> anyhow::Result<()> {
    let results = load(store, sweep.id, Wanted::default()).await?;
    for layout in layouts {
        let table = paper::table(&results, *layout, false);
        say(&render(&table, Format::Text, color));
        say("");
    }
    Ok(())
}

/// The sweep that `text` names, or the newest.
///
/// # Errors
///
/// There is none; the database's.
pub(crate) async fn named_or_newest(store: &Store, text: Option<&str>) -> anyhow::Result<SweepRow> {
    match text {
        Some(text) => Ok(store.find_sweep(text).await?),
        None => newest(store).await,
    }
}

async fn newest(store: &Store) -> anyhow::Result<SweepRow> {
    let sweeps = store.sweeps().await?;
    let newest = sweeps.into_iter().max_by_key(|sweep| sweep.created);
    Ok(newest.ok_or_else(|| hinted("no sweep yet", "submit one with `coord submit SPEC`"))?)
}
