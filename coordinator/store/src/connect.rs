//! Connections: encrypted where that is asked for or available, with a clear error when one fails.

use crate::{
    Store, StoreError,
    fault::{Fault, lacks_tls},
};
use halfheard_shared::{error::chain, retry::Backoff};
use sqlx::{ConnectOptions as _, Connection as _, PgConnection, PgPool, postgres::PgPoolOptions};

pub use sqlx::postgres::{PgConnectOptions, PgSslMode};
use std::{io, net::IpAddr, str::FromStr as _, time::Duration};

/// Maximum number of connections of one process for its work; one more keeps the lead.
pub(crate) const MAX_CONNECTIONS: u32 = 8;
/// How long an idle connection counts as sound without a question.
const TRUSTED_FOR: Duration = Duration::from_secs(1);
/// How long the server may take to answer on a connection that was idle.
const PING_TIMEOUT: Duration = Duration::from_secs(2);
/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

impl Store {
    /// The same database on a few connections of its own: what is asked there waits for no other work of
    /// this process and holds none up. A connection is waited for as long as `patience`.
    #[must_use]
    pub fn aside(&self, connections: u32, patience: Duration) -> Self {
        let pool = pool_options(connections)
            .acquire_timeout(patience)
            .connect_lazy_with(self.options.clone());
        Self {
            lead: pool.clone(),
            pool,
            options: self.options.clone(),
            term: None,
        }
    }

    /// Connects to a `postgres://` address.
    ///
    /// # Errors
    ///
    /// As [`Store::connect_with`]; an invalid address.
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        Self::connect_with(options(url)?).await
    }

    /// Connects. The pool reconnects when Postgres comes back.
    ///
    /// # Errors
    ///
    /// The connection failed; the hint says what to do.
    pub async fn connect_with(options: PgConnectOptions) -> Result<Self, StoreError> {
        halfheard_shared::cryptography::choose();
        // Slow queries are normal on a busy disk.
        let options = options
            .application_name("halfheard")
            .log_slow_statements(log::LevelFilter::Debug, Duration::from_secs(1));
        let options = connect_once(options).await?;
        Ok(Self {
            pool: pool(&options, MAX_CONNECTIONS),
            lead: pool(&options, 1),
            options,
            term: None,
        })
    }

    /// Connects, and retries while the error is transient.
    ///
    /// # Errors
    ///
    /// A permanent one: a wrong login, a database that does not exist, a failed TLS handshake.
    pub async fn connect_with_retry(options: &PgConnectOptions) -> Result<Self, StoreError> {
        let mut backoff = Backoff::default();
        loop {
            match Self::connect_with(options.clone()).await {
                Err(error) if error.is_transient() => {
                    tracing::warn!(error = chain(&error), "database unavailable; retrying");
                    tokio::time::sleep(backoff.delay()).await;
                }
                outcome => return outcome,
            }
        }
    }
}

/// A pool that connects when it is first used.
pub(crate) fn pool(options: &PgConnectOptions, max_connections: u32) -> PgPool {
    pool_options(max_connections).connect_lazy_with(options.clone())
}

fn pool_options(max_connections: u32) -> PgPoolOptions {
    PgPoolOptions::new()
        .max_connections(max_connections)
        .acquire_timeout(CONNECT_TIMEOUT)
        // The driver's own test waits as long as TCP does for a server that has vanished: a quarter of an hour.
        .test_before_acquire(false)
        .before_acquire(|connection, idle| {
            Box::pin(async move {
                if idle.idle_for < TRUSTED_FOR {
                    return Ok(true);
                }
                let ping = tokio::time::timeout(PING_TIMEOUT, connection.ping()).await;
                Ok(matches!(ping, Ok(Ok(()))))
            })
        })
}

/// Parses a `postgres://` address.
///
/// # Errors
///
/// It is invalid.
pub fn options(url: &str) -> Result<PgConnectOptions, StoreError> {
    let options = PgConnectOptions::from_str(url).map_err(|error| StoreError::Address {
        reason: error.to_string(),
    })?;
    let query = url.split_once('?').map_or("", |(_, query)| query);
    let named = query.split('&').any(|pair| {
        let name = pair.split('=').next().unwrap_or_default();
        ["sslrootcert", "ssl-root-cert", "ssl-ca"].contains(&name)
    });
    Ok(verify_authority(options, named))
}

/// Has the certificate checked when `sslmode=require` comes with an authority, as libpq does. `named`:
/// whether an authority is named, in the address or in PGSSLROOTCERT.
pub fn verify_authority(options: PgConnectOptions, named: bool) -> PgConnectOptions {
    match options.get_ssl_mode() {
        PgSslMode::Require if named => options.ssl_mode(PgSslMode::VerifyCa),
        _ => options,
    }
}

