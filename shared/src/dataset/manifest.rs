//! The manifest beside a dataset file: what is in it, where it came from, its hash.

use super::{Dataset, DatasetError, Kind, Shapes, Split, layout::VERSION};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, fs::File, io, path::Path};

/// What a dataset file holds and where it came from, as JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the data file's layout.
    pub version: u32,
    /// The name it was imported under.
    pub name: String,
    /// Whose protocol it follows.
    pub kind: Kind,
    /// BLAKE3 of the data file, 64 hexadecimal digits.
    pub blake3: String,
    /// Bytes of the data file.
    pub bytes: u64,
    /// The sizes that all samples share.
    pub shapes: Shapes,
    /// Names of the classes that `label_counts` counts.
    pub classes: Vec<String>,
    /// `train`, `valid` and `test`.
    pub splits: BTreeMap<Split, SplitManifest>,
    /// Where it came from.
    pub source: Source,
    /// Things to know: split sizes other than the paper's, lengths that were not given.
    pub notes: Vec<String>,
}

/// Where a dataset came from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "lowercase")]
pub enum Source {
    /// Imported from a feature pickle.
    Import {
        /// The file's name without its folder.
        file: String,
        /// BLAKE3 of that file as it was.
        blake3: String,
        /// Its bytes.
        bytes: u64,
        /// SHA-256 of the pickle, as it is when it is not compressed: the field publishes these.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sha256: Option<String>,
        /// The published file that has this SHA-256.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        official: Option<String>,
        /// What was done with values that are not finite: `reference`, `zero` or `refuse`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        nonfinite: Option<String>,
        /// What was done to each split on the way.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        treatment: BTreeMap<Split, Treatment>,
    },
    /// Made by `coord data synthesize`.
    Synthesize {
        /// The seed.
        seed: u64,
        /// All other settings, for the record.
        settings: serde_json::Value,
    },
}

impl Source {
    /// A file of which no more is known than this.
    pub fn file(file: String, blake3: String, bytes: u64) -> Self {
        Source::Import {
            file,
            blake3,
            bytes,
            sha256: None,
            official: None,
            nonfinite: None,
            treatment: BTreeMap::new(),
        }
    }

    /// Feature values that were set to 0 on the way, in all splits and fields.
    pub fn zeroed(&self) -> u64 {
        match self {
            Source::Import { treatment, .. } => treatment
                .values()
                .flat_map(|split| split.zeroed.values())
                .map(NotFinite::total)
                .sum(),
            Source::Synthesize { .. } => 0,
        }
    }
}

/// What an import did to one split of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Treatment {
    /// Where the audio lengths are from.
    pub audio_lengths: LengthSource,
    /// Where the vision lengths are from.
    pub vision_lengths: LengthSource,
    /// Values that were set to 0, for each field that had any.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub zeroed: BTreeMap<String, NotFinite>,
    /// Samples whose padding was moved from the start to the end, for each field that had any.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub moved: BTreeMap<String, u64>,
}

/// Where a split's lengths are from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LengthSource {
    /// The file gives them.
    Given,
    /// The features are aligned with the text: tokens of the text's mask.
    Text,
    /// Each sample has an array of its own length.
    Arrays,
    /// Nothing tells: every sample counts as full.
    Full,
}

/// How many values of a field are not finite, as single precision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotFinite {
    /// `-inf`.
    pub neg_inf: u64,
    /// `+inf`.
    pub pos_inf: u64,
    /// NaN.
    pub nan: u64,
    /// Finite, but beyond single precision.
    pub too_large: u64,
}

impl NotFinite {
    /// All of them, in order.
    pub fn total(&self) -> u64 {
        self.neg_inf + self.pos_inf + self.nan + self.too_large
    }
}

impl fmt::Display for NotFinite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = [
            (self.neg_inf, "-inf"),
            (self.pos_inf, "+inf"),
            (self.nan, "NaN"),
            (self.too_large, "too large for float32"),
        ]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
        f.write_str(&parts.join(", "))
    }
}

/// One split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SplitManifest {
    /// Samples.
    pub samples: usize,
    /// Samples in each class.
    pub label_counts: Vec<u64>,
    /// Mean label.
    pub label_mean: f64,
    /// Tokens that are not padding.
    pub text_lengths: LengthStats,
    /// Audio steps that are not padding.
    pub audio_lengths: LengthStats,
    /// Vision steps that are not padding.
    pub vision_lengths: LengthStats,
    /// The largest token id: an encoder's vocabulary must be larger.
    pub largest_token: i32,
    /// Audio features, padding included.
    pub audio: FeatureStats,
    /// Vision features, padding included.
    pub vision: FeatureStats,
}

