//! From a spec's file to a sweep: reads it, finds the files it names on this machine, submits it.

use crate::{
    data::synthesize::{self, Vocabulary},
    programs::{Part, Programs},
    store::{
        Store, StoreError,
        submit::{NewJob, NewSweep, NewWork, Submitted},
    },
};
use missbench_shared::{
    artifacts::hash_file,
    benchmark::Benchmark,
    dataset::{DataFolder, Dataset, Kind, layout::MANIFEST_FILE},
    ids::SweepId,
    matrix::{self, PlannedJob, PlannedWork},
    spec::{
        self, DatasetSpec, Files, FoundDataset, FoundEncoder, ResolvedSpec, Spec, SpecError,
        SynthesizeSpec,
    },
    wire::BlobRef,
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// Why a spec cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It cannot be read.
    #[error("the spec {path} cannot be read: {source}")]
    Unreadable {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Something in it is wrong.
    #[error("{}", pretty(.0))]
    Wrong(Box<SpecError>),
}

/// The problems with their lines, as for a terminal.
fn pretty(error: &SpecError) -> String {
    use miette::{GraphicalReportHandler, GraphicalTheme, JSONReportHandler};
    use std::io::IsTerminal as _;
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let theme = if colour {
        GraphicalTheme::unicode()
    } else {
        GraphicalTheme::unicode_nocolor()
    };
    let mut out = String::new();
    let handler = GraphicalReportHandler::new_themed(theme).with_width(100);
    if handler.render_report(&mut out, error).is_err() {
        out.clear();
        // A writer into a String does not fail; should it, the plain form says the same.
        let _ = JSONReportHandler::new().render_report(&mut out, error);
    }
    out.trim_end().to_owned()
}

/// Whether synthetic datasets that are not there are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Making {
    /// Yes.
    Make,
    /// No: it is only noted that they would be.
    Note,
}

/// A spec with everything filled in.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Its text.
    pub text: String,
    /// As it says itself.
    pub spec: Spec,
    /// With everything filled in.
    pub resolved: Arc<ResolvedSpec>,
    /// Synthetic datasets that are still to be made: then hashes and ids are not known yet.
    pub to_make: Vec<String>,
}

