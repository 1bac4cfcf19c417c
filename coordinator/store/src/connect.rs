//! Making connections: encrypted where that is asked for or can be had, and with an answer to why
//! one does not come about.

use super::{
    Store, StoreError,
    fault::{Fault, lacks_tls},
};
use halfheard_shared::retry::Backoff;
use sqlx::{
    ConnectOptions as _, Connection as _, PgConnection,
    postgres::{PgConnectOptions, PgPoolOptions, PgSslMode},
};
use std::{io, net::IpAddr, str::FromStr as _, time::Duration};

/// How long a connection may take to be made.
const CONNECT_WAIT: Duration = Duration::from_secs(10);

impl Store {
    /// Connects to a `postgres://` address.
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        Self::connect_with(options(url)?).await
    }

    /// Connects. The pool it keeps opens new connections by itself when Postgres comes back.
    ///
    /// # Errors
    ///
    /// No connection comes about; the error says why and what to do.
    pub async fn connect_with(options: PgConnectOptions) -> Result<Self, StoreError> {
        halfheard_shared::cryptography::choose();
        // A query that waits for a busy disk is no warning to a person.
        let options = options
            .application_name("halfheard")
            .log_slow_statements(log::LevelFilter::Debug, Duration::from_secs(1));
        let options = first(options).await?;
        let pool = PgPoolOptions::new()
            .max_connections(8)
            .acquire_timeout(CONNECT_WAIT)
            .connect_lazy_with(options.clone());
        Ok(Self { pool, options })
    }

    /// Connects, however long it takes: only what waiting cannot mend ends it (a wrong login, a
    /// database that does not exist, TLS that cannot be agreed on).
    ///
    /// # Errors
    ///
    /// Such an answer, with what to do about it.
    pub async fn connect_patiently(options: &PgConnectOptions) -> Result<Self, StoreError> {
        let mut backoff = Backoff::default();
        loop {
            match Self::connect_with(options.clone()).await {
                Err(error) if error.is_transient() => {
                    tracing::warn!(%error, "the database is not there, trying again");
                    tokio::time::sleep(backoff.delay()).await;
                }
                outcome => return outcome,
            }
        }
    }
}

/// The options that a `postgres://` address stands for.
///
/// # Errors
///
/// It is none.
pub fn options(url: &str) -> Result<PgConnectOptions, StoreError> {
    let options = PgConnectOptions::from_str(url).map_err(|error| StoreError::Address {
        reason: error.to_string(),
    })?;
    let query = url.split_once('?').map_or("", |(_, query)| query);
    let named = query.split('&').any(|pair| {
        let name = pair.split('=').next().unwrap_or_default();
        ["sslrootcert", "ssl-root-cert", "ssl-ca"].contains(&name)
    });
    Ok(with_authority(options, named))
}

/// As libpq has it: who names an authority with `sslmode=require` wants the certificate checked
/// against it. `named`: whether an authority is named, in the address or in PGSSLROOTCERT.
pub fn with_authority(options: PgConnectOptions, named: bool) -> PgConnectOptions {
    match options.get_ssl_mode() {
        PgSslMode::Require if named => options.ssl_mode(PgSslMode::VerifyCa),
        _ => options,
    }
}

/// Makes one connection by hand, since a pool would say only that it waited too long, and returns
/// the options for all further ones. Where the address leaves encryption open, a server on another
/// host that can encrypt must go on doing so; one that cannot is used with a warning.
async fn first(options: PgConnectOptions) -> Result<PgConnectOptions, StoreError> {
    if !is_elsewhere(&options) {
        try_once(&options).await?;
        return Ok(options);
    }
    match options.get_ssl_mode() {
        PgSslMode::Prefer => {
            let encrypted = options.clone().ssl_mode(PgSslMode::Require);
            match try_once(&encrypted).await {
                Err(StoreError::Connect { source, .. }) if lacks_tls(&source) => {
                    try_once(&options).await?;
                    warn_of_listeners(&options);
                    Ok(options)
                }
                Err(error) => Err(error),
                Ok(()) => Ok(encrypted),
            }
        }
        PgSslMode::Disable | PgSslMode::Allow => {
            try_once(&options).await?;
            warn_of_listeners(&options);
            Ok(options)
        }
        PgSslMode::Require | PgSslMode::VerifyCa | PgSslMode::VerifyFull => {
            try_once(&options).await?;
            Ok(options)
        }
    }
}

