//! The device.

use std::sync::Once;
use tch::Device;
// The C++ part needs libtorch, and is compiled as this is.
use halfheard_torch_shim as _;

unsafe extern "C" {
    fn halfheard_fake_device();
}

/// The device. It takes the place of [`Device::Vulkan`], which libtorch for servers knows and cannot compute
/// on; its random numbers are the CPU's.
pub fn device() -> Device {
    static REGISTERED: Once = Once::new();
    // SAFETY: it adds operators for a device that has none, once, before anything is computed there.
    REGISTERED.call_once(|| unsafe { halfheard_fake_device() });
    Device::Vulkan
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Kind, Tensor, nn, nn::Module};

    fn ones(size: &[i64]) -> Tensor {
        Tensor::ones(size, (Kind::Float, device()))
    }

    #[test]
    fn results_stay_on_the_device_and_views_share_memory() {
        let x = ones(&[2, 3]);
        let mut row = x.get(1);
        let _ = row.g_add_scalar_(1.0);
        assert_eq!(x.device(), device());
        assert_eq!((&x * 2.0).exp().device(), device());
        let host = Vec::<f32>::try_from(x.flatten(0, 1).to_device(Device::Cpu)).unwrap();
        assert_eq!(host, [1.0, 1.0, 1.0, 2.0, 2.0, 2.0]);
        let back = Tensor::from_slice(&host).to_device(device());
        assert_eq!(
            (back.view([2, 3]) - x)
                .abs()
                .sum(Kind::Float)
                .double_value(&[]),
            0.0
        );
    }

    #[test]
    fn tensors_on_the_host_are_no_operands() {
        let host = Tensor::ones([3], (Kind::Float, Device::Cpu));
        assert!(ones(&[3]).f_add(&host).is_err());
        // A number is one.
        assert!(ones(&[3]).f_add(&Tensor::from(2.0_f32)).is_ok());
    }

    #[test]
    fn gradients_are_those_of_the_cpu() {
        let gradient = |device| {
            tch::manual_seed(1);
            let vs = nn::VarStore::new(device);
            let conv = nn::conv1d(vs.root() / "conv", 3, 4, 3, Default::default());
            let norm = nn::layer_norm(vs.root() / "norm", vec![4], Default::default());
            let x = Tensor::randn([2, 3, 7], (Kind::Float, device));
            let y = norm.forward(&conv.forward(&x).transpose(1, 2)).tanh();
            y.square().mean(Kind::Float).backward();
            conv.ws.grad().to_device(Device::Cpu)
        };
        let (host, own) = (gradient(Device::Cpu), gradient(device()));
        assert!(own.allclose(&host, 1e-5, 1e-6, false));
    }
}
