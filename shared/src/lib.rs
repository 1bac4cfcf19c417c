//! What `coord` and `worker` both speak: the benchmark's spec and its matrix, jobs and results on
//! the wire, data files, artifacts, erasure and metrics. Nothing here links libtorch.

#![warn(missing_docs)]

pub mod address;
pub mod artifacts;
pub mod atomic_file;
pub mod benchmark;
pub mod broker;
pub mod bundle;
pub mod case;
pub mod color;
pub mod cryptography;
pub mod dataset;
pub mod device;
pub mod encoder;
pub mod env;
pub mod erased_split;
pub mod erasure;
pub mod error;
pub mod external;
pub mod faults;
pub mod features;
pub mod hash;
pub mod hash_cache;
pub mod ids;
pub mod mapping;
pub mod matrix;
pub mod methods;
pub mod metrics;
pub mod numerics;
pub mod numpy_rng;
pub mod operations;
pub mod pickle;
pub mod published;
pub mod regime;
pub mod results;
pub mod retry;
pub mod selection;
pub mod service_manager;
pub mod settings;
pub mod shutdown;
pub mod spec;
pub mod text;
pub mod wire;
