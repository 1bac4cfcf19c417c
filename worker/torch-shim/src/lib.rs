//! What libtorch's C++ interface has and tch does not, behind safe functions. One C++ file per topic,
//! and beside it the Rust file that declares its C functions and is the only one to call them.

#![warn(missing_docs)]

mod adam;
mod autocast;
mod gradient;
mod instructions;
mod operators;

pub use adam::{AdamStep, AdamWeights};
pub use autocast::Autocast;
pub use gradient::with_gradient;
pub use instructions::mkl_goes_by_instructions;
pub use operators::{Counter, Counts};
