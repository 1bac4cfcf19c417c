//! `coord table`: prints a table of the paper from a sweep's results.

use crate::{
    config::Settings,
    connect::Database,
    store::{Store, sweeps::SweepRow},
    tables::{
        layout::{self, Layout},
        load,
        render::{Format, render},
    },
};
use anyhow::Context as _;
use std::process::ExitCode;

/// Arguments of `coord table`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  coord table 2                          the newest sweep's overall table
  coord table 9 --format latex           each missing rate, for a paper
  coord table 2 --sweep demo --format csv

Best values are bold (a star in a pipe), second best underlined (a stroke in a pipe); values not yet
there are …, undefined ones –.")]
pub struct TableArgs {
    /// The table's number in the paper: 2, 3, 9, 10, 11, 12, 13 or 14
    number: u8,
    /// The sweep: its name, its id, or the beginning of its id [default: the newest]
    #[arg(long)]
    sweep: Option<String>,
    /// How to print it [default: text, or json with --json]
    #[arg(long, value_enum)]
    format: Option<Format>,
}

/// Prints a table.
///
/// # Errors
///
/// No such table or sweep; the database cannot be reached.
pub async fn run(args: TableArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let layout = find(args.number)?;
    let database = Database::open(settings).await?;
    let outcome = show(&args, settings, &database, layout).await;
    database.close().await;
    outcome
}

async fn show(
    args: &TableArgs,
    settings: &Settings,
    store: &Store,
    layout: Layout,
) -> anyhow::Result<ExitCode> {
    let sweep = match &args.sweep {
        Some(text) => store.find_sweep(text).await?,
        None => newest(store).await?,
    };
    let format = args.format.unwrap_or(if settings.json {
        Format::Json
    } else {
        Format::Text
    });
    print(store, &sweep, layout, format, settings.color).await?;
    Ok(ExitCode::SUCCESS)
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
    let table = load::load(store, sweep.id, &sweep.name, layout).await?;
    print!("{}", render(&table, format, colour));
    Ok(())
}

fn find(number: u8) -> anyhow::Result<Layout> {
    layout::find(number).with_context(|| {
        let numbers: Vec<String> = layout::LAYOUTS
            .iter()
            .map(|l| l.number.to_string())
            .collect();
        format!(
            "table {number} cannot be printed: there are {}",
            numbers.join(", ")
        )
    })
}

async fn newest(store: &Store) -> anyhow::Result<SweepRow> {
    let sweeps = store.sweeps().await?;
    sweeps
        .into_iter()
        .max_by_key(|sweep| sweep.created)
        .context("there is no sweep yet: `coord submit SPEC` makes one")
}
