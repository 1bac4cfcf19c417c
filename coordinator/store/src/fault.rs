//! Errors of Postgres: whether they are transient, whose fault they are, and what to do about them.

use halfheard_shared::{cryptography::refusal, error::Hint};
use std::{error::Error, fmt, io};

/// Whose fault an error is, as far as Postgres tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nobody's: Postgres is away or restarts, two transactions conflicted, a resource is exhausted
    /// for now. The same call may succeed later.
    Transient,
    /// The database's: it takes no writes, a privilege or a table is missing, the login or the
    /// encryption is refused. An administrator has to fix that.
    Refusal,
    /// The statement took longer than the server allows: a smaller one may do.
    Timeout,
    /// The content's: a value out of range, a constraint violated.
    Content,
    /// None of these.
    Other,
}

impl Fault {
    /// Whose fault `error` is. The classes of SQLSTATE are those of the manual's appendix A.
    pub(crate) fn of(error: &sqlx::Error) -> Self {
        match error {
            sqlx::Error::Io(error) if refusal(error).is_some() => Fault::Refusal,
            sqlx::Error::Io(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Fault::Transient,
            sqlx::Error::Tls(_) | sqlx::Error::Configuration(_) => Fault::Refusal,
            sqlx::Error::Encode(_) => Fault::Content,
            sqlx::Error::Database(error) => match error.code().as_deref() {
                Some("57014") => Fault::Timeout,
                // The server ended a transaction that stood still: its process was stopped for a while.
                Some("25P03" | "25P04") => Fault::Transient,
                Some(code) => Self::of_class(code.get(..2).unwrap_or_default()),
                None => Fault::Other,
            },
            _ => Fault::Other,
        }
    }

    fn of_class(class: &str) -> Self {
        match class {
            // Data exception, integrity constraint violation.
            "22" | "23" => Fault::Content,
            // Connection, rollback (serialization, deadlock), resources, object not in this state,
            // operator intervention (shutdown), system, internal.
            "08" | "40" | "53" | "55" | "57" | "58" | "XX" => Fault::Transient,
            // Feature, transaction state (25006: read-only), authorization, catalog and schema
            // names, grants and roles, access rule and syntax (42501, 42P01, 42703).
            "0A" | "25" | "28" | "3D" | "3F" | "0L" | "0P" | "42" => Fault::Refusal,
            _ => Fault::Other,
        }
    }
}

/// An error of Postgres or its driver. `Display` leaves out what the driver adds: a line of Postgres'
/// source.
#[derive(Debug)]
pub struct PostgresError {
    error: sqlx::Error,
    /// The migration that failed.
    migration: Option<i64>,
}

impl From<sqlx::Error> for PostgresError {
    fn from(error: sqlx::Error) -> Self {
        Self {
            error,
            migration: None,
        }
    }
}

impl PostgresError {
    /// Why a migration failed, or the error itself if it is not one of Postgres.
    pub(crate) fn of_migration(
        error: sqlx::migrate::MigrateError,
    ) -> Result<Self, sqlx::migrate::MigrateError> {
        use sqlx::migrate::MigrateError;
        match error {
            MigrateError::Execute(error) => Ok(error.into()),
            MigrateError::ExecuteMigration(error, version) => Ok(Self {
                error,
                migration: Some(version),
            }),
            error => Err(error),
        }
    }

    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        Fault::of(&self.error)
    }

    /// Whether the password was rejected.
    pub fn is_wrong_password(&self) -> bool {
        matches!(&self.error, sqlx::Error::Database(error) if error.code().as_deref() == Some("28P01"))
    }

    /// The driver's error.
    pub(crate) fn driver(&self) -> &sqlx::Error {
        &self.error
    }
}

impl Error for PostgresError {}

impl fmt::Display for PostgresError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(version) = self.migration {
            write!(f, "migration {version}: ")?;
        }
        match &self.error {
            sqlx::Error::Database(error) => {
                f.write_str(error.message())?;
                match error.code() {
                    Some(code) => write!(f, " (SQLSTATE {code})"),
                    None => Ok(()),
                }
            }
            sqlx::Error::Io(error) => match refusal(error) {
                Some(error) => tls_refusal(f, error),
                None => error.fmt(f),
            },
            error if lacks_tls(error) => f.write_str("the server does not support TLS"),
            sqlx::Error::Tls(error) => write!(f, "TLS: {error}"),
            sqlx::Error::PoolTimedOut => f.write_str("timed out"),
            sqlx::Error::Protocol(text) => {
                write!(f, "the server does not speak Postgres' protocol ({text})")
            }
            error => error.fmt(f),
        }
    }
}

/// Writes why the TLS handshake failed.
fn tls_refusal(f: &mut fmt::Formatter<'_>, error: &rustls::Error) -> fmt::Result {
    use rustls::CertificateError as Bad;
    let rustls::Error::InvalidCertificate(bad) = error else {
        return write!(f, "TLS: {error}");
    };
    match bad {
        Bad::UnknownIssuer => {
            f.write_str("the server's certificate is not signed by a trusted authority")
        }
        Bad::NotValidForName => f.write_str("the server's certificate is for another host name"),
        Bad::NotValidForNameContext {
            expected,
            presented,
        } => write!(
            f,
            "the server's certificate is not for the host name `{}` but for {}",
            expected.to_str(),
            presented.join(", ")
        ),
        Bad::Expired | Bad::ExpiredContext { .. } => {
            f.write_str("the server's certificate has expired")
        }
        bad => write!(f, "the server's certificate is rejected: {bad}"),
    }
}

