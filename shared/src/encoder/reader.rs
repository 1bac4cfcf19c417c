//! Opens an encoder and reads its tensors.

use super::error::{AGAIN, ANOTHER};
use super::files::Format;
use super::values::{Dtype, Place};
use super::{
    Architecture, Config, EncoderError, TokenIds, WeightFiles, header, is_plain, tokens, torch,
};
use crate::hash::Hash;
use memmap2::Mmap;
use std::{
    collections::BTreeMap,
    fmt,
    fs::File,
    path::{Path, PathBuf},
};

/// A folder that can be used as a text encoder.
#[derive(Debug)]
pub struct Encoder {
    pub(super) folder: PathBuf,
    pub(super) config: Config,
    pub(super) files: WeightFiles,
    pub(super) maps: Vec<Mmap>,
    pub(super) tensors: BTreeMap<String, Place>,
}

/// The identity of an encoder: the BLAKE3 hash of its one file, or a hash over the names and
/// hashes of several. `files` are those of [`WeightFiles::names`].
pub fn identity(files: &[(String, Hash)]) -> Hash {
    if let [(_, hash)] = files {
        return hash.clone();
    }
    let lines: String = files
        .iter()
        .map(|(name, hash)| format!("{name} {hash}\n"))
        .collect();
    Hash::of(lines.as_bytes())
}

/// Maximum size of a list of files in bytes.
pub const MAX_LIST: u64 = 1 << 20;

/// The list of an encoder's files, for a machine that has to fetch them.
pub fn write_list(files: &[(String, Hash)]) -> Vec<u8> {
    let lines: String = files
        .iter()
        .map(|(name, hash)| format!("{hash} {name}\n"))
        .collect();
    lines.into_bytes()
}

/// Reads what [`write_list`] wrote of the encoder that is known by `wanted`. No name leads out of
/// the folder that the files are put into.
///
/// # Errors
///
/// Not such a list, or that of another encoder: what is wrong, for people.
pub fn read_list(list: &[u8], wanted: &Hash) -> Result<Vec<(String, Hash)>, String> {
    let text = std::str::from_utf8(list).map_err(|_| "not UTF-8".to_owned())?;
    let files = text
        .lines()
        .map(|line| {
            let (hash, name) = line.split_once(' ').ok_or("a line has no name")?;
            let hash: Hash = hash.parse().map_err(|_| "a line begins with no hash")?;
            if !is_plain(name) {
                return Err("a name is none of a file in the same folder");
            }
            Ok((name.to_owned(), hash))
        })
        .collect::<Result<Vec<_>, &str>>()?;
    let found = identity(&files);
    if found == *wanted {
        Ok(files)
    } else {
        Err(format!("it lists the encoder {found}"))
    }
}

impl Encoder {
    /// Reads the configuration and the headers of the weights in `folder`, and checks that they
    /// match: every weight of the configuration exists with its shape.
    ///
    /// # Errors
    ///
    /// A folder that cannot be used, with what to do.
    pub fn open(folder: &Path) -> Result<Self, Box<EncoderError>> {
        let config = Config::read(folder)?;
        let files = WeightFiles::find(folder)?;
        let mut maps = Vec::new();
        let mut tensors = BTreeMap::new();
        let mut marks = Marks::default();
        for (i, name) in files.weights().iter().enumerate() {
            let unreadable = |error: std::io::Error| {
                EncoderError::new(
                    folder,
                    format!("its {name} cannot be read: {error}"),
                    "check the file and its permissions",
                )
            };
            let file = File::open(folder.join(name)).map_err(unreadable)?;
            let bytes = file.metadata().map_err(unreadable)?.len();
            if bytes == 0 {
                return Err(EncoderError::new(
                    folder,
                    format!("its {name} is empty"),
                    AGAIN,
                ));
            }
            // SAFETY: nothing in this program writes to an encoder's files; all reads are bounded
            // by the map's length, and every bit pattern is a valid number.
            let map = unsafe { Mmap::map(&file) }
                .map_err(|error| unreadable(crate::mapping::explain(error, bytes)))?;
            let found = match files.format {
                Format::Safetensors => header::tensors(folder, name, &map, i)?,
                Format::Torch => torch::tensors(folder, name, &map, i)?,
            };
            for (raw, place) in found {
                marks.look_at(&raw);
                let Some(canonical) = canonical(&raw) else {
                    continue;
                };
                if let Some(index) = &files.index
                    && index.get(&raw).is_none_or(|file| file != name)
                {
                    return Err(EncoderError::new(
                        folder,
                        format!("its index does not say that {name} has the tensor `{raw}`"),
                        AGAIN,
                    ));
                }
                if tensors.insert(canonical.clone(), place).is_some() {
                    return Err(EncoderError::new(
                        folder,
                        format!("its weights have two tensors for `{canonical}`: one is `{raw}`"),
                        "keep the one that belongs to the encoder alone, without a head",
                    ));
                }
            }
            maps.push(map);
        }
        let encoder = Self {
            folder: folder.to_owned(),
            config,
            files,
            maps,
            tensors,
        };
        encoder.check(&marks)?;
        Ok(encoder)
    }

