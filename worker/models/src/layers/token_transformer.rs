//! The transformers of ALMT and LNLN: pre-norm attention with separate norms for query, key and
//! value, learned positions, learned extra tokens that gather a sequence into a fixed length, and
//! the hyper-modality learning of ALMT (Zhang et al., EMNLP 2023). No dropout anywhere, as in the
//! reference code.

use super::{layer_norm, linear, linear_no_bias};
use crate::precision::Precision;
use halfheard_shared::methods::faults::{Fault, Faults};
use tch::{Tensor, nn, nn::Module};

/// Width of one head, whatever the model's width: the reference's default.
const HEAD: i64 = 64;

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

/// The output projection of the heads; a single head of full width has none.
fn projection(path: &nn::Path<'_>, heads: i64, head: i64, width: i64) -> Option<nn::Linear> {
    let needed = !(heads == 1 && head == width);
    needed.then(|| linear(path / "to_out" / 0, heads * head, width))
}

fn project(projection: &Option<nn::Linear>, x: Tensor) -> Tensor {
    match projection {
        Some(linear) => linear.forward(&x),
        None => x,
    }
}

#[derive(Debug)]
struct Attention {
    norms: [nn::LayerNorm; 3],
    query: nn::Linear,
    key: nn::Linear,
    value: nn::Linear,
    out: Option<nn::Linear>,
    heads: i64,
}

impl Attention {
    fn new(path: &nn::Path<'_>, width: i64, heads: i64) -> Self {
        let function = path / "fn";
        let inner = heads * HEAD;
        Self {
            norms: ["norm_q", "norm_k", "norm_v"].map(|name| layer_norm(path / name, width)),
            query: linear_no_bias(&function / "to_q", width, inner),
            key: linear_no_bias(&function / "to_k", width, inner),
            value: linear_no_bias(&function / "to_v", width, inner),
            out: projection(&function, heads, HEAD, width),
            heads,
        }
    }

    /// `[B, Q, D]` over `[B, K, D]`, to `[B, Q, D]`.
    fn forward(&self, query: &Tensor, memory: &Tensor) -> Tensor {
        let [norm_q, norm_k, norm_v] = &self.norms;
        let context = attend(
            &self.query.forward(&norm_q.forward(query)),
            &self.key.forward(&norm_k.forward(memory)),
            &self.value.forward(&norm_v.forward(memory)),
            self.heads,
        );
        project(&self.out, context)
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
            norm: layer_norm(path / "norm", width),
            into: linear(&net / 0, width, hidden),
            out: linear(&net / 3, hidden, width),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        self.out
            .forward(&self.into.forward(&self.norm.forward(x)).gelu("none"))
    }
}

/// Attention and feed-forward, each around a residual.
#[derive(Debug)]
struct Layer {
    attention: Attention,
    feed: FeedForward,
    precision: Precision,
}

impl Layer {
    /// `target` `[B, Q, D]` attends to `source` `[B, K, D]`.
    fn forward(&self, target: &Tensor, source: &Tensor) -> Tensor {
        self.precision.within(target.device(), || {
            let x = self.attention.forward(target, source) + target;
            self.feed.forward(&x) + x
        })
    }
}

fn layers(path: &nn::Path<'_>, shape: TransformerShape) -> Vec<Layer> {
    (0..shape.depth)
        .map(|i| {
            let layer = path / "layers" / i;
            Layer {
                attention: Attention::new(&(&layer / 0), shape.width, shape.heads),
                feed: FeedForward::new(&(&layer / 1), shape.width, shape.hidden),
                precision: shape.precision,
            }
        })
        .collect()
}

/// The sizes of a transformer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TransformerShape {
    /// Features per token.
    pub width: i64,
    /// Layers.
    pub depth: i64,
    /// Attention heads of 64 features each.
    pub heads: i64,
    /// Width of the feed-forward layers.
    pub hidden: i64,
    /// In what it multiplies matrices.
    pub precision: Precision,
}

/// A transformer over a sequence, optionally with extra tokens before it.
#[derive(Debug)]
pub(crate) struct Transformer {
    positions: Tensor,
    extra: Option<Tensor>,
    layers: Vec<Layer>,
}

impl Transformer {
    /// For sequences of up to `length` steps; `tokens` extra ones, 0 for none.
    pub(crate) fn new(
        path: &nn::Path<'_>,
        length: i64,
        tokens: i64,
        shape: TransformerShape,
    ) -> Self {
        Self {
            positions: path.randn_standard("pos_embedding", &[1, length + tokens, shape.width]),
            extra: (tokens > 0).then(|| path.zeros("extra_token", &[1, tokens, shape.width])),
            layers: layers(&(path / "encoder"), shape),
        }
    }

