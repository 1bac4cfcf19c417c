//! The efficient multimodal transformer: a global context of one vector per modality interacts with
//! each modality's sequence. One mutual promotion unit (MPU) serves all layers, modalities and
//! directions, and one pooling all layers.

use super::config::Config;
use crate::{
    layers::{
        dropout::{dropout, residual},
        layer_norm, linear, linear_no_bias,
    },
    precision::Precision,
};
use tch::{Device, Kind, Tensor, nn, nn::Module};

/// Modalities, and so vectors of the global context.
const MODALITIES: i64 = 3;

/// 1 before each length in `lengths` `[B]`, 0 from there: `[B, steps]`, boolean.
pub(super) fn before(lengths: &Tensor, steps: i64) -> Tensor {
    Tensor::arange(steps, (lengths.kind(), lengths.device()))
        .unsqueeze(0)
        .lt_tensor(&lengths.unsqueeze(1))
}

#[derive(Debug)]
struct Attention {
    query: nn::Linear,
    key_value: nn::Linear,
    out: nn::Linear,
    heads: i64,
    dropout: f64,
}

impl Attention {
    fn new(path: &nn::Path<'_>, config: &Config) -> Self {
        let width = config.d_model;
        Self {
            query: linear_no_bias(path / "to_q", width, width),
            key_value: linear_no_bias(path / "to_kv", width, 2 * width),
            out: linear(path / "to_out", width, width),
            heads: config.heads,
            dropout: config.attn_dropout,
        }
    }

    /// `x` `[B, N, D]` attends to `memory` `[B, M, D]` where `mask` `[B, M]` is set.
    fn forward(&self, x: &Tensor, memory: &Tensor, mask: Option<&Tensor>, train: bool) -> Tensor {
        let (batch, width) = (x.size()[0], x.size()[2]);
        let head = width / self.heads;
        // [B, N, D] → [B, heads, N, D / heads]
        let split = |x: &Tensor| x.reshape([batch, -1, self.heads, head]).transpose(1, 2);
        let both = self.key_value.forward(memory);
        let query = split(&self.query.forward(x));
        let key = split(&both.narrow(2, 0, width));
        let value = split(&both.narrow(2, width, width));
        let mask = mask.map(|mask| mask.unsqueeze(1).unsqueeze(1));
        let p = if train { self.dropout } else { 0.0 };
        let context = if x.device() == Device::Cpu {
            // In the reference's steps: a fused kernel sums in another order.
            // Products may be bfloat16, which the mask's number does not fit.
            let scores = query.matmul(&key.transpose(2, 3));
            let mut scores = scores.to_kind(Kind::Float);
            let mut scores = scores.g_mul_scalar_((head as f64).powf(-0.5));
            if let Some(mask) = mask {
                let _ = scores.masked_fill_(&mask.logical_not(), f64::from(f32::MIN));
            }
            dropout(&scores.softmax(-1, Kind::Float), p, train).matmul(&value)
        } else {
            Tensor::scaled_dot_product_attention(&query, &key, &value, mask, p, false, None, false)
        };
        let joined = context.transpose(1, 2).reshape([batch, -1, width]);
        self.out.forward(&joined)
    }
}

/// One direction of an MPU: attention to the other side, to itself, and a gated feed-forward layer,
/// each on normed inputs and around a residual.
#[derive(Debug)]
struct Promotion {
    norms: [nn::LayerNorm; 3],
    norm_context: nn::LayerNorm,
    cross: Attention,
    own: Attention,
    into: nn::Linear,
    out: nn::Linear,
    dropout: f64,
}

impl Promotion {
    fn new(path: &nn::Path<'_>, config: &Config) -> Self {
        let layers = path / "layers" / 0;
        let (width, inner) = (config.d_model, config.ff_expansion * config.d_model);
        let net = &layers / 2 / "fn" / "net";
        Self {
            norms: [0, 1, 2].map(|i| layer_norm(&layers / i / "norm", width)),
            norm_context: layer_norm(&layers / 0 / "norm_context", width),
            cross: Attention::new(&(&layers / 0 / "fn"), config),
            own: Attention::new(&(&layers / 1 / "fn"), config),
            into: linear(&net / 0, width, 2 * inner),
            out: linear(&net / 2, inner, width),
            dropout: config.ff_dropout,
        }
    }

