//! The coordinator.

pub mod backoff;
pub mod dispatch;
pub mod gather;
pub mod leader;
pub mod lifecycle;
pub mod reconcile;
pub mod serve;
pub mod store;
