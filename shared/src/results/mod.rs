//! A sweep's results as typed values: the store reads them once, and tables, figures, audits and the
//! report are functions of them.

mod cells;
mod jobs;
mod model;
mod predictions;
mod protocol;
mod rows;
mod seeds;
mod sweep;

pub use cells::{Cell, CellKey, Cells};
pub use jobs::{
    Build, Checkpoint, Conflict, DatasetFile, Fact, Job, JobOutcome, JobTally, StoredValues,
};
pub use model::{Model, ModelError};
pub use predictions::{Evaluation, Filter, Predictions};
pub use protocol::Protocol;
pub use rows::{ComparisonRow, EpochRow, Export, MeasurementRow, PredictionRows, Rows};
pub use seeds::SeedValue;
pub use sweep::{AuditRecords, Results, Sweep, Wanted};