    fn refuse(&self, found: String, remedy: &str) -> Box<EncoderError> {
        EncoderError::new(&self.folder, found, remedy)
    }

    /// Checks that configuration and weights match.
    fn check(&self, marks: &Marks) -> Result<(), Box<EncoderError>> {
        self.check_architecture(marks)?;
        self.check_tensors()?;
        self.check_surplus()
    }

    /// Checks that configuration and weights are of one architecture.
    fn check_architecture(&self, marks: &Marks) -> Result<(), Box<EncoderError>> {
        let config = &self.config;
        if config.architecture == Architecture::Bert
            && let Some(mark) = &marks.roberta
        {
            let says = if config.is_declared() {
                "its config.json says BERT"
            } else {
                "its config.json says no model_type"
            };
            return Err(self.refuse(
                format!("{says}, but its weights are a RoBERTa's: they have `{mark}`"),
                "take the config.json that was published with the weights; trained as a BERT its \
                 positions would be off by two",
            ));
        }
        if config.architecture == Architecture::Roberta
            && let Some(mark) = &marks.bert
        {
            return Err(self.refuse(
                format!(
                    "its config.json says RoBERTa, but its weights are a BERT's: they have `{mark}`"
                ),
                "take the config.json that was published with the weights",
            ));
        }
        if config.architecture == Architecture::Bert
            && config.type_vocab_size == 1
            && config.pad_token_id == Some(1)
        {
            return Err(self.refuse(
                "its config.json is a RoBERTa's (pad_token_id 1, type_vocab_size 1) and does not \
                 say so"
                    .to_owned(),
                "write \"model_type\": \"roberta\" into config.json, if it is one",
            ));
        }
        Ok(())
    }

    /// Checks that every weight of the configuration exists with its shape.
    fn check_tensors(&self) -> Result<(), Box<EncoderError>> {
        for (name, expected) in self.config.tensors() {
            let Some(place) = self.tensors.get(&name) else {
                return Err(self.missing(&name));
            };
            let shape: Vec<i64> = place.shape.iter().map(|&d| d as i64).collect();
            if shape != expected {
                return Err(self.refuse(
                    format!("its `{name}` has shape {shape:?}, config.json asks for {expected:?}"),
                    "take weights and config.json of the same model",
                ));
            }
            if let Dtype::Other(kind) = place.dtype {
                return Err(self.refuse(
                    format!(
                        "its `{name}` holds numbers {kind}; F32, F16, BF16 or F64 are expected"
                    ),
                    "take the model that was not quantized",
                ));
            }
        }
        Ok(())
    }

    /// Checks that no weight is left over: left out silently, it would make another encoder.
    fn check_surplus(&self) -> Result<(), Box<EncoderError>> {
        let config = &self.config;
        let expected: std::collections::BTreeSet<String> =
            config.tensors().map(|(name, _)| name).collect();
        let layers = format!("encoder.layer.{}.", config.num_hidden_layers);
        let more = self
            .tensors
            .keys()
            .find(|name| name.starts_with("encoder.layer.") && !expected.contains(*name));
        match more {
            None => Ok(()),
            Some(name) if self.tensors.keys().any(|name| name.starts_with(&layers)) => Err(self
                .refuse(
                    format!(
                        "its weights have more layers (`{name}`) than the {} that config.json asks \
                         for",
                        config.num_hidden_layers
                    ),
                    "take weights and config.json of the same model",
                )),
            Some(name) => Err(self.refuse(
                format!(
                    "its weights have `{name}`, which a {} has not",
                    config.architecture.name()
                ),
                ANOTHER,
            )),
        }
    }

