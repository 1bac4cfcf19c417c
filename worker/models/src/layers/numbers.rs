//! The memory of tensors, for kernels.

use tch::{Device, Tensor};

/// The numbers of `x`, which is contiguous, on the CPU and of this type, and which nobody may write to meanwhile.
pub(super) fn numbers<T>(x: &Tensor) -> &[T] {
    check::<T>(x);
    // SAFETY: checked; nothing writes to it, since all of its users are in this thread, which is here.
    unsafe { std::slice::from_raw_parts(x.data_ptr().cast(), x.numel()) }
}

/// As [`numbers`], of what the caller has just made.
#[expect(
    clippy::mut_from_ref,
    reason = "a tensor is a reference to its numbers"
)]
pub(super) fn numbers_mut<T>(x: &Tensor) -> &mut [T] {
    check::<T>(x);
    // SAFETY: checked; nobody else uses it yet.
    unsafe { std::slice::from_raw_parts_mut(x.data_ptr().cast(), x.numel()) }
}

fn check<T>(x: &Tensor) {
    assert!(x.device() == Device::Cpu && x.is_contiguous() && x.numel() > 0);
    assert_eq!(x.kind().elt_size_in_bytes(), size_of::<T>());
}
