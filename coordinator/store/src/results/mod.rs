//! A sweep's results, read for tables, figures, audits, reports and export.

mod audit;
mod error;
mod export;
mod load;
mod predictions;
mod snapshot;

pub use error::ResultsError;
pub use export::export;
pub use load::load;
pub use snapshot::Snapshot;
