//! BERT, under the weight names of Hugging Face.
//!
//! A folder in the Hugging Face layout holds `config.json` and `model.safetensors`; names may carry
//! the prefix `bert.`. What this encoder does not know (another activation, relative positions) is
//! refused rather than ignored.

mod layout;

use self::layout::Layout;
use super::{remembered::remembered, savings::Savings};
use crate::models::MethodError;
use missbench_shared::methods::EncoderShape;
use serde::Deserialize;
use std::{collections::HashMap, fs, path::Path};
use tch::{Kind, Tensor, nn, nn::Module};

/// The parts of `config.json` that matter.
#[derive(Clone, Debug, Deserialize)]
pub struct BertConfig {
    /// Tokens of the vocabulary.
    pub vocab_size: i64,
    /// Width of every layer.
    pub hidden_size: i64,
    /// Layers.
    pub num_hidden_layers: i64,
    /// Heads a layer.
    pub num_attention_heads: i64,
    /// Width of the feed-forward layers.
    pub intermediate_size: i64,
    /// The most tokens a text can have.
    #[serde(default = "default_positions")]
    pub max_position_embeddings: i64,
    /// Kinds of segment.
    #[serde(default = "default_segments")]
    pub type_vocab_size: i64,
    /// Added to variances.
    #[serde(default = "default_eps")]
    pub layer_norm_eps: f64,
    /// Dropout of hidden states.
    #[serde(default = "default_dropout")]
    pub hidden_dropout_prob: f64,
    /// Dropout of attention.
    #[serde(default = "default_dropout")]
    pub attention_probs_dropout_prob: f64,
    /// Activation: only `gelu` is known.
    #[serde(default = "default_act")]
    pub hidden_act: String,
    /// Kind of positions: only `absolute` is known.
    #[serde(default = "default_position_type")]
    pub position_embedding_type: String,
    /// The token whose embedding takes no gradient, if any.
    #[serde(default = "default_pad")]
    pub pad_token_id: Option<i64>,
    /// Standard deviation of fresh weights.
    #[serde(default = "default_range")]
    pub initializer_range: f64,
}

fn default_positions() -> i64 {
    512
}
fn default_segments() -> i64 {
    2
}
fn default_eps() -> f64 {
    1e-12
}
fn default_dropout() -> f64 {
    0.1
}
fn default_pad() -> Option<i64> {
    Some(0)
}
fn default_act() -> String {
    "gelu".to_owned()
}
fn default_position_type() -> String {
    "absolute".to_owned()
}
fn default_range() -> f64 {
    0.02
}

fn refused(folder: &Path, what: impl Into<String>) -> MethodError {
    MethodError::Encoder {
        path: folder.display().to_string(),
        what: what.into(),
    }
}

impl BertConfig {
    /// Reads and checks `folder/config.json`.
    pub fn read(folder: &Path) -> Result<Self, MethodError> {
        let path = folder.join("config.json");
        let text = fs::read_to_string(&path).map_err(|e| {
            refused(
                folder,
                format!(
                    "cannot read config.json ({e}); an encoder is a folder with config.json and \
                     model.safetensors in the Hugging Face layout"
                ),
            )
        })?;
        let config: Self = serde_json::from_str(&text)
            .map_err(|e| refused(folder, format!("config.json is no BERT configuration: {e}")))?;
        let positive = [
            ("vocab_size", config.vocab_size),
            ("hidden_size", config.hidden_size),
            ("num_hidden_layers", config.num_hidden_layers),
            ("num_attention_heads", config.num_attention_heads),
            ("intermediate_size", config.intermediate_size),
            ("max_position_embeddings", config.max_position_embeddings),
            ("type_vocab_size", config.type_vocab_size),
        ];
        if let Some((name, value)) = positive.iter().find(|(_, v)| !(1..=1 << 20).contains(v)) {
            return Err(refused(folder, format!("config.json: {name} is {value}")));
        }
        if config.hidden_size % config.num_attention_heads != 0 {
            return Err(refused(
                folder,
                format!(
                    "config.json: hidden_size {} is no multiple of num_attention_heads {}",
                    config.hidden_size, config.num_attention_heads
                ),
            ));
        }
        if config.hidden_act != "gelu" {
            return Err(refused(
                folder,
                format!(
                    "config.json: hidden_act is `{}`; only `gelu` is known",
                    config.hidden_act
                ),
            ));
        }
        if config.position_embedding_type != "absolute" {
            return Err(refused(
                folder,
                format!(
                    "config.json: position_embedding_type is `{}`; only `absolute` is known",
                    config.position_embedding_type
                ),
            ));
        }
        Ok(config)
    }

