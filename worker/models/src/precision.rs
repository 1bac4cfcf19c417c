//! The precision of products of matrices.

use halfheard_shared::numerics::Numerics;
use halfheard_torch_shim::Autocast;
use tch::{Device, Tensor};

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
    /// Products are computed like this while the result exists. They may be bfloat16 then: the caller makes float32
    /// of what it returns.
    #[must_use]
    pub(crate) fn begin(self, device: Device) -> Option<Autocast> {
        match self {
            Self::Float32 => None,
            Self::Bfloat16 => Some(Autocast::bfloat16(device)),
        }
    }

    /// The result of `compute`, in float32.
    pub(crate) fn within(self, device: Device, compute: impl FnOnce() -> Tensor) -> Tensor {
        let computed = {
            let _products = self.begin(device);
            compute()
        };
        match self {
            Self::Float32 => computed,
            Self::Bfloat16 => computed.to_kind(tch::Kind::Float),
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
