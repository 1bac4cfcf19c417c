//! Finds what a spec names on this machine: datasets in the data folder or elsewhere, and encoders.

use super::{
    encoders::{self, ExamineError},
    program::{self, Bundles, FindError},
    protocol,
};
use crate::local::programs::{Part, ProgramError, Programs};
use halfheard_import::synthesize::{self, SynthesizeError, Vocabulary, VocabularyError};
use halfheard_shared::{
    dataset::{
        DataFolder, Dataset, DatasetError, Kind, Manifest, Source, Split, layout::MANIFEST_FILE,
    },
    encoder::{Config as EncoderConfig, EncoderError, TextFacts, vocabulary},
    erasure::{ConfusionTable, WordConfusions, WordError},
    error::{Hint, chain},
    hash::Hash,
    hash_cache::HashCache,
    methods::{DataFacts, EncoderShape, nearest},
    spec::{
        DatasetSpec, ExternalSpec, Files, FoundDataset, FoundEncoder, FoundProgram, Spec,
        SynthesizeSpec,
    },
    wire::BlobRef,
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Why something that a spec names cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    #[error(transparent)]
    Encoder(#[from] ExamineError),
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error(transparent)]
    External(#[from] FindError),
    #[error(transparent)]
    Vocabulary(#[from] VocabularyError),
    #[error(transparent)]
    Synthesize(#[from] SynthesizeError),
    #[error("cannot read {path}")]
    Unreadable {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{path} has {bytes} bytes, its manifest says {expected}")]
    Size {
        name: String,
        path: PathBuf,
        bytes: u64,
        expected: u64,
    },
    #[error("the data folder has a dataset `{0}` that was imported, not synthesized")]
    Imported(String),
    #[error(
        "dataset `{name}` was made with seed {seed} and {samples} samples, the spec asks for seed \
         {wanted_seed} and {wanted_samples}"
    )]
    OtherSettings {
        name: String,
        folder: PathBuf,
        seed: u64,
        samples: String,
        wanted_seed: u64,
        wanted_samples: String,
    },
    #[error("the data folder {folder} has no dataset `{name}`")]
    UnknownDataset {
        name: String,
        folder: PathBuf,
        nearest: Option<String>,
        /// Options of `coord data import` for the protocol.
        options: String,
    },
    #[error("the spec has no encoder for `{0}`")]
    NoEncoder(String),
    #[error("unknown encoder `encoder:{0}`")]
    UnknownEncoder(String),
    #[error("there is no built-in table of what words of `{0}` are heard as")]
    NoConfusions(String),
    #[error(transparent)]
    Confusions(#[from] WordError),
    #[error(transparent)]
    EncoderVocabulary(#[from] Box<EncoderError>),
}

impl Hint for FileError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Size { name, .. } => {
                format!("import it again with `coord data import --name {name} --replace`")
            }
            Self::Imported(_) => "give the synthetic one another name".to_owned(),
            Self::OtherSettings { folder, .. } => format!(
                "name another dataset in `file`, or remove the folder {}",
                folder.display()
            ),
            Self::UnknownDataset {
                nearest: Some(nearest),
                ..
            } => format!("did you mean `dataset:{nearest}`?"),
            Self::UnknownDataset { name, options, .. } => {
                format!("import it with `coord data import {options} FILE --name {name}`")
            }
            Self::UnknownEncoder(_) => {
                "write `encoder:en`, `encoder:zh` or the path of a folder".to_owned()
            }
            Self::Encoder(error) => return error.hint(),
            Self::Program(error) => return error.hint(),
            Self::External(error) => return error.hint(),
            Self::Confusions(error) => return error.hint(),
            Self::NoConfusions(_) => {
                "name a file of lines `word<TAB>heard as<TAB>weight`".to_owned()
            }
            // An encoder's message contains the remedy.
            Self::Dataset(_)
            | Self::EncoderVocabulary(_)
            | Self::Vocabulary(_)
            | Self::Synthesize(_)
            | Self::Unreadable { .. }
            | Self::NoEncoder(_) => return None,
        })
    }
}

