//! Imports a feature pickle: a dict of `train`, `valid` and `test`, as the field passes them around.
//!
//! Each split is a dict with `text_bert` `[N, 3, L]` (token ids, mask, segments), `audio` and
//! `vision` `[N, T, D]`, `regression_labels` `[N]` or `[N, 1]` (for SIMS also `_T`, `_A`, `_V`), and
//! where the file has them `audio_lengths`, `vision_lengths`, `id` and `raw_text`. What files do
//! otherwise (`dev` for `valid`, lists for arrays, padding at the start) is put right where it is
//! clear what is meant, and a note says so.
//!
//! The file is read twice: once to check every value, once to write. So nothing is written of a
//! file that is refused, and features stream from the mapped file to the disk sample by sample.

use super::{
    assemble::{self, Samples},
    fields::Fields,
    input::{Input, InputError},
    nonfinite::{AllRefused, NonFinite, Reference},
    official,
    opaque::{self, OpaqueFields},
    recognise,
    root::{self, Root},
    samples::{Policy, SplitSamples},
    suspicion,
};
use halfheard_shared::{
    dataset::{
        DataFolder, Dataset, DatasetError, Kind, Manifest, Shapes, Source, Split, WriteError,
    },
    pickle::{PickleError, PickleErrorKind},
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Why a file was not imported. Nothing has been written then.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file cannot be read.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The file is no pickle of plain data.
    #[error("{}: {source}", path.display())]
    Pickle {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        source: PickleError,
    },
    /// The file is something else.
    #[error("{} is no pickle, it is {}: {}", path.display(), what.is, what.then)]
    NoPickle {
        /// Which file.
        path: PathBuf,
        /// What it is.
        what: recognise::Recognised,
    },
    /// The file ends too early.
    #[error("{} is cut off at byte {bytes}, inside {inside}: copy or download it again", path.display())]
    CutOff {
        /// Which file.
        path: PathBuf,
        /// How many bytes there are (expanded, if it is compressed).
        bytes: u64,
        /// What begins there and does not end.
        inside: &'static str,
    },
    /// The pickle is no dict.
    #[error("the file holds {found}, a dict of `train`, `valid` and `test` is expected")]
    Root {
        /// What it holds.
        found: String,
    },
    /// A split is missing.
    #[error("the file has no `{split}` split; it has {}{}", have.join(", "), split_hint(have))]
    MissingSplit {
        /// Which split.
        split: Split,
        /// The keys that are there.
        have: Vec<String>,
    },
    /// Several keys call the same split.
    #[error("the file has no `{split}` split but {}, and it is not clear which of them is meant: name one `{split}`", keys.join(" and "))]
    AmbiguousSplit {
        /// Which split.
        split: Split,
        /// The keys that call it.
        keys: Vec<String>,
    },
    /// Needed fields hold objects of classes that are not read.
    #[error("{0}")]
    Opaque(Box<OpaqueFields>),
    /// Feature values that are not finite.
    #[error("{0}")]
    NonFinite(AllRefused),
    /// A field is missing.
    #[error("split {split} has no `{field}`; it has {}{}", have.join(", "), hint(field))]
    MissingField {
        /// Which split.
        split: Split,
        /// Which field.
        field: &'static str,
        /// The keys that are there.
        have: Vec<String>,
    },
    /// A field has another type or shape than it should.
    #[error("split {split}: `{field}` {what}")]
    Field {
        /// Which split.
        split: Split,
        /// Which field; empty for the split itself.
        field: String,
        /// What is wrong.
        what: String,
    },
    /// A value that cannot be used.
    #[error("split {split}: `{field}`, sample {sample}: {what}")]
    Value {
        /// Which split.
        split: Split,
        /// Which field.
        field: String,
        /// The sample's index in its split, from 0.
        sample: usize,
        /// What is wrong.
        what: String,
    },
    /// The splits do not belong together.
    #[error(
        "split {split} has {found}, split train has {expected}: all splits must have the same sizes"
    )]
    Sizes {
        /// Which split.
        split: Split,
        /// Its sizes.
        found: String,
        /// Those of the training split.
        expected: String,
    },
    /// The data folder.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// The data file.
    #[error("the dataset cannot be written: {0}")]
    Write(#[from] WriteError),
}

