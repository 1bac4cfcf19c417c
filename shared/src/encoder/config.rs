//! `config.json` of an encoder: which architecture, and its sizes.

use super::error::{ANOTHER, EncoderError, Result};
use serde::Deserialize;
use std::{fs::File, io::Read as _, path::Path};

/// Maximum size of a `config.json` in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// The largest of a configuration's sizes that is accepted.
const MAX_SIZE: i64 = 1 << 20;

/// How an encoder computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// BERT (Devlin et al. 2019).
    Bert,
    /// RoBERTa (Liu et al. 2019) and XLM-RoBERTa: BERT's layers, positions start after the padding
    /// id, no segment types.
    Roberta,
}

impl Architecture {
    /// The name for people.
    pub fn name(self) -> &'static str {
        match self {
            Architecture::Bert => "BERT",
            Architecture::Roberta => "RoBERTa",
        }
    }
}

/// What `config.json` says of an encoder, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// How it computes.
    pub architecture: Architecture,
    /// Tokens of the vocabulary.
    pub vocab_size: i64,
    /// Width of every layer.
    pub hidden_size: i64,
    /// Layers.
    pub num_hidden_layers: i64,
    /// Heads per layer.
    pub num_attention_heads: i64,
    /// Width of the feed-forward layers.
    pub intermediate_size: i64,
    /// Rows of the table of positions.
    pub max_position_embeddings: i64,
    /// Segment types.
    pub type_vocab_size: i64,
    /// Added to variances.
    pub layer_norm_eps: f64,
    /// Dropout of hidden states.
    pub hidden_dropout_prob: f64,
    /// Dropout of attention.
    pub attention_probs_dropout_prob: f64,
    /// The token whose embedding takes no gradient, if any. Always there for RoBERTa, whose
    /// positions are counted from it.
    pub pad_token_id: Option<i64>,
    /// Standard deviation of newly initialized weights.
    pub initializer_range: f64,
    /// Whether the file itself names the architecture.
    declared: bool,
}

/// The raw file.
#[derive(Deserialize)]
struct Raw {
    model_type: Option<String>,
    architectures: Option<Vec<String>>,
    vocab_size: Option<i64>,
    hidden_size: Option<i64>,
    num_hidden_layers: Option<i64>,
    num_attention_heads: Option<i64>,
    intermediate_size: Option<i64>,
    max_position_embeddings: Option<i64>,
    type_vocab_size: Option<i64>,
    layer_norm_eps: Option<f64>,
    hidden_dropout_prob: Option<f64>,
    attention_probs_dropout_prob: Option<f64>,
    hidden_act: Option<String>,
    position_embedding_type: Option<String>,
    // `null` says that there is none, which is another thing than saying nothing.
    #[serde(default, deserialize_with = "some")]
    pad_token_id: Option<Option<i64>>,
    initializer_range: Option<f64>,
    is_decoder: Option<bool>,
}

fn some<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Option<Option<i64>>, D::Error> {
    Option::<i64>::deserialize(deserializer).map(Some)
}

/// The architecture behind a `model_type` or the name of a class (`RobertaForMaskedLM`).
fn architecture(name: &str) -> Option<Architecture> {
    let name = name.to_ascii_lowercase().replace(['-', '_'], "");
    let stem = name.find("for").map_or(name.as_str(), |at| &name[..at]);
    match stem.strip_suffix("model").unwrap_or(stem) {
        "bert" => Some(Architecture::Bert),
        "roberta" | "xlmroberta" => Some(Architecture::Roberta),
        _ => None,
    }
}

impl Raw {
    /// The architecture that the file names, by `model_type` or `architectures`.
    fn architecture(&self, folder: &Path) -> Result<Option<Architecture>> {
        let refuse = |found: String, remedy: &str| Err(EncoderError::new(folder, found, remedy));
        let named = self
            .architectures
            .iter()
            .flatten()
            .find_map(|name| architecture(name));
        let declared = match &self.model_type {
            Some(model_type) => match architecture(model_type) {
                Some(architecture) => Some(architecture),
                None => {
                    let found = format!(
                        "it is a `{model_type}` (model_type in config.json), and only `bert`, \
                         `roberta` and `xlm-roberta` are computed here"
                    );
                    return refuse(found, ANOTHER);
                }
            },
            None => match self.architectures.as_deref() {
                Some([first, ..]) if named.is_none() => {
                    let found = format!(
                        "it is a `{first}` (architectures in config.json), and only BERT and \
                         RoBERTa are computed here"
                    );
                    return refuse(found, ANOTHER);
                }
                _ => named,
            },
        };
        if let (Some(declared), Some(named)) = (declared, named)
            && declared != named
        {
            return refuse(
                format!(
                    "its config.json contradicts itself: model_type says {}, architectures say {}",
                    declared.name(),
                    named.name()
                ),
                "take the config.json that was published with the weights",
            );
        }
        Ok(declared)
    }
}

