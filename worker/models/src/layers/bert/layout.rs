//! Texts with and without their padding.

use crate::context::Padding;
use tch::Tensor;

/// The layout of states between layers. Only attention depends on which text a token belongs to;
/// nearly all the work is done token by token.
#[derive(Debug)]
pub(super) enum Layout {
    /// With padding: `[B, L, H]`.
    Full,
    /// Without padding: `[R, H]`, the R tokens of all texts concatenated.
    Packed {
        /// Their positions in `[B * L]`.
        rows: Tensor,
        /// B and L.
        size: [i64; 2],
    },
}

impl Layout {
    /// The layout without the padding of `text` `[B, 3, L]`, whose number of tokens is read from the device
    /// if its `padding` is not known.
    pub(super) fn packed(text: &Tensor, padding: Option<Padding>) -> Self {
        let present = text.select(1, 1).ne(0).flatten(0, -1);
        let rows = match padding {
            Some(padding) => present.nonzero_static(padding.tokens(), 0),
            None => present.nonzero(),
        };
        Self::Packed {
            rows: rows.squeeze_dim(1),
            size: [text.size()[0], text.size()[2]],
        }
    }

    /// Converts from this layout to `[B, L, H]`, with zeros for padding that was left out.
    pub(super) fn batch(&self, x: &Tensor) -> Tensor {
        match self {
            Self::Full => x.shallow_clone(),
            Self::Packed { rows, size } => {
                let [batch, length] = *size;
                let width = x.size()[1];
                Tensor::zeros([batch * length, width], (x.kind(), x.device()))
                    .index_copy(0, rows, x)
                    .view([batch, length, width])
            }
        }
    }

    /// Converts from `[B, L, H]` to this layout.
    pub(super) fn tokens(&self, x: &Tensor) -> Tensor {
        match self {
            Self::Full => x.shallow_clone(),
            Self::Packed { rows, .. } => x.flatten(0, 1).index_select(0, rows),
        }
    }
}