async fn try_once(options: &PgConnectOptions) -> Result<(), StoreError> {
    tokio::time::timeout(CONNECT_WAIT, async {
        PgConnection::connect_with(options).await?.close().await
    })
    .await
    .unwrap_or(Err(sqlx::Error::PoolTimedOut))
    .map_err(|source| refused(options, source))
}

/// The error of a connection that did not come about.
pub fn refused(options: &PgConnectOptions, source: sqlx::Error) -> StoreError {
    let by_socket = options.get_socket();
    let passing = match &source {
        // A file of TLS that cannot be read. A socket that is not there is a server that is not.
        sqlx::Error::Io(error) => match error.kind() {
            io::ErrorKind::NotFound => by_socket.is_some(),
            io::ErrorKind::PermissionDenied => false,
            _ => Fault::of(&source) == Fault::Passing,
        },
        // What answers is no Postgres.
        sqlx::Error::Protocol(_) => false,
        _ => matches!(Fault::of(&source), Fault::Passing | Fault::TooLong),
    };
    StoreError::Connect {
        place: match by_socket {
            Some(folder) => format!("in {}", folder.display()),
            None => format!("at {}:{}", options.get_host(), options.get_port()),
        },
        database: options.get_database().unwrap_or_default().to_owned(),
        passing,
        source,
    }
}

fn warn_of_listeners(options: &PgConnectOptions) {
    tracing::warn!(
        "the connection to Postgres at {} is not encrypted: whoever sits on the way can read and change what goes over it; ask for TLS with sslmode=verify-full in HALFHEARD_DATABASE_URL (docs/guide/cluster.md)",
        options.get_host()
    );
}

/// Whether the server is reached over a network.
fn is_elsewhere(options: &PgConnectOptions) -> bool {
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

    fn elsewhere(url: &str) -> bool {
        is_elsewhere(&options(url).unwrap())
    }

    #[test]
    fn this_machine_is_not_elsewhere() {
        for here in [
            "postgres://u@127.0.0.1/d",
            "postgres://u@127.8.9.1/d",
            "postgres://u@[::1]/d",
            "postgres://u@localhost/d",
            "postgres://u@LOCALHOST/d",
            "postgres:///d?user=u&host=/run/postgresql",
        ] {
            assert!(!elsewhere(here), "{here}");
        }
        for there in [
            "postgres://u@10.0.0.7/d",
            "postgres://u@db.cluster.example/d",
            "postgres://u@localhost.example/d",
            "postgres://u@[2001:db8::1]/d",
        ] {
            assert!(elsewhere(there), "{there}");
        }
    }

    #[test]
    fn an_authority_that_is_named_is_asked() {
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
    async fn nobody_there_may_come_and_a_missing_authority_may_not() {
        // Port 1 of the loopback has no listener.
        let error = Store::connect("postgres://u@127.0.0.1:1/d")
            .await
            .unwrap_err();
        assert!(error.is_transient(), "{error}");
        assert!(error.to_string().contains("start it"), "{error}");
        let wrong = refused(
            &options("postgres://u@127.0.0.1:1/d").unwrap(),
            sqlx::Error::Io(io::ErrorKind::NotFound.into()),
        );
        assert!(!wrong.is_transient(), "{wrong}");
        assert!(wrong.to_string().contains("sslrootcert"), "{wrong}");
    }
}
