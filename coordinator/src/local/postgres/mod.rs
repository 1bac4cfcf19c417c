//! A private Postgres.

mod access;
mod server;

pub use server::PostgresServer;
pub(super) use server::options;
