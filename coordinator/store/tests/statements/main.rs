//! Statements on a real database, without broker and workers.
#![expect(clippy::unwrap_used, reason = "a test ends where something is wrong")]

mod allocations;
mod cells;
mod drained;
mod external;
mod leadership;
mod leases;
mod needs;
mod postgres;
mod reports;
mod scene;
mod sums;
mod timings;
mod trainings;
mod upkeep;
