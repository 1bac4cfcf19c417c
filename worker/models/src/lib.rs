//! The models and their training, on libtorch.

#![warn(missing_docs)]

pub mod device;
pub mod layers;
pub mod memory;
pub mod methods;
pub mod numerics;
pub mod optim;
pub mod train;
