//! Whether a sweep reproduces the paper: every published number against the sweep's mean, by a test of
//! equivalence.
//!
//! [`tost`](mod@tost) is the test, [`bound`] says how far apart two equal models may be, `conditions` when
//! a sweep cannot be compared at all, and [`certificate`] puts a verdict on each number.

mod bound;
mod certificate;
mod conditions;
pub(crate) mod grid;
mod lookup;
mod number;
pub mod render;
pub mod tost;

pub use bound::{Spread, spread};
pub use certificate::{Certificate, Options, certify};
pub use grid::Grid;
pub use number::{Certified, Evidence, Verdict};
