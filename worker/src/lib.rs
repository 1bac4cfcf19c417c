//! The worker: takes jobs from the broker, trains and evaluates the models with libtorch.

pub mod models;
pub mod nn;
pub mod optim;
pub mod train;
