//! Result collector: from the stream of results into the database.

mod ingest;
mod stream;

pub(in crate::orchestrator) use stream::collect;
pub use stream::drained;
pub(in crate::orchestrator) use stream::{ingested, last_report};
