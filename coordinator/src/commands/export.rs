//! `coord export`: results as files for notebooks.

use super::formats::FileFormat;
use crate::{
    config::Settings,
    local::connect::Database,
    output::{say, say_json},
};
use anyhow::{Context as _, ensure};
use halfheard_results::export::{
    columns::{Page, fields},
    file::{FileError, Format, Writer},
};
use halfheard_shared::{error::Hint, results::Export};
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

Examples:
  coord export full --out results.parquet
  coord export full --what predictions --out predictions.parquet
  coord export full --format csv | head

In Python:
  import polars as pl
  results = pl.read_parquet(\"results.parquet\")
  print(results.group_by(\"method\", \"rate\", \"metric\").agg(pl.col(\"value\").mean()))")]
pub(crate) struct ExportArgs {
    /// The sweep: its name, its id, or the beginning of its id
    sweep: String,
    /// What to export
    #[arg(long, value_enum, default_value_t = What::Results)]
    what: What,
    /// The format [default: by the file's extension; csv without a file]
    #[arg(long, value_enum)]
    format: Option<FileFormat>,
    /// The file [default: standard output, csv only]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Exports a sweep.
///
/// # Errors
///
/// An unknown sweep; the database cannot be reached; the file cannot be written.
pub(crate) async fn run(args: ExportArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let format = match (args.format, &args.out) {
        (Some(format), _) => format.into(),
        (None, None) => Format::Csv,
        (None, Some(path)) => match path.extension().and_then(|extension| extension.to_str()) {
            Some("parquet") => Format::Parquet,
            Some("csv") => Format::Csv,
            _ => anyhow::bail!(
                "{} ends in neither .parquet nor .csv: select the format with --format",
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
            say_json(&serde_json::json!({ "file": path, "rows": rows }).to_string());
        }
        (Some(path), false) => say(&format!("{}: {rows} rows", path.display())),
        // Standard output has the rows.
        (None, _) => {}
    }
    Ok(ExitCode::SUCCESS)
}

async fn export(args: &ExportArgs, format: Format, store: &Store) -> anyhow::Result<u64> {
    let sweep = store.find_sweep(&args.sweep).await?;
    let what = args.what.into();
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