/// Smallest, mean and largest of the lengths in a split.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LengthStats {
    /// The smallest.
    pub min: u64,
    /// The mean.
    pub mean: f64,
    /// The largest.
    pub max: u64,
}

impl LengthStats {
    fn of(lengths: impl Iterator<Item = u64> + Clone) -> Self {
        let count = lengths.clone().count().max(1) as f64;
        Self {
            min: lengths.clone().min().unwrap_or(0),
            mean: lengths.clone().sum::<u64>() as f64 / count,
            max: lengths.max().unwrap_or(0),
        }
    }
}

/// What the values of a modality look like.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct FeatureStats {
    /// Mean.
    pub mean: f64,
    /// Standard deviation.
    pub std: f64,
    /// The smallest.
    pub min: f32,
    /// The largest.
    pub max: f32,
    /// Share of exact zeros (padding, mostly), 0 to 1.
    pub zeros: f64,
}

impl FeatureStats {
    fn of(values: &[f32]) -> Self {
        let (mut sum, mut squares, mut zeros) = (0.0f64, 0.0f64, 0u64);
        let (mut min, mut max) = (f32::INFINITY, f32::NEG_INFINITY);
        for &x in values {
            sum += f64::from(x);
            squares += f64::from(x) * f64::from(x);
            zeros += u64::from(x == 0.0);
            min = min.min(x);
            max = max.max(x);
        }
        let n = values.len().max(1) as f64;
        let mean = sum / n;
        Self {
            mean,
            std: (squares / n - mean * mean).max(0.0).sqrt(),
            min,
            max,
            zeros: zeros as f64 / n,
        }
    }
}

impl Manifest {
    /// Describes an open dataset whose hash is known. Reads the whole file.
    pub fn of(
        data: &Dataset,
        name: &str,
        blake3: blake3::Hash,
        source: Source,
        notes: Vec<String>,
    ) -> Self {
        let kind = data.kind();
        let l = data.shapes().text_len;
        let splits = Split::ALL.map(|split| {
            let view = data.split(split);
            let mut label_counts = vec![0; kind.classes().len()];
            for &label in view.labels() {
                label_counts[kind.class_of(label)] += 1;
            }
            let samples = view.text().chunks_exact(3 * l);
            let tokens = samples
                .clone()
                .map(|s| s[l..2 * l].iter().filter(|&&m| m == 1).count() as u64);
            let summary = SplitManifest {
                samples: view.len(),
                label_counts,
                label_mean: view.labels().iter().map(|&y| f64::from(y)).sum::<f64>()
                    / view.len() as f64,
                text_lengths: LengthStats::of(tokens),
                audio_lengths: LengthStats::of(view.audio_lengths().iter().map(|&n| n as u64)),
                vision_lengths: LengthStats::of(view.vision_lengths().iter().map(|&n| n as u64)),
                largest_token: samples
                    .flat_map(|s| s[..l].iter().copied())
                    .max()
                    .unwrap_or(0),
                audio: FeatureStats::of(view.audio()),
                vision: FeatureStats::of(view.vision()),
            };
            (split, summary)
        });
        Self {
            version: VERSION,
            name: name.to_owned(),
            kind,
            blake3: blake3.to_hex().to_string(),
            bytes: data.bytes().len() as u64,
            shapes: data.shapes(),
            classes: kind.classes().iter().map(|&c| c.to_owned()).collect(),
            splits: BTreeMap::from(splits),
            source,
            notes,
        }
    }

    /// Reads a manifest, at most 1 MiB of it.
    pub fn read(path: &Path) -> Result<Self, DatasetError> {
        use io::Read;
        let file = File::open(path).map_err(DatasetError::io(path))?;
        let mut text = String::new();
        file.take(1 << 20)
            .read_to_string(&mut text)
            .map_err(DatasetError::io(path))?;
        let bad = |what: String| DatasetError::Manifest {
            path: path.to_owned(),
            what,
        };
        let manifest: Self = serde_json::from_str(&text).map_err(|error| {
            bad(format!(
                "is not a dataset manifest: {error}; import the dataset again"
            ))
        })?;
        if manifest.version != VERSION {
            return Err(bad(format!(
                "has version {}, this program reads {VERSION}: import the dataset again",
                manifest.version
            )));
        }
        Ok(manifest)
    }
}
