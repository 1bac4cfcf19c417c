//! Arithmetic that libtorch does badly on a CPU. Plain Rust on slices: neither tensors nor gradients, which
//! `halfheard-models` adds.
//!
//! Everything here gives the same bits on every processor, with any number of threads and whatever else is in a batch:
//! sums have a fixed order of 16 lanes, products and sums are fused explicitly, and exponentials are computed here.

#![allow(
    clippy::needless_range_loop,
    reason = "loops over lanes and features index several arrays, and must end at a constant"
)]

pub mod adam;
pub mod attention;
mod dispatch;
pub mod dropout;
pub mod gru;
mod lanes;
mod parallel;
mod random;
