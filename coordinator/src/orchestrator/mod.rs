//! The orchestrator: one leader grants jobs, collects results, and looks after leases.

pub mod collect;
mod context;
mod dispatch;
mod hearing;
mod leader;
mod leases;
mod notify;
pub mod options;
mod outage_log;
pub(crate) mod retry;
mod schedule;
pub mod serve;
mod traced;