fn unreadable(path: &Path) -> impl FnOnce(std::io::Error) -> FileError {
    let path = path.to_owned();
    move |source| FileError::Unreadable { path, source }
}

/// The files of this machine.
pub(super) struct LocalFiles {
    /// The spec's folder.
    base: PathBuf,
    folder: DataFolder,
    programs: Programs,
    hashes: HashCache,
    /// The spec's encoder paths by language.
    encoders: BTreeMap<String, String>,
    /// Whether missing synthetic datasets are created.
    create: bool,
    pending: Vec<String>,
    /// What is known of the sizes of files and encoders.
    sizes: Sizes,
    /// Each external program as it was found first: a file may change meanwhile.
    found: BTreeMap<String, FoundProgram>,
    /// Their bundles.
    bundles: Bundles,
}

/// The sizes of files and encoders by their paths, as far as known.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sizes {
    pub(super) data: BTreeMap<String, DataFacts>,
    pub(super) encoders: BTreeMap<String, EncoderShape>,
}

/// What was found, beside what the resolved spec has.
pub(super) struct Rest {
    /// The datasets that are still missing.
    pub(super) pending: Vec<String>,
    /// What is known of the sizes of files and encoders.
    pub(super) sizes: Sizes,
    /// The files of external programs.
    pub(super) bundles: Bundles,
}

impl LocalFiles {
    /// Finds files for the spec at `path`, at first without creating any.
    pub(super) fn new(path: &Path, data_dir: &Path, spec: &Spec) -> Self {
        let encoders = spec.encoders.iter();
        Self {
            base: path.parent().unwrap_or(Path::new("")).to_owned(),
            folder: DataFolder::new(data_dir),
            programs: Programs::discover(),
            hashes: HashCache::open(data_dir),
            encoders: encoders
                .map(|(language, encoder)| (language.clone(), encoder.path.clone()))
                .collect(),
            create: false,
            pending: Vec::new(),
            sizes: Sizes::default(),
            found: BTreeMap::new(),
            bundles: Bundles::new(),
        }
    }

    /// From now on creates missing synthetic datasets. Returns whether any are missing.
    pub(super) fn plan_finished(&mut self) -> bool {
        self.create = true;
        !std::mem::take(&mut self.pending).is_empty()
    }

    /// Saves the hashes of files. Returns what else is known.
    pub(super) fn finish(mut self) -> Rest {
        self.hashes.save();
        Rest {
            pending: self.pending,
            sizes: self.sizes,
            bundles: self.bundles,
        }
    }

    fn find_dataset(&mut self, name: &str, spec: &DatasetSpec) -> Result<FoundDataset, FileError> {
        let Some(kept) = spec.file.strip_prefix("dataset:") else {
            let path = self.base.join(&spec.file);
            return self.file(&path);
        };
        if self.folder.dataset_dir(kept).join(MANIFEST_FILE).exists() {
            return self.named(kept, spec);
        }
        let kind = spec.kind(name);
        let (Some(settings), Some(kind)) = (&spec.synthesize, kind) else {
            let names = self.folder.names().unwrap_or_default();
            let nearest = nearest(kept, names.iter().map(String::as_str));
            return Err(FileError::UnknownDataset {
                name: kept.to_owned(),
                folder: self.folder.root().to_owned(),
                nearest,
                options: kind.map_or_else(|| format!("--as {name}"), protocol::as_options),
            });
        };
        if self.create {
            self.synthesize(kept, kind, spec, settings)?;
            return self.named(kept, spec);
        }
        // Report now what would fail later.
        self.vocabulary(kind, spec)?;
        self.pending.push(kept.to_owned());
        let small = synthesize::Settings::small(kind, settings.seed);
        Ok(FoundDataset {
            blob: BlobRef {
                blake3: String::new(),
                path: self.folder.data_file(kept).display().to_string(),
            },
            kind,
            facts: Some(DataFacts {
                shapes: small.shapes,
                samples: [settings.train, settings.valid, settings.test],
                tokens: None,
            }),
            texts: None,
            labels: None,
        })
    }

