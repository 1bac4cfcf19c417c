//! Arguments.

use std::path::PathBuf;

/// Arguments of `coord predictions`.
#[derive(clap::Args, Debug)]
pub(crate) struct PredictionsArgs {
    #[command(subcommand)]
    pub(super) command: PredictionsCommand,
}

#[derive(clap::Subcommand, Debug)]
pub(super) enum PredictionsCommand {
    /// Import a model's predictions: it takes its place in all tables, figures and tests
    Import(ImportArgs),
    /// Delete imported predictions from a sweep
    Delete(DeleteArgs),
}

#[derive(clap::Args, Debug)]
#[command(after_help = "\
Layouts, one value for each sample of the test split and each case of the sweep (or some of them):
  .csv, .parquet   columns sample, case, prediction
  .npz             an array for each case, named r=0, r=0.1, missing=la, …, and perhaps an array `sample`

A sample is its id in the dataset (video$_$clip) or its place in the test split, from 0. `coord cases
export` writes what the model must be given. Metrics are computed here, from the labels in the database.
A second import of the same values changes nothing; other values under the same name are refused.

Examples:
  coord predictions import mine.csv --method my-model --seed 1111
  coord predictions import mine.npz --method my-model --variant no-audio --sweep benchmark --dataset mosi
  coord table 2")]
pub(super) struct ImportArgs {
    /// The predictions
    pub(super) file: PathBuf,
    /// The method's id in tables: lower-case letters, digits, `-`, `_` and `.`
    #[arg(long, value_name = "ID", value_parser = method)]
    pub(super) method: String,
    /// The variant's id
    #[arg(long, value_name = "ID", default_value = "", value_parser = id, hide_default_value = true)]
    pub(super) variant: String,
    /// The seed that the model was trained with: means and deviations are over seeds
    #[arg(long, default_value_t = 1111, value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64))]
    pub(super) seed: u64,
    /// The sweep to add it to: its name, its id, or the beginning of its id [default: the newest]
    #[arg(long)]
    pub(super) sweep: Option<String>,
    /// The dataset, by its name in the sweep [default: the sweep's only one]
    #[arg(long)]
    pub(super) dataset: Option<String>,
}

#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  coord predictions delete --method my-model --seed 1111")]
pub(super) struct DeleteArgs {
    /// The method's id
    #[arg(long, value_name = "ID", value_parser = method)]
    pub(super) method: String,
    /// The variant's id
    #[arg(long, value_name = "ID", default_value = "", value_parser = id, hide_default_value = true)]
    pub(super) variant: String,
    /// Only those of this seed [default: all]
    #[arg(long)]
    pub(super) seed: Option<u64>,
    /// The sweep: its name, its id, or the beginning of its id [default: the newest]
    #[arg(long)]
    pub(super) sweep: Option<String>,
    /// Do not ask
    #[arg(long)]
    pub(super) yes: bool,
}

/// An id that a method of the registry does not have.
fn method(text: &str) -> Result<String, String> {
    if let Some(known) = halfheard_shared::methods::find(text) {
        return Err(format!(
            "`{text}` is {}, which workers compute; give yours another id",
            known.name
        ));
    }
    if text.is_empty() {
        return Err("it must not be empty".to_owned());
    }
    id(text)
}

fn id(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
    if text.len() > 64 || !text.chars().all(fits) {
        return Err("expected up to 64 lower-case letters, digits, `-`, `_` and `.`".to_owned());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_imported_methods_are_their_own() {
        assert_eq!(method("my-model_2.1").unwrap(), "my-model_2.1");
        assert!(method("lnln").unwrap_err().contains("LNLN"));
        for wrong in ["", "My", "a b", "a/b", "a\u{1b}[0m", &"x".repeat(65)] {
            assert!(method(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(id("").unwrap(), "");
    }
}
