//! The orchestrator: one leader dispatches jobs, collects results, and reconciles rows with the broker.

pub mod collect;
mod dispatch;
mod leader;
pub mod options;
mod outage_log;
mod reconcile;
pub(crate) mod retry;
pub(crate) mod schedule;
pub mod serve;
pub mod sweep_control;
mod sync;

pub use sync::SyncError;
