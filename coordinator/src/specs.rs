//! From a spec's file to a sweep: reads it, finds the files it names on this machine, submits it.

use crate::{
    data::{
        protocol,
        synthesize::{self, Vocabulary},
    },
    encoders,
    file_hashes::FileHashes,
    programs::{Part, Programs},
    store::{
        Store, StoreError,
        submit::{NewJob, NewSweep, NewWork, Submitted},
    },
};
use missbench_shared::{
    dataset::{DataFolder, Dataset, Kind, Manifest, Source, layout::MANIFEST_FILE},
    encoder::TextFacts,
    ids::SweepId,
    matrix::{self, PlannedJob, PlannedWork},
    spec::{
        self, DatasetSpec, Files, FoundDataset, FoundEncoder, ResolvedSpec, Spec, SpecError,
        SynthesizeSpec,
    },
    wire::BlobRef,
};
use std::{
    collections::BTreeMap,
    fs::File,
    io::Read as _,
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
    let text = read_text(path).map_err(|source| LoadError::Unreadable {
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
        hashes: FileHashes::open(data_dir),
        encoders: spec
            .encoders
            .iter()
            .map(|(language, encoder)| (language.clone(), encoder.path.clone()))
            .collect(),
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
    files.hashes.keep();
    Ok(Loaded {
        text,
        spec,
        resolved: Arc::new(resolved),
        to_make: files.to_make,
    })
}

/// The text of a file; of one that is too large to be a spec only as much as shows that.
fn read_text(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let limit = spec::MAX_BYTES as u64 + 1;
    File::open(path)?.take(limit).read_to_string(&mut text)?;
    Ok(text)
}

/// The files of this machine.
struct LocalFiles {
    /// The spec's folder.
    base: PathBuf,
    folder: DataFolder,
    programs: Programs,
    hashes: FileHashes,
    /// The spec's encoder paths by language.
    encoders: BTreeMap<String, String>,
    making: Making,
    to_make: Vec<String>,
}

impl LocalFiles {
    /// A dataset of the data folder. Its manifest has the hash; finished files are never written
    /// to, so that one of the right size is believed.
    fn named(&self, name: &str, wanted: &DatasetSpec) -> Result<FoundDataset, String> {
        let manifest = self.folder.manifest(name).map_err(|e| e.to_string())?;
        let path = self.folder.data_file(name);
        let again = format!("import it again with `coord data import --name {name} --replace`");
        let bytes = std::fs::metadata(&path)
            .map_err(|e| format!("{} cannot be read: {e}; {again}", path.display()))?
            .len();
        if bytes != manifest.bytes {
            return Err(format!(
                "{} has {bytes} bytes, its manifest says {}; {again}",
                path.display(),
                manifest.bytes
            ));
        }
        if let Some(made) = &wanted.synthesize {
            as_wanted(name, &self.folder.dataset_dir(name), &manifest, made)?;
        }
        let dataset = Dataset::open(&path).map_err(|e| e.to_string())?;
        Ok(FoundDataset {
            blob: BlobRef {
                blake3: manifest.blake3.clone(),
                path: path.display().to_string(),
            },
            kind: manifest.kind,
            texts: Some(TextFacts::of(&dataset)),
        })
    }

    /// Makes a synthetic dataset, in the words of the encoder that will read it.
    fn make(
        &self,
        name: &str,
        follows: Kind,
        spec: &DatasetSpec,
        made: &SynthesizeSpec,
    ) -> Result<(), String> {
        let vocabulary = self.vocabulary(follows, spec)?;
        let settings = synthesize::Settings {
            samples: [made.train, made.valid, made.test],
            ..synthesize::Settings::small(follows, made.seed)
        };
        synthesize::synthesize(
            &settings,
            &vocabulary,
            name,
            &self.folder,
            false,
            &mut |_, _, _| {},
        )
        .map(drop)
        .map_err(|e| e.to_string())
    }

    /// The words that a synthetic dataset is made of.
    fn vocabulary(&self, follows: Kind, spec: &DatasetSpec) -> Result<Vocabulary, String> {
        let language = spec.language.as_deref().unwrap_or(follows.language());
        let encoder = self.encoders.get(language);
        let encoder = encoder.ok_or_else(|| format!("there is no encoder for `{language}`"))?;
        Vocabulary::read(&self.encoder_folder(encoder)?.join("vocab.txt"))
            .map_err(|e| e.to_string())
    }

    fn encoder_folder(&self, path: &str) -> Result<PathBuf, String> {
        match path.strip_prefix("encoder:") {
            Some("en") => self.part(Part::EncoderEn),
            Some("zh") => self.part(Part::EncoderZh),
            Some(other) => Err(format!(
                "there is no `encoder:{other}`: write `encoder:en`, `encoder:zh` or a folder"
            )),
            None => Ok(self.base.join(path)),
        }
    }

    fn part(&self, part: Part) -> Result<PathBuf, String> {
        let found = self.programs.find(part);
        found.map(|found| found.path).map_err(|e| e.to_string())
    }

    /// A dataset file that lies anywhere.
    fn file(&mut self, path: &Path) -> Result<FoundDataset, String> {
        let dataset = Dataset::open(path).map_err(|e| e.to_string())?;
        let unreadable = |e: std::io::Error| format!("{} cannot be read: {e}", path.display());
        let path = path.canonicalize().map_err(unreadable)?;
        let blake3 = self.hashes.get(&path).map_err(unreadable)?;
        Ok(FoundDataset {
            blob: BlobRef {
                blake3,
                path: path.display().to_string(),
            },
            kind: dataset.kind(),
            texts: Some(TextFacts::of(&dataset)),
        })
    }
}

/// Whether a dataset that is there is the one that `made` asks for.
fn as_wanted(
    name: &str,
    dir: &Path,
    manifest: &Manifest,
    made: &SynthesizeSpec,
) -> Result<(), String> {
    let Source::Synthesize { seed, settings } = &manifest.source else {
        return Err(format!(
            "the data folder has a dataset `{name}` that was imported, not made: give the \
             synthetic one another name"
        ));
    };
    let samples = serde_json::json!([made.train, made.valid, made.test]);
    if *seed == made.seed && settings.get("samples") == Some(&samples) {
        return Ok(());
    }
    Err(format!(
        "the dataset `{name}` was made with seed {seed} and {} samples, the spec asks for seed {} \
         and {samples}: name another in `file`, or remove the folder {}",
        settings.get("samples").unwrap_or(&serde_json::Value::Null),
        made.seed,
        dir.display()
    ))
}

impl Files for LocalFiles {
    fn dataset(&mut self, name: &str, spec: &DatasetSpec) -> Result<FoundDataset, String> {
        let Some(kept) = spec.file.strip_prefix("dataset:") else {
            let path = self.base.join(&spec.file);
            return self.file(&path);
        };
        if self.folder.dataset_dir(kept).join(MANIFEST_FILE).exists() {
            return self.named(kept, spec);
        }
        let follows = spec.kind(name);
        match (&spec.synthesize, follows) {
            (Some(_), Some(follows)) if self.making == Making::Note => {
                // What making it would stumble over is told now.
                self.vocabulary(follows, spec)?;
                self.to_make.push(kept.to_owned());
                Ok(FoundDataset {
                    blob: BlobRef {
                        blake3: String::new(),
                        path: self.folder.data_file(kept).display().to_string(),
                    },
                    kind: follows,
                    texts: None,
                })
            }
            (Some(made), Some(follows)) => {
                self.make(kept, follows, spec, made)?;
                self.named(kept, spec)
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
                         import {} FILE --name {kept}`",
                        self.folder.root().display(),
                        follows.map_or_else(|| format!("--as {name}"), protocol::as_options)
                    ),
                })
            }
        }
    }

    fn encoder(&mut self, _language: &str, path: &str) -> Result<FoundEncoder, String> {
        let folder = self.encoder_folder(path)?;
        let examined =
            encoders::examine(&folder, &mut self.hashes).map_err(|error| error.to_string())?;
        let folder = folder
            .canonicalize()
            .map_err(|e| format!("{} cannot be read: {e}", folder.display()))?;
        Ok(FoundEncoder {
            blob: BlobRef {
                blake3: examined.identity.as_str().to_owned(),
                path: folder.display().to_string(),
            },
            facts: examined.facts,
        })
    }
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
mod tests;
