//! The private servers of one machine, and the programs that they need.

mod child;
mod cluster;
pub(crate) mod connect;
mod connection;
mod error;
mod files;
pub(crate) mod measurement;
mod nats;
mod postgres;
pub mod programs;
mod servers;
mod stale;
mod startup;
pub(crate) mod worker_check;

pub(crate) use child::log_tail;
pub(crate) use cluster::Cluster;
pub use connect::Database;
pub use connection::Connection;
pub use error::LocalError;
pub use servers::Servers;
