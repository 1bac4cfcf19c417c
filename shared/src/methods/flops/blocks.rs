//! Operations of the layers that methods share, forward, of one sample.

use super::super::{EncoderShape, memory::Sizes};

/// `[rows, from]` through a linear layer to `[rows, to]`.
pub(super) fn linear(rows: f64, from: f64, to: f64) -> f64 {
    2.0 * rows * from * to
}

/// Scores and their products with the values, over all heads, which share `width`.
pub(super) fn attention(queries: f64, keys: f64, width: f64) -> f64 {
    2.0 * linear(queries, width, keys)
}

/// A text encoder over `tokens` of a text; attention is over `length` positions.
pub(super) fn encoder(shape: &EncoderShape, tokens: f64, length: f64) -> f64 {
    let (width, inner) = (shape.width as f64, shape.intermediate as f64);
    let layer = linear(tokens, width, 4.0 * width)
        + 2.0 * linear(tokens, width, inner)
        + attention(length, length, width);
    shape.layers as f64 * layer
}

impl Sizes<'_> {
    /// The encoder without padding.
    pub(super) fn packed_text(&self) -> f64 {
        encoder(&self.encoder, self.tokens, self.text)
    }

    /// The encoder over padded texts, for methods that read its outputs at padding.
    pub(super) fn padded_text(&self) -> f64 {
        encoder(&self.encoder, self.text, self.text)
    }
}

/// An LSTM (4 gates) or a GRU (3) in each direction.
pub(super) fn recurrent(gates: f64, steps: f64, input: f64, hidden: f64, directions: f64) -> f64 {
    directions * linear(steps, input + hidden, gates * hidden)
}

/// Three linear layers to one number: `input` to `width`, twice `width`, 1.
pub(super) fn head(input: f64, width: f64) -> f64 {
    linear(1.0, input, width) + linear(1.0, width, width) + linear(1.0, width, 1.0)
}

/// The sizes of ALMT's and LNLN's transformers, whose heads have 64 features each.
#[derive(Clone, Copy)]
pub(super) struct Tokens {
    pub(super) width: f64,
    pub(super) depth: f64,
    pub(super) heads: f64,
    pub(super) hidden: f64,
}

impl Tokens {
    /// A layer in which `queries` ask `keys`.
    pub(super) fn layer(self, queries: f64, keys: f64) -> f64 {
        let inner = 64.0 * self.heads;
        // A single head of the full width has no projection.
        let out = match self.heads == 1.0 && self.width == inner {
            true => 0.0,
            false => linear(queries, inner, self.width),
        };
        linear(queries, self.width, inner)
            + 2.0 * linear(keys, self.width, inner)
            + attention(queries, keys, inner)
            + out
            + 2.0 * linear(queries, self.width, self.hidden)
    }

    /// Layers over `all` steps, of which the last one computes `kept`.
    pub(super) fn transformer(self, all: f64, kept: f64) -> f64 {
        if self.depth < 1.0 {
            return 0.0;
        }
        (self.depth - 1.0) * self.layer(all, all) + self.layer(kept, all)
    }

    /// `steps` of `input` features, condensed into `tokens`.
    pub(super) fn condense(self, steps: f64, input: f64, tokens: f64) -> f64 {
        linear(steps, input, self.width) + self.transformer(steps + tokens, tokens)
    }

    /// Hyper-modality learning: `tokens` ask audio and vision in each layer.
    pub(super) fn hyper_modality(self, tokens: f64) -> f64 {
        self.depth
            * (6.0 * linear(tokens, self.width, self.width)
                + 2.0 * attention(tokens, tokens, self.width))
    }
}

/// A layer of MulT's encoder: `steps` ask `memory` steps.
pub(super) fn crossed(steps: f64, memory: f64, width: f64) -> f64 {
    2.0 * linear(steps, width, width)
        + 2.0 * linear(memory, width, width)
        + attention(steps, memory, width)
        + 2.0 * linear(steps, width, 4.0 * width)
}
