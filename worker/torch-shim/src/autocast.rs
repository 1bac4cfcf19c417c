//! Products of matrices in bfloat16.

use std::{ffi::c_int, marker::PhantomData};
use tch::Device;
// Whoever links the C++ part needs libtorch.
use torch_sys as _;

unsafe extern "C" {
    fn halfheard_begin_autocast(cuda: c_int);
    fn halfheard_end_autocast(cuda: c_int);
}

/// While it exists, libtorch computes products of matrices on this thread in bfloat16, and rounds their inputs to it,
/// as `torch.autocast` does. The results are bfloat16, too. It must not exist in a backward pass, which follows the
/// kinds of the forward pass by itself, and not within another.
#[derive(Debug)]
pub struct Autocast {
    cuda: c_int,
    /// The mode is that of the thread which it began on.
    _thread: PhantomData<*const ()>,
}

impl Autocast {
    /// For tensors on `device`.
    pub fn bfloat16(device: Device) -> Self {
        let cuda = c_int::from(matches!(device, Device::Cuda(_)));
        // SAFETY: sets what is this thread's.
        unsafe { halfheard_begin_autocast(cuda) };
        Self {
            cuda,
            _thread: PhantomData,
        }
    }
}

impl Drop for Autocast {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { halfheard_end_autocast(self.cuda) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Kind, Tensor};

    #[test]
    fn products_are_bfloat16_while_it_exists_and_gradients_are_not() {
        let cpu = (Kind::Float, Device::Cpu);
        let x = Tensor::rand([8, 16], cpu);
        let w = Tensor::rand([4, 16], cpu).set_requires_grad(true);
        let product = || x.linear(&w, None::<&Tensor>);
        let exact = product();
        let reduced = {
            let _reduced = Autocast::bfloat16(Device::Cpu);
            product()
        };
        assert_eq!(
            (exact.kind(), reduced.kind()),
            (Kind::Float, Kind::BFloat16)
        );
        // Eight bits of the significand.
        assert!(exact.allclose(&reduced.to_kind(Kind::Float), 1e-2, 1e-2, false));
        assert_ne!(exact, reduced.to_kind(Kind::Float));
        reduced.to_kind(Kind::Float).sum(Kind::Float).backward();
        assert_eq!(w.grad().kind(), Kind::Float);
        assert_eq!(product().kind(), Kind::Float);
    }

    #[test]
    fn changed_weights_are_rounded_anew() {
        let w = Tensor::ones([2, 2], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let sum = || {
            let _reduced = Autocast::bfloat16(Device::Cpu);
            let x = Tensor::ones([1, 2], (Kind::Float, Device::Cpu));
            x.linear(&w, None::<&Tensor>)
                .to_kind(Kind::Float)
                .sum(Kind::Float)
                .double_value(&[])
        };
        assert_eq!(sum(), 4.0);
        tch::no_grad(|| {
            let _ = w.shallow_clone().fill_(2.0);
        });
        assert_eq!(sum(), 8.0);
    }
}
