//! A device of libtorch without hardware, for tests of what is computed where. Its tensors are kept apart
//! from the host's as on a GPU, and its operators run on the CPU.

#![warn(missing_docs)]

mod device;

pub use device::device;
