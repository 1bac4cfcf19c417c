//! The audit of a sweep: its jobs ([`jobs`]), what they ran on ([`builds`]), its stored predictions
//! ([`predictions`]), and the rules for tables on its results.

mod audit;
mod builds;
mod jobs;
mod predictions;

pub use audit::{SweepAudit, collapsed};
