//! Draws figures: loads what they need from the database, the data folder and the artifact store.

use halfheard_results::figures::{
    self, Figure, FigureError, Inputs, Kind, LoadedFeatures, NeededFeatures, Needs, Request,
    SplitCounts,
};
use halfheard_shared::{
    address::redacted,
    artifacts::{ArtifactError, ArtifactStore, Key},
    broker::{BrokerError, BrokerSettings},
    case::Case,
    dataset::{DataFolder, DatasetError, Split},
    error::Hint,
    features::{Features, FeaturesError, MAX_BYTES},
    results::{Predictions, Results},
};
use halfheard_store::results::{ResultsError, Snapshot};
use std::{collections::HashMap, path::Path, sync::Arc};

/// Where figures find what is not in the database.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a> {
    /// The URL of the artifact store.
    pub artifacts: &'a str,
    /// The folder of imported datasets.
    pub data_dir: &'a Path,
    /// The broker, for artifacts in its object store.
    pub broker: &'a BrokerSettings,
}

/// Why a figure cannot be drawn.
#[derive(Debug, thiserror::Error)]
pub enum DrawError {
    /// The request does not fit, or results are missing.
    #[error(transparent)]
    Figure(#[from] FigureError),
    /// The database.
    #[error(transparent)]
    Results(#[from] ResultsError),
    /// The data folder.
    #[error(transparent)]
    Data(#[from] DatasetError),
    /// The artifact store.
    #[error(transparent)]
    Artifacts(#[from] ArtifactError),
    /// The broker, which keeps the artifacts.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// Damaged features.
    #[error("cannot read features {key}")]
    Damaged {
        /// Their key in the artifact store.
        key: String,
        /// The cause.
        source: FeaturesError,
    },
    /// The drawing thread panicked.
    #[error("drawing failed")]
    Thread(#[from] tokio::task::JoinError),
}

impl Hint for DrawError {
    fn hint(&self) -> Option<String> {
        match self {
            DrawError::Figure(error) => error.hint(),
            DrawError::Results(error) => error.hint(),
            DrawError::Artifacts(error) => error.hint(),
            DrawError::Broker(error) => error.hint(),
            DrawError::Data(_) | DrawError::Damaged { .. } | DrawError::Thread(_) => None,
        }
    }
}

impl DrawError {
    /// Whether a report goes on without the figure: the sweep lacks its results, or data and artifacts
    /// are out of reach.
    pub fn is_missing(&self) -> bool {
        match self {
            DrawError::Figure(error) => error.is_missing(),
            error => error.is_out_of_reach(),
        }
    }

    /// Whether data or artifacts are out of reach.
    pub fn is_out_of_reach(&self) -> bool {
        matches!(
            self,
            DrawError::Artifacts(_)
                | DrawError::Broker(_)
                | DrawError::Data(_)
                | DrawError::Damaged { .. }
        )
    }
}

/// Draws a figure of a sweep. `results` have their checkpoints if the figure shows features; with
/// `predictions` that include those of the figure, none are read.
///
/// # Errors
///
/// See [`DrawError`].
pub async fn draw(
    snapshot: &mut Snapshot,
    results: &Arc<Results>,
    predictions: Option<&Predictions>,
    sources: Sources<'_>,
    kind: Kind,
    request: &Request,
) -> Result<Figure, DrawError> {
    let mut inputs = Inputs {
        artifacts: redacted(sources.artifacts),
        ..Inputs::default()
    };
    match figures::needs(results, kind, request)? {
        Needs::Nothing => {}
        Needs::Splits => inputs.splits = splits(results, sources.data_dir)?,
        Needs::Predictions(filter) => {
            inputs.predictions = match predictions {
                // Vectors are shared, not copied.
                Some(predictions) => predictions.clone(),
                None => snapshot.predictions(&filter).await?,
            }
        }
        Needs::Features(needed) => inputs.features = features(needed, sources).await?,
    }
    let (results, request) = (Arc::clone(results), request.clone());
    let draw = move || figures::draw(&results, kind, &request, &inputs);
    Ok(tokio::task::spawn_blocking(draw).await??)
}

/// The label counts of the datasets in the data folder that have a sweep's files, by hash.
fn splits(
    results: &Results,
    data_dir: &Path,
) -> Result<HashMap<String, Vec<SplitCounts>>, DatasetError> {
    let folder = DataFolder::new(data_dir);
    let mut splits = HashMap::new();
    for name in folder.names()? {
        // An unreadable dataset is reported by `coord data list`.
        let Ok(manifest) = folder.manifest(&name) else {
            continue;
        };
        if !results
            .files
            .iter()
            .any(|file| file.blake3 == manifest.blake3)
        {
            continue;
        }
        let counts = [Split::Train, Split::Valid].into_iter();
        let counts = counts.filter_map(|split| {
            let counts = manifest.splits.get(&split)?.label_counts.clone();
            Some((split, counts))
        });
        splits
            .entry(manifest.blake3.clone())
            .or_insert_with(|| counts.collect());
    }
    Ok(splits)
}

async fn features(
    needed: Vec<NeededFeatures>,
    sources: Sources<'_>,
) -> Result<Vec<Option<LoadedFeatures>>, DrawError> {
    // Only its own object store needs the broker.
    let broker = if sources.artifacts.starts_with("nats:") {
        Some(sources.broker.connect().await?)
    } else {
        None
    };
    let artifacts = ArtifactStore::open(sources.artifacts, broker.as_ref()).await?;
    let mut loaded = Vec::with_capacity(needed.len());
    for needed in needed {
        loaded.push(first_seed(&needed, &artifacts).await?);
    }
    Ok(loaded)
}

/// The features of the first seed that has any.
async fn first_seed(
    needed: &NeededFeatures,
    artifacts: &ArtifactStore,
) -> Result<Option<LoadedFeatures>, DrawError> {
    for (seed, checkpoint) in &needed.checkpoints {
        let mut features = Vec::with_capacity(needed.rates.len());
        for &rate in &needed.rates {
            let key = Key::Features(checkpoint.clone(), Case::at_rate(rate));
            let bytes = artifacts.get(&key, MAX_BYTES).await?;
            let read = |bytes: Vec<u8>| {
                Features::from_bytes(&bytes).map_err(|source| DrawError::Damaged {
                    key: key.to_string(),
                    source,
                })
            };
            features.push(bytes.map(|bytes| read(bytes.into())).transpose()?);
        }
        if features.iter().any(Option::is_some) {
            return Ok(Some(LoadedFeatures {
                seed: *seed,
                features,
            }));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use halfheard_shared::{
        ids::SweepId,
        results::{Cells, Sweep},
    };
    use std::time::SystemTime;

    #[test]
    fn empty_data_folder_has_no_splits() {
        let folder = tempfile::tempdir().unwrap();
        let results = Results {
            sweep: Sweep {
                id: SweepId::derive(&[]),
                name: String::new(),
                created: SystemTime::UNIX_EPOCH,
                spec: String::new(),
            },
            known: Vec::new(),
            cells: Cells::default(),
            cells_on_test: Cells::default(),
            tally: Vec::new(),
            jobs: None,
            protocols: Vec::new(),
            processors: Vec::new(),
            imported: Vec::new(),
            external: Vec::new(),
            files: Vec::new(),
            provenance: Vec::new(),
            checkpoints: Vec::new(),
            audit: None,
        };
        assert!(splits(&results, folder.path()).unwrap().is_empty());
    }
}
