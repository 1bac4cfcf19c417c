//! A private Postgres.

mod access;
mod server;

pub(crate) use server::PostgresServer;
pub(super) use server::options;
