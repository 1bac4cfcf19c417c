//! The private servers of one machine, and the programs that they need.

pub mod child;
pub mod connect;
mod connection;
mod error;
pub mod files;
pub mod nats;
pub mod postgres;
pub mod programs;
pub mod servers;
pub mod stale;
pub mod worker_check;

pub use connection::Connection;
pub use error::LocalError;
pub use servers::Servers;