/// Makes one connection without the pool, which would report only a timeout, and returns the options
/// for all further ones. If the address leaves encryption open, a remote server that supports it must
/// keep it; one that does not is used with a warning.
async fn connect_once(options: PgConnectOptions) -> Result<PgConnectOptions, StoreError> {
    if !is_remote(&options) {
        try_once(&options).await?;
        return Ok(options);
    }
    match options.get_ssl_mode() {
        PgSslMode::Prefer => {
            let encrypted = options.clone().ssl_mode(PgSslMode::Require);
            match try_once(&encrypted).await {
                Err(StoreError::Connect { source, .. }) if lacks_tls(source.driver()) => {
                    try_once(&options).await?;
                    warn_unencrypted(&options);
                    Ok(options)
                }
                Err(error) => Err(error),
                Ok(()) => Ok(encrypted),
            }
        }
        PgSslMode::Disable | PgSslMode::Allow => {
            try_once(&options).await?;
            warn_unencrypted(&options);
            Ok(options)
        }
        PgSslMode::Require | PgSslMode::VerifyCa | PgSslMode::VerifyFull => {
            try_once(&options).await?;
            Ok(options)
        }
    }
}

async fn try_once(options: &PgConnectOptions) -> Result<(), StoreError> {
    tokio::time::timeout(CONNECT_TIMEOUT, async {
        PgConnection::connect_with(options).await?.close().await
    })
    .await
    .unwrap_or(Err(sqlx::Error::PoolTimedOut))
    .map_err(|source| connect_error(options, source))
}

/// The error of a connection that failed.
pub(crate) fn connect_error(options: &PgConnectOptions, source: sqlx::Error) -> StoreError {
    let socket = options.get_socket();
    let transient = match &source {
        // A TLS file that cannot be read, or the socket of a server that is not running.
        sqlx::Error::Io(error) => match error.kind() {
            io::ErrorKind::NotFound => socket.is_some(),
            io::ErrorKind::PermissionDenied => false,
            _ => Fault::of(&source) == Fault::Transient,
        },
        // Not a Postgres server.
        sqlx::Error::Protocol(_) => false,
        _ => matches!(Fault::of(&source), Fault::Transient | Fault::Timeout),
    };
    StoreError::Connect {
        place: match socket {
            Some(folder) => format!("in {}", folder.display()),
            None => format!("at {}:{}", options.get_host(), options.get_port()),
        },
        database: options.get_database().unwrap_or_default().to_owned(),
        transient,
        source: source.into(),
    }
}

fn warn_unencrypted(options: &PgConnectOptions) {
    tracing::warn!(
        "connection to Postgres at {} is not encrypted: anybody on the network path can read and change it; require TLS with sslmode=verify-full in HALFHEARD_DATABASE_URL (docs/guide/cluster.md)",
        options.get_host()
    );
}

/// Whether the server is reached over a network.
fn is_remote(options: &PgConnectOptions) -> bool {
    if options.get_socket().is_some() {
        return false;
    }
    let host = options.get_host();
    match host.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(address) => !address.to_canonical().is_loopback(),
        Err(_) => {
            let host = host.trim_end_matches('.').to_ascii_lowercase();
            host != "localhost" && !host.ends_with(".localhost") && !host.starts_with('/')
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use halfheard_shared::error::Hint as _;

    fn remote(url: &str) -> bool {
        is_remote(&options(url).unwrap())
    }

    #[test]
    fn loopback_and_sockets_are_local() {
        for here in [
            "postgres://u@127.0.0.1/d",
            "postgres://u@127.8.9.1/d",
            "postgres://u@[::1]/d",
            "postgres://u@localhost/d",
            "postgres://u@LOCALHOST/d",
            "postgres:///d?user=u&host=/run/postgresql",
        ] {
            assert!(!remote(here), "{here}");
        }
        for there in [
            "postgres://u@10.0.0.7/d",
            "postgres://u@db.cluster.example/d",
            "postgres://u@localhost.example/d",
            "postgres://u@[2001:db8::1]/d",
        ] {
            assert!(remote(there), "{there}");
        }
    }

    #[test]
    fn named_authority_is_verified() {
        let mode = |url: &str| options(url).unwrap().get_ssl_mode();
        assert!(matches!(
            mode("postgres://u@h/d?sslmode=require&sslrootcert=/a.pem"),
            PgSslMode::VerifyCa
        ));
        assert!(matches!(
            mode("postgres://u@h/d?sslmode=require"),
            PgSslMode::Require
        ));
        assert!(matches!(
            mode("postgres://u@h/d?sslmode=verify-full&sslrootcert=/a.pem"),
            PgSslMode::VerifyFull
        ));
    }

    #[tokio::test]
    async fn refused_connection_is_transient_and_missing_authority_is_not() {
        // Port 1 of the loopback has no listener.
        let error = Store::connect("postgres://u@127.0.0.1:1/d")
            .await
            .unwrap_err();
        assert!(error.is_transient(), "{error}");
        assert!(error.hint().unwrap().contains("start it"), "{error}");
        let wrong = connect_error(
            &options("postgres://u@127.0.0.1:1/d").unwrap(),
            sqlx::Error::Io(io::ErrorKind::NotFound.into()),
        );
        assert!(!wrong.is_transient(), "{wrong}");
        assert!(wrong.hint().unwrap().contains("sslrootcert"), "{wrong}");
    }
}
