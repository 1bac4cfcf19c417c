//! A dataset and a text encoder so small that real workers train on them in seconds.

mod dataset;
mod encoder;

pub use dataset::{aligned, dataset};
pub use encoder::encoder;
