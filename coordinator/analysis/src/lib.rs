//! Sweeps as seen by the commands on results: reads what tables, figures, audits and reports are computed
//! from, and computes on blocking threads.

mod audit;
mod bootstrap;
mod figure;
mod report;
pub mod tables;

pub use audit::{audit, collapsed};
pub use bootstrap::resample;
pub use figure::{DrawError, Sources, draw};
pub use report::report;
