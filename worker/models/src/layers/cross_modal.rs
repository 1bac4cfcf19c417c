//! The encoder of the multimodal transformer (MulT, Tsai et al., ACL 2019), used by TETFN and
//! TFR-Net: pre-norm attention of one sequence to another, a causal mask, sinusoidal positions.

use super::{
    dropout::{attention, dropout, residual},
    narrow_attention::{self, Heads, Projected},
};
use crate::precision::Precision;
use tch::{Device, Kind, Tensor, nn, nn::Module};

/// The configuration of an encoder.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct EncoderConfig {
    /// Features per step.
    pub width: i64,
    /// Attention heads.
    pub heads: i64,
    /// Layers.
    pub layers: i64,
    /// Dropout of attention weights.
    pub attention_dropout: f64,
    /// Dropout after the ReLU.
    pub relu_dropout: f64,
    /// Dropout of the branches before they are added to the residual.
    pub residual_dropout: f64,
    /// Dropout of the inputs.
    pub embedding_dropout: f64,
    /// Whether to add positions.
    pub positions: bool,
    /// In what it multiplies matrices.
    pub precision: Precision,
}

fn xavier(path: nn::Path<'_>, from: i64, to: i64) -> nn::Linear {
    let bound = (6.0 / (from + to) as f64).sqrt();
    nn::linear(
        path,
        from,
        to,
        nn::LinearConfig {
            ws_init: nn::Init::Uniform {
                lo: -bound,
                up: bound,
            },
            bs_init: Some(nn::Init::Const(0.0)),
            bias: true,
        },
    )
}

#[derive(Debug)]
struct Layer {
    in_weight: Tensor,
    in_bias: Tensor,
    out: nn::Linear,
    fc1: nn::Linear,
    fc2: nn::Linear,
    norms: [nn::LayerNorm; 2],
    config: EncoderConfig,
}

impl Layer {
    fn new(path: &nn::Path<'_>, config: EncoderConfig) -> Self {
        let width = config.width;
        let attention = path / "self_attn";
        let bound = (6.0 / (4 * width) as f64).sqrt();
        let init = nn::Init::Uniform {
            lo: -bound,
            up: bound,
        };
        Self {
            in_weight: attention.var("in_proj_weight", &[3 * width, width], init),
            in_bias: attention.zeros("in_proj_bias", &[3 * width]),
            out: xavier(&attention / "out_proj", width, width),
            fc1: xavier(path / "fc1", width, 4 * width),
            fc2: xavier(path / "fc2", 4 * width, width),
            norms: [0, 1]
                .map(|i| nn::layer_norm(path / "layer_norms" / i, vec![width], Default::default())),
            config,
        }
    }

    /// The `part`-th of query, key and value projections, `[T, B, D]`.
    fn project(&self, x: &Tensor, part: i64) -> Tensor {
        let width = self.config.width;
        let weight = self.in_weight.narrow(0, part * width, width);
        let bias = self.in_bias.narrow(0, part * width, width);
        x.linear(&weight, Some(&bias))
    }

    /// Softmax attention of projections, to `[T, B, D]`.
    fn attend(&self, projected: Projected, train: bool) -> Tensor {
        let config = &self.config;
        let p = if train { config.attention_dropout } else { 0.0 };
        let [target, source] = [0, 1].map(|part: usize| projected.parts()[part].size()[0]);
        let heads = Heads {
            count: config.heads,
            ahead: (source - target).abs(),
            dropout: p,
        };
        let projected = match narrow_attention::attend(projected, heads) {
            Ok(attended) => return attended,
            Err(projected) => projected,
        };
        let parts = projected.parts();
        let size = parts[0].size();
        let head = config.width / config.heads;
        let mask = future_mask(target, source, parts[0].device());
        let [query, key, value] = parts.map(|x| {
            x.reshape([-1, size[1], config.heads, head])
                .permute([1, 2, 0, 3])
        });
        attention([&query, &key, &value], Some(&mask), p)
            .permute([2, 0, 1, 3])
            .reshape(&size[..])
    }

    /// `x` `[T, B, D]` attends to `memory`, keys and values `[S, B, D]`, or to itself.
    fn forward(&self, x: &Tensor, memory: Option<(&Tensor, &Tensor)>, train: bool) -> Tensor {
        let precision = self.config.precision;
        precision.within(x.device(), || self.transform(x, memory, train))
    }

    fn transform(&self, x: &Tensor, memory: Option<(&Tensor, &Tensor)>, train: bool) -> Tensor {
        let config = &self.config;
        let normed = self.norms[0].forward(x);
        let projected = match memory {
            Some((key, value)) => {
                let (key, value) = (self.norms[0].forward(key), self.norms[0].forward(value));
                Projected::Apart([
                    self.project(&normed, 0),
                    self.project(&key, 1),
                    self.project(&value, 2),
                ])
            }
            None => Projected::Together(normed.linear(&self.in_weight, Some(&self.in_bias))),
        };
        let attended = self.out.forward(&self.attend(projected, train));
        let x = residual(x, &attended, config.residual_dropout, train);
        let inner = self.fc1.forward(&self.norms[1].forward(&x)).relu();
        let inner = dropout(&inner, config.relu_dropout, train);
        let fed = self.fc2.forward(&inner);
        residual(&x, &fed, config.residual_dropout, train)
    }
}

