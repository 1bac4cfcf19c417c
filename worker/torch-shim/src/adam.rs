//! Adam over many tensors at once.

use std::ffi::{CStr, c_char};
use tch::Tensor;
use torch_sys::C_tensor;

unsafe extern "C" {
    fn halfheard_adam_step(
        weights: *const *const C_tensor,
        gradients: *const *const C_tensor,
        first: *const *const C_tensor,
        second: *const *const C_tensor,
        rates: *const f64,
        corrections: *const f64,
        count: usize,
        adam: *const AdamStep,
    ) -> *mut c_char;
    fn halfheard_free_message(message: *mut c_char);
}

/// What all weights of a step have in common. As in `adam.cpp`.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C)]
pub struct AdamStep {
    /// What is kept of the first moment, β₁.
    pub keep_first: f64,
    /// What is kept of the second moment, β₂.
    pub keep_second: f64,
    /// Added to the root of the second moment, ε.
    pub eps: f64,
    /// Times the weights, added to the gradients (Adam); 0 for none.
    pub coupled_decay: f64,
    /// What the weights are multiplied with before the step (AdamW); 1 for no decay.
    pub shrink: f64,
}

/// The weights of a step, with what each has for itself: as many of everything.
#[derive(Debug, Default)]
pub struct AdamWeights {
    /// The weights, of any shapes; they are changed.
    pub weights: Vec<Tensor>,
    /// Their gradients, in the same shapes.
    pub gradients: Vec<Tensor>,
    /// The first moments; they are changed.
    pub first: Vec<Tensor>,
    /// The second moments; they are changed.
    pub second: Vec<Tensor>,
    /// The learning rates divided by the first bias corrections, lr / (1 − β₁ᵗ).
    pub rates: Vec<f64>,
    /// The roots of the second bias corrections, √(1 − β₂ᵗ).
    pub corrections: Vec<f64>,
}

impl AdamStep {
    /// Updates weights and moments (Kingma & Ba 2015, Algorithm 1; AdamW: Loshchilov & Hutter 2019, Algorithm 2), with a
    /// few kernels for all of them where libtorch has such for their device, otherwise one after the other. Gradients
    /// must be off.
    ///
    /// # Panics
    ///
    /// If there are not as many of everything; with libtorch's message if it refuses or lacks memory, as tch's operators
    /// do.
    pub fn take(&self, of: &AdamWeights) {
        let count = of.weights.len();
        let pointers = |tensors: &[Tensor]| -> Vec<*const C_tensor> {
            assert_eq!(tensors.len(), count, "as many tensors of each kind");
            tensors.iter().map(Tensor::as_ptr).collect()
        };
        assert_eq!((of.rates.len(), of.corrections.len()), (count, count));
        if count == 0 {
            return;
        }
        let negative: Vec<f64> = of.rates.iter().map(|rate| -rate).collect();
        let (weights, gradients) = (pointers(&of.weights), pointers(&of.gradients));
        let (first, second) = (pointers(&of.first), pointers(&of.second));
        // SAFETY: tensors and numbers live through the call, and there are `count` of each.
        let message = unsafe {
            halfheard_adam_step(
                weights.as_ptr(),
                gradients.as_ptr(),
                first.as_ptr(),
                second.as_ptr(),
                negative.as_ptr(),
                of.corrections.as_ptr(),
                count,
                self,
            )
        };
        if message.is_null() {
            return;
        }
        // SAFETY: a text with a zero at its end, which is ours until it is freed here.
        let text = unsafe {
            let text = CStr::from_ptr(message).to_string_lossy().into_owned();
            halfheard_free_message(message);
            text
        };
        panic!("{text}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    const ADAM: AdamStep = AdamStep {
        keep_first: 0.9,
        keep_second: 0.99,
        eps: 1e-8,
        coupled_decay: 0.0,
        shrink: 1.0,
    };

    fn tensor(numbers: &[f32]) -> Tensor {
        Tensor::from_slice(numbers)
    }

    #[test]
    fn weights_of_several_shapes_take_their_own_steps() {
        let _guard = tch::no_grad_guard();
        let weights = AdamWeights {
            weights: vec![tensor(&[1.0, -1.0]), tensor(&[2.0]).reshape([1, 1])],
            gradients: vec![tensor(&[0.5, -2.0]), tensor(&[4.0]).reshape([1, 1])],
            first: vec![tensor(&[0.0, 0.0]), tensor(&[1.0]).reshape([1, 1])],
            second: vec![tensor(&[0.0, 0.0]), tensor(&[9.0]).reshape([1, 1])],
            // The first at its first step, where a step is the learning rate; the other later.
            rates: vec![0.1 / (1.0 - 0.9), 0.5],
            corrections: vec![(1.0f64 - 0.999).sqrt(), 1.0],
        };
        let adam = AdamStep {
            keep_second: 0.999,
            shrink: 0.5,
            ..ADAM
        };
        adam.take(&weights);
        let got = Vec::<f32>::try_from(&weights.weights[0]).unwrap();
        assert!(
            (got[0] - 0.4).abs() < 1e-6 && (got[1] + 0.4).abs() < 1e-6,
            "{got:?}"
        );
        let (first, second) = (0.9 + 0.1 * 4.0, 9.0 * 0.999 + 0.001 * 16.0);
        let expected = 1.0 - 0.5 * first / f64::sqrt(second);
        let got = weights.weights[1].double_value(&[0, 0]);
        assert!((got - expected).abs() < 1e-6, "{got} {expected}");
        let moments = [&weights.first[1], &weights.second[1]].map(|m| m.double_value(&[0, 0]));
        assert!((moments[0] - first).abs() < 1e-6 && (moments[1] - second).abs() < 1e-5);
    }

    #[test]
    fn coupled_decay_joins_the_gradient() {
        let _guard = tch::no_grad_guard();
        let run = |gradient: f32, coupled_decay: f64| {
            let weights = AdamWeights {
                weights: vec![tensor(&[2.0])],
                gradients: vec![tensor(&[gradient])],
                first: vec![tensor(&[0.25])],
                second: vec![tensor(&[0.5])],
                rates: vec![0.1],
                corrections: vec![0.9],
            };
            let adam = AdamStep {
                coupled_decay,
                ..ADAM
            };
            adam.take(&weights);
            weights.weights[0].double_value(&[0])
        };
        assert_eq!(run(1.0, 0.25), run(1.5, 0.0));
        assert_ne!(run(1.0, 0.25), run(1.0, 0.0));
    }

    #[test]
    #[should_panic(expected = "size")]
    fn what_libtorch_refuses_is_said() {
        let _guard = tch::no_grad_guard();
        let one = || vec![Tensor::zeros([3], (Kind::Float, Device::Cpu))];
        let weights = AdamWeights {
            weights: one(),
            gradients: vec![Tensor::zeros([2], (Kind::Float, Device::Cpu))],
            first: one(),
            second: one(),
            rates: vec![0.1],
            corrections: vec![1.0],
        };
        ADAM.take(&weights);
    }
}
