//! Counts the operators that libtorch runs.

use std::{
    collections::BTreeMap,
    ffi::{CStr, c_char},
    sync::{Mutex, MutexGuard, PoisonError},
};
// Whoever links the C++ part needs libtorch.
use torch_sys as _;

/// As in `operators.cpp`.
const READ: i32 = 1;
const COPY_TO_DEVICE: i32 = 2;

type Observer = extern "C" fn(name: *const c_char, kind: i32);

unsafe extern "C" {
    fn halfheard_observe_operators(tell: Observer) -> u64;
    fn halfheard_stop_observing_operators(handle: u64);
}

/// Only one counter exists at a time: libtorch's callbacks are global.
static ALONE: Mutex<()> = Mutex::new(());

static COUNTS: Mutex<Counts> = Mutex::new(Counts {
    operators: 0,
    reads: BTreeMap::new(),
    copies_to_device: 0,
});

/// Which operators ran.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Operators of libtorch (`aten::`), those inside of others and views included: an upper bound of
    /// the kernels that were launched.
    pub operators: u64,
    /// Those that made the host wait for a value on a device, by name.
    pub reads: BTreeMap<String, u64>,
    /// Copies from the host to a device.
    pub copies_to_device: u64,
}

impl Counts {
    /// How many operators made the host wait.
    pub fn host_reads(&self) -> u64 {
        self.reads.values().sum()
    }
}

/// Counts the operators of all threads while it exists. Every operator then takes longer, and
/// none does without a counter.
#[derive(Debug)]
pub struct Counter {
    handle: u64,
    _alone: MutexGuard<'static, ()>,
}

impl Counter {
    /// Counts from here on. Waits until no other counter exists.
    pub fn start() -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        *counts() = Counts::default();
        // SAFETY: `tell` is a function for the life of the program, and may be called on any thread.
        let handle = unsafe { halfheard_observe_operators(tell) };
        assert_ne!(handle, 0, "libtorch takes no observer of operators");
        Self {
            handle,
            _alone: alone,
        }
    }

    /// What has been counted since the last call, or the start.
    pub fn take(&mut self) -> Counts {
        std::mem::take(&mut *counts())
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        // SAFETY: the handle is that of this counter, and removed once.
        unsafe { halfheard_stop_observing_operators(self.handle) };
    }
}

fn counts() -> MutexGuard<'static, Counts> {
    COUNTS.lock().unwrap_or_else(PoisonError::into_inner)
}

extern "C" fn tell(name: *const c_char, kind: i32) {
    let mut counts = counts();
    counts.operators += 1;
    match kind {
        READ => {
            // SAFETY: libtorch's name of the operator, which ends with a zero and lives through this call.
            let name = unsafe { CStr::from_ptr(name) }.to_string_lossy();
            *counts.reads.entry(name.into_owned()).or_default() += 1;
        }
        COPY_TO_DEVICE => counts.copies_to_device += 1,
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind, Tensor};

    #[test]
    fn operators_count_while_a_counter_exists_and_no_longer() {
        let x = Tensor::ones([2, 3], (Kind::Float, Device::Cpu));
        let mut counter = Counter::start();
        let before = counter.take();
        let _ = x.relu().exp();
        let counted = counter.take();
        assert_eq!(before, Counts::default());
        assert!(counted.operators >= 2, "{counted:?}");
        // A value on the host is no read from a device.
        let _ = x.sum(Kind::Float).double_value(&[]);
        assert_eq!(counter.take().host_reads(), 0);
        // Operators of a backward pass, which may run on other threads.
        let x = x.set_requires_grad(true);
        let loss = x.exp().sum(Kind::Float);
        let forward = counter.take().operators;
        loss.backward();
        assert!(
            counter.take().operators > 0,
            "after {forward} in the forward pass"
        );
        drop(counter);
        let _ = x.relu();
        assert_eq!(Counter::start().take(), Counts::default());
    }
}
