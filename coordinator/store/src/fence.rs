//! The fence: what every transaction of a leader begins with.

use crate::StoreError;
use sqlx::PgConnection;

/// The number of a leader: ascending, each has its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Term(pub i64);

/// Locks the row of `term` until the transaction ends, and has the server end the transaction if its
/// process stands still, or waits too long for a row: a stopped leader must not keep others from
/// leading.
///
/// # Errors
///
/// The database's; [`StoreError::Deposed`].
pub(crate) async fn fence(tx: &mut PgConnection, term: Term) -> Result<(), StoreError> {
    sqlx::query_scalar!(
        r#"SELECT set_config('idle_in_transaction_session_timeout', '5000', true)
                  || set_config('lock_timeout', '5000', true) AS "fenced!"
           FROM leadership WHERE term = $1 AND expires > clock_timestamp() FOR KEY SHARE"#,
        term.0
    )
    .fetch_optional(tx)
    .await?
    .map(|_| ())
    .ok_or(StoreError::Deposed)
}
