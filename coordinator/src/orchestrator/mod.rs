//! The orchestrator: one leader grants jobs, collects results, and looks after leases.

pub mod collect;
mod context;
mod dispatch;
mod hearing;
mod heartbeats;
mod leader;
mod leases;
pub mod options;
mod outage_log;
pub(crate) mod retry;
mod schedule;
pub mod serve;
