//! A sweep's results as typed values: the store reads them once, and tables, figures, audits and the
//! report are functions of them.

mod cells;
mod jobs;
mod model;
mod predictions;
mod rows;
mod sweep;

pub use cells::{Cell, CellKey, Cells};
pub use jobs::{
    Build, Checkpoint, Conflict, DatasetFile, Fact, Job, JobOutcome, Protocol, StoredValues,
};
pub use model::{Model, ModelError};
pub use predictions::{Evaluation, Filter, Predictions};
pub use rows::{ComparisonRow, EpochRow, Export, MeasurementRow, PredictionRows, Rows};
pub use sweep::{AuditRecords, Results, Sweep, Wanted};