    fn missing(&self, name: &str) -> Box<EncoderError> {
        let files = self.files.weights();
        let files = match files {
            [one] => one.clone(),
            [first, .., last] => format!("{first} to {last}"),
            [] => "the weights".to_owned(),
        };
        let found = format!("its {files} has no tensor `{name}`");
        if self.tensors.is_empty() {
            let config = &self.config;
            return self.refuse(
                format!(
                    "{found}, and none that a {} has",
                    config.architecture.name()
                ),
                ANOTHER,
            );
        }
        let remedy = if name.starts_with("encoder.layer.") {
            "download the weights again, and take the config.json that was published with them: it \
             says how many layers there are"
        } else {
            "download the weights again"
        };
        self.refuse(found, remedy)
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The files of its weights.
    pub fn files(&self) -> &WeightFiles {
        &self.files
    }

    /// The ids of its vocabulary's special tokens.
    ///
    /// # Errors
    ///
    /// The files of the vocabulary are damaged, contradict each other, or, for a RoBERTa, are not
    /// there. A BERT without them has the ids that every BERT vocabulary gives.
    pub fn token_ids(&self) -> Result<TokenIds, Box<EncoderError>> {
        tokens::read(&self.folder, &self.config)
    }

    /// The numbers of a weight that [`Config::tensors`] names, row by row, as 32-bit floats.
    ///
    /// # Errors
    ///
    /// It has no such weight, or one that is not finite.
    pub fn tensor(&self, name: &str) -> Result<Vec<f32>, Box<EncoderError>> {
        let Some(place) = self.tensors.get(name) else {
            return Err(self.missing(name));
        };
        let Some(map) = self.maps.get(place.file) else {
            return Err(self.missing(name));
        };
        let values = place.read(map);
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(values),
            Some(at) => Err(self.refuse(
                format!(
                    "its `{name}` has a weight that is not finite ({} at position {at} of {})",
                    values[at],
                    values.len()
                ),
                "download the weights again; if they are so at their source, training broke there: \
                 take another",
            )),
        }
    }

    /// Reads every weight.
    ///
    /// # Errors
    ///
    /// One is not finite.
    pub fn check_finite(&self) -> Result<(), Box<EncoderError>> {
        self.config
            .tensors()
            .try_for_each(|(name, _)| self.tensor(&name).map(drop))
    }
}

impl fmt::Display for Encoder {
    /// `BERT of width 384, 6 layers, 30522 tokens`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = &self.config;
        write!(
            f,
            "{} of width {}, {} layers, {} tokens",
            config.architecture.name(),
            config.hidden_size,
            config.num_hidden_layers,
            config.vocab_size
        )
    }
}

/// What the names of tensors say of the architecture.
#[derive(Default)]
struct Marks {
    bert: Option<String>,
    roberta: Option<String>,
}

impl Marks {
    fn look_at(&mut self, name: &str) {
        let has = |part: &str| name.starts_with(part) || name.contains(&format!(".{part}"));
        if self.roberta.is_none() && (has("roberta.") || has("lm_head.")) {
            self.roberta = Some(name.to_owned());
        }
        if self.bert.is_none() && (has("bert.") || has("cls.predictions.")) {
            self.bert = Some(name.to_owned());
        }
    }
}

/// The name that a tensor has here; `None` if it is not part of an encoder.
pub(super) fn canonical(name: &str) -> Option<String> {
    let mut rest = name;
    // `model.bert.` is written by some trainers: one prefix of the trainer, one of the model.
    for _ in 0..2 {
        let prefixes = ["bert.", "roberta.", "model."];
        rest = prefixes
            .iter()
            .find_map(|prefix| rest.strip_prefix(prefix))
            .unwrap_or(rest);
    }
    let part = ["embeddings.", "encoder.layer."];
    if !part.iter().any(|part| rest.starts_with(part)) {
        return None;
    }
    // As the models converted from TensorFlow have them.
    let renamed = rest
        .strip_suffix("LayerNorm.gamma")
        .map(|stem| format!("{stem}LayerNorm.weight"))
        .or_else(|| {
            let stem = rest.strip_suffix("LayerNorm.beta")?;
            Some(format!("{stem}LayerNorm.bias"))
        });
    Some(renamed.unwrap_or_else(|| rest.to_owned()))
}
