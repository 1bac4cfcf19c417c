//! The transformers of ALMT and LNLN: pre-norm attention with separate norms for query, key and
//! value, learned positions, learned extra tokens that gather a sequence into a fixed length, and
//! the hyper-modality learning of ALMT (Zhang et al., EMNLP 2023). No dropout anywhere, as in the
//! reference code.

use tch::{Tensor, nn, nn::Module};

/// Width of one head, whatever the model's width: the reference's default.
const HEAD: i64 = 64;

fn norm(path: nn::Path<'_>, width: i64) -> nn::LayerNorm {
    nn::layer_norm(path, vec![width], Default::default())
}

fn unbiased(path: nn::Path<'_>, from: i64, to: i64) -> nn::Linear {
    let config = nn::LinearConfig {
        bias: false,
        ..Default::default()
    };
    nn::linear(path, from, to, config)
}

/// `[B, N, heads * d]` to `[B, heads, N, d]`.
fn split(x: &Tensor, heads: i64) -> Tensor {
    let size = x.size();
    x.view([size[0], size[1], heads, size[2] / heads])
        .transpose(1, 2)
}

/// Softmax attention of split heads, joined again: `[B, N, heads * d]`.
fn attend(query: &Tensor, key: &Tensor, value: &Tensor, heads: i64) -> Tensor {
    let context = Tensor::scaled_dot_product_attention(
        &split(query, heads),
        &split(key, heads),
        &split(value, heads),
        None::<&Tensor>,
        0.0,
        false,
        None,
        false,
    );
    let size = context.size();
    context
        .transpose(1, 2)
        .reshape([size[0], size[2], size[1] * size[3]])
}

#[derive(Debug)]
struct Attention {
    norms: [nn::LayerNorm; 3],
    query: nn::Linear,
    key: nn::Linear,
    value: nn::Linear,
    out: nn::Linear,
    heads: i64,
}

impl Attention {
    fn new(path: &nn::Path<'_>, width: i64, heads: i64) -> Self {
        let function = path / "fn";
        let inner = heads * HEAD;
        Self {
            norms: ["norm_q", "norm_k", "norm_v"].map(|name| norm(path / name, width)),
            query: unbiased(&function / "to_q", width, inner),
            key: unbiased(&function / "to_k", width, inner),
            value: unbiased(&function / "to_v", width, inner),
            out: nn::linear(&function / "to_out" / 0, inner, width, Default::default()),
            heads,
        }
    }

    fn forward(&self, query: &Tensor, memory: &Tensor) -> Tensor {
        let [norm_q, norm_k, norm_v] = &self.norms;
        self.out.forward(&attend(
            &self.query.forward(&norm_q.forward(query)),
            &self.key.forward(&norm_k.forward(memory)),
            &self.value.forward(&norm_v.forward(memory)),
            self.heads,
        ))
    }
}

#[derive(Debug)]
struct FeedForward {
    norm: nn::LayerNorm,
    into: nn::Linear,
    out: nn::Linear,
}

impl FeedForward {
    fn new(path: &nn::Path<'_>, width: i64, hidden: i64) -> Self {
        let net = path / "fn" / "net";
        Self {
            norm: norm(path / "norm", width),
            into: nn::linear(&net / 0, width, hidden, Default::default()),
            out: nn::linear(&net / 3, hidden, width, Default::default()),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        self.out
            .forward(&self.into.forward(&self.norm.forward(x)).gelu("none"))
    }
}

/// Attention and feed-forward, `depth` times.
#[derive(Debug)]
struct Layers(Vec<(Attention, FeedForward)>);

impl Layers {
    fn new(path: &nn::Path<'_>, shape: TransformerShape) -> Self {
        Self(
            (0..shape.depth)
                .map(|i| {
                    let layer = path / "layers" / i;
                    (
                        Attention::new(&(&layer / 0), shape.width, shape.heads),
                        FeedForward::new(&(&layer / 1), shape.width, shape.hidden),
                    )
                })
                .collect(),
        )
    }
}

/// The sizes of a transformer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransformerShape {
    /// Features a token.
    pub width: i64,
    /// Layers.
    pub depth: i64,
    /// Heads, of 64 features each.
    pub heads: i64,
    /// Width of the feed-forward layers.
    pub hidden: i64,
}

/// A transformer over a sequence, with extra tokens in front of it or without.
#[derive(Debug)]
pub struct Transformer {
    positions: Tensor,
    extra: Option<Tensor>,
    layers: Layers,
}

impl Transformer {
    /// For sequences of up to `length` steps; `tokens` extra ones, 0 for none.
    pub fn new(path: &nn::Path<'_>, length: i64, tokens: i64, shape: TransformerShape) -> Self {
        Self {
            positions: path.randn_standard("pos_embedding", &[1, length + tokens, shape.width]),
            extra: (tokens > 0).then(|| path.zeros("extra_token", &[1, tokens, shape.width])),
            layers: Layers::new(&(path / "encoder"), shape),
        }
    }

