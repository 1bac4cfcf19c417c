//! The audit of a sweep: its jobs ([`jobs`]), its stored predictions ([`predictions`]), and the rules for
//! tables on its results.

mod audit;
mod jobs;
mod predictions;

pub use audit::{SweepAudit, collapsed};