/// Whether a transaction was rolled back in favor of another one: the same again may succeed.
pub(crate) fn is_rollback(error: &PostgresError) -> bool {
    matches!(&error.error, sqlx::Error::Database(error)
        if error.code().is_some_and(|code| code.starts_with("40")))
}

/// Whether the server replied that it does not support TLS.
pub(crate) fn lacks_tls(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Tls(error) if error.to_string().contains("does not support TLS"))
}

/// What to do about a connection that failed.
pub(crate) fn connect_hint(error: &PostgresError) -> &'static str {
    match &error.error {
        sqlx::Error::Io(error) => match refusal(error) {
            Some(rustls::Error::InvalidCertificate(
                rustls::CertificateError::NotValidForName
                | rustls::CertificateError::NotValidForNameContext { .. },
            )) => {
                "name the host as its certificate does, or use sslmode=verify-ca, which ignores the name"
            }
            Some(rustls::Error::InvalidCertificate(_)) => {
                "name the file with its authority's certificate: sslrootcert=FILE in the address, or PGSSLROOTCERT"
            }
            Some(_) => {
                "check the TLS settings of the server, and sslcert and sslkey if it requires a client certificate"
            }
            None if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied
            ) =>
            {
                "check that the files named by sslrootcert, sslcert and sslkey, or the socket's folder, exist and can be read"
            }
            None => "start it, or set its address (HALFHEARD_DATABASE_URL)",
        },
        error if lacks_tls(error) => {
            "enable TLS there (`ssl = on`), or write sslmode=disable if the network is trusted"
        }
        sqlx::Error::Tls(_) => "check sslmode, sslrootcert, sslcert and sslkey in the address",
        sqlx::Error::Configuration(_) | sqlx::Error::Protocol(_) => {
            "check the address (HALFHEARD_DATABASE_URL)"
        }
        sqlx::Error::Database(database) => match database.code().as_deref() {
            Some("28P01") => {
                "give the right password: in HALFHEARD_DATABASE_URL, PGPASSWORD or ~/.pgpass"
            }
            Some("28000") => {
                "check the user in HALFHEARD_DATABASE_URL, and pg_hba.conf, which says who may connect from where and how"
            }
            Some("3D000") => {
                "create it with `createdb`, or give the right name (HALFHEARD_DATABASE_URL)"
            }
            Some("42501") => "grant this role CONNECT on the database, or use another role",
            _ => query_hint(&error.error).unwrap_or("see the server's log"),
        },
        _ => "start it, or set its address (HALFHEARD_DATABASE_URL)",
    }
}

/// What to do about a statement that Postgres refused, if that is known.
fn query_hint(error: &sqlx::Error) -> Option<&'static str> {
    let sqlx::Error::Database(error) = error else {
        return None;
    };
    Some(match error.code()?.as_ref() {
        "25006" => {
            "this database takes no writes: it is a standby or was made read-only; name the primary in HALFHEARD_DATABASE_URL, or make it writable"
        }
        "42501" => {
            "grant this role the privilege, or use the role that ran `coord migrate`, which owns the tables"
        }
        "42P01" | "42703" | "42883" | "42704" | "3F000" => {
            "the tables are not those of this program: `coord migrate --check` shows whether migrations are missing"
        }
        "57014" => {
            "the server's statement_timeout is too short: raise it for this role (ALTER ROLE ... SET statement_timeout)"
        }
        "53100" => "make room on the database's disk",
        "53300" => "end some connections, or raise max_connections there",
        code if code.starts_with("40") => {
            "another command or the coordinator changed the same rows: try again"
        }
        _ => return None,
    })
}

impl Hint for PostgresError {
    fn hint(&self) -> Option<String> {
        query_hint(&self.error).map(str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_data_and_constraint_errors_blame_content() {
        let classes = [
            ("22", Fault::Content),
            ("23", Fault::Content),
            ("08", Fault::Transient),
            ("40", Fault::Transient),
            ("53", Fault::Transient),
            ("57", Fault::Transient),
            ("25", Fault::Refusal),
            ("28", Fault::Refusal),
            ("3D", Fault::Refusal),
            ("42", Fault::Refusal),
            ("54", Fault::Other),
            ("", Fault::Other),
        ];
        for (class, fault) in classes {
            assert_eq!(Fault::of_class(class), fault, "class {class}");
        }
        assert_eq!(Fault::of(&sqlx::Error::PoolTimedOut), Fault::Transient);
        let tls = sqlx::Error::Tls("server does not support TLS".into());
        assert_eq!(Fault::of(&tls), Fault::Refusal);
        assert!(lacks_tls(&tls));
        let text = PostgresError::from(tls).to_string();
        assert!(text.contains("does not support TLS"), "{text}");
    }
}
