//! Gradient clipping.

use tch::Tensor;

/// `torch.nn.utils.clip_grad_value_`: clamps every gradient entry to ± `limit`.
pub(crate) fn clip_grad_value(gradients: &[Tensor], limit: f64) {
    for gradient in gradients {
        let _ = gradient.shallow_clone().clamp_(-limit, limit);
    }
}

/// `torch.nn.utils.clip_grad_norm_`: scales all gradients so that their common norm is at most
/// `limit`.
pub(crate) fn clip_grad_norm(gradients: &[Tensor], limit: f64) {
    if gradients.is_empty() {
        return;
    }
    let norms: Vec<Tensor> = gradients.iter().map(Tensor::norm).collect();
    let total = Tensor::stack(&norms, 0).norm();
    // Without a read-back: the factor stays on the device and is 1 if the norm is small enough.
    let factor = (total + 1e-6).reciprocal() * limit;
    let factor = factor.clamp_max(1.0);
    for gradient in gradients {
        let _ = gradient.shallow_clone().g_mul_(&factor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::{Adam, AdamConfig, Group};
    use tch::{Device, Kind, nn};

    #[test]
    fn norm_clipping_scales_all_gradients_equally() {
        let vs = nn::VarStore::new(Device::Cpu);
        let w = vs
            .root()
            .var_copy("w", &Tensor::from_slice(&[1.0f32, -2.0]));
        let adam = Adam::new(
            "adam",
            vec![Group {
                params: vec![("w".to_owned(), w.shallow_clone())],
                lr: 0.1,
                weight_decay: 0.0,
            }],
            AdamConfig::ADAM,
        );
        (&w * Tensor::from_slice(&[3.0f32, 4.0]))
            .sum(Kind::Float)
            .backward();
        clip_grad_norm(&adam.gradients(), 1.0);
        let got = Vec::<f32>::try_from(&w.grad()).unwrap();
        assert!((got[0] - 0.6).abs() < 1e-5 && (got[1] - 0.8).abs() < 1e-5);
    }
}
