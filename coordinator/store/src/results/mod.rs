//! A sweep's results, read for tables, figures, audits, reports and export.

mod audit;
mod cells;
mod error;
mod export;
mod load;
mod predictions;
mod seed_values;
mod snapshot;
mod version;

pub use error::ResultsError;
pub use export::export;
pub use load::load;
pub use snapshot::Snapshot;
pub use version::ResultsVersion;