/// The causal mask `[T, S]`: -inf where a source step is ahead of the target step by more than the
/// difference of the lengths, 0 elsewhere.
fn future_mask(target: i64, source: i64, device: Device) -> Tensor {
    Tensor::full([target, source], f64::NEG_INFINITY, (Kind::Float, device))
        .triu(1 + (source - target).abs())
}

/// Sinusoidal positions for `x`, `[T, B, D]`. Steps count from 1; a step whose first feature is zero
/// is treated as padding and gets no position.
fn positions(x: &Tensor) -> Tensor {
    let size = x.size();
    let (steps, width) = (size[0], size[2]);
    let half = width / 2;
    let options = (Kind::Float, x.device());
    let rate = -(10000f64.ln()) / (half - 1) as f64;
    let frequencies = (Tensor::arange(half, options) * rate).exp();
    let angles =
        Tensor::arange_start(1, steps + 1, options).unsqueeze(1) * frequencies.unsqueeze(0);
    let mut table = Tensor::cat(&[angles.sin(), angles.cos()], 1);
    if width % 2 == 1 {
        table = table.constant_pad_nd([0, 1]);
    }
    let present = x.select(2, 0).ne(0.0).to_kind(Kind::Float).unsqueeze(2);
    table.unsqueeze(1) * present
}

/// A stack of layers, with inputs scaled by √width and a final layer norm.
#[derive(Debug)]
pub(crate) struct Encoder {
    layers: Vec<Layer>,
    norm: nn::LayerNorm,
    config: EncoderConfig,
}

impl Encoder {
    /// An encoder with initial weights. The width must be a multiple of the heads.
    pub(crate) fn new(path: &nn::Path<'_>, config: EncoderConfig) -> Self {
        Self {
            layers: (0..config.layers)
                .map(|i| Layer::new(&(path / "layers" / i), config))
                .collect(),
            norm: nn::layer_norm(path / "layer_norm", vec![config.width], Default::default()),
            config,
        }
    }

    fn embed(&self, x: &Tensor, train: bool) -> Tensor {
        let scaled = x * (self.config.width as f64).sqrt();
        let embedded = if self.config.positions {
            scaled + positions(x)
        } else {
            scaled
        };
        dropout(&embedded, self.config.embedding_dropout, train)
    }

    /// `[T, B, D]` attending to itself.
    pub(crate) fn forward(&self, x: &Tensor, train: bool) -> Tensor {
        let x = self.embed(x, train);
        let x = self
            .layers
            .iter()
            .fold(x, |x, layer| layer.forward(&x, None, train));
        self.norm.forward(&x)
    }

    /// `x` `[T, B, D]` attending to `memory` `[S, B, D]`; every layer sees the same memory.
    pub(crate) fn forward_to(&self, x: &Tensor, memory: &Tensor, train: bool) -> Tensor {
        let x = self.embed(x, train);
        // Keys and values lose different features to dropout.
        let (key, value) = (self.embed(memory, train), self.embed(memory, train));
        let x = self
            .layers
            .iter()
            .fold(x, |x, layer| layer.forward(&x, Some((&key, &value)), train));
        self.norm.forward(&x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attention_is_causal() {
        tch::manual_seed(5);
        let vs = nn::VarStore::new(Device::Cpu);
        let encoder = Encoder::new(
            &vs.root(),
            EncoderConfig {
                width: 6,
                heads: 2,
                layers: 2,
                attention_dropout: 0.0,
                relu_dropout: 0.0,
                residual_dropout: 0.0,
                embedding_dropout: 0.0,
                positions: true,
                precision: Precision::Float32,
            },
        );
        let x = Tensor::randn([5, 1, 6], (Kind::Float, Device::Cpu));
        let before = encoder.forward(&x, false);
        let _ = x.narrow(0, 4, 1).fill_(9.0);
        let after = encoder.forward(&x, false);
        let change = (before - after).abs().amax([1, 2], false);
        let change = Vec::<f32>::try_from(change).unwrap();
        assert!(change[..4].iter().all(|&c| c == 0.0), "{change:?}");
        assert!(change[4] > 0.0);
    }

    #[test]
    fn padding_gets_no_position() {
        let x = Tensor::ones([3, 1, 4], (Kind::Float, Device::Cpu));
        let _ = x.narrow(0, 2, 1).fill_(0.0);
        let positions = positions(&x);
        assert_eq!(positions.get(2).abs().max().double_value(&[]), 0.0);
        let first = positions.double_value(&[0, 0, 0]);
        assert!((first - 1f64.sin()).abs() < 1e-6);
    }
}
