//! `coord predictions import`.

use super::{args::ImportArgs, test_split::TestSplit};
use crate::{commands::table::named_or_newest, config::Settings};
use halfheard_import::predictions::{arrange, read};
use halfheard_shared::{error::hinted, hash::hash_file, ids::SweepId, results::Model, text::count};
use halfheard_store::{Store, imported::ImportedModel};
use serde::Serialize;
use std::fmt;

#[derive(Serialize)]
pub(super) struct ImportReport {
    sweep: SweepId,
    name: String,
    method: String,
    variant: String,
    seed: u64,
    dataset: String,
    samples: usize,
    /// The cases whose predictions are new.
    stored: Vec<String>,
    /// Those that were there already, the same.
    unchanged: Vec<String>,
}

impl fmt::Display for ImportReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let model = Model::new(self.method.as_str(), self.variant.as_str());
        write!(f, "{model}, seed {}, on {}: ", self.seed, self.dataset)?;
        if self.stored.is_empty() {
            return writeln!(f, "nothing new; {} unchanged", cases(&self.unchanged));
        }
        write!(
            f,
            "{} of {} imported into {} ({})",
            cases(&self.stored),
            count(self.samples, "sample"),
            self.name,
            self.sweep.short()
        )?;
        match self.unchanged.len() {
            0 => writeln!(f),
            _ => writeln!(f, ", {} unchanged", cases(&self.unchanged)),
        }
    }
}

fn cases(cases: &[String]) -> String {
    count(cases.len(), "case")
}

/// Imports a file into a sweep.
///
/// # Errors
///
/// See [`super::run`].
pub(super) async fn import(
    args: &ImportArgs,
    settings: &Settings,
    store: &Store,
) -> anyhow::Result<ImportReport> {
    let rows = read(&args.file)?;
    let sweep = named_or_newest(store, args.sweep.as_deref()).await?;
    let dataset = match &args.dataset {
        Some(dataset) => dataset.clone(),
        None => only(store.datasets_of(sweep.id).await?, &sweep.name)?,
    };
    let split = TestSplit::load(store, sweep.id, &dataset, settings).await?;
    let ids = split.ids();
    let values = arrange(&rows, ids.as_deref(), split.samples)?;
    let file = args.file.file_name().unwrap_or(args.file.as_os_str());
    let hash = hash_file(&args.file)?;
    let source = format!("{}, BLAKE3 {}", file.display(), &hash.as_str()[..12]);
    let host = nix::unistd::gethostname().unwrap_or_default();
    let model = ImportedModel {
        method: &args.method,
        variant: &args.variant,
        seed: args.seed,
        dataset: &dataset,
        source: &source,
        host: &host.to_string_lossy(),
        cases: &values,
    };
    let imported = store.import_predictions(sweep.id, &model).await?;
    let names = |cases: Vec<_>| cases.iter().map(ToString::to_string).collect();
    Ok(ImportReport {
        sweep: sweep.id,
        name: sweep.name,
        method: args.method.clone(),
        variant: args.variant.clone(),
        seed: args.seed,
        samples: split.samples,
        dataset,
        stored: names(imported.stored),
        unchanged: names(imported.unchanged),
    })
}

/// The only dataset of a sweep.
fn only(mut datasets: Vec<String>, sweep: &str) -> anyhow::Result<String> {
    match datasets.len() {
        1 => Ok(datasets.remove(0)),
        0 => Err(hinted(
            format!("the sweep {sweep} has no jobs on any dataset"),
            "name another with --sweep",
        )
        .into()),
        _ => Err(hinted(
            format!("the sweep {sweep} uses {}", datasets.join(", ")),
            "say which one with --dataset",
        )
        .into()),
    }
}