impl Config {
    /// Reads and checks `folder/config.json`.
    ///
    /// # Errors
    ///
    /// It does not exist, is not a configuration of a BERT or RoBERTa, or needs what is not supported
    /// here: another activation, relative positions.
    pub fn read(folder: &Path) -> std::result::Result<Self, Box<EncoderError>> {
        let wrong = |found: String| {
            EncoderError::new(
                folder,
                found,
                "take the config.json that was published with the weights",
            )
        };
        let path = folder.join("config.json");
        let mut text = String::new();
        let read =
            File::open(&path).and_then(|file| file.take(MAX_BYTES + 1).read_to_string(&mut text));
        if let Err(error) = read {
            let found = match error.kind() {
                std::io::ErrorKind::NotFound if !folder.is_dir() => "no such folder".to_owned(),
                std::io::ErrorKind::NotFound => "it has no config.json".to_owned(),
                _ => format!("its config.json cannot be read: {error}"),
            };
            return Err(EncoderError::new(folder, found, ANOTHER));
        }
        if text.len() as u64 > MAX_BYTES {
            return Err(wrong(format!(
                "its config.json has more than {MAX_BYTES} bytes"
            )));
        }
        if let Some(kind) = super::files::recognize(text.as_bytes()) {
            return Err(EncoderError::new(
                folder,
                format!("its config.json is {}", kind.what),
                kind.remedy,
            ));
        }
        let raw: Raw = serde_json::from_str(&text).map_err(|e| {
            wrong(format!(
                "its config.json is not an encoder configuration: {e}"
            ))
        })?;
        Self::of(folder, raw)
    }

    fn of(folder: &Path, raw: Raw) -> Result<Self> {
        let declared = raw.architecture(folder)?;
        let architecture = declared.unwrap_or(Architecture::Bert);
        let size = |name: &str, value: Option<i64>, default: Option<i64>| -> Result<i64> {
            match value.or(default) {
                Some(value) if (1..=MAX_SIZE).contains(&value) => Ok(value),
                Some(value) => Err(EncoderError::new(
                    folder,
                    format!(
                        "config.json: {name} is {value}, a number from 1 to {MAX_SIZE} is expected"
                    ),
                    "take the config.json that was published with the weights",
                )),
                None => Err(EncoderError::new(
                    folder,
                    format!(
                        "its config.json says no {name}: it is not the configuration of a {}",
                        architecture.name()
                    ),
                    ANOTHER,
                )),
            }
        };
        let real = |name: &str, value: Option<f64>, default: f64, most: f64| -> Result<f64> {
            let value = value.unwrap_or(default);
            // Written so that NaN is refused.
            if value >= 0.0 && value < most {
                return Ok(value);
            }
            Err(EncoderError::new(
                folder,
                format!(
                    "config.json: {name} is {value}, a number from 0 to below {most} is expected"
                ),
                "take the config.json that was published with the weights",
            ))
        };
        let default_padding = match architecture {
            Architecture::Bert => 0,
            Architecture::Roberta => 1,
        };
        let config = Self {
            architecture,
            vocab_size: size("vocab_size", raw.vocab_size, None)?,
            hidden_size: size("hidden_size", raw.hidden_size, None)?,
            num_hidden_layers: size("num_hidden_layers", raw.num_hidden_layers, None)?,
            num_attention_heads: size("num_attention_heads", raw.num_attention_heads, None)?,
            intermediate_size: size("intermediate_size", raw.intermediate_size, None)?,
            max_position_embeddings: size(
                "max_position_embeddings",
                raw.max_position_embeddings,
                Some(512),
            )?,
            type_vocab_size: size("type_vocab_size", raw.type_vocab_size, Some(2))?,
            layer_norm_eps: real("layer_norm_eps", raw.layer_norm_eps, 1e-12, 1.0)?,
            hidden_dropout_prob: real("hidden_dropout_prob", raw.hidden_dropout_prob, 0.1, 1.0)?,
            attention_probs_dropout_prob: real(
                "attention_probs_dropout_prob",
                raw.attention_probs_dropout_prob,
                0.1,
                1.0,
            )?,
            pad_token_id: raw.pad_token_id.unwrap_or(Some(default_padding)),
            initializer_range: real("initializer_range", raw.initializer_range, 0.02, 1e3)?,
            declared: declared.is_some(),
        };
        config.check(folder, &raw)?;
        Ok(config)
    }