impl ImportError {
    /// The error for a file that could not be read as a pickle, in words that say what it is.
    pub(super) fn pickle(path: &Path, bytes: &[u8], source: PickleError) -> Self {
        let path = path.to_owned();
        match source.kind {
            // What gets so far is a pickle.
            PickleErrorKind::Limit { .. } => Self::Pickle { path, source },
            PickleErrorKind::Truncated(inside) if recognise::guess(bytes).is_none() => {
                Self::CutOff {
                    path,
                    bytes: bytes.len() as u64,
                    inside,
                }
            }
            _ => match recognise::guess(bytes) {
                Some(what) => Self::NoPickle { path, what },
                None => Self::Pickle { path, source },
            },
        }
    }
}

fn split_hint(have: &[String]) -> &'static str {
    if have.iter().any(|key| key == "text_bert" || key == "audio") {
        "; it looks like one split alone: put all three into one dict, {\"train\": ..., \"valid\": ..., \"test\": ...}"
    } else {
        ""
    }
}

fn hint(field: &str) -> &'static str {
    match field {
        "text_bert" => {
            "; files with word vectors only (`text`) cannot be used, take the one made for BERT"
        }
        "regression_labels_T" | "regression_labels_A" | "regression_labels_V" => {
            "; only SIMS has labels for each modality: is this file of another dataset (--as)?"
        }
        _ => "",
    }
}

/// What to import and where to.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// The pickle, plain or gzip.
    pub file: &'a Path,
    /// Whose protocol the file follows.
    pub kind: Kind,
    /// What is done with feature values that are not finite.
    pub nonfinite: NonFinite,
    /// Whose loader is meant by [`NonFinite::Reference`].
    pub reference: Reference,
    /// The name it gets in the data folder.
    pub name: &'a str,
    /// The data folder.
    pub folder: &'a DataFolder,
    /// Whether other content of that name is replaced.
    pub replace: bool,
    /// The most bytes that the file may expand to; `None` is a bound by the file's own size.
    pub max_bytes: Option<u64>,
}

/// What an import is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Reading and expanding the file; counts bytes.
    Read,
    /// Checking every value; counts samples.
    Check,
    /// Writing; counts samples, once for each modality.
    Write,
    /// Describing what was written.
    Describe,
}

/// Told of what is being done: stage, done, of how many.
pub type Progress<'a> = &'a mut dyn FnMut(Stage, u64, u64);

/// What an import made.
#[derive(Debug)]
pub struct Imported {
    /// The data file.
    pub path: PathBuf,
    /// What is in it.
    pub manifest: Manifest,
}

