//! `coord table`: prints a table of the paper, or one that the paper lacks, from a sweep's results.

use super::formats::TableFormat;
use crate::{
    analysis::resample,
    config::Settings,
    local::connect::Database,
    output::{say, say_json},
};
use halfheard_results::{
    statistics::bootstrap::{BootstrapOptions, BootstrapSamples},
    tables::{
        Table, cases, comparison, curves, derived,
        layout::{self, Layout},
        paper,
        render::{Format, render},
    },
};
use halfheard_shared::{
    error::hinted,
    results::{Filter, Results, Wanted},
};
use halfheard_store::{
    Store,
    results::{Snapshot, load},
    sweeps::SweepRow,
};
use std::{process::ExitCode, str::FromStr};

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

/// Which table.
#[derive(Clone, Copy, Debug)]
enum Which {
    Paper(Layout),
    Cases,
    Curves,
    Laziness,
    Robustness,
    Ranks,
}

impl FromStr for Which {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "cases" => return Ok(Which::Cases),
            "curves" => return Ok(Which::Curves),
            "laziness" => return Ok(Which::Laziness),
            "robustness" => return Ok(Which::Robustness),
            "ranks" => return Ok(Which::Ranks),
            _ => {}
        }
        let number = text.parse().ok();
        let layout = number.and_then(layout::find);
        layout.map(Which::Paper).ok_or_else(|| {
            format!("unknown table `{text}`: known are 2 to 14, cases, curves, laziness, robustness and ranks")
        })
    }
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
    let mut snapshot = Snapshot::begin(store, sweep.id).await?;
    let mut source = Source {
        results: snapshot.results(Wanted::default()).await?,
        snapshot,
        chosen: Chosen::Validation,
        options,
    };
    if args.selection == Chosen::Test {
        source.choose_on_test()?;
    }
    let mut table = source.table(args).await?;
    if let Which::Paper(layout) = args.which {
        beside(args, store, &mut source, layout, &mut table).await?;
    }
    if args.optimism {
        source.choose_on_test()?;
        comparison::optimism(&mut table, &source.table(args).await?);
    }
    let text = render(&table, format, settings.color);
    match format {
        Format::Json => say_json(&text),
        _ => say(&text),
    }
    Ok(ExitCode::SUCCESS)
}

/// What tables are made of.
struct Source {
    results: Results,
    snapshot: Snapshot,
    chosen: Chosen,
    options: BootstrapOptions,
}

impl Source {
    /// Changes to the checkpoints that the test split chose.
    fn choose_on_test(&mut self) -> anyhow::Result<()> {
        let sweep = &self.results.sweep.name;
        self.results = self.results.chosen_on_test().ok_or_else(|| {
            hinted(
                format!("sweep {sweep} has no checkpoints that the test split chose beside others"),
                "submit it with `selection = \"both\"` under [protocol]: it then keeps both choices",
            )
        })?;
        self.chosen = Chosen::Test;
        Ok(())
    }

    async fn samples(&mut self, filter: &Filter) -> anyhow::Result<BootstrapSamples> {
        let predictions = self.snapshot.predictions(filter).await?;
        let predictions = match self.chosen {
            Chosen::Validation => predictions,
            Chosen::Test => predictions.chosen_on_test(),
        };
        Ok(resample(predictions, self.options).await?)
    }

    /// The table alone.
    async fn table(&mut self, args: &TableArgs) -> anyhow::Result<Table> {
        let cells = &self.results.cells;
        Ok(match args.which {
            Which::Paper(layout) => paper::table(&self.results, layout, args.laziness),
            Which::Cases => cases::table(&self.results),
            Which::Curves => curves::table(&self.results),
            Which::Laziness => derived::laziness(cells),
            Which::Robustness => {
                derived::robustness_table(&self.samples(&Filter::default()).await?)
            }
            Which::Ranks => derived::ranks_table(&derived::measurements(cells)),
        })
    }
}

/// Adds the numbers that a table of the paper is compared with.
async fn beside(
    args: &TableArgs,
    store: &Store,
    source: &mut Source,
    layout: Layout,
    table: &mut Table,
) -> anyhow::Result<()> {
    match args.compare.as_deref() {
        None => {}
        Some("published") => comparison::published(table, &source.results.cells, layout),
        Some(other) => {
            let other = store.find_sweep(other).await?;
            let mut others = load(store, other.id, Wanted::default()).await?;
            if source.chosen == Chosen::Test
                && let Some(chosen) = others.chosen_on_test()
            {
                others = chosen;
            }
            comparison::sweep(table, &others.cells, layout, &other.name);
        }
    }
    if args.intervals {
        let filter = Filter {
            datasets: layout.datasets(&source.results.known),
            ..Filter::default()
        };
        let samples = source.samples(&filter).await?;
        comparison::intervals(table, &samples, layout, source.options);
    }
    Ok(())
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

/// The newest sweep.
///
/// # Errors
///
/// The database's; a database without sweeps.
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