    /// Its sizes, as methods and plans ask for them.
    pub fn shape(&self) -> EncoderShape {
        // Read and checked: all are positive.
        let size = |n: i64| u64::try_from(n).unwrap_or(0);
        EncoderShape {
            width: size(self.hidden_size),
            layers: size(self.num_hidden_layers),
            heads: size(self.num_attention_heads),
            intermediate: size(self.intermediate_size),
            vocabulary: size(self.vocab_size),
            positions: size(self.max_position_embeddings),
        }
    }

    /// Refuses texts that the encoder in `folder` cannot take: `largest_id` is the largest token
    /// id of a dataset, `length` its tokens a text. Beyond the embedding tables libtorch would stop
    /// in mid-training, and on a GPU lose the device.
    pub fn check_texts(
        &self,
        folder: &Path,
        largest_id: i64,
        length: i64,
    ) -> Result<(), MethodError> {
        if largest_id >= self.vocab_size {
            return Err(refused(
                folder,
                format!(
                    "the dataset has the token id {largest_id}, the vocabulary only {} tokens: \
                     take the encoder whose vocabulary the dataset's text was written in",
                    self.vocab_size
                ),
            ));
        }
        if length > self.max_position_embeddings {
            return Err(refused(
                folder,
                format!(
                    "the dataset's texts have {length} tokens, the encoder takes at most {}",
                    self.max_position_embeddings
                ),
            ));
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Layer {
    query: nn::Linear,
    key: nn::Linear,
    value: nn::Linear,
    attended: nn::Linear,
    attended_norm: nn::LayerNorm,
    intermediate: nn::Linear,
    output: nn::Linear,
    output_norm: nn::LayerNorm,
}

/// What every layer needs to know.
#[derive(Debug)]
struct Shape {
    heads: i64,
    dropout: f64,
    attention_dropout: f64,
}

impl Layer {
    fn new(path: &nn::Path<'_>, config: &BertConfig) -> Self {
        let linear = |path: nn::Path<'_>, from, to| nn::linear(path, from, to, initial(config));
        let norm = |path: nn::Path<'_>| layer_norm(path, config);
        let width = config.hidden_size;
        let attention = path / "attention";
        let own = &attention / "self";
        Self {
            query: linear(&own / "query", width, width),
            key: linear(&own / "key", width, width),
            value: linear(&own / "value", width, width),
            attended: linear(&attention / "output" / "dense", width, width),
            attended_norm: norm(&attention / "output" / "LayerNorm"),
            intermediate: linear(
                path / "intermediate" / "dense",
                width,
                config.intermediate_size,
            ),
            output: linear(path / "output" / "dense", config.intermediate_size, width),
            output_norm: norm(path / "output" / "LayerNorm"),
        }
    }

    /// `x` in the form that `layout` says, `mask` `[B, 1, 1, L]` added to the scores.
    fn forward(
        &self,
        x: &Tensor,
        layout: &Layout,
        mask: &Tensor,
        shape: &Shape,
        train: bool,
    ) -> Tensor {
        let heads = |linear: &nn::Linear| {
            layout
                .batch(&linear.forward(x))
                .unflatten(2, [shape.heads, -1])
                .transpose(1, 2)
        };
        let context = Tensor::scaled_dot_product_attention(
            &heads(&self.query),
            &heads(&self.key),
            &heads(&self.value),
            Some(mask),
            if train { shape.attention_dropout } else { 0.0 },
            false,
            None,
            false,
        )
        .transpose(1, 2)
        .flatten(2, 3);
        let attended = self
            .attended
            .forward(&layout.tokens(&context))
            .dropout(shape.dropout, train);
        let attended = self.attended_norm.forward(&(attended + x));
        let inner = self.intermediate.forward(&attended).gelu("none");
        let output = self.output.forward(&inner).dropout(shape.dropout, train);
        self.output_norm.forward(&(output + attended))
    }
}

/// What is done to the states `[B, L, H]` before the layer of this number, from 0.
pub type Injection<'a> = (usize, &'a dyn Fn(Tensor) -> Tensor);

fn initial(config: &BertConfig) -> nn::LinearConfig {
    nn::LinearConfig {
        ws_init: nn::Init::Randn {
            mean: 0.0,
            stdev: config.initializer_range,
        },
        bs_init: Some(nn::Init::Const(0.0)),
        bias: true,
    }
}

fn layer_norm(path: nn::Path<'_>, config: &BertConfig) -> nn::LayerNorm {
    nn::layer_norm(
        path,
        vec![config.hidden_size],
        nn::LayerNormConfig {
            eps: config.layer_norm_eps,
            ..Default::default()
        },
    )
}

/// Word, position and segment embeddings.
#[derive(Debug)]
struct Embeddings {
    words: nn::Embedding,
    positions: nn::Embedding,
    segments: nn::Embedding,
    norm: nn::LayerNorm,
}

/// The encoder.
#[derive(Debug)]
pub struct Bert {
    embeddings: Embeddings,
    layers: Vec<Layer>,
    shape: Shape,
    config: BertConfig,
}

impl Bert {
    /// Builds the encoder under `path` and loads its weights from `folder`. The pooler, which no
    /// method reads, is there so that weights load by name.
    pub fn load(path: &nn::Path<'_>, folder: &Path) -> Result<Self, MethodError> {
        let bert = Self::fresh(path, BertConfig::read(folder)?);
        bert.load_weights(folder)?;
        Ok(bert)
    }

    /// Builds the encoder with fresh weights.
    pub fn fresh(path: &nn::Path<'_>, config: BertConfig) -> Self {
        let embeddings = path / "embeddings";
        let table = |name: &str, rows, padding_idx| {
            nn::embedding(
                &embeddings / name,
                rows,
                config.hidden_size,
                nn::EmbeddingConfig {
                    ws_init: nn::Init::Randn {
                        mean: 0.0,
                        stdev: config.initializer_range,
                    },
                    padding_idx,
                    ..Default::default()
                },
            )
        };
        let pooler = nn::linear(
            path / "pooler" / "dense",
            config.hidden_size,
            config.hidden_size,
            initial(&config),
        );
        drop(pooler);
        Self {
            embeddings: Embeddings {
                words: table(
                    "word_embeddings",
                    config.vocab_size,
                    config.pad_token_id.unwrap_or(-1),
                ),
                positions: table("position_embeddings", config.max_position_embeddings, -1),
                segments: table("token_type_embeddings", config.type_vocab_size, -1),
                norm: layer_norm(&embeddings / "LayerNorm", &config),
            },
            layers: (0..config.num_hidden_layers)
                .map(|i| Layer::new(&(path / "encoder" / "layer" / i), &config))
                .collect(),
            shape: Shape {
                heads: config.num_attention_heads,
                dropout: config.hidden_dropout_prob,
                attention_dropout: config.attention_probs_dropout_prob,
            },
            config,
        }
    }

    /// Dropout of hidden states.
    pub fn dropout(&self) -> f64 {
        self.config.hidden_dropout_prob
    }

    /// How this encoder's linear layers begin, for heads that do as it does.
    pub fn linear_init(&self) -> nn::LinearConfig {
        initial(&self.config)
    }

    /// Features a token.
    pub fn width(&self) -> i64 {
        self.config.hidden_size
    }

    fn load_weights(&self, folder: &Path) -> Result<(), MethodError> {
        let file = folder.join("model.safetensors");
        let tensors: HashMap<String, Tensor> = Tensor::read_safetensors(&file)
            .map_err(|e| refused(folder, format!("cannot read model.safetensors: {e}")))?
            .into_iter()
            .map(|(name, tensor)| match name.strip_prefix("bert.") {
                Some(short) => (short.to_owned(), tensor),
                None => (name, tensor),
            })
            .collect();
        let _guard = tch::no_grad_guard();
        for (name, variable) in self.named() {
            let Some(tensor) = tensors.get(&name) else {
                return Err(refused(
                    folder,
                    format!("model.safetensors has no tensor `{name}` (nor `bert.{name}`)"),
                ));
            };
            if tensor.size() != variable.size() {
                return Err(refused(
                    folder,
                    format!(
                        "`{name}` has shape {:?}, config.json asks for {:?}",
                        tensor.size(),
                        variable.size()
                    ),
                ));
            }
            variable.shallow_clone().copy_(&tensor.to_kind(Kind::Float));
        }
        Ok(())
    }

    /// The weights by Hugging Face's names, without the pooler's.
    fn named(&self) -> Vec<(String, &Tensor)> {
        fn linear(name: String, l: &nn::Linear) -> Vec<(String, &Tensor)> {
            let bias = l.bs.as_ref().map(|bs| (format!("{name}.bias"), bs));
            std::iter::once((format!("{name}.weight"), &l.ws))
                .chain(bias)
                .collect()
        }
        fn norm(name: String, n: &nn::LayerNorm) -> Vec<(String, &Tensor)> {
            [("weight", &n.ws), ("bias", &n.bs)]
                .into_iter()
                .filter_map(|(part, t)| Some((format!("{name}.{part}"), t.as_ref()?)))
                .collect()
        }
        let e = &self.embeddings;
        let mut named = vec![
            ("embeddings.word_embeddings.weight".to_owned(), &e.words.ws),
            (
                "embeddings.position_embeddings.weight".to_owned(),
                &e.positions.ws,
            ),
            (
                "embeddings.token_type_embeddings.weight".to_owned(),
                &e.segments.ws,
            ),
        ];
        named.extend(norm("embeddings.LayerNorm".to_owned(), &e.norm));
        for (i, layer) in self.layers.iter().enumerate() {
            let name = |part: &str| format!("encoder.layer.{i}.{part}");
            named.extend(linear(name("attention.self.query"), &layer.query));
            named.extend(linear(name("attention.self.key"), &layer.key));
            named.extend(linear(name("attention.self.value"), &layer.value));
            named.extend(linear(name("attention.output.dense"), &layer.attended));
            named.extend(norm(
                name("attention.output.LayerNorm"),
                &layer.attended_norm,
            ));
            named.extend(linear(name("intermediate.dense"), &layer.intermediate));
            named.extend(linear(name("output.dense"), &layer.output));
            named.extend(norm(name("output.LayerNorm"), &layer.output_norm));
        }
        named
    }

    /// The last hidden states `[B, L, H]` of `text` `[B, 3, L]` int64 (ids, mask, segments).
    ///
    /// Padding is left out of the computation: no other position attends to it. It comes back as
    /// zeros, so a method that reads outputs at padded positions asks for
    /// [`forward_untrimmed`](Self::forward_untrimmed).
    pub fn forward(&self, text: &Tensor, train: bool) -> Tensor {
        let length = text.size()[2];
        let trimmed = Self::trim(text);
        let longest = trimmed.size()[2];
        let states = self.once(&trimmed, true, train, || {
            self.encode(self.embed(&trimmed, train), &trimmed, train, None)
        });
        if longest == length {
            states
        } else {
            states.constant_pad_nd([0, 0, 0, length - longest])
        }
    }

    /// As [`forward`](Self::forward), with the outputs at padded positions as BERT gives them.
    pub fn forward_untrimmed(&self, text: &Tensor, train: bool) -> Tensor {
        self.once(text, false, train, || {
            self.layers(self.embed(text, train), text, &Layout::Whole, train, None)
        })
    }

    /// What `encode` makes of `text`, unless it is still known from another case.
    fn once(
        &self,
        text: &Tensor,
        packed: bool,
        train: bool,
        encode: impl FnOnce() -> Tensor,
    ) -> Tensor {
        if train {
            encode()
        } else {
            remembered(&self.embeddings.words.ws, text, packed, encode)
        }
    }

    /// The layers alone, over embeddings `x` `[B, L, H]` of `text`, with what is to be done between
    /// them. Padding is left out and comes back as zeros.
    pub fn encode(
        &self,
        x: Tensor,
        text: &Tensor,
        train: bool,
        injection: Option<Injection<'_>>,
    ) -> Tensor {
        if Savings::current().trim {
            let layout = Layout::packed(text);
            self.layers(x, text, &layout, train, injection)
        } else {
            self.layers(x, text, &Layout::Whole, train, injection)
        }
    }

    fn layers(
        &self,
        x: Tensor,
        text: &Tensor,
        layout: &Layout,
        train: bool,
        injection: Option<Injection<'_>>,
    ) -> Tensor {
        let mask = Self::attention_mask(text);
        let mut x = layout.tokens(&x);
        for (i, layer) in self.layers.iter().enumerate() {
            if let Some((_, change)) = injection.filter(|(at, _)| *at == i) {
                x = layout.tokens(&change(layout.batch(&x)));
            }
            x = layer.forward(&x, layout, &mask, &self.shape, train);
        }
        layout.batch(&x)
    }

    /// `text` without the columns that are padding in every sample.
    pub fn trim(text: &Tensor) -> Tensor {
        if !Savings::current().trim {
            return text.shallow_clone();
        }
        let length = text.size()[2];
        // The last position that is attended to, also where a mask has holes.
        let ends = Tensor::arange_start(1, length + 1, (Kind::Int64, text.device()));
        let longest = (text.select(1, 1) * ends)
            .max()
            .int64_value(&[])
            .clamp(1, length);
        text.narrow(2, 0, longest)
    }

    /// Word, position and segment embeddings of `text`, normed: `[B, L, H]`.
    pub fn embed(&self, text: &Tensor, train: bool) -> Tensor {
        let positions = Tensor::arange(text.size()[2], (Kind::Int64, text.device()));
        // In the order in which Hugging Face adds them up.
        let sum = self.embeddings.words.forward(&text.select(1, 0))
            + self.embeddings.segments.forward(&text.select(1, 2))
            + self.embeddings.positions.forward(&positions);
        self.embeddings
            .norm
            .forward(&sum)
            .dropout(self.config.hidden_dropout_prob, train)
    }

    /// 0 where a token may be attended to, the lowest number elsewhere: `[B, 1, 1, L]`.
    fn attention_mask(text: &Tensor) -> Tensor {
        let padding = text.select(1, 1).eq(0).unsqueeze(1).unsqueeze(1);
        padding
            .zeros_like()
            .to_kind(Kind::Float)
            .masked_fill(&padding, f64::from(f32::MIN))
    }
}

#[cfg(test)]
mod tests;