    /// Finds a dataset of the data folder. Its hash is that of the manifest: finished files are never
    /// modified, so one of the right size is trusted.
    fn named(&self, name: &str, spec: &DatasetSpec) -> Result<FoundDataset, FileError> {
        let manifest = self.folder.manifest(name)?;
        let path = self.folder.data_file(name);
        let bytes = std::fs::metadata(&path).map_err(unreadable(&path))?.len();
        if bytes != manifest.bytes {
            return Err(FileError::Size {
                name: name.to_owned(),
                path,
                bytes,
                expected: manifest.bytes,
            });
        }
        if let Some(settings) = &spec.synthesize {
            check_matches_spec(name, &self.folder.dataset_dir(name), &manifest, settings)?;
        }
        let dataset = Dataset::open(&path)?;
        Ok(FoundDataset {
            blob: BlobRef {
                blake3: manifest.blake3.clone(),
                path: path.display().to_string(),
            },
            kind: manifest.kind,
            facts: Some(facts(&manifest)),
            texts: Some(TextFacts::of(&dataset)),
            labels: Some(labels(&dataset)),
        })
    }

    /// Finds a dataset file anywhere else.
    fn file(&mut self, path: &Path) -> Result<FoundDataset, FileError> {
        let dataset = Dataset::open(path)?;
        let path = path.canonicalize().map_err(unreadable(path))?;
        let blake3 = self.hashes.get(&path).map_err(unreadable(&path))?;
        Ok(FoundDataset {
            blob: BlobRef {
                blake3: blake3.into(),
                path: path.display().to_string(),
            },
            kind: dataset.kind(),
            facts: Some(DataFacts {
                shapes: dataset.shapes(),
                samples: Split::ALL.map(|split| dataset.split(split).len()),
                tokens: None,
            }),
            texts: Some(TextFacts::of(&dataset)),
            labels: Some(labels(&dataset)),
        })
    }

    /// Creates a synthetic dataset with the vocabulary of the encoder that will read it.
    fn synthesize(
        &self,
        name: &str,
        kind: Kind,
        spec: &DatasetSpec,
        settings: &SynthesizeSpec,
    ) -> Result<(), FileError> {
        let vocabulary = self.vocabulary(kind, spec)?;
        let settings = synthesize::Settings {
            samples: [settings.train, settings.valid, settings.test],
            ..synthesize::Settings::small(kind, settings.seed)
        };
        let mut silent = |_, _, _| {};
        synthesize::synthesize(
            &settings,
            &vocabulary,
            name,
            &self.folder,
            false,
            &mut silent,
        )?;
        Ok(())
    }

    /// Reads the vocabulary of a synthetic dataset.
    fn vocabulary(&self, kind: Kind, spec: &DatasetSpec) -> Result<Vocabulary, FileError> {
        let language = spec.language.as_deref().unwrap_or(kind.language());
        let encoder = self.encoders.get(language);
        let encoder = encoder.ok_or_else(|| FileError::NoEncoder(language.to_owned()))?;
        Ok(Vocabulary::read(
            &self.encoder_folder(encoder)?.join("vocab.txt"),
        )?)
    }

    fn find_encoder(&mut self, path: &str) -> Result<FoundEncoder, FileError> {
        let folder = self.encoder_folder(path)?;
        let examined = encoders::examine(&folder, &mut self.hashes)?;
        let folder = folder.canonicalize().map_err(unreadable(&folder))?;
        Ok(FoundEncoder {
            blob: BlobRef {
                blake3: examined.identity.as_str().to_owned(),
                path: folder.display().to_string(),
            },
            shape: encoder_shape(&folder),
            facts: examined.facts,
        })
    }

    fn find_confusions(
        &self,
        language: &str,
        table: &str,
        encoder: &Path,
    ) -> Result<ConfusionTable, FileError> {
        let words = match (table, language) {
            ("builtin", "en") => WordConfusions::english(),
            ("builtin", _) => return Err(FileError::NoConfusions(language.to_owned())),
            (file, _) => WordConfusions::read(&self.base.join(file))?,
        };
        Ok(ConfusionTable::of_words(&words, &vocabulary(encoder)?)?.0)
    }

