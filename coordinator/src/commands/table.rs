//! `coord table`: prints a table of the paper from a sweep's results, or one that the paper lacks.

use crate::{config::Settings, local::connect::Database};
use anyhow::Context as _;
use halfheard_results::{
    drawing::draw,
    statistics::bootstrap::Options,
    tables::{
        Table, against, extra,
        layout::{self, Layout},
        load,
        render::{Format, render},
    },
};
use halfheard_store::{Store, predictions::Filter, sweeps::SweepRow};
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
  coord table laziness                   how far predicted classes are from the true ones

Tables 2 and 3 are means over missing rates, 4 to 7 ablations and loss weights of LNLN, 8 has
deviations over seeds, 9 and 10 each rate, 11 and 12 means over missing modalities, 13 and 14 each
set. Best values are bold (a star in a pipe), second best underlined (a stroke in a pipe); values
not yet there are …, undefined ones –.")]
pub struct TableArgs {
    /// The table: its number in the paper, 2 to 14, or laziness, robustness, ranks
    #[arg(value_name = "TABLE")]
    which: Which,
    /// The sweep: its name, its id, or the beginning of its id [default: the newest]
    #[arg(long)]
    sweep: Option<String>,
    /// How to print it [default: text, or json with --json]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Whose numbers to set below ours, with the difference: `published`, or a sweep
    #[arg(long, value_name = "WHOSE")]
    compare: Option<String>,
    /// Add 95 % intervals from drawing test samples and seeds again and again (bootstrap)
    #[arg(long)]
    intervals: bool,
    /// How often to draw for them
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    draws: u32,
    /// Add a column of laziness, which says how much an accuracy is worth
    #[arg(long)]
    laziness: bool,
}

/// Which table.
#[derive(Clone, Copy, Debug)]
enum Which {
    Paper(Layout),
    Laziness,
    Robustness,
    Ranks,
}

impl FromStr for Which {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "laziness" => return Ok(Which::Laziness),
            "robustness" => return Ok(Which::Robustness),
            "ranks" => return Ok(Which::Ranks),
            _ => {}
        }
        let number = text.parse().ok();
        let layout = number.and_then(layout::find);
        layout.map(Which::Paper).ok_or_else(|| {
            format!("there is no table `{text}`: there are 2 to 14, laziness, robustness and ranks")
        })
    }
}

/// Prints a table.
///
/// # Errors
///
/// No such sweep; the database cannot be reached.
pub async fn run(args: TableArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let database = Database::open(settings).await?;
    let outcome = show(&args, settings, &database).await;
    database.close().await;
    outcome
}

async fn show(args: &TableArgs, settings: &Settings, store: &Store) -> anyhow::Result<ExitCode> {
    let sweep = match &args.sweep {
        Some(text) => store.find_sweep(text).await?,
        None => newest(store).await?,
    };
    let format = args.format.unwrap_or(if settings.json {
        Format::Json
    } else {
        Format::Text
    });
    let options = Options {
        draws: args.draws as usize,
        ..Options::default()
    };
    let table = match args.which {
        Which::Paper(layout) => paper(args, store, &sweep, layout, options).await?,
        Which::Laziness => extra::laziness(store, sweep.id).await?,
        Which::Robustness => {
            let predictions = store.predictions(sweep.id, &Filter::default()).await?;
            extra::robustness_table(&draw(predictions, options).await?)
        }
        Which::Ranks => extra::ranks_table(&extra::measured(store, sweep.id).await?),
    };
    print!("{}", render(&table, format, settings.color));
    Ok(ExitCode::SUCCESS)
}

async fn paper(
    args: &TableArgs,
    store: &Store,
    sweep: &SweepRow,
    layout: Layout,
    options: Options,
) -> anyhow::Result<Table> {
    let mut table = load::load(store, sweep.id, &sweep.name, layout, args.laziness).await?;
    match args.compare.as_deref() {
        None => {}
        Some("published") => {
            let values = load::values(store, sweep.id, layout).await?;
            against::published(&mut table, &values, layout);
        }
        Some(other) => {
            let other = store.find_sweep(other).await?;
            let values = load::values(store, other.id, layout).await?;
            against::sweep(&mut table, &values, &other.name);
        }
    }
    if args.intervals {
        let filter = Filter {
            datasets: layout.datasets(&store.benchmarks().await?.all()),
            ..Filter::default()
        };
        let drawn = draw(store.predictions(sweep.id, &filter).await?, options).await?;
        against::drawn(&mut table, &drawn, layout, options);
    }
    Ok(table)
}

/// Prints table `layout` of `sweep` on standard output.
///
/// # Errors
///
/// The database's.
pub async fn print(
    store: &Store,
    sweep: &SweepRow,
    layout: Layout,
    format: Format,
    colour: bool,
) -> anyhow::Result<()> {
    let table = load::load(store, sweep.id, &sweep.name, layout, false).await?;
    print!("{}", render(&table, format, colour));
    Ok(())
}

/// The sweep that was submitted last.
///
/// # Errors
///
/// The database's, or there is none.
pub async fn newest(store: &Store) -> anyhow::Result<SweepRow> {
    let sweeps = store.sweeps().await?;
    sweeps
        .into_iter()
        .max_by_key(|sweep| sweep.created)
        .context("there is no sweep yet: `coord submit SPEC` makes one")
}
