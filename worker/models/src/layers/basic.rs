//! Linear layers, layer norms, convolutions and the reversed gradient.

use tch::{Tensor, nn};

/// The identity whose gradient is reversed and scaled by `weight` (Ganin & Lempitsky 2015):
/// forward `x`, backward `-weight * dL/dx`.
pub(crate) fn reverse_gradient(x: &Tensor, weight: f64) -> Tensor {
    x * -weight + (x * (1.0 + weight)).detach()
}

/// Uniform in ±1/√`fan_in`, PyTorch's default for weights and biases of linear and convolutional
/// layers. tch's own default has a range 2.4 times as wide.
fn uniform(fan_in: i64) -> nn::Init {
    let bound = 1.0 / (fan_in as f64).sqrt();
    nn::Init::Uniform {
        lo: -bound,
        up: bound,
    }
}

fn linear_with(path: nn::Path<'_>, from: i64, to: i64, bias: bool) -> nn::Linear {
    nn::linear(
        path,
        from,
        to,
        nn::LinearConfig {
            ws_init: uniform(from),
            bs_init: Some(uniform(from)),
            bias,
        },
    )
}

/// A linear layer, initialized as `torch.nn.Linear`.
pub(crate) fn linear(path: nn::Path<'_>, from: i64, to: i64) -> nn::Linear {
    linear_with(path, from, to, true)
}

/// A linear layer without bias, initialized as `torch.nn.Linear`.
pub(crate) fn linear_no_bias(path: nn::Path<'_>, from: i64, to: i64) -> nn::Linear {
    linear_with(path, from, to, false)
}

/// A layer norm over the last dimension, initialized as `torch.nn.LayerNorm`.
pub(crate) fn layer_norm(path: nn::Path<'_>, width: i64) -> nn::LayerNorm {
    nn::layer_norm(path, vec![width], nn::LayerNormConfig::default())
}

/// A convolution along time, `[B, from, T]` to `[B, to, T']`, initialized as `torch.nn.Conv1d`;
/// the initialization in `config` is ignored.
pub(crate) fn conv1d(
    path: nn::Path<'_>,
    from: i64,
    to: i64,
    kernel: i64,
    config: nn::ConvConfig,
) -> nn::Conv1D {
    let init = uniform(from / config.groups * kernel);
    nn::conv1d(
        path,
        from,
        to,
        kernel,
        nn::ConvConfig {
            ws_init: init,
            bs_init: init,
            ..config
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    #[test]
    fn reversed_gradient_is_identity_in_forward() {
        let x = Tensor::from_slice(&[1.5f32, -2.0]).set_requires_grad(true);
        let y = reverse_gradient(&x, 1.0);
        assert_eq!(Vec::<f32>::try_from(y.detach()).unwrap(), [1.5, -2.0]);
        (y * Tensor::from_slice(&[3.0f32, 4.0]))
            .sum(Kind::Float)
            .backward();
        assert_eq!(Vec::<f32>::try_from(x.grad()).unwrap(), [-3.0, -4.0]);
    }

    #[test]
    fn initial_weights_stay_in_pytorch_range() {
        tch::manual_seed(1);
        let vs = nn::VarStore::new(Device::Cpu);
        let layer = linear(vs.root() / "linear", 64, 500);
        let conv = conv1d(vs.root() / "conv", 16, 200, 4, Default::default());
        for weights in [&layer.ws, &conv.ws] {
            let largest = weights.abs().max().double_value(&[]);
            assert!((0.12..=0.125).contains(&largest), "{largest}");
        }
    }
}
