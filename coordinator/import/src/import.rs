//! Imports a feature pickle: a dict of `train`, `valid` and `test`, as the field passes them around.
//!
//! Each split is a dict with `text_bert` `[N, 3, L]` (token ids, mask, segments), `audio` and
//! `vision` `[N, T, D]`, `regression_labels` `[N]` or `[N, 1]` (for SIMS also `_T`, `_A`, `_V`), and
//! where the file has them `audio_lengths`, `vision_lengths`, `id` and `raw_text`. Deviations
//! (`dev` for `valid`, lists for arrays, padding at the start) are corrected if they are unambiguous, and
//! noted in the manifest.
//!
//! The file is read twice: once to check every value, once to write. Nothing of a rejected file is
//! written, and features stream from the mapped file to the disk sample by sample.

use crate::{
    ImportError,
    assemble::{self, Samples},
    fields::Fields,
    input::Input,
    nonfinite::{AllRefused, NonFinite, Reference},
    official,
    opaque::{self, OpaqueFields},
    recognize,
    root::{self, Root},
    samples::{Policy, SplitSamples},
    suspicion,
};
use halfheard_shared::dataset::{
    DataFolder, Dataset, Kind, Manifest, Prepared, Shapes, Source, Split, Treatment,
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// What to import, and where.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// The pickle, plain or gzip.
    pub file: &'a Path,
    /// The protocol of the dataset.
    pub kind: Kind,
    /// How to treat feature values that are not finite.
    pub nonfinite: NonFinite,
    /// The loader that [`NonFinite::Reference`] imitates.
    pub reference: Reference,
    /// Its name in the data folder.
    pub name: &'a str,
    /// The data folder.
    pub folder: &'a DataFolder,
    /// Whether to replace other content of that name.
    pub replace: bool,
    /// Maximum size after decompression in bytes; by default a multiple of the file's own size.
    pub max_bytes: Option<u64>,
}

/// A stage of an import.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Reading and decompressing the file; counts bytes.
    Read,
    /// Checking every value; counts samples.
    Check,
    /// Writing; counts samples, once per modality.
    Write,
    /// Describing what was written.
    Describe,
}

/// Progress callback: stage, completed, total.
pub type Progress<'a> = &'a mut dyn FnMut(Stage, u64, u64);

/// A completed import.
#[derive(Debug)]
pub struct Imported {
    /// The data file.
    pub path: PathBuf,
    /// Its description.
    pub manifest: Manifest,
}

/// Imports a file.
///
/// # Errors
/// See [`ImportError`]; the data folder is unchanged then.
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
    if let Some(what) = recognize::recognize(&input) {
        return Err(ImportError::NotPickle {
            path: file.to_owned(),
            what,
        });
    }
    let mut notes;
    let treatment;
    let prepared;
    let hash;
    {
        let mut root = Root::find(&input, file)?;
        notes = std::mem::take(&mut root.notes);
        let splits = read_splits(&root, request, &mut notes)?;
        let shapes = common_shapes(&splits)?;
        treatment = check_values(&splits, &mut notes, progress)?;
        note_sizes(&splits, request, &mut notes);
        notes.extend(suspicion::signs(
            kind,
            &root.pickle,
            root.dict,
            &splits,
            &input.sha256,
        ));
        prepared = folder.prepare(name)?;
        let total = count(&splits) * 3;
        (hash, _) = assemble::write(&prepared.data_file(), kind, shapes, &splits, |done| {
            progress(Stage::Write, done, total);
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

/// Decodes the small fields of all splits and brings them to the same sizes.
fn read_splits<'p, 'a>(
    root: &'p Root<'a>,
    request: &Request<'_>,
    notes: &mut Vec<String>,
) -> Result<[SplitSamples<'p, 'a>; 3], ImportError> {
    let (pickle, kind) = (&root.pickle, request.kind);
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
    if let Some(fields) = OpaqueFields::collect(request.file, opaque) {
        return Err(ImportError::Opaque(Box::new(fields)));
    }
    let policy = Policy {
        nonfinite: request.nonfinite,
        reference: request.reference,
    };
    let mut samples = |at: usize| {
        let (split, dict, _) = &dicts[at];
        let fields = Fields::of(pickle, *dict, *split)?;
        SplitSamples::of(&fields, kind, policy, notes)
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
            split.move_padding(notes)?;
        }
    }
    Ok(splits)
}

/// The shapes of all splits, which must be the same.
fn common_shapes(splits: &[SplitSamples<'_, '_>; 3]) -> Result<Shapes, ImportError> {
    let described =
        |[l, ta, da, tv, dv]: [usize; 5]| format!("text {l}, audio {ta}x{da}, vision {tv}x{dv}");
    for (split, samples) in Split::ALL.into_iter().zip(splits) {
        if samples.sizes() != splits[0].sizes() {
            return Err(ImportError::Sizes {
                split,
                found: described(samples.sizes()),
                expected: described(splits[0].sizes()),
            });
        }
    }
    let [text_len, audio_len, audio_dim, vision_len, vision_dim] = splits[0].sizes();
    Ok(Shapes {
        text_len,
        audio_len,
        audio_dim,
        vision_len,
        vision_dim,
    })
}

/// Checks every value; returns how each split was treated.
fn check_values(
    splits: &[SplitSamples<'_, '_>; 3],
    notes: &mut Vec<String>,
    progress: Progress<'_>,
) -> Result<BTreeMap<Split, Treatment>, ImportError> {
    let total = count(splits);
    let mut before = 0;
    let mut refused = Vec::new();
    let mut treatment = BTreeMap::new();
    for (split, samples) in Split::ALL.into_iter().zip(splits) {
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
    if refused.is_empty() {
        Ok(treatment)
    } else {
        Err(ImportError::NonFinite(AllRefused(refused)))
    }
}

/// Notes splits whose number of samples is not that of the published dataset.
fn note_sizes(splits: &[SplitSamples<'_, '_>; 3], request: &Request<'_>, notes: &mut Vec<String>) {
    let (reference, kind) = (request.reference, request.kind);
    for ((split, samples), size) in Split::ALL
        .into_iter()
        .zip(splits)
        .zip(reference.sizes(kind))
    {
        if let Some(size) = size
            && samples.count() != size
        {
            notes.push(format!(
                "{split} has {} samples, {} has {size}",
                samples.count(),
                reference.of(kind)
            ));
        }
    }
}

/// The samples of all splits.
fn count(splits: &[SplitSamples<'_, '_>; 3]) -> u64 {
    splits.iter().map(|split| split.count() as u64).sum()
}

/// Reads back what was written, describes it and publishes it in the data folder.
pub(crate) fn finish(
    prepared: Prepared,
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
