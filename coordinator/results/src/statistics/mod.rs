//! What goes beyond means: intervals, comparisons, robustness, ranks. All are computed from stored
//! predictions, without any model.
//!
//! [`sums`] expresses metrics as functions of sums over samples, [`bootstrap`] resamples test samples
//! and seeds, [`mod@compare`] and [`mod@robustness`] read the samples, [`mod@ranks`] needs means only.

pub mod bootstrap;
pub mod compare;
mod interval;
pub mod ranks;
pub mod robustness;
mod sums;

pub use interval::{LEVEL, interval};
