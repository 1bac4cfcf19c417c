//! Texts without their padding, and back.

use tch::Tensor;

/// How states lie between layers. Only attention needs to know which text a token is in; all else,
/// which is nearly all the work, is done token by token.
#[derive(Debug)]
pub(super) enum Layout {
    /// As they come: `[B, L, H]`.
    Whole,
    /// Without padding: `[R, H]`, the R tokens of all texts one after the other.
    Packed {
        /// Their places in `[B * L]`.
        rows: Tensor,
        /// B and L.
        size: [i64; 2],
    },
}

impl Layout {
    /// Without the padding of `text` `[B, 3, L]`.
    pub(super) fn packed(text: &Tensor) -> Self {
        let present = text.select(1, 1).ne(0).flatten(0, -1);
        Self::Packed {
            rows: present.nonzero().squeeze_dim(1),
            size: [text.size()[0], text.size()[2]],
        }
    }

    /// From the layout to `[B, L, H]`, zeros where padding was left out.
    pub(super) fn batch(&self, x: &Tensor) -> Tensor {
        match self {
            Self::Whole => x.shallow_clone(),
            Self::Packed { rows, size } => {
                let [batch, length] = *size;
                let width = x.size()[1];
                Tensor::zeros([batch * length, width], (x.kind(), x.device()))
                    .index_copy(0, rows, x)
                    .view([batch, length, width])
            }
        }
    }

    /// From `[B, L, H]` to the layout.
    pub(super) fn tokens(&self, x: &Tensor) -> Tensor {
        match self {
            Self::Whole => x.shallow_clone(),
            Self::Packed { rows, .. } => x.flatten(0, 1).index_select(0, rows),
        }
    }
}
