//! Gradients of what libtorch has not computed.

use std::{
    ffi::c_void,
    panic::{AssertUnwindSafe, catch_unwind},
};
use tch::Tensor;
use torch_sys::C_tensor;

type BackwardFn = extern "C" fn(*mut c_void, *mut C_tensor, *mut *mut C_tensor, usize) -> i32;
type DropFn = extern "C" fn(*mut c_void);

unsafe extern "C" {
    fn halfheard_set_gradient(
        output: *const C_tensor,
        inputs: *const *const C_tensor,
        count: usize,
        context: *mut c_void,
        backward: BackwardFn,
        drop: DropFn,
    ) -> i32;
}

/// The gradients of the inputs, in their order, for the gradient of the output.
type Backward = Box<dyn Fn(Tensor) -> Vec<Tensor> + Send>;

/// Makes `output`, which was computed of `inputs` without libtorch's knowledge, part of the graph: on the
/// way back, `backward` turns its gradient into those of the inputs, one each in their order and shape.
///
/// Returns the output. Without a need for gradients nothing is kept.
///
/// # Panics
///
/// If libtorch refuses, as for an output that is part of a graph already. A panic of `backward`, or another number
/// of gradients than of inputs, makes the backward pass fail.
pub fn with_gradient(
    output: Tensor,
    inputs: &[&Tensor],
    backward: impl Fn(Tensor) -> Vec<Tensor> + Send + 'static,
) -> Tensor {
    let backward: Backward = Box::new(backward);
    let context = Box::into_raw(Box::new(backward)).cast();
    let pointers: Vec<*const C_tensor> = inputs.iter().map(|input| input.as_ptr()).collect();
    // SAFETY: the tensors live through the call, the context is a `Backward` that is handed over to be dropped by
    // `drop_context`, and both functions live as long as the program.
    let set = unsafe {
        halfheard_set_gradient(
            output.as_ptr(),
            pointers.as_ptr(),
            pointers.len(),
            context,
            call,
            drop_context,
        )
    };
    assert!(set >= 0, "libtorch takes no gradient for this output");
    output
}

extern "C" fn call(
    context: *mut c_void,
    gradient: *mut C_tensor,
    results: *mut *mut C_tensor,
    count: usize,
) -> i32 {
    // SAFETY: libtorch hands this tensor over.
    let gradient = unsafe { Tensor::from_ptr(gradient) };
    // SAFETY: the context of `with_gradient`, which has not been dropped yet.
    let backward = unsafe { &*context.cast::<Backward>() };
    // A panic must not pass through libtorch's frames.
    let Ok(gradients) = catch_unwind(AssertUnwindSafe(|| backward(gradient))) else {
        return 0;
    };
    if gradients.len() != count {
        return 0;
    }
    for (i, mut gradient) in gradients.into_iter().enumerate() {
        // SAFETY: there is room for `count` pointers; each tensor is handed over and not dropped here.
        unsafe { *results.add(i) = gradient.as_mut_ptr() };
        std::mem::forget(gradient);
    }
    1
}

extern "C" fn drop_context(context: *mut c_void) {
    // SAFETY: the context of `with_gradient`, dropped once.
    drop(unsafe { Box::from_raw(context.cast::<Backward>()) });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tch::{Device, Kind};

    const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

    /// `x * y`, without libtorch's knowledge.
    fn product(x: &Tensor, y: &Tensor) -> Tensor {
        let output = tch::no_grad(|| x * y);
        let (of_x, of_y) = (y.detach(), x.detach());
        with_gradient(output, &[x, y], move |g| vec![&g * &of_x, &g * &of_y])
    }

    #[test]
    fn gradients_reach_the_inputs() {
        let x = Tensor::rand([3, 2], CPU).set_requires_grad(true);
        let y = Tensor::rand([3, 2], CPU).set_requires_grad(true);
        // Through operators on both sides, and twice through one input.
        let inner = &x * 3.0;
        let out = product(&inner, &y) + &x;
        assert!(out.requires_grad());
        (&out * 2.0).sum(Kind::Float).backward();
        assert!(x.grad().allclose(&(&y * 6.0 + 2.0), 1e-6, 1e-6, false));
        assert!(y.grad().allclose(&(&x * 6.0), 1e-6, 1e-6, false));
    }

    #[test]
    fn inputs_without_gradient_are_passed_over() {
        let x = Tensor::rand([3], CPU);
        let y = Tensor::rand([3], CPU).set_requires_grad(true);
        product(&x, &y).sum(Kind::Float).backward();
        assert!(!x.grad().defined());
        assert_eq!(y.grad(), x);
    }

    #[test]
    fn nothing_is_kept_longer_than_needed() {
        let kept = Arc::new(());
        let run = |requires: bool| {
            let x = Tensor::rand([3], CPU).set_requires_grad(requires);
            let kept = Arc::clone(&kept);
            let output = tch::no_grad(|| &x + 1.0);
            with_gradient(output, &[&x], move |g| {
                let _ = &kept;
                vec![g]
            })
        };
        let plain = run(false);
        assert!(!plain.requires_grad());
        assert_eq!(Arc::strong_count(&kept), 1);
        let without = tch::no_grad(|| run(true));
        assert!(!without.requires_grad());
        assert_eq!(Arc::strong_count(&kept), 1);
        let output = run(true);
        assert_eq!(Arc::strong_count(&kept), 2);
        output.sum(Kind::Float).backward();
        // As libtorch's own operators, whose results are still there.
        assert_eq!(Arc::strong_count(&kept), 1);
        drop(run(true));
        assert_eq!(Arc::strong_count(&kept), 1);
    }

    #[test]
    fn failed_gradient_fails_the_backward_pass() {
        let x = Tensor::rand([3], CPU).set_requires_grad(true);
        let output = tch::no_grad(|| &x + 1.0);
        let wrong = with_gradient(output, &[&x], |_| Vec::new());
        let error = wrong.sum(Kind::Float).f_backward().unwrap_err();
        assert!(
            error.to_string().contains("could not be computed"),
            "{error}"
        );
    }
}