/// Reads the spec at `path` and finds what it names.
///
/// # Errors
///
/// It cannot be read, or something in it is wrong; then nothing was written.
pub fn load(path: &Path, data_dir: &Path, making: Making) -> Result<Loaded, LoadError> {
    let text = std::fs::read_to_string(path).map_err(|source| LoadError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    let shown = path.display().to_string();
    let wrong = |error| LoadError::Wrong(Box::new(error));
    let spec = spec::read(&shown, &text).map_err(wrong)?;
    let mut files = LocalFiles {
        base: path.parent().unwrap_or(Path::new("")).to_owned(),
        folder: DataFolder::new(data_dir),
        programs: Programs::discover(),
        making: Making::Note,
        to_make: Vec::new(),
    };
    // First without making anything: a spec that is refused leaves nothing behind.
    let mut resolved = spec::resolve(&shown, &text, &spec, &mut files).map_err(wrong)?;
    if making == Making::Make && !files.to_make.is_empty() {
        files.making = Making::Make;
        files.to_make.clear();
        resolved = spec::resolve(&shown, &text, &spec, &mut files).map_err(wrong)?;
    }
    Ok(Loaded {
        text,
        spec,
        resolved: Arc::new(resolved),
        to_make: files.to_make,
    })
}

/// The files of this machine.
struct LocalFiles {
    /// The spec's folder.
    base: PathBuf,
    folder: DataFolder,
    programs: Programs,
    making: Making,
    to_make: Vec<String>,
}

fn benchmark(kind: Kind) -> Benchmark {
    match kind {
        Kind::Mosi => Benchmark::Mosi,
        Kind::Mosei => Benchmark::Mosei,
        Kind::Sims => Benchmark::Sims,
    }
}

fn kind(benchmark: Benchmark) -> Kind {
    match benchmark {
        Benchmark::Mosi => Kind::Mosi,
        Benchmark::Mosei => Kind::Mosei,
        Benchmark::Sims => Kind::Sims,
    }
}

impl LocalFiles {
    fn named(&self, name: &str) -> Result<FoundDataset, String> {
        let manifest = self.folder.manifest(name).map_err(|e| e.to_string())?;
        Ok(FoundDataset {
            blob: BlobRef {
                blake3: manifest.blake3,
                path: self.folder.data_file(name).display().to_string(),
            },
            benchmark: benchmark(manifest.kind),
        })
    }

    fn make(&self, name: &str, kind: Kind, made: &SynthesizeSpec) -> Result<(), String> {
        let encoder = self.programs.find(Part::EncoderEn);
        let encoder = encoder.map_err(|e| e.to_string())?;
        let vocabulary = Vocabulary::read(&encoder.path.join("vocab.txt"));
        let settings = synthesize::Settings {
            samples: [made.train, made.valid, made.test],
            ..synthesize::Settings::small(kind, made.seed)
        };
        synthesize::synthesize(
            &settings,
            &vocabulary.map_err(|e| e.to_string())?,
            name,
            &self.folder,
            false,
            &mut |_, _, _| {},
        )
        .map(drop)
        .map_err(|e| e.to_string())
    }
}

impl Files for LocalFiles {
    fn dataset(&mut self, name: &str, spec: &DatasetSpec) -> Result<FoundDataset, String> {
        let Some(kept) = spec.file.strip_prefix("dataset:") else {
            let path = self.base.join(&spec.file);
            return file(&path);
        };
        if self.folder.dataset_dir(kept).join(MANIFEST_FILE).exists() {
            return self.named(kept);
        }
        let follows = spec.benchmark.or_else(|| name.parse().ok());
        match (&spec.synthesize, follows) {
            (Some(_), Some(follows)) if self.making == Making::Note => {
                self.to_make.push(kept.to_owned());
                Ok(FoundDataset {
                    blob: BlobRef {
                        blake3: String::new(),
                        path: self.folder.data_file(kept).display().to_string(),
                    },
                    benchmark: follows,
                })
            }
            (Some(made), Some(follows)) => {
                self.make(kept, kind(follows), made)?;
                self.named(kept)
            }
            _ => {
                let names = self.folder.names().unwrap_or_default();
                let near =
                    missbench_shared::methods::nearest(kept, names.iter().map(String::as_str));
                Err(match near {
                    Some(near) => format!(
                        "the data folder has no dataset `{kept}`; did you mean `dataset:{near}`?"
                    ),
                    None => format!(
                        "the data folder {} has no dataset `{kept}`: import it with `coord data \
                         import --as {name} FILE --name {kept}`",
                        self.folder.root().display()
                    ),
                })
            }
        }
    }

    fn encoder(&mut self, language: &str, path: &str) -> Result<FoundEncoder, String> {
        let folder = match path.strip_prefix("encoder:") {
            Some("en") => self.part(Part::EncoderEn)?,
            Some("zh") => self.part(Part::EncoderZh)?,
            Some(other) => {
                return Err(format!(
                    "there is no `encoder:{other}`: write `encoder:en`, `encoder:zh` or a folder"
                ));
            }
            None => self.base.join(path),
        };
        let there = |name: &str| {
            let file = folder.join(name);
            if file.is_file() {
                return Ok(file);
            }
            Err(format!(
                "the text encoder for `{language}` has no {}: an encoder is a folder in the \
                 Hugging Face layout, with config.json and model.safetensors",
                file.display()
            ))
        };
        there("config.json")?;
        let weights = there("model.safetensors")?;
        let unreadable = |e: std::io::Error| format!("{} cannot be read: {e}", weights.display());
        let hash = hash_file(&weights).map_err(unreadable)?;
        let folder = folder.canonicalize().map_err(unreadable)?;
        Ok(FoundEncoder {
            blob: BlobRef {
                blake3: hash.as_str().to_owned(),
                path: folder.display().to_string(),
            },
        })
    }
}

impl LocalFiles {
    fn part(&self, part: Part) -> Result<PathBuf, String> {
        let found = self.programs.find(part);
        found.map(|found| found.path).map_err(|e| e.to_string())
    }
}

/// A dataset file that lies anywhere.
fn file(path: &Path) -> Result<FoundDataset, String> {
    let dataset = Dataset::open(path).map_err(|e| e.to_string())?;
    let path = path.canonicalize().map_err(|e| e.to_string())?;
    Ok(FoundDataset {
        blob: BlobRef {
            blake3: dataset.blake3().to_hex().to_string(),
            path: path.display().to_string(),
        },
        benchmark: benchmark(dataset.kind()),
    })
}

/// A job of the matrix as the store takes it.
pub fn new_job(job: PlannedJob) -> NewJob {
    NewJob {
        id: job.id,
        work: match job.work {
            PlannedWork::Train(spec) => NewWork::Train(spec),
            PlannedWork::Eval { train, spec, case } => NewWork::Eval { train, spec, case },
        },
    }
}

/// Why a sweep could not be submitted.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// A dataset is not what it was a moment ago.
    #[error("the dataset {path} cannot be read: {reason}")]
    Dataset {
        /// Its file.
        path: String,
        /// Why.
        reason: String,
    },
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Submits a loaded spec: its datasets' labels, then the sweep and its jobs in one transaction.
///
/// # Errors
///
/// The database's; a dataset that cannot be read.
pub async fn submit(
    store: &Store,
    loaded: &Loaded,
    nonce: Option<&str>,
) -> Result<(SweepId, Submitted), SubmitError> {
    for dataset in &loaded.resolved.datasets {
        let path = &dataset.data.path;
        let opened = Dataset::open(Path::new(path)).map_err(|e| SubmitError::Dataset {
            path: path.clone(),
            reason: e.to_string(),
        })?;
        store.add_dataset(&dataset.data.blake3, &opened).await?;
    }
    let id = loaded.resolved.sweep_id(nonce);
    let sweep = NewSweep {
        id,
        name: loaded.resolved.name.clone(),
        nonce: nonce.map(str::to_owned),
        spec: loaded.text.clone(),
        // A resolved spec holds strings, numbers and lists only: it always writes.
        resolved: serde_json::to_value(&*loaded.resolved).unwrap_or_default(),
        priority: loaded.spec.priority,
    };
    let jobs = matrix::expand(loaded.resolved.clone(), id).map(new_job);
    let submitted = store.submit(&sweep, jobs).await?;
    Ok((id, submitted))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, text: &str) -> PathBuf {
        let path = folder.join("spec.toml");
        std::fs::write(&path, text).unwrap();
        path
    }

    const SPEC: &str = "name = \"x\"\nmethods = [\"almt\"]\nseeds = [1]\nrates = [0.0]\n\
                        [datasets.mosi]\nfile = \"dataset:toy\"\n\
                        [encoders.en]\npath = \"enc\"\n";

    #[test]
    fn what_is_missing_is_told_with_its_line_and_nothing_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = write(folder.path(), SPEC);
        let data = folder.path().join("data");
        let error = load(&path, &data, Making::Make).unwrap_err().to_string();
        assert!(error.contains("coord data import --as mosi"), "{error}");
        assert!(error.contains("enc/config.json"), "{error}");
        assert!(error.contains("spec.toml:6"), "{error}");
        assert!(!data.exists());
    }

    #[test]
    fn an_unknown_key_is_told_with_the_nearest() {
        let folder = tempfile::tempdir().unwrap();
        let path = write(folder.path(), &SPEC.replace("seeds", "seedz"));
        let error = load(&path, folder.path(), Making::Note).unwrap_err();
        assert!(
            error.to_string().contains("did you mean `seeds`?"),
            "{error}"
        );
    }
}
