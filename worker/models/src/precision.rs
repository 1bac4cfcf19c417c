//! The precision of products of matrices.

use halfheard_shared::numerics::Numerics;
use halfheard_torch_shim::Autocast;
use tch::{Device, Kind, Tensor};

/// In what encoders and transformers multiply matrices. Whatever the precision, weights, gradients of weights, norms,
/// recurrent networks, losses and updates are float32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// In float32.
    #[default]
    Float32,
    /// In bfloat16, with sums in float32.
    Bfloat16,
}

impl Precision {
    /// The result of `compute`, whose products are computed like this, in float32.
    pub(crate) fn within(self, device: Device, compute: impl FnOnce() -> Tensor) -> Tensor {
        match self {
            Self::Float32 => compute(),
            Self::Bfloat16 => {
                let computed = {
                    let _products = Autocast::bfloat16(device);
                    compute()
                };
                computed.to_kind(Kind::Float)
            }
        }
    }
}

impl From<Numerics> for Precision {
    fn from(numerics: Numerics) -> Self {
        match numerics {
            Numerics::Machine | Numerics::Portable => Self::Float32,
            Numerics::Bf16 => Self::Bfloat16,
        }
    }
}
