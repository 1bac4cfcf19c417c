//! The models and their training, on libtorch.

#![warn(missing_docs)]

pub mod context;
pub mod device;
pub mod environment;
mod error;
pub mod layers;
mod lengths;
pub mod memory;
pub mod methods;
pub mod numerics;
mod optim;
pub mod precision;
mod state;
pub mod synthetic;
pub mod train;
