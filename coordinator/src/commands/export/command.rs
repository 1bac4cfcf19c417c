//! The command: long tables for notebooks.

use super::trackers::{self, Tracker};
use crate::{
    config::Settings,
    local::connect::Database,
    output::{say, say_json},
};
use anyhow::{Context as _, ensure};
use halfheard_results::export::file::Format as Table;
use halfheard_results::export::{
    columns::{Page, fields},
    file::{FileError, Writer},
};
use halfheard_shared::{
    error::{Hint, hinted},
    results::Export,
};
use halfheard_store::{
    Store,
    results::{ResultsError, export as export_rows},
};
use std::{path::PathBuf, process::ExitCode};

/// Arguments of `coord export`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Long tables, one value per row; values are fractions from 0 to 1 except mae and corr. A file appears
under its name only when it is complete.

For experiment trackers, a folder with one run per training job: its hyper-parameters, its epochs and
what its model came to on each case. Nothing is sent anywhere.

Examples:
  coord export full --out results.parquet
  coord export full --what predictions --out predictions.parquet
  coord export full --format csv | head
  coord export full --format mlflow --out mlruns     then: mlflow ui --backend-store-uri mlruns
  coord export full --format wandb --out runs        then: wandb sync runs/offline-run-*

In Python:
  import polars as pl
  results = pl.read_parquet(\"results.parquet\")
  print(results.group_by(\"method\", \"rate\", \"metric\").agg(pl.col(\"value\").mean()))")]
pub(crate) struct ExportArgs {
    /// The sweep: its name, its id, or the beginning of its id
    sweep: String,
    /// What to export as a table [default: results]
    #[arg(long, value_enum)]
    what: Option<What>,
    /// The format [default: by the file's extension; csv without a file]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// The file [default: standard output, csv only]; for mlflow and wandb, a new folder
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Exports a sweep.
///
/// # Errors
///
/// An unknown sweep; the database cannot be reached; the file cannot be written.
pub(crate) async fn run(args: ExportArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    if let Some(tracker) = args.format.and_then(Format::tracker) {
        let Some(out) = &args.out else {
            return Err(hinted(
                "a tracker's runs need a folder",
                "name it with --out FOLDER",
            )
            .into());
        };
        ensure!(
            args.what.is_none(),
            "--what is for tables: a tracker's run has all of its training"
        );
        return trackers::run(tracker, &args.sweep, out, settings).await;
    }
    let format = match (args.format, &args.out) {
        (Some(Format::Parquet), _) => Table::Parquet,
        (Some(_), _) | (None, None) => Table::Csv,
        (None, Some(path)) => match path.extension().and_then(|extension| extension.to_str()) {
            Some("parquet") => Table::Parquet,
            Some("csv") => Table::Csv,
            _ => anyhow::bail!(
                "{} ends in neither .parquet nor .csv: select the format with --format",
                path.display()
            ),
        },
    };
    ensure!(
        format == Table::Csv || args.out.is_some(),
        "Parquet needs a file: name it with --out FILE"
    );
    let database = Database::open(settings).await?;
    let outcome = export(&args, format, &database).await;
    database.close().await;
    let rows = outcome?;
    match (&args.out, settings.json) {
        (Some(path), true) => {
            let path = path.display().to_string();
            say_json(&serde_json::json!({ "file": path, "rows": rows }).to_string());
        }
        (Some(path), false) => say(&format!("{}: {rows} rows", path.display())),
        // Standard output has the rows.
        (None, _) => {}
    }
    Ok(ExitCode::SUCCESS)
}

async fn export(args: &ExportArgs, format: Table, store: &Store) -> anyhow::Result<u64> {
    let sweep = store.find_sweep(&args.sweep).await?;
    let what = args.what.unwrap_or(What::Results).into();
    let mut writer = Writer::new(args.out.as_deref(), format, fields(what))?;
    let mut count = 0;
    let write = |rows| -> Result<(), ExportError> {
        let page = Page::new(&sweep.name, &rows);
        count += page.rows() as u64;
        Ok(writer.write(&page)?)
    };
    export_rows(store, sweep.id, what, write)
        .await
        .with_context(|| format!("cannot export sweep {}", sweep.name))?;
    writer.finish()?;
    Ok(count)
}

/// Why rows cannot be exported.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExportError {
    /// They cannot be read.
    #[error(transparent)]
    Read(#[from] ResultsError),
    /// They cannot be written.
    #[error(transparent)]
    Write(#[from] FileError),
}

impl Hint for ExportError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Read(error) => error.hint(),
            Self::Write(_) => None,
        }
    }
}

/// The form of what is exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// Columns, compressed; for pandas, polars, DuckDB, R
    Parquet,
    /// Text with a header line; missing values are empty
    Csv,
    /// MLflow's file store: a folder for --backend-store-uri
    Mlflow,
    /// Offline runs of Weights & Biases: folders for `wandb sync`
    Wandb,
}

impl Format {
    fn tracker(self) -> Option<Tracker> {
        match self {
            Self::Parquet | Self::Csv => None,
            Self::Mlflow => Some(Tracker::Mlflow),
            Self::Wandb => Some(Tracker::Wandb),
        }
    }
}

/// What can be exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum What {
    /// Every metric of every evaluation
    Results,
    /// Our means and the published numbers
    Comparison,
    /// Losses and metrics of every training epoch
    Epochs,
    /// The predictions of every model for every test sample
    Predictions,
}

impl From<What> for Export {
    fn from(what: What) -> Self {
        match what {
            What::Results => Export::Results,
            What::Comparison => Export::Comparison,
            What::Epochs => Export::Epochs,
            What::Predictions => Export::Predictions,
        }
    }
}
