//! Loads a spec file: parses it and finds what it names on this machine.

use super::{
    files::{LocalFiles, Rest, Sizes},
    program::Bundles,
};
use halfheard_shared::{
    dataset::{Dataset, Split},
    erasure::{ConfusionTable, Coverage},
    error::Hint,
    hash::Hash,
    methods::{DataFacts, EncoderShape},
    spec::{self, Problem, ResolvedDataset, ResolvedMethod, ResolvedSpec, Spec, SpecError},
};
use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Why a spec cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error("cannot read spec {path}")]
    Unreadable {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("spec {path} is not UTF-8 text: {found}")]
    NotUtf8 { path: PathBuf, found: String },
    #[error("{}: {}", path.display(), spec::too_large(*bytes))]
    TooLarge { path: PathBuf, bytes: u64 },
    #[error(transparent)]
    Invalid(Box<SpecError>),
}

impl Hint for LoadError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::NotUtf8 { .. } => {
                Some("save it as UTF-8 in your editor, or convert it with `iconv`".to_owned())
            }
            Self::TooLarge { .. } => {
                Some("check the path, or split the spec into several".to_owned())
            }
            Self::Unreadable { .. } | Self::Invalid(_) => None,
        }
    }
}

/// What to do about synthetic datasets that do not exist yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Synthesize {
    /// Create them.
    Create,
    /// List them only.
    PlanOnly,
}

/// A spec with everything filled in.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    /// The text of the file.
    pub(crate) text: String,
    /// The spec as written.
    pub(crate) spec: Spec,
    /// The spec with everything filled in.
    pub(crate) resolved: Arc<ResolvedSpec>,
    /// Synthetic datasets that do not exist yet: their hashes and the sweep's ids are unknown.
    pub(crate) pending: Vec<String>,
    /// What is valid but noteworthy, one line each.
    pub(crate) notes: Vec<String>,
    /// What is known of the sizes of files and encoders.
    sizes: Sizes,
    /// The files of the external programs that are run, and tables of what words are heard as.
    pub(crate) bundles: Bundles,
}

impl Loaded {
    /// The sizes of what a method reads of a dataset, as far as known.
    pub(crate) fn sizes(
        &self,
        method: &ResolvedMethod,
        dataset: &str,
    ) -> Option<(&DataFacts, &EncoderShape)> {
        let mut datasets = self.resolved.datasets.iter();
        let dataset = datasets.find(|own| own.benchmark.id() == dataset)?;
        let (data, encoder, _) = self.resolved.inputs_of(method, dataset);
        let data = self.sizes.data.get(&data.path)?;
        Some((data, self.sizes.encoders.get(&encoder.path)?))
    }

    /// The samples of a dataset's splits, which all of its files have.
    pub(crate) fn samples(&self, dataset: &str) -> Option<[usize; 3]> {
        let mut datasets = self.resolved.datasets.iter();
        let dataset = datasets.find(|own| own.benchmark.id() == dataset)?;
        Some(self.sizes.data.get(&dataset.data.path)?.samples)
    }
}

/// Reads the spec at `path` and finds what it names.
///
/// # Errors
///
/// The spec cannot be read or is invalid; then nothing was written.
pub(crate) fn load(
    path: &Path,
    data_dir: &Path,
    synthesize: Synthesize,
) -> Result<Loaded, LoadError> {
    let text = read_text(path)?;
    let shown = path.display().to_string();
    let invalid = |error| LoadError::Invalid(Box::new(error));
    let spec = spec::read(&shown, &text).map_err(invalid)?;
    let mut files = LocalFiles::new(path, data_dir, &spec);
    // First without creating anything: a refused spec leaves nothing behind.
    let mut notes = Vec::new();
    let mut resolved =
        spec::resolve_noting(&shown, &text, &spec, &mut files, &mut notes).map_err(invalid)?;
    if synthesize == Synthesize::Create && files.plan_finished() {
        resolved = spec::resolve(&shown, &text, &spec, &mut files).map_err(invalid)?;
    }
    let Rest {
        pending,
        sizes,
        bundles,
    } = files.finish();
    let mut notes = note_lines(&text, notes);
    notes.extend(misheard(&resolved, &bundles));
    Ok(Loaded {
        notes,
        text,
        spec,
        resolved: Arc::new(resolved),
        pending,
        sizes,
        bundles,
    })
}

/// How many of a dataset's words can be misheard, where a case asks for it: fewer than its rate says.
fn misheard(resolved: &ResolvedSpec, bundles: &Bundles) -> Vec<String> {
    let note = |dataset: &ResolvedDataset| {
        let table = bundles.get(&dataset.confusions.as_ref()?.parse::<Hash>().ok()?)?;
        let table = ConfusionTable::from_bytes(table).ok()?;
        // A synthetic one may not exist yet.
        let file = Dataset::open(Path::new(&dataset.data.path)).ok()?;
        let (view, length) = (file.split(Split::Test), file.shapes().text_len);
        let texts = view.text().chunks_exact(3 * length);
        let ids: Vec<i64> = texts
            .clone()
            .flat_map(|text| text[..length].iter().map(|&id| i64::from(id)))
            .collect();
        let mask: Vec<u8> = texts
            .flat_map(|text| text[length..2 * length].iter().map(|&mask| mask as u8))
            .collect();
        let Coverage { covered, all } = table.coverage(&ids, &mask, view.len());
        let share = 100.0 * covered as f64 / all.max(1) as f64;
        Some(format!(
            "asr: {share:.1} % of the tokens of {}'s test texts can be misheard, and `asr=0.5` mishears \
             half of these",
            dataset.benchmark.id()
        ))
    };
    resolved.datasets.iter().filter_map(note).collect()
}

/// Formats notes as lines, each with the line of the spec that it is about.
fn note_lines(text: &str, notes: Vec<Problem>) -> Vec<String> {
    let error = SpecError::new("", text, Vec::new());
    let line = |note: Problem| {
        // A method's notes are placed at its name, which they begin with.
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

/// Reads the text of a file, but no more than a spec may have.
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
        // Only a regular file has a known size.
        let size = file.metadata().map_or(0, |about| about.len());
        return Err(LoadError::TooLarge {
            path: path.to_owned(),
            bytes: size.max(bytes.len() as u64),
        });
    }
    String::from_utf8(bytes).map_err(|error| LoadError::NotUtf8 {
        path: path.to_owned(),
        found: not_utf8(error.as_bytes(), error.utf8_error().valid_up_to()),
    })
}

/// Describes a file that is not UTF-8 from byte `at` on.
fn not_utf8(bytes: &[u8], at: usize) -> String {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return "it is UTF-16".to_owned();
    }
    let line = 1 + bytes[..at].iter().filter(|&&byte| byte == b'\n').count();
    let byte = bytes.get(at).copied().unwrap_or_default();
    format!("line {line} has the byte 0x{byte:02x}, as in GBK or Latin-1")
}

#[cfg(test)]
mod tests;
