//! From a spec's file to a sweep: reads it, finds the files it names on this machine, submits it.

use crate::commands::protocol;
use crate::{
    local::programs::{Part, Programs},
    submission::encoders,
};
use halfheard_import::synthesize::{self, Vocabulary};
use halfheard_shared::hash_cache::HashCache;
use halfheard_shared::{
    dataset::{DataFolder, Dataset, Kind, Manifest, Source, Split, layout::MANIFEST_FILE},
    encoder::{Config as EncoderConfig, TextFacts},
    ids::SweepId,
    matrix,
    methods::{DataFacts, EncoderShape},
    spec::{
        self, DatasetSpec, Files, FoundDataset, FoundEncoder, Problem, ResolvedSpec, Spec,
        SpecError, SynthesizeSpec,
    },
    wire::BlobRef,
};
use halfheard_store::{
    Store, StoreError,
    submit::{NewSweep, Submitted},
};
use miette::Diagnostic;
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
    /// It is no UTF-8.
    #[error(
        "the spec {path} is not UTF-8 text: {what}; save it as UTF-8 in your editor, or convert it with `iconv`"
    )]
    NotUtf8 {
        /// Its path.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// It is too large to be a spec.
    #[error("{}: {}; is it the right file? If so, split it into several specs", path.display(), spec::too_large(*bytes))]
    TooLarge {
        /// Its path.
        path: PathBuf,
        /// Its size.
        bytes: u64,
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
    // Each by itself: the report of all together calls each an "Error:" of its own, on a line of
    // its own.
    let handler = GraphicalReportHandler::new_themed(theme).with_width(100);
    let mut out = match error.problems.len() {
        1 => String::new(),
        _ => format!("× {error}\n"),
    };
    for problem in &error.problems {
        let placed = Placed { problem, error };
        if !out.is_empty() {
            out.push('\n');
        }
        let before = out.len();
        if handler.render_report(&mut out, &placed).is_err() {
            out.truncate(before);
            // A writer into a String does not fail; should it, the plain form says the same.
            let _ = JSONReportHandler::new().render_report(&mut out, &placed);
        }
    }
    let lines = out.lines().map(str::trim_end);
    let text = lines.collect::<Vec<_>>().join("\n");
    text.trim_matches('\n').to_owned()
}

/// A problem with the text that it is in.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.text())]
struct Placed<'a> {
    problem: &'a Problem,
    error: &'a SpecError,
}

impl Placed<'_> {
    /// What is wrong; with the file, where no line of it is shown.
    fn text(&self) -> String {
        if self.error.problems.len() == 1 && self.problem.span.is_none() {
            format!("{}: {}", self.error.path, self.problem.message)
        } else {
            self.problem.message.clone()
        }
    }
}

impl Diagnostic for Placed<'_> {
    fn help<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        self.problem.help()
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = miette::LabeledSpan> + '_>> {
        self.problem.labels()
    }

    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        Some(&self.error.text)
    }
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
    /// What can be run and is worth knowing all the same, each a line for people.
    pub notes: Vec<String>,
    /// The sizes of datasets and their encoders by the dataset's name, where known.
    pub sizes: BTreeMap<String, (DataFacts, EncoderShape)>,
}

/// Reads the spec at `path` and finds what it names.
///
/// # Errors
///
/// It cannot be read, or something in it is wrong; then nothing was written.
pub fn load(path: &Path, data_dir: &Path, making: Making) -> Result<Loaded, LoadError> {
    let text = read_text(path)?;
    let shown = path.display().to_string();
    let wrong = |error| LoadError::Wrong(Box::new(error));
    let spec = spec::read(&shown, &text).map_err(wrong)?;
    let mut files = LocalFiles {
        base: path.parent().unwrap_or(Path::new("")).to_owned(),
        folder: DataFolder::new(data_dir),
        programs: Programs::discover(),
        hashes: HashCache::open(data_dir),
        encoders: spec
            .encoders
            .iter()
            .map(|(language, encoder)| (language.clone(), encoder.path.clone()))
            .collect(),
        making: Making::Note,
        to_make: Vec::new(),
        facts: BTreeMap::new(),
        shapes: BTreeMap::new(),
    };
    // First without making anything: a spec that is refused leaves nothing behind.
    let mut notes = Vec::new();
    let mut resolved =
        spec::resolve_noting(&shown, &text, &spec, &mut files, &mut notes).map_err(wrong)?;
    if making == Making::Make && !files.to_make.is_empty() {
        files.making = Making::Make;
        files.to_make.clear();
        resolved = spec::resolve(&shown, &text, &spec, &mut files).map_err(wrong)?;
    }
    files.hashes.save();
    let sizes = files.sizes(&spec);
    Ok(Loaded {
        notes: note_lines(&text, notes),
        text,
        spec,
        resolved: Arc::new(resolved),
        to_make: files.to_make,
        sizes,
    })
}