    /// `x` `[B, N, D]` with `mask` `[B, N]` after attending to `context` `[B, M, D]` with
    /// `context_mask` `[B, M]`.
    fn forward(
        &self,
        (x, mask): (&Tensor, Option<&Tensor>),
        (context, context_mask): (&Tensor, Option<&Tensor>),
        train: bool,
    ) -> Tensor {
        let [first, second, third] = &self.norms;
        let context = self.norm_context.forward(context);
        let cross = &self.cross;
        let x = cross.forward(&first.forward(x), &context, context_mask, train) + x;
        let normed = second.forward(&x);
        let x = self.own.forward(&normed, &normed, mask, train) + x;
        let inner = self.into.forward(&third.forward(&x)).chunk(2, -1);
        let gated = &inner[0] * inner[1].gelu("none");
        residual(&x, &self.out.forward(&gated), self.dropout, train)
    }
}

/// The transformer.
#[derive(Debug)]
pub(super) struct Transformer {
    promotion: Promotion,
    /// Attention pooling of the contexts that come from the three modalities.
    pool: [nn::Linear; 2],
    /// Sinusoidal positions `[1, steps, D]`, counted from 0.
    positions: Tensor,
    layers: i64,
    dropout: f64,
    precision: Precision,
}

fn sinusoids(steps: i64, width: i64, device: Device) -> Tensor {
    let options = (Kind::Float, device);
    let rates = Tensor::arange_start_step(0, width, 2, options) * (-(10000f64.ln()) / width as f64);
    let angles = Tensor::arange(steps, options).unsqueeze(1) * rates.exp().unsqueeze(0);
    // Sines and cosines alternate; an odd width ends with a sine.
    Tensor::stack(&[angles.sin(), angles.cos()], 2)
        .reshape([1, steps, -1])
        .narrow(2, 0, width)
}

impl Transformer {
    /// A transformer for sequences of at most `steps`, under the reference's first name of each
    /// shared module.
    pub(super) fn new(
        path: &nn::Path<'_>,
        config: &Config,
        steps: i64,
        precision: Precision,
    ) -> Self {
        let pool = path / "attn_pools" / 0 / "attention";
        let width = MODALITIES * config.d_model;
        Self {
            promotion: Promotion::new(&(path / "mpus" / 0 / 0 / 0), config),
            pool: [linear(&pool / 0, width, width), linear(&pool / 2, width, 1)],
            positions: sinusoids(steps, config.d_model, path.device()),
            layers: config.fusion_layers,
            dropout: config.emb_dropout,
            precision,
        }
    }

    /// Contexts `[B, 3, D]` that come from the three modalities, to their weighted mean.
    fn pooled(&self, contexts: &[Tensor; 3]) -> Tensor {
        let stacked = Tensor::stack(contexts, 1).flatten(2, 3);
        let [inner, score] = &self.pool;
        let scores = score.forward(&inner.forward(&stacked).tanh());
        let weights = scores.softmax(1, Kind::Float);
        weights
            .transpose(1, 2)
            .matmul(&stacked)
            .view(contexts[0].size().as_slice())
    }

    /// The global context `[B, 3, D]` and the sequences `[B, T, D]`, each with its mask `[B, T]`, to
    /// both after the last layer. Without `restored`, the sequences are those before it, which the
    /// context does not depend on.
    pub(super) fn forward(
        &self,
        context: Tensor,
        sequences: [Tensor; 3],
        masks: &[Tensor; 3],
        restored: bool,
        train: bool,
    ) -> (Tensor, [Tensor; 3]) {
        let mut context = context;
        let mut sequences = sequences.map(|x| {
            let positions = self.positions.narrow(1, 0, x.size()[1]);
            dropout(&(x + positions), self.dropout, train)
        });
        for layer in 0..self.layers {
            let updates = restored || layer + 1 < self.layers;
            let contexts = [0, 1, 2].map(|i: usize| {
                let own = (&sequences[i], Some(&masks[i]));
                let global = (&context, None);
                let promote = |to, by| {
                    let device = context.device();
                    self.precision
                        .within(device, || self.promotion.forward(to, by, train))
                };
                let next = updates.then(|| promote(own, global));
                let from = promote(global, own);
                if let Some(next) = next {
                    sequences[i] = next;
                }
                from
            });
            context = self.pooled(&contexts);
        }
        (context, sequences)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sines_and_cosines_alternate_from_step_zero() {
        for width in [5, 6] {
            let table = sinusoids(4, width, Device::Cpu);
            assert_eq!(table.size(), [1, 4, width]);
            let at = |step, i| table.double_value(&[0, step, i]);
            assert_eq!(
                (at(0, 0), at(0, 1), at(0, width - 1)),
                (0.0, 1.0, (width % 2 == 0) as i64 as f64)
            );
            let rate = 10000f64.powf(-2.0 / width as f64);
            assert!((at(3, 2) - (3.0 * rate).sin()).abs() < 1e-6);
            assert!((at(3, 3) - (3.0 * rate).cos()).abs() < 1e-6);
        }
    }
}
