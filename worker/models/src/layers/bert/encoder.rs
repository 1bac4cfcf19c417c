//! The encoder: embeddings and transformer layers.

use super::layout::Layout;
use crate::{
    context::{ForwardContext, Optimizations, Padding},
    error::MethodError,
    layers::dropout::{attention, dropout, residual},
    precision::Precision,
};
pub use halfheard_shared::encoder::Config as BertConfig;
use halfheard_shared::encoder::{Architecture, Encoder};
use std::path::Path;
use tch::{Kind, Tensor, nn, nn::Module};

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

/// What all layers share.
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

    /// Transforms `x`, laid out as `layout`; `mask` `[B, 1, 1, L]` is added to the scores.
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
        let [query, key, value] = [&self.query, &self.key, &self.value].map(heads);
        let p = if train { shape.attention_dropout } else { 0.0 };
        let context = attention([&query, &key, &value], Some(mask), p)
            .transpose(1, 2)
            .flatten(2, 3);
        let p = shape.dropout;
        let output = self.attended.forward(&layout.tokens(&context));
        let attended = self.attended_norm.forward(&residual(x, &output, p, train));
        let inner = self.intermediate.forward(&attended).gelu("none");
        let output = self.output.forward(&inner);
        self.output_norm
            .forward(&residual(&attended, &output, p, train))
    }
}

/// A change of the states `[B, L, H]` before the layer of this index.
pub(crate) type Injection<'a> = (usize, &'a dyn Fn(Tensor) -> Tensor);

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
pub(super) struct Embeddings {
    pub(super) words: nn::Embedding,
    pub(super) positions: nn::Embedding,
    segments: nn::Embedding,
    norm: nn::LayerNorm,
}

/// The encoder.
#[derive(Debug)]
pub struct Bert {
    pub(super) embeddings: Embeddings,
    layers: Vec<Layer>,
    shape: Shape,
    config: BertConfig,
    pub(super) optimizations: Optimizations,
    precision: Precision,
}

