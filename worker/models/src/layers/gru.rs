//! GRUs over padded sequences on the CPU, by [`halfheard_kernels`].

use super::numbers::{numbers, numbers_mut};
use crate::numerics::threads;
use halfheard_kernels::gru::{Gradients, Gru, Inputs};
use halfheard_torch_shim::with_gradient;
use tch::{Device, Kind, Tensor};

/// One layer in one direction: the hidden states `[B, T, H]` of `x`, `[B, T, D]`, float32 on the CPU; padding is 0.
/// `weights` are PyTorch's four: of inputs and of hidden states, and their biases.
pub(super) fn one_direction(
    x: &Tensor,
    weights: &[Tensor; 4],
    lengths: &[usize],
    backwards: bool,
) -> Tensor {
    let [of_input, of_state, input_bias, state_bias] = weights;
    let projected = x.linear(of_input, Some(input_bias)).contiguous();
    let size = projected.size();
    let hidden = size[2] / 3;
    let gru = Gru {
        steps: size[1] as usize,
        hidden: hidden as usize,
        backwards,
        threads: threads(),
    };
    let lengths = lengths.to_vec();
    let [held, weight, bias] = [&projected, of_state, state_bias].map(|x| x.detach().contiguous());
    let output = Tensor::empty([size[0], size[1], hidden], (Kind::Float, Device::Cpu));
    gru.forward(
        inputs(&lengths, [&held, &weight, &bias]),
        numbers_mut(&output),
    );
    let result = output.detach();
    with_gradient(
        result,
        &[&projected, of_state, state_bias],
        move |gradient| {
            let of_projected = held.empty_like();
            let of_recurrent = held.empty_like();
            gru.backward(
                inputs(&lengths, [&held, &weight, &bias]),
                numbers(&output),
                numbers(&gradient.contiguous()),
                Gradients {
                    projected: numbers_mut(&of_projected),
                    recurrent: numbers_mut(&of_recurrent),
                },
            );
            let before = before(&output, backwards);
            let rows = |x: &Tensor| x.reshape([-1, x.size()[2]]);
            let of_weight = rows(&of_recurrent).tr().matmul(&rows(&before));
            let of_bias = of_recurrent.sum_dim_intlist([0, 1].as_slice(), false, Kind::Float);
            vec![of_projected, of_weight, of_bias]
        },
    )
}

fn inputs<'a>(lengths: &'a [usize], tensors: [&'a Tensor; 3]) -> Inputs<'a> {
    let [projected, weight, bias] = tensors.map(numbers);
    Inputs {
        lengths,
        projected,
        weight,
        bias,
    }
}

/// The state before each step, `[B, T, H]`; 0 before the first.
fn before(output: &Tensor, backwards: bool) -> Tensor {
    let steps = output.size()[1];
    let none = output.narrow(1, 0, 1).zeros_like();
    match backwards {
        // Padding is 0, so what follows a sample's last step is, too.
        true => Tensor::cat(&[output.narrow(1, 1, steps - 1), none], 1),
        false => Tensor::cat(&[none, output.narrow(1, 0, steps - 1)], 1),
    }
}
