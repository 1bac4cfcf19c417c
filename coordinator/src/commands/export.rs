//! `coord export`: results as files for notebooks.

use crate::{config::Settings, local::connect::Database};
use anyhow::{Context as _, ensure};
use halfheard_results::export::{
    What,
    file::{Format, Writer},
    rows,
};
use halfheard_store::Store;
use std::{path::PathBuf, process::ExitCode};

/// Arguments of `coord export`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Long tables, one value a row; values are fractions from 0 to 1 except mae and corr. A file appears
under its name only when it is whole.

Examples:
  coord export full --out results.parquet
  coord export full --what predictions --out predictions.parquet
  coord export full --format csv | head

In Python:
  import polars as pl
  results = pl.read_parquet(\"results.parquet\")
  print(results.group_by(\"method\", \"rate\", \"metric\").agg(pl.col(\"value\").mean()))")]
pub struct ExportArgs {
    /// The sweep: its name, its id, or the beginning of its id
    sweep: String,
    /// What to export
    #[arg(long, value_enum, default_value_t = What::Results)]
    what: What,
    /// How to write it [default: by the file's ending, csv without a file]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// The file [default: standard output, csv only]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Exports a sweep.
///
/// # Errors
///
/// No such sweep; the database cannot be reached; the file cannot be written.
pub async fn run(args: ExportArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let format = match (args.format, &args.out) {
        (Some(format), _) => format,
        (None, None) => Format::Csv,
        (None, Some(path)) => match path.extension().and_then(|ending| ending.to_str()) {
            Some("parquet") => Format::Parquet,
            Some("csv") => Format::Csv,
            _ => anyhow::bail!(
                "{} ends in neither .parquet nor .csv: say which with --format",
                path.display()
            ),
        },
    };
    ensure!(
        format == Format::Csv || args.out.is_some(),
        "Parquet needs a file: name it with --out FILE"
    );
    let database = Database::open(settings).await?;
    let outcome = export(&args, format, &database).await;
    database.close().await;
    let rows = outcome?;
    match (&args.out, settings.json) {
        (Some(path), true) => {
            let path = path.display().to_string();
            println!("{}", serde_json::json!({ "file": path, "rows": rows }));
        }
        (Some(path), false) => println!("{}: {rows} rows", path.display()),
        // The rows are what standard output is for.
        (None, _) => {}
    }
    Ok(ExitCode::SUCCESS)
}

async fn export(args: &ExportArgs, format: Format, store: &Store) -> anyhow::Result<u64> {
    let sweep = store.find_sweep(&args.sweep).await?;
    let mut writer = Writer::new(args.out.as_deref(), format, args.what.fields())?;
    let rows = rows::read(store, &sweep, args.what, |piece| writer.write(piece))
        .await
        .with_context(|| format!("exporting sweep {}", sweep.name))?;
    writer.finish()?;
    Ok(rows)
}