    fn check(&self, folder: &Path, raw: &Raw) -> Result<()> {
        let refuse = |found: String, remedy: &str| Err(EncoderError::new(folder, found, remedy));
        if self.hidden_size % self.num_attention_heads != 0 {
            return refuse(
                format!(
                    "config.json: hidden_size {} is not a multiple of num_attention_heads {}",
                    self.hidden_size, self.num_attention_heads
                ),
                "take the config.json that was published with the weights",
            );
        }
        let other =
            "take a model that was trained so: other functions would compute other features";
        match raw.hidden_act.as_deref() {
            None | Some("gelu") => {}
            Some(act) => {
                let found =
                    format!("config.json: hidden_act is `{act}`; only `gelu` is computed here");
                return refuse(found, other);
            }
        }
        match raw.position_embedding_type.as_deref() {
            None | Some("absolute") => {}
            Some(kind) => {
                let found = format!(
                    "config.json: position_embedding_type is `{kind}`; only `absolute` is computed \
                     here"
                );
                return refuse(found, other);
            }
        }
        if raw.is_decoder == Some(true) {
            return refuse(
                "config.json: is_decoder is true; only encoders are computed here".to_owned(),
                ANOTHER,
            );
        }
        let padding = self.pad_token_id;
        let possible = match self.architecture {
            Architecture::Bert => padding.is_none_or(|id| (0..self.vocab_size).contains(&id)),
            Architecture::Roberta => padding.is_some_and(|id| {
                (0..self.vocab_size).contains(&id) && id + 1 < self.max_position_embeddings
            }),
        };
        if !possible {
            let padding = padding.map_or("null".to_owned(), |id| id.to_string());
            return refuse(
                format!(
                    "config.json: pad_token_id is {padding}, with {} tokens and {} positions",
                    self.vocab_size, self.max_position_embeddings
                ),
                "take the config.json that was published with the weights",
            );
        }
        Ok(())
    }

    /// Whether the file says which architecture it is; otherwise it is taken for a BERT.
    pub(super) fn is_declared(&self) -> bool {
        self.declared
    }

    /// Maximum number of tokens a text can have: RoBERTa's positions up to that of padding are none of a
    /// text.
    pub fn longest(&self) -> i64 {
        self.max_position_embeddings - self.first_position()
    }

    /// The row of the position table for a text's first token.
    pub fn first_position(&self) -> i64 {
        match (self.architecture, self.pad_token_id) {
            (Architecture::Roberta, Some(padding)) => padding + 1,
            _ => 0,
        }
    }

    /// Names and shapes of the weights that are computed with, as [`super::Encoder`] gives them. A
    /// pooler is not among them: no method reads it.
    pub fn tensors(&self) -> impl Iterator<Item = (String, Vec<i64>)> + '_ {
        let (width, inner) = (self.hidden_size, self.intermediate_size);
        let norm = move |name: String| {
            ["weight", "bias"].map(|part| (format!("{name}.{part}"), vec![width]))
        };
        let linear = move |name: String, from: i64, to: i64| {
            [
                (format!("{name}.weight"), vec![to, from]),
                (format!("{name}.bias"), vec![to]),
            ]
        };
        let tables = [
            ("word_embeddings", self.vocab_size),
            ("position_embeddings", self.max_position_embeddings),
            ("token_type_embeddings", self.type_vocab_size),
        ];
        tables
            .into_iter()
            .map(move |(name, rows)| (format!("embeddings.{name}.weight"), vec![rows, width]))
            .chain(norm("embeddings.LayerNorm".to_owned()))
            .chain((0..self.num_hidden_layers).flat_map(move |layer| {
                let name = move |part: &str| format!("encoder.layer.{layer}.{part}");
                [
                    linear(name("attention.self.query"), width, width),
                    linear(name("attention.self.key"), width, width),
                    linear(name("attention.self.value"), width, width),
                    linear(name("attention.output.dense"), width, width),
                    norm(name("attention.output.LayerNorm")),
                    linear(name("intermediate.dense"), width, inner),
                    linear(name("output.dense"), inner, width),
                    norm(name("output.LayerNorm")),
                ]
                .into_iter()
                .flatten()
            }))
    }
}
