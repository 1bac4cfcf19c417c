//! What `coord` and `worker` both speak: the benchmark's spec and its matrix, jobs and results on
//! the wire, data files, artifacts, erasure and metrics. Nothing here links libtorch.

pub mod broker;
pub mod case;
pub mod ids;
pub mod wire;