/// Notes as lines for people, each with the line of the spec that it is about.
fn note_lines(text: &str, notes: Vec<Problem>) -> Vec<String> {
    let error = SpecError::new("", text, Vec::new());
    let line = |note: Problem| {
        // A method's own notes stand at its name, which they begin with.
        let at = error.line(&note).filter(|_| !note.label.is_empty());
        let at = at.map(|line| format!("line {line}: ")).unwrap_or_default();
        let help = note
            .help
            .map(|help| format!("; {help}"))
            .unwrap_or_default();
        format!("{at}{}{help}", note.message)
    };
    notes.into_iter().map(line).collect()
}

/// The text of a file; one that is too large to be a spec is not read whole.
fn read_text(path: &Path) -> Result<String, LoadError> {
    let unreadable = |source| LoadError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    let limit = spec::MAX_BYTES as u64 + 1;
    (&file)
        .take(limit)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() > spec::MAX_BYTES {
        // What is no plain file does not know how much is still to come.
        let whole = file.metadata().map_or(0, |about| about.len());
        return Err(LoadError::TooLarge {
            path: path.to_owned(),
            bytes: whole.max(bytes.len() as u64),
        });
    }
    String::from_utf8(bytes).map_err(|error| LoadError::NotUtf8 {
        path: path.to_owned(),
        what: no_utf8(error.as_bytes(), error.utf8_error().valid_up_to()),
    })
}

/// What a file is that is no UTF-8 from the byte `at` on.
fn no_utf8(bytes: &[u8], at: usize) -> String {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return "it is UTF-16".to_owned();
    }
    let line = 1 + bytes[..at].iter().filter(|&&byte| byte == b'\n').count();
    let byte = bytes.get(at).copied().unwrap_or_default();
    format!("line {line} has the byte 0x{byte:02x}, as GBK, Latin-1 and others write it")
}

/// The files of this machine.
struct LocalFiles {
    /// The spec's folder.
    base: PathBuf,
    folder: DataFolder,
    programs: Programs,
    hashes: HashCache,
    /// The spec's encoder paths by language.
    encoders: BTreeMap<String, String>,
    making: Making,
    to_make: Vec<String>,
    /// Sizes of datasets by the spec's name for them.
    facts: BTreeMap<String, (Kind, DataFacts)>,
    /// Sizes of encoders by language.
    shapes: BTreeMap<String, EncoderShape>,
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
            facts: Some(facts(&manifest)),
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

/// The sizes of a kept dataset, from its manifest.
pub fn facts(manifest: &Manifest) -> DataFacts {
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

/// The sizes of the encoder in `folder`, where its configuration tells them.
pub fn encoder_shape(folder: &Path) -> Option<EncoderShape> {
    let config = EncoderConfig::read(folder).ok()?;
    Some(EncoderShape::of(&config))
}

impl Files for LocalFiles {
    fn dataset(&mut self, name: &str, spec: &DatasetSpec) -> Result<FoundDataset, String> {
        let found = self.find_dataset(name, spec)?;
        if let Some(facts) = found.facts {
            self.facts.insert(name.to_owned(), (found.kind, facts));
        }
        Ok(found)
    }

    fn encoder(&mut self, language: &str, path: &str) -> Result<FoundEncoder, String> {
        let found = self.find_encoder(path)?;
        if let Some(shape) = found.shape {
            self.shapes.insert(language.to_owned(), shape);
        }
        Ok(found)
    }
}

impl LocalFiles {
    /// The sizes of each dataset and its encoder, by the dataset's name.
    fn sizes(&self, spec: &Spec) -> BTreeMap<String, (DataFacts, EncoderShape)> {
        let facts = self.facts.iter();
        facts
            .filter_map(|(name, (kind, facts))| {
                let own = spec.datasets.get(name)?.language.as_deref();
                let encoder = self.shapes.get(own.unwrap_or(kind.language()))?;
                Some((name.clone(), (*facts, *encoder)))
            })
            .collect()
    }

    fn find_dataset(&mut self, name: &str, spec: &DatasetSpec) -> Result<FoundDataset, String> {
        let Some(kept) = spec.file.strip_prefix("dataset:") else {
            let path = self.base.join(&spec.file);
            return self.file(&path);
        };
        if self.folder.dataset_dir(kept).join(MANIFEST_FILE).exists() {
            return self.named(kept, spec);
        }
        let follows = spec.kind(name);
        match (&spec.synthesize, follows) {
            (Some(made), Some(follows)) if self.making == Making::Note => {
                // What making it would stumble over is told now.
                self.vocabulary(follows, spec)?;
                self.to_make.push(kept.to_owned());
                let small = synthesize::Settings::small(follows, made.seed);
                Ok(FoundDataset {
                    blob: BlobRef {
                        blake3: String::new(),
                        path: self.folder.data_file(kept).display().to_string(),
                    },
                    kind: follows,
                    facts: Some(DataFacts {
                        shapes: small.shapes,
                        samples: [made.train, made.valid, made.test],
                        tokens: None,
                    }),
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
                    halfheard_shared::methods::nearest(kept, names.iter().map(String::as_str));
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

    fn find_encoder(&mut self, path: &str) -> Result<FoundEncoder, String> {
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
            shape: encoder_shape(&folder),
            facts: examined.facts,
        })
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
    let jobs = matrix::expand(loaded.resolved.clone(), id);
    let submitted = store.submit(&sweep, jobs).await?;
    Ok((id, submitted))
}

#[cfg(test)]
mod tests;
