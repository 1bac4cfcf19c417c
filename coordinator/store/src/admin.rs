//! Administration of a private server: whether it accepts connections, and its database.

use crate::fault::PostgresError;
use sqlx::{ConnectOptions as _, Connection as _, postgres::PgConnectOptions};

/// Connects once to the database `postgres`.
///
/// # Errors
///
/// The server is not ready, or rejects the login.
pub async fn ping(options: &PgConnectOptions) -> Result<(), PostgresError> {
    let connection = options.clone().database("postgres").connect().await?;
    Ok(connection.close().await?)
}

/// Creates the database `halfheard` if it does not exist.
///
/// # Errors
///
/// The database's.
pub async fn create_database(options: &PgConnectOptions) -> Result<(), PostgresError> {
    let mut connection = options.clone().database("postgres").connect().await?;
    let exists = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM pg_database WHERE datname = 'halfheard') AS "exists!""#
    )
    .fetch_one(&mut connection)
    .await?;
    if !exists {
        sqlx::query!("CREATE DATABASE halfheard")
            .execute(&mut connection)
            .await?;
    }
    Ok(connection.close().await?)
}
