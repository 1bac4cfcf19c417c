//! The encoder of the multimodal transformer (MulT, Tsai et al., ACL 2019), used by TETFN and
//! TFR-Net: pre-norm attention of one sequence to another, a causal mask, sinusoidal positions.

use super::{
    dropout::{attention, dropout, residual},
    narrow_attention::{self, Heads, Projected},
};
use crate::precision::Precision;
use std::ops::Range;
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

/// What encoders get, `[T, B, D]`: features scaled by √D. Several can get the same.
#[derive(Debug)]
pub(crate) struct Scaled(Tensor);

impl Scaled {
    /// Without positions.
    pub(crate) fn new(x: &Tensor) -> Self {
        Self(x * (x.size()[2] as f64).sqrt())
    }

    /// With sinusoidal positions.
    pub(crate) fn positioned(x: &Tensor) -> Self {
        Self(Self::new(x).0 + positions(x))
    }
}

/// What is attended to, `[S, B, D]`.
#[derive(Debug)]
enum Memory {
    /// Keys and values, which lost different features to dropout.
    Apart([Tensor; 2]),
    /// Both at once.
    Shared(Tensor),
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

    /// `parts` of query, key and value projections, side by side, `[T, B, parts D]`.
    fn project(&self, x: &Tensor, parts: Range<i64>) -> Tensor {
        let width = self.config.width;
        let (start, length) = (parts.start * width, (parts.end - parts.start) * width);
        let weight = self.in_weight.narrow(0, start, length);
        let bias = self.in_bias.narrow(0, start, length);
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

    /// `x` `[T, B, D]` attends to `memory`, or to itself.
    fn forward(&self, x: &Tensor, memory: Option<&Memory>, train: bool) -> Tensor {
        let precision = self.config.precision;
        precision.within(x.device(), || self.transform(x, memory, train))
    }

    fn transform(&self, x: &Tensor, memory: Option<&Memory>, train: bool) -> Tensor {
        let normed = self.norms[0].forward(x);
        let projected = match memory {
            Some(Memory::Apart(apart)) => {
                let [key, value] = apart.each_ref().map(|x| self.norms[0].forward(x));
                Projected::Apart([
                    self.project(&normed, 0..1),
                    self.project(&key, 1..2),
                    self.project(&value, 2..3),
                ])
            }
            Some(Memory::Shared(memory)) => {
                let memory = self.norms[0].forward(memory);
                Projected::Paired([self.project(&normed, 0..1), self.project(&memory, 1..3)])
            }
            None => Projected::Together(normed.linear(&self.in_weight, Some(&self.in_bias))),
        };
        self.add(x, projected, train)
    }

    /// The last step, `[1, B, D]`, of `x` attending to itself.
    fn last(&self, x: &Tensor, train: bool) -> Tensor {
        let precision = self.config.precision;
        precision.within(x.device(), || {
            let normed = self.norms[0].forward(x);
            let projected = Projected::Paired([
                self.project(&last_step(&normed), 0..1),
                self.project(&normed, 1..3),
            ]);
            self.add(&last_step(x), projected, train)
        })
    }

    /// `x` with what it attends to and the feed-forward network's output added.
    fn add(&self, x: &Tensor, projected: Projected, train: bool) -> Tensor {
        let config = &self.config;
        let attended = self.out.forward(&self.attend(projected, train));
        let x = residual(x, &attended, config.residual_dropout, train);
        let inner = self.fc1.forward(&self.norms[1].forward(&x)).relu();
        let inner = dropout(&inner, config.relu_dropout, train);
        let fed = self.fc2.forward(&inner);
        residual(&x, &fed, config.residual_dropout, train)
    }
}

/// `[1, B, D]` of `[T, B, D]`.
fn last_step(x: &Tensor) -> Tensor {
    x.narrow(0, x.size()[0] - 1, 1)
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

/// A stack of layers with a final layer norm.
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

    fn embed(&self, x: &Scaled, train: bool) -> Tensor {
        dropout(&x.0, self.config.embedding_dropout, train)
    }

    /// `[T, B, D]` attending to itself.
    pub(crate) fn forward(&self, x: &Scaled, train: bool) -> Tensor {
        let x = self.embed(x, train);
        let x = self
            .layers
            .iter()
            .fold(x, |x, layer| layer.forward(&x, None, train));
        self.norm.forward(&x)
    }

    /// The last step, `[B, D]`, of `[T, B, D]` attending to itself.
    pub(crate) fn last(&self, x: &Scaled, train: bool) -> Tensor {
        let x = self.embed(x, train);
        let last = match self.layers.split_last() {
            Some((last, before)) => {
                let before = before
                    .iter()
                    .fold(x, |x, layer| layer.forward(&x, None, train));
                last.last(&before, train)
            }
            None => last_step(&x),
        };
        self.norm.forward(&last).squeeze_dim(0)
    }

    /// `x` `[T, B, D]` attending to `memory` `[S, B, D]`; every layer sees the same memory.
    pub(crate) fn forward_to(&self, x: &Scaled, memory: &Scaled, train: bool) -> Tensor {
        let x = self.embed(x, train);
        let memory = match train && self.config.embedding_dropout > 0.0 {
            true => Memory::Apart([self.embed(memory, train), self.embed(memory, train)]),
            false => Memory::Shared(memory.0.shallow_clone()),
        };
        let x = self
            .layers
            .iter()
            .fold(x, |x, layer| layer.forward(&x, Some(&memory), train));
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
                precision: Precision::Float32,
            },
        );
        let x = Tensor::randn([5, 1, 6], (Kind::Float, Device::Cpu));
        let before = encoder.forward(&Scaled::positioned(&x), false);
        let _ = x.narrow(0, 4, 1).fill_(9.0);
        let after = encoder.forward(&Scaled::positioned(&x), false);
        let change = (before - after).abs().amax([1, 2], false);
        let change = Vec::<f32>::try_from(change).unwrap();
        assert!(change[..4].iter().all(|&c| c == 0.0), "{change:?}");
        assert!(change[4] > 0.0);
    }

    /// With wide heads, too, which libtorch attends with.
    #[test]
    fn last_step_is_that_of_all() {
        for (width, layers) in [(6, 0), (6, 1), (6, 3), (80, 2)] {
            tch::manual_seed(6);
            let vs = nn::VarStore::new(Device::Cpu);
            let config = EncoderConfig {
                width,
                heads: 2,
                layers,
                attention_dropout: 0.0,
                relu_dropout: 0.0,
                residual_dropout: 0.0,
                embedding_dropout: 0.0,
                precision: Precision::Float32,
            };
            let encoder = Encoder::new(&vs.root(), config);
            let options = (Kind::Float, Device::Cpu);
            let x = Tensor::randn([5, 3, width], options).set_requires_grad(true);
            let gradient = |y: &Tensor| {
                Tensor::run_backward(&[y.square().sum(Kind::Float)], &[&x], false, false)
            };
            let all = encoder.forward(&Scaled::new(&x), true).get(4);
            let last = encoder.last(&Scaled::new(&x), true);
            assert_eq!(last.size(), [3, width]);
            let close = |a: &Tensor, b: &Tensor| (a - b).abs().max().double_value(&[]) < 1e-4;
            assert!(close(&all, &last), "{width}, {layers}");
            assert!(
                close(&gradient(&all)[0], &gradient(&last)[0]),
                "{width}, {layers}"
            );
        }
    }

    /// Keys and values are the same where nothing is dropped.
    #[test]
    fn shared_memory_is_attended_to_as_keys_and_values_of_their_own() {
        tch::manual_seed(7);
        let vs = nn::VarStore::new(Device::Cpu);
        let config = EncoderConfig {
            width: 6,
            heads: 3,
            layers: 2,
            attention_dropout: 0.0,
            relu_dropout: 0.0,
            residual_dropout: 0.0,
            // Of so few numbers none.
            embedding_dropout: 1e-9,
            precision: Precision::Float32,
        };
        let encoder = Encoder::new(&vs.root(), config);
        let draw = |steps| {
            Tensor::randn([steps, 3, 6], (Kind::Float, Device::Cpu)).set_requires_grad(true)
        };
        let (x, memory) = (draw(5), draw(8));
        let run = |train| {
            let y = encoder.forward_to(&Scaled::new(&x), &Scaled::positioned(&memory), train);
            let loss = y.square().sum(Kind::Float);
            let mut of = Tensor::run_backward(&[loss], &[&x, &memory], false, false);
            of.push(y.detach());
            of
        };
        for (apart, shared) in run(true).iter().zip(run(false)) {
            let apart = (apart - shared).abs().max().double_value(&[]);
            assert!(apart < 1e-5, "{apart}");
        }
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
