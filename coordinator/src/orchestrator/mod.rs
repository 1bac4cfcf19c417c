//! The orchestrator: one leader that dispatches jobs, collects results and reconciles the rows with the broker.

pub mod collect;
pub mod control;
pub mod dispatch;
pub mod leader;
pub mod reconcile;
pub mod serve;
pub mod trouble;