    /// `[B, N, D]` to the states before the first and after each layer, `[B, tokens + N, D]` each.
    pub fn hidden_states(&self, x: &Tensor) -> Vec<Tensor> {
        let x = match &self.extra {
            Some(extra) => {
                let extra = extra.expand([x.size()[0], -1, -1], false);
                Tensor::cat(&[&extra, x], 1)
            }
            None => x.shallow_clone(),
        };
        let x = &x + self.positions.narrow(1, 0, x.size()[1]);
        let mut states = vec![x];
        for (attention, feed) in &self.layers.0 {
            let x = &states[states.len() - 1];
            let x = attention.forward(x, x) + x;
            states.push(feed.forward(&x) + &x);
        }
        states
    }

    /// `[B, N, D]` to `[B, tokens + N, D]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let mut states = self.hidden_states(x);
        states.swap_remove(states.len() - 1)
    }
}

/// A transformer whose target attends to a source; one learned token is set before both.
#[derive(Debug)]
pub struct CrossTransformer {
    source_positions: Tensor,
    target_positions: Tensor,
    extra: Tensor,
    layers: Layers,
}

impl CrossTransformer {
    /// For sources and targets of up to `source` and `target` tokens.
    pub fn new(path: &nn::Path<'_>, source: i64, target: i64, shape: TransformerShape) -> Self {
        Self {
            source_positions: path.randn_standard("pos_embedding_s", &[1, source + 1, shape.width]),
            target_positions: path.randn_standard("pos_embedding_t", &[1, target + 1, shape.width]),
            extra: path.zeros("extra_token", &[1, 1, shape.width]),
            layers: Layers::new(&(path / "CrossTransformerEncoder"), shape),
        }
    }

    /// `source` `[B, S, D]`, `target` `[B, T, D]` to `[B, 1 + T, D]`.
    pub fn forward(&self, source: &Tensor, target: &Tensor) -> Tensor {
        let extra = self.extra.expand([source.size()[0], -1, -1], false);
        let with = |x: &Tensor, positions: &Tensor| {
            let x = Tensor::cat(&[&extra, x], 1);
            let positions = positions.narrow(1, 0, x.size()[1]);
            x + positions
        };
        let source = with(source, &self.source_positions);
        let target = with(target, &self.target_positions);
        self.layers.0.iter().fold(target, |x, (attention, feed)| {
            let x = attention.forward(&x, &source) + &x;
            feed.forward(&x) + &x
        })
    }
}

/// One layer of adaptive hyper-modality learning (ALMT, equations 5 and 6).
#[derive(Debug)]
struct HyperLayer {
    norms: [nn::LayerNorm; 4],
    query: nn::Linear,
    audio_key: nn::Linear,
    vision_key: nn::Linear,
    audio_value: nn::Linear,
    vision_value: nn::Linear,
    out: nn::Linear,
    heads: i64,
}

/// Learns a representation that conflicts least with the dominant modality: at each scale the
/// language feature asks audio and vision what to add.
#[derive(Debug)]
pub struct HyperModality(Vec<HyperLayer>);

impl HyperModality {
    /// `depth` layers of `heads` heads that share `width` features.
    pub fn new(path: &nn::Path<'_>, width: i64, depth: i64, heads: i64) -> Self {
        let inner = width / heads * heads;
        Self(
            (0..depth)
                .map(|i| {
                    let layer = path / "layers" / i / 0;
                    let function = &layer / "fn";
                    Self::layer(&layer, &function, width, inner, heads)
                })
                .collect(),
        )
    }

    fn layer(
        layer: &nn::Path<'_>,
        function: &nn::Path<'_>,
        width: i64,
        inner: i64,
        heads: i64,
    ) -> HyperLayer {
        let linear = |name: &str| unbiased(function / name, width, inner);
        HyperLayer {
            norms: ["norm1", "norm2", "norm3", "norm4"].map(|name| norm(layer / name, width)),
            query: linear("to_q"),
            audio_key: linear("to_k_ta"),
            vision_key: linear("to_k_tv"),
            audio_value: linear("to_v_ta"),
            vision_value: linear("to_v_tv"),
            out: nn::linear(function / "to_out" / 0, inner, width, Default::default()),
            heads,
        }
    }

    /// `dominant` one state a layer, `[B, N, D]` each; audio and vision `[B, N, D]`; `hyper`
    /// `[B, N, D]` to start from.
    pub fn forward(
        &self,
        dominant: &[Tensor],
        audio: &Tensor,
        vision: &Tensor,
        hyper: Tensor,
    ) -> Tensor {
        self.0
            .iter()
            .zip(dominant)
            .fold(hyper, |hyper, (layer, dominant)| {
                let [norm_d, norm_a, norm_v, norm_h] = &layer.norms;
                let query = layer.query.forward(&norm_d.forward(dominant));
                let audio = norm_a.forward(audio);
                let vision = norm_v.forward(vision);
                let from = |key: &nn::Linear, value: &nn::Linear, x: &Tensor| {
                    attend(&query, &key.forward(x), &value.forward(x), layer.heads)
                };
                let shift = layer.out.forward(
                    &(from(&layer.audio_key, &layer.audio_value, &audio)
                        + from(&layer.vision_key, &layer.vision_value, &vision)),
                );
                // The shift is added to the normalised state, not to the state itself: so the
                // reference does.
                norm_h.forward(&hyper) + shift
            })
    }
}
