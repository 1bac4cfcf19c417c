//! Postgres: every SQL statement of the coordinator, the job types, and the state machine of a job.
//!
//! Statements with a fixed text are checked against the migrations when the crate is compiled. The
//! modules depend on each other downward only: [`job`] (types), [`lifecycle`] (what a message means),
//! [`fault`] and [`error`], [`store`] (the connection pool), and the queries, one module per purpose.

pub mod admin;
pub mod allocation;
pub mod backup;
pub mod benchmarks;
pub mod board;
mod columns;
pub mod connect;
pub mod control;
mod costs;
pub mod datasets;
pub mod dead_letters;
pub mod drained;
pub mod error;
pub mod failures;
pub mod fault;
mod fence;
pub mod forecast;
pub mod gc;
mod give_up;
pub mod grants;
pub mod imported;
pub mod ingest;
pub mod installation;
pub mod job;
mod job_rows;
pub mod leadership;
pub mod leases;
pub mod lifecycle;
pub mod live;
pub mod map;
pub mod measured_needs;
pub mod notifications;
pub mod observation;
pub mod output;
mod published;
pub mod results;
mod retry;
pub mod sharing;
pub mod status;
pub mod store;
pub mod submit;
pub mod sweeps;
mod tallies;
pub mod terms;
mod text;
pub mod timings;
pub mod traced;
pub mod trainings;
pub mod worker_tallies;

pub use error::StoreError;
pub use fault::Fault;
pub use job::{JobCounts, JobKind, JobState, SweepState};
pub use store::{MIGRATIONS, Store};
