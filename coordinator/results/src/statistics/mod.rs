//! What goes beyond means: intervals, comparisons, robustness, ranks. All are computed from stored
//! predictions, without any model.
//!
//! [`sums`] expresses metrics as functions of sums over samples, [`bootstrap`] resamples test samples
//! and seeds, [`mod@compare`] and [`mod@robustness`] read the samples,
//! [`mod@reliance`] single seeds as well, [`mod@ranks`] needs means only,
//! [`mod@summary`] a curve.

pub mod bootstrap;
pub mod compare;
mod interval;
pub mod ranks;
pub mod reliance;
pub mod robustness;
mod spread;
pub mod summary;
mod sums;

pub use interval::{LEVEL, interval};
pub use spread::spread;