impl Bert {
    /// Builds the encoder under `path` and loads its weights from `folder`. It has a pooler, which
    /// no method reads, because published weights do.
    pub(crate) fn load(
        path: &nn::Path<'_>,
        folder: &Path,
        optimizations: Optimizations,
        precision: Precision,
    ) -> Result<Self, MethodError> {
        let encoder = Encoder::open(folder)?;
        let mut bert = Self::fresh(path, encoder.config().clone());
        bert.optimizations = optimizations;
        bert.precision = precision;
        bert.load_weights(&encoder)?;
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
                positions: table(
                    "position_embeddings",
                    config.max_position_embeddings,
                    match config.architecture {
                        Architecture::Bert => -1,
                        // Padding's row gets no gradient.
                        Architecture::Roberta => config.first_position() - 1,
                    },
                ),
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
            optimizations: Optimizations::ALL,
            precision: Precision::default(),
        }
    }

    /// Dropout of hidden states.
    pub(crate) fn dropout(&self) -> f64 {
        self.config.hidden_dropout_prob
    }

    /// The initialization of this encoder's linear layers, for heads that share it.
    pub(crate) fn linear_init(&self) -> nn::LinearConfig {
        initial(&self.config)
    }

    /// Features per token.
    pub(crate) fn width(&self) -> i64 {
        self.config.hidden_size
    }

    fn load_weights(&self, encoder: &Encoder) -> Result<(), MethodError> {
        let _guard = tch::no_grad_guard();
        for (name, variable) in self.named() {
            // `Encoder` has checked all sizes against the configuration.
            let values = Tensor::f_from_slice(&encoder.tensor(&name)?)?;
            variable
                .shallow_clone()
                .copy_(&values.f_view(variable.size().as_slice())?);
        }
        Ok(())
    }

    /// The weights by Hugging Face's names, without the pooler's.
    pub(super) fn named(&self) -> Vec<(String, &Tensor)> {
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
    /// Padding is left out of the computation, since no other position attends to it, and its
    /// outputs are zeros. A method that reads them calls
    /// [`forward_untrimmed`](Self::forward_untrimmed).
    pub(crate) fn forward(&self, text: &Tensor, context: ForwardContext<'_>) -> Tensor {
        let length = text.size()[2];
        let trimmed = self.trim(text, context.padding);
        let longest = trimmed.size()[2];
        let states = self.cached(&trimmed, true, context, || {
            let embedded = self.embed(&trimmed, context.train);
            self.encode(embedded, &trimmed, context, None)
        });
        if longest == length {
            states
        } else {
            states.constant_pad_nd([0, 0, 0, length - longest])
        }
    }

    /// As [`forward`](Self::forward), with BERT's own outputs at padded positions.
    pub(crate) fn forward_untrimmed(&self, text: &Tensor, context: ForwardContext<'_>) -> Tensor {
        let train = context.train;
        self.cached(text, false, context, || {
            self.layers(self.embed(text, train), text, &Layout::Full, train, None)
        })
    }

    fn cached(
        &self,
        text: &Tensor,
        packed: bool,
        context: ForwardContext<'_>,
        encode: impl FnOnce() -> Tensor,
    ) -> Tensor {
        match context.cache {
            Some(cache) if !context.train => {
                cache.get_or_encode(&self.embeddings.words.ws, text, packed, encode)
            }
            _ => encode(),
        }
    }

    /// The layers alone, over embeddings `x` `[B, L, H]` of `text`, with an injection between two
    /// of them. Padding is left out; its outputs are zeros.
    pub(crate) fn encode(
        &self,
        x: Tensor,
        text: &Tensor,
        context: ForwardContext<'_>,
        injection: Option<Injection<'_>>,
    ) -> Tensor {
        let layout = if self.optimizations.trim_padding {
            Layout::packed(text, context.padding)
        } else {
            Layout::Full
        };
        self.layers(x, text, &layout, context.train, injection)
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
            x = self.precision.within(x.device(), || {
                layer.forward(&x, layout, &mask, &self.shape, train)
            });
        }
        layout.batch(&x)
    }

    /// `text` without the columns that are padding in every sample; read from the device if the `padding` is
    /// not known.
    pub(crate) fn trim(&self, text: &Tensor, padding: Option<Padding>) -> Tensor {
        if !self.optimizations.trim_padding {
            return text.shallow_clone();
        }
        let length = text.size()[2];
        if let Some(padding) = padding {
            return text.narrow(2, 0, padding.longest().clamp(1, length));
        }
        // The last position that is attended to, even if the mask has holes.
        let ends = Tensor::arange_start(1, length + 1, (Kind::Int64, text.device()));
        let longest = (text.select(1, 1) * ends)
            .max()
            .int64_value(&[])
            .clamp(1, length);
        text.narrow(2, 0, longest)
    }

    /// Word, position and segment embeddings of `text`, normed: `[B, L, H]`.
    pub(crate) fn embed(&self, text: &Tensor, train: bool) -> Tensor {
        let [words, positions, segments] = self.rows(text);
        // In the order in which Hugging Face adds them up.
        let sum = self.embeddings.words.forward(&words)
            + self.embeddings.segments.forward(&segments)
            + self.embeddings.positions.forward(&positions);
        let normed = self.embeddings.norm.forward(&sum);
        dropout(&normed, self.config.hidden_dropout_prob, train)
    }

    /// Row indices of `text` `[B, 3, L]` in the tables of words `[B, L]`, positions `[L]` or
    /// `[B, L]`, and segments `[B, L]`.
    fn rows(&self, text: &Tensor) -> [Tensor; 3] {
        let words = text.select(1, 0);
        match self.config.architecture {
            Architecture::Bert => {
                let positions = Tensor::arange(text.size()[2], (Kind::Int64, text.device()));
                [words, positions, text.select(1, 2)]
            }
            Architecture::Roberta => {
                // Positions count the tokens that are not padding, starting after padding's own id.
                // The mask decides what is padding: feature files store 0 there for every
                // vocabulary.
                let padding = self.config.first_position() - 1;
                let present = text.select(1, 1).ne(0);
                let words = words.masked_fill(&present.logical_not(), padding);
                let present = present.to_kind(Kind::Int64);
                let positions = present.cumsum(1, Kind::Int64) * present + padding;
                let segments = words.zeros_like();
                [words, positions, segments]
            }
        }
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
