//! The transformer encoder layer as `torch.nn.TransformerEncoderLayer` computes it: ReLU, layer
//! norms after the residual sums, sequence first.

use super::{
    dropout::{attention, dropout, residual},
    layer_norm, linear,
};
use crate::precision::Precision;
use tch::{Tensor, nn, nn::Module};

/// The configuration of an encoder layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct EncoderLayerConfig {
    /// Features per step.
    pub width: i64,
    /// Attention heads.
    pub heads: i64,
    /// Width of the feed-forward part.
    pub feedforward: i64,
    /// Dropout, at PyTorch's four places.
    pub dropout: f64,
    /// In what it multiplies matrices.
    pub precision: Precision,
}

/// `torch.nn.MultiheadAttention` with one projection for query, key and value.
#[derive(Debug)]
struct SelfAttention {
    in_weight: Tensor,
    in_bias: Tensor,
    out: nn::Linear,
    heads: i64,
    dropout: f64,
}

/// Zeroes the bias, as PyTorch initializes the output projection of attention.
fn with_zero_bias(mut linear: nn::Linear) -> nn::Linear {
    if let Some(bias) = &mut linear.bs {
        tch::no_grad(|| {
            let _ = bias.zero_();
        });
    }
    linear
}

impl SelfAttention {
    fn new(path: &nn::Path<'_>, width: i64, heads: i64, dropout: f64) -> Self {
        let bound = (6.0 / (4 * width) as f64).sqrt();
        Self {
            in_weight: path.var(
                "in_proj_weight",
                &[3 * width, width],
                nn::Init::Uniform {
                    lo: -bound,
                    up: bound,
                },
            ),
            in_bias: path.zeros("in_proj_bias", &[3 * width]),
            out: with_zero_bias(linear(path / "out_proj", width, width)),
            heads,
            dropout,
        }
    }

    /// `[T, B, D]` to `[T, B, D]`.
    fn forward(&self, x: &Tensor, train: bool) -> Tensor {
        let size = x.size();
        let (steps, batch, width) = (size[0], size[1], size[2]);
        let projected = x.linear(&self.in_weight, Some(&self.in_bias));
        // [T, B, D] → [B, heads, T, D / heads]
        let heads: Vec<Tensor> = projected
            .chunk(3, 2)
            .iter()
            .map(|t| {
                t.reshape([steps, batch, self.heads, width / self.heads])
                    .permute([1, 2, 0, 3])
            })
            .collect();
        let p = if train { self.dropout } else { 0.0 };
        let context = attention([&heads[0], &heads[1], &heads[2]], None, p)
            .permute([2, 0, 1, 3])
            .reshape([steps, batch, width]);
        self.out.forward(&context)
    }
}

/// One encoder layer.
#[derive(Debug)]
pub(crate) struct EncoderLayer {
    attention: SelfAttention,
    linear1: nn::Linear,
    linear2: nn::Linear,
    norm1: nn::LayerNorm,
    norm2: nn::LayerNorm,
    dropout: f64,
    precision: Precision,
}

impl EncoderLayer {
    /// A layer with initial weights under PyTorch's names.
    pub(crate) fn new(path: &nn::Path<'_>, config: EncoderLayerConfig) -> Self {
        let norm = |name: &str| layer_norm(path / name, config.width);
        Self {
            attention: SelfAttention::new(
                &(path / "self_attn"),
                config.width,
                config.heads,
                config.dropout,
            ),
            linear1: linear(path / "linear1", config.width, config.feedforward),
            linear2: linear(path / "linear2", config.feedforward, config.width),
            norm1: norm("norm1"),
            norm2: norm("norm2"),
            dropout: config.dropout,
            precision: config.precision,
        }
    }

    /// `[T, B, D]` to `[T, B, D]`.
    pub(crate) fn forward(&self, x: &Tensor, train: bool) -> Tensor {
        self.precision
            .within(x.device(), || self.transform(x, train))
    }

    fn transform(&self, x: &Tensor, train: bool) -> Tensor {
        let p = self.dropout;
        let attended = self.attention.forward(x, train);
        let x = self.norm1.forward(&residual(x, &attended, p, train));
        let inner = dropout(&self.linear1.forward(&x).relu(), p, train);
        let fed = self.linear2.forward(&inner);
        self.norm2.forward(&residual(&x, &fed, p, train))
    }
}
