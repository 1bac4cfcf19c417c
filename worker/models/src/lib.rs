//! The models and their training, on libtorch.

pub mod device;
pub mod layers;
pub mod memory;
pub mod methods;
pub mod numerics;
pub mod optim;
pub mod train;