    /// `[B, N, D]` with the extra tokens prepended and positions added.
    fn embed(&self, x: &Tensor) -> Tensor {
        let with_extra = self.extra.as_ref().map(|extra| {
            let extra = extra.expand([x.size()[0], -1, -1], false);
            Tensor::cat(&[&extra, x], 1)
        });
        let x = with_extra.as_ref().unwrap_or(x);
        x + self.positions.narrow(1, 0, x.size()[1])
    }

    /// `[B, N, D]` to the states before the first and after each layer, `[B, tokens + N, D]` each.
    pub(crate) fn hidden_states(&self, x: &Tensor) -> Vec<Tensor> {
        let mut states = vec![self.embed(x)];
        for layer in &self.layers {
            let x = &states[states.len() - 1];
            states.push(layer.forward(x, x));
        }
        states
    }

    /// `[B, N, D]` to the first `keep` of the last layer's `[B, tokens + N, D]`.
    ///
    /// The last layer computes only these outputs. With one layer over hundreds of frames, that saves
    /// most of the work.
    pub(crate) fn forward(&self, x: &Tensor, keep: i64) -> Tensor {
        let x = self.embed(x);
        let Some((last, before)) = self.layers.split_last() else {
            return x.narrow(1, 0, keep);
        };
        let x = before.iter().fold(x, |x, layer| layer.forward(&x, &x));
        last.forward(&x.narrow(1, 0, keep), &x)
    }
}

/// Condenses a modality into a few tokens: a linear layer to the common width, then a transformer of
/// which only the extra tokens are kept.
#[derive(Debug)]
pub(crate) struct Condense {
    linear: nn::Linear,
    transformer: Transformer,
    tokens: i64,
}

impl Condense {
    /// For sequences of up to `length` steps with `input` features.
    pub(crate) fn new(
        path: &nn::Path<'_>,
        input: i64,
        length: i64,
        tokens: i64,
        shape: TransformerShape,
    ) -> Self {
        Self {
            linear: linear(path / 0, input, shape.width),
            transformer: Transformer::new(&(path / 1), length, tokens, shape),
            tokens,
        }
    }

    /// `[B, T, input]` to `[B, tokens, D]`.
    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        self.transformer
            .forward(&self.linear.forward(x), self.tokens)
    }
}

/// A transformer whose target attends to a source, with one learned token before each.
#[derive(Debug)]
pub(crate) struct CrossTransformer {
    source_positions: Tensor,
    target_positions: Tensor,
    extra: Tensor,
    layers: Vec<Layer>,
}

impl CrossTransformer {
    /// For sources and targets of up to `source` and `target` tokens.
    pub(crate) fn new(
        path: &nn::Path<'_>,
        source: i64,
        target: i64,
        shape: TransformerShape,
    ) -> Self {
        Self {
            source_positions: path.randn_standard("pos_embedding_s", &[1, source + 1, shape.width]),
            target_positions: path.randn_standard("pos_embedding_t", &[1, target + 1, shape.width]),
            extra: path.zeros("extra_token", &[1, 1, shape.width]),
            layers: layers(&(path / "CrossTransformerEncoder"), shape),
        }
    }

    /// `source` `[B, S, D]`, `target` `[B, T, D]` to `[B, 1 + T, D]`.
    pub(crate) fn forward(&self, source: &Tensor, target: &Tensor) -> Tensor {
        let extra = self.extra.expand([source.size()[0], -1, -1], false);
        let with = |x: &Tensor, positions: &Tensor| {
            let x = Tensor::cat(&[&extra, x], 1);
            let positions = positions.narrow(1, 0, x.size()[1]);
            x + positions
        };
        let source = with(source, &self.source_positions);
        let target = with(target, &self.target_positions);
        self.layers
            .iter()
            .fold(target, |x, layer| layer.forward(&x, &source))
    }
}

/// The residual that a layer of [`HyperModality`] adds to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Residual {
    /// The normalized state: the reference adds in place after its norm.
    Normalized,
    /// The state itself, as the papers write it.
    Plain,
}

impl From<Faults> for Residual {
    fn from(faults: Faults) -> Self {
        match faults.keeps(Fault::InPlaceResidual) {
            true => Self::Normalized,
            false => Self::Plain,
        }
    }
}

/// One layer of adaptive hyper-modality learning.
#[derive(Debug)]
struct HyperLayer {
    norms: [nn::LayerNorm; 4],
    query: nn::Linear,
    audio_key: nn::Linear,
    vision_key: nn::Linear,
    audio_value: nn::Linear,
    vision_value: nn::Linear,
    out: Option<nn::Linear>,
    heads: i64,
}

