//! The device that tensors live on: loading the GPU library at start, choosing a device, threads.
//!
//! The program is linked against libtorch's CPU libraries only. Where a CUDA build of the same
//! release is installed, its `libtorch_cuda.so` is loaded before the first tensor is created and
//! registers itself with the rest of libtorch. Without it the same program runs on the CPU.

mod choice;
pub mod cuda;
mod probe;

pub use choice::{
    ComputeDevice, DeviceError, choose, default_threads, detect, detect_without_loading,
    device_error, of_place, set_threads,
};
pub use probe::probe;
pub use tch::Device;
