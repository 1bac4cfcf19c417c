//! Leadership: of several coordinators one leads, the others stand by.
//!
//! It is a Postgres advisory lock on a connection of its own. The lock falls with the connection,
//! so a leader that dies is replaced at once. A leader that cannot reach Postgres for a few seconds
//! takes itself for deposed before the server lets the lock go: two may never lead. Should they
//! all the same for a moment, message ids and conditional updates keep the count right.
//!
//! A database that takes no writes is not led from. A standby's locks are its own: a coordinator that
//! was pointed at one would lead beside the real leader.

use super::outage_log::OutageLog;
use halfheard_store::{Store, StoreError, connect::refused, fault::words};
use sqlx::{Connection as _, PgConnection};
use std::time::Duration;
use tokio_util::sync::{CancellationToken, DropGuard};

/// The lock's key, the same in all releases; advisory locks are per database.
const KEY: i64 = 0x006d_6973_7362_6e63;
/// How often a leader asks whether its connection lives.
const PING_EVERY: Duration = Duration::from_secs(1);
/// How long the answer may take.
const PING_WAIT: Duration = Duration::from_secs(3);

/// The right to lead, for as long as [`Leadership::lost`] is not cancelled.
#[derive(Debug)]
pub(super) struct Leadership {
    lost: CancellationToken,
    watch: tokio::task::JoinHandle<()>,
    _stop: DropGuard,
}

impl Leadership {
    /// Waits until this process leads; `None` when `shutdown` came first. Asks again every `poll`,
    /// also while Postgres is away.
    pub(super) async fn acquire(
        store: &Store,
        poll: Duration,
        shutdown: &CancellationToken,
    ) -> Option<Self> {
        let mut told = Told::Nothing;
        let mut outage = OutageLog::new("acquiring leadership failed; retrying");
        loop {
            let attempt = tokio::select! {
                () = shutdown.cancelled() => return None,
                attempt = try_lock(store) => attempt,
            };
            match attempt {
                Ok(Attempt::Leads(connection)) => {
                    outage.recovered();
                    tracing::info!("leading");
                    let lost = shutdown.child_token();
                    let stop = CancellationToken::new();
                    let watch = tokio::spawn(hold(connection, lost.clone(), stop.clone()));
                    return Some(Self {
                        lost,
                        watch,
                        _stop: stop.drop_guard(),
                    });
                }
                Ok(Attempt::Another) => {
                    outage.recovered();
                    if told != Told::Another {
                        tracing::info!("another coordinator leads, standing by");
                        told = Told::Another;
                    }
                }
                Ok(Attempt::TakesNoWrites) => {
                    outage.recovered();
                    if told != Told::TakesNoWrites {
                        tracing::warn!(
                            "the database takes no writes (a standby, or made read-only): nobody leads, standing by until it does"
                        );
                        told = Told::TakesNoWrites;
                    }
                }
                Err(error) => outage.failed(&error, 0),
            }
            tokio::select! {
                () = shutdown.cancelled() => return None,
                () = tokio::time::sleep(poll) => {}
            }
        }
    }

    /// Cancelled when leadership is lost, and on shutdown.
    pub(super) fn lost(&self) -> &CancellationToken {
        &self.lost
    }

    /// Gives leadership up and waits until the lock is free.
    pub(super) async fn resign(self) {
        let Self { watch, _stop, .. } = self;
        drop(_stop);
        if watch.await.is_err() {
            tracing::debug!("the watch over leadership had ended");
        }
    }
}

/// What became of asking for leadership.
enum Attempt {
    /// The connection that holds the lock.
    Leads(PgConnection),
    /// Another coordinator has it.
    Another,
    /// The database is a standby, which has locks of its own beside those of the primary, or was
    /// made read-only.
    TakesNoWrites,
}

/// What was logged last.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    Nothing,
    Another,
    TakesNoWrites,
}

async fn try_lock(store: &Store) -> Result<Attempt, StoreError> {
    let mut connection =
        tokio::time::timeout(PING_WAIT, PgConnection::connect_with(store.options()))
            .await
            .unwrap_or(Err(sqlx::Error::PoolTimedOut))
            .map_err(|source| refused(store.options(), source))?;
    if !takes_writes(&mut connection).await? {
        connection.close().await?;
        return Ok(Attempt::TakesNoWrites);
    }
    let locked = sqlx::query_scalar!(r#"SELECT pg_try_advisory_lock($1) AS "locked!""#, KEY)
        .fetch_one(&mut connection)
        .await?;
    if locked {
        return Ok(Attempt::Leads(connection));
    }
    connection.close().await?;
    Ok(Attempt::Another)
}

/// Whether the database can be written to.
async fn takes_writes(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT NOT pg_is_in_recovery()
                  AND NOT current_setting('transaction_read_only')::boolean AS "writes!""#
    )
    .fetch_one(connection)
    .await
}

/// Keeps the connection that holds the lock, and tells when it is gone.
async fn hold(mut connection: PgConnection, lost: CancellationToken, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return unlock(connection).await,
            () = tokio::time::sleep(PING_EVERY) => {}
        }
        match tokio::time::timeout(PING_WAIT, takes_writes(&mut connection)).await {
            Ok(Ok(true)) => continue,
            Ok(Ok(false)) => {
                tracing::warn!("leadership given up: the database takes no writes any more");
                lost.cancel();
                return unlock(connection).await;
            }
            Ok(Err(error)) => tracing::warn!(error = words(&error), "leadership lost"),
            Err(_) => tracing::warn!("leadership lost: Postgres does not answer"),
        }
        lost.cancel();
        return;
    }
}

/// Frees the lock before the connection is closed, which the server may notice later. Where neither
/// can be done, it notices on its own.
async fn unlock(mut connection: PgConnection) {
    let _ = tokio::time::timeout(PING_WAIT, async {
        sqlx::query("SELECT pg_advisory_unlock($1)")
            .bind(KEY)
            .execute(&mut connection)
            .await?;
        connection.close().await
    })
    .await;
}