/// Learns a representation that conflicts least with the dominant modality: at each scale the
/// language feature attends to audio and vision for what to add.
#[derive(Debug)]
pub(crate) struct HyperModality {
    precision: Precision,
    layers: Vec<HyperLayer>,
    residual: Residual,
}

impl HyperModality {
    /// `depth` layers of `heads` heads that share `width` features.
    pub(crate) fn new(
        path: &nn::Path<'_>,
        width: i64,
        depth: i64,
        heads: i64,
        (residual, precision): (Residual, Precision),
    ) -> Self {
        let inner = width / heads * heads;
        let layers = (0..depth)
            .map(|i| {
                let layer = path / "layers" / i / 0;
                let function = &layer / "fn";
                Self::layer(&layer, &function, width, inner, heads)
            })
            .collect();
        Self {
            precision,
            layers,
            residual,
        }
    }

    fn layer(
        layer: &nn::Path<'_>,
        function: &nn::Path<'_>,
        width: i64,
        inner: i64,
        heads: i64,
    ) -> HyperLayer {
        let linear = |name: &str| linear_no_bias(function / name, width, inner);
        HyperLayer {
            norms: ["norm1", "norm2", "norm3", "norm4"].map(|name| layer_norm(layer / name, width)),
            query: linear("to_q"),
            audio_key: linear("to_k_ta"),
            vision_key: linear("to_k_tv"),
            audio_value: linear("to_v_ta"),
            vision_value: linear("to_v_tv"),
            out: projection(function, heads, width / heads, width),
            heads,
        }
    }

    /// `dominant` one state per layer, `[B, N, D]` each; audio and vision `[B, N, D]`; `hyper`
    /// `[B, N, D]` to start from.
    pub(crate) fn forward(
        &self,
        dominant: &[Tensor],
        audio: &Tensor,
        vision: &Tensor,
        hyper: Tensor,
    ) -> Tensor {
        self.precision.within(hyper.device(), || {
            self.add_up(dominant, audio, vision, hyper.shallow_clone())
        })
    }

    fn add_up(
        &self,
        dominant: &[Tensor],
        audio: &Tensor,
        vision: &Tensor,
        hyper: Tensor,
    ) -> Tensor {
        self.layers
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
                let found = from(&layer.audio_key, &layer.audio_value, &audio)
                    + from(&layer.vision_key, &layer.vision_value, &vision);
                let shift = project(&layer.out, found);
                match self.residual {
                    Residual::Normalized => norm_h.forward(&hyper) + shift,
                    Residual::Plain => hyper + shift,
                }
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    const SHAPE: TransformerShape = TransformerShape {
        width: 16,
        depth: 2,
        heads: 2,
        hidden: 24,
        precision: Precision::Float32,
    };

    fn random(dims: &[i64]) -> Tensor {
        Tensor::randn(dims, (Kind::Float, Device::Cpu))
    }

    #[test]
    fn kept_outputs_equal_those_of_the_full_computation() {
        tch::manual_seed(1);
        let vs = nn::VarStore::new(Device::Cpu);
        let transformer = Transformer::new(&vs.root(), 10, 3, SHAPE);
        let x = random(&[2, 10, 16]);
        let all = transformer.hidden_states(&x);
        assert_eq!(all.len(), 3);
        let kept = transformer.forward(&x, 3);
        assert_eq!(kept.size(), [2, 3, 16]);
        assert!(kept.allclose(&all[2].narrow(1, 0, 3), 1e-5, 1e-6, false));
    }

    #[test]
    fn cross_transformer_prepends_its_token_to_the_target() {
        let vs = nn::VarStore::new(Device::Cpu);
        let cross = CrossTransformer::new(&vs.root(), 5, 7, SHAPE);
        let fused = cross.forward(&random(&[2, 5, 16]), &random(&[2, 7, 16]));
        assert_eq!(fused.size(), [2, 8, 16]);
    }

    #[test]
    fn single_full_width_head_has_no_projection() {
        let vs = nn::VarStore::new(Device::Cpu);
        let one = TransformerShape {
            width: HEAD,
            heads: 1,
            ..SHAPE
        };
        let transformer = Transformer::new(&vs.root(), 4, 0, one);
        assert!(!vs.variables().keys().any(|name| name.contains("to_out")));
        let out = transformer.forward(&random(&[2, 4, HEAD]), 4);
        assert_eq!(out.size(), [2, 4, HEAD]);
    }
}