    fn encoder_folder(&self, path: &str) -> Result<PathBuf, FileError> {
        match path.strip_prefix("encoder:") {
            Some("en") => Ok(self.programs.find(Part::EncoderEn)?.path),
            Some("zh") => Ok(self.programs.find(Part::EncoderZh)?.path),
            Some(other) => Err(FileError::UnknownEncoder(other.to_owned())),
            None => Ok(self.base.join(path)),
        }
    }
}

impl Files for LocalFiles {
    fn dataset(&mut self, name: &str, spec: &DatasetSpec) -> Result<FoundDataset, String> {
        let found = self.find_dataset(name, spec).map_err(describe)?;
        if let Some(facts) = found.facts {
            self.sizes.data.insert(found.blob.path.clone(), facts);
        }
        Ok(found)
    }

    fn encoder(&mut self, _language: &str, path: &str) -> Result<FoundEncoder, String> {
        let found = self.find_encoder(path).map_err(describe)?;
        if let Some(shape) = found.shape {
            self.sizes.encoders.insert(found.blob.path.clone(), shape);
        }
        Ok(found)
    }

    fn program(&mut self, external: &ExternalSpec) -> Result<FoundProgram, String> {
        if let Some(found) = self.found.get(&external.id) {
            return Ok(found.clone());
        }
        let found = program::find(&self.base, external).map_err(|error| describe(error.into()))?;
        let bundle = found.bundle.into();
        self.bundles.insert(found.program.bundle.clone(), bundle);
        self.found
            .insert(external.id.clone(), found.program.clone());
        Ok(found.program)
    }

    fn confusions(&mut self, language: &str, table: &str, path: &str) -> Result<Hash, String> {
        let table = self.find_confusions(language, table, Path::new(path));
        let bytes = table.map_err(describe)?.to_bytes();
        let hash = Hash::of(&bytes);
        self.bundles.insert(hash.clone(), bytes.into());
        Ok(hash)
    }
}

/// Formats an error with its causes and hint for a report on the spec.
fn describe(error: FileError) -> String {
    let text = chain(&error);
    match error.hint() {
        Some(hint) => format!("{text}; {hint}"),
        None => text,
    }
}

/// Checks that an existing dataset is the one that `settings` asks for.
fn check_matches_spec(
    name: &str,
    folder: &Path,
    manifest: &Manifest,
    settings: &SynthesizeSpec,
) -> Result<(), FileError> {
    let Source::Synthesize {
        seed,
        settings: made,
    } = &manifest.source
    else {
        return Err(FileError::Imported(name.to_owned()));
    };
    let wanted_samples = serde_json::json!([settings.train, settings.valid, settings.test]);
    let samples = made.get("samples").cloned().unwrap_or_default();
    if *seed == settings.seed && samples == wanted_samples {
        return Ok(());
    }
    Err(FileError::OtherSettings {
        name: name.to_owned(),
        folder: folder.to_owned(),
        seed: *seed,
        samples: samples.to_string(),
        wanted_seed: settings.seed,
        wanted_samples: wanted_samples.to_string(),
    })
}

/// Names the labels of all splits in their order.
fn labels(dataset: &Dataset) -> Hash {
    let splits = Split::ALL.map(|split| dataset.split(split));
    let labels = splits.iter().flat_map(|split| split.labels());
    let bytes: Vec<u8> = labels.flat_map(|label| label.to_le_bytes()).collect();
    Hash::of(&bytes)
}

/// Returns the sizes of a dataset, from its manifest.
pub(crate) fn facts(manifest: &Manifest) -> DataFacts {
    let samples = |split| manifest.splits.get(&split).map_or(0, |s| s.samples);
    DataFacts {
        shapes: manifest.shapes,
        samples: Split::ALL.map(samples),
        tokens: manifest
            .splits
            .get(&Split::Train)
            .map(|train| train.text_lengths.mean.ceil() as usize),
    }
}

/// Returns the sizes of the encoder in `folder`, if its configuration is readable.
pub(crate) fn encoder_shape(folder: &Path) -> Option<EncoderShape> {
    let config = EncoderConfig::read(folder).ok()?;
    Some(EncoderShape::of(&config))
}