/// Imports a file.
///
/// # Errors
/// See [`ImportError`]; the data folder is as before then.
pub fn import(request: &Request<'_>, progress: Progress<'_>) -> Result<Imported, ImportError> {
    let Request {
        file,
        kind,
        name,
        folder,
        ..
    } = *request;
    let input = Input::open(file, folder.root(), request.max_bytes, |done, total| {
        progress(Stage::Read, done, total);
    })?;
    if let Some(what) = recognise::recognise(&input) {
        return Err(ImportError::NoPickle {
            path: file.to_owned(),
            what,
        });
    }
    let policy = Policy {
        nonfinite: request.nonfinite,
        reference: request.reference,
    };
    let mut notes;
    let mut treatment = BTreeMap::new();
    let prepared;
    let hash;
    {
        let root = Root::find(&input, file)?;
        notes = root.notes;
        let pickle = &root.pickle;
        let mut dicts = Vec::new();
        for split in Split::ALL {
            let (dict, key) = root::split(pickle, root.dict, split)?;
            notes.extend(opaque::renamed(split, &key));
            dicts.push((split, dict, key));
        }
        let unread = root::other_splits(pickle, root.dict);
        if !unread.is_empty() {
            notes.push(format!("not read: the split {}", unread.join(", ")));
        }
        let opaque = dicts
            .iter()
            .flat_map(|(_, dict, key)| {
                opaque::opaque_fields(pickle, *dict, key, kind.has_unimodal_labels())
            })
            .collect();
        if let Some(error) = OpaqueFields::error(file, opaque) {
            return Err(error);
        }
        let mut samples = |at: usize| {
            let (split, dict, _) = &dicts[at];
            let fields = Fields::of(pickle, *dict, *split)?;
            SplitSamples::of(&fields, kind, policy, &mut notes)
        };
        let mut splits = [samples(0)?, samples(1)?, samples(2)?];
        let largest = splits
            .iter()
            .map(SplitSamples::sizes)
            .fold([0; 5], |a: [usize; 5], b| {
                std::array::from_fn(|i| a[i].max(b[i]))
            });
        let at_start = splits.iter().any(SplitSamples::starts_with_padding);
        for split in &mut splits {
            if split.can_grow() {
                split.grow(largest);
            }
            if at_start {
                split.move_padding(&mut notes)?;
            }
        }
        let [text_len, audio_len, audio_dim, vision_len, vision_dim] = splits[0].sizes();
        let shapes = Shapes {
            text_len,
            audio_len,
            audio_dim,
            vision_len,
            vision_dim,
        };
        let described = |[l, ta, da, tv, dv]: [usize; 5]| {
            format!("text {l}, audio {ta}x{da}, vision {tv}x{dv}")
        };
        for (split, samples) in Split::ALL.into_iter().zip(&splits) {
            if samples.sizes() != splits[0].sizes() {
                return Err(ImportError::Sizes {
                    split,
                    found: described(samples.sizes()),
                    expected: described(splits[0].sizes()),
                });
            }
        }
        let total: u64 = splits.iter().map(|split| split.count() as u64).sum();
        let mut before = 0;
        let mut refused = Vec::new();
        for (split, samples) in Split::ALL.into_iter().zip(&splits) {
            let checked = samples.check(|done| progress(Stage::Check, before + done, total))?;
            before += samples.count() as u64;
            for (field, counts) in &checked.zeroed {
                notes.push(format!(
                    "{split}: {} {field} values were set to 0 ({counts})",
                    counts.total()
                ));
            }
            refused.extend(checked.refused);
            treatment.insert(split, samples.treatment(checked.zeroed));
        }
        if !refused.is_empty() {
            return Err(ImportError::NonFinite(AllRefused(refused)));
        }
        for ((split, samples), size) in Split::ALL
            .into_iter()
            .zip(&splits)
            .zip(request.reference.sizes(kind))
        {
            if let Some(size) = size
                && samples.count() != size
            {
                notes.push(format!(
                    "{split} has {} samples, {} has {size}",
                    samples.count(),
                    request.reference.of(kind)
                ));
            }
        }
        notes.extend(suspicion::signs(
            kind,
            pickle,
            root.dict,
            &splits,
            &input.sha256,
        ));
        prepared = folder.prepare(name)?;
        (hash, _) = assemble::write(&prepared.data_file(), kind, shapes, &splits, |done| {
            progress(Stage::Write, done, total * 3);
        })?;
    }
    let source = Source::Import {
        file: file
            .file_name()
            .map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
        blake3: input.blake3.to_hex().to_string(),
        bytes: input.file_bytes,
        official: official::by_sha256(&input.sha256).map(|official| official.name.to_owned()),
        sha256: Some(input.sha256.clone()),
        nonfinite: Some(request.nonfinite.as_str().to_owned()),
        treatment,
    };
    // Unmapped before the data file is mapped: only one of the two is in memory at a time.
    drop(input);
    finish(
        prepared,
        name,
        hash,
        source,
        notes,
        request.replace,
        progress,
    )
}

/// Reads back what was written, describes it and moves it to its place.
pub(super) fn finish(
    prepared: halfheard_shared::dataset::Prepared,
    name: &str,
    hash: blake3::Hash,
    source: Source,
    notes: Vec<String>,
    replace: bool,
    progress: Progress<'_>,
) -> Result<Imported, ImportError> {
    progress(Stage::Describe, 0, 1);
    let manifest = {
        let data = Dataset::open(&prepared.data_file())?;
        data.check_features()?;
        Manifest::of(&data, name, hash, source, notes)
    };
    let path = prepared.publish(&manifest, replace)?;
    progress(Stage::Describe, 1, 1);
    Ok(Imported { path, manifest })
}
