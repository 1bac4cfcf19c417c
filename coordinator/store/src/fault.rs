//! What an error of Postgres means for whoever asked: whether it passes by itself, who can mend it,
//! and how.

use super::StoreError;
use halfheard_shared::cryptography::refusal;
use halfheard_shared::retry::Backoff;
use std::{error::Error as _, fmt::Write as _, io};

/// How often a transaction gives way to others before that is an error.
const GIVE_WAY: u32 = 20;

/// Whose fault an error is, as far as Postgres says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It passes by itself: Postgres is away or restarts, two transactions met, something is full
    /// at the moment. The same call may succeed later.
    Passing,
    /// The database does not do this for us: it takes no writes, a right or a table is missing, the
    /// login or the encryption is refused. Somebody has to mend that.
    Refusal,
    /// The statement took longer than the server lets it: less of it may do.
    TooLong,
    /// What was to be written cannot be written: a value out of its range, a constraint.
    Content,
    /// Nothing of these.
    Other,
}

impl Fault {
    /// Whose fault `error` is. The classes of SQLSTATE are those of the manual's appendix A.
    pub fn of(error: &sqlx::Error) -> Self {
        match error {
            sqlx::Error::Io(error) if refusal(error).is_some() => Fault::Refusal,
            sqlx::Error::Io(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Fault::Passing,
            sqlx::Error::Tls(_) | sqlx::Error::Configuration(_) => Fault::Refusal,
            sqlx::Error::Encode(_) => Fault::Content,
            sqlx::Error::Database(error) => match error.code().as_deref() {
                Some("57014") => Fault::TooLong,
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
            "08" | "40" | "53" | "55" | "57" | "58" | "XX" => Fault::Passing,
            // Feature, transaction state (25006: read-only), authorization, catalog and schema
            // names, grants and roles, access rule and syntax (42501, 42P01, 42703).
            "0A" | "25" | "28" | "3D" | "3F" | "0L" | "0P" | "42" => Fault::Refusal,
            _ => Fault::Other,
        }
    }
}

/// Two transactions met, and this one had to give way: the same again will do.
pub fn is_rollback(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(error)
        if error.code().is_some_and(|code| code.starts_with("40")))
}

/// Does something again for as long as it has to give way to another transaction.
pub(super) async fn again<T, F, Fut>(mut action: F) -> Result<T, StoreError>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, StoreError>>,
{
    let mut backoff = Backoff::default();
    for _ in 0..GIVE_WAY {
        match action().await {
            Err(StoreError::Query(error)) if is_rollback(&error) => {
                tracing::debug!(error = words(&error), "given way to another transaction");
                tokio::time::sleep(backoff.delay()).await;
            }
            outcome => return outcome,
        }
    }
    action().await
}

/// Whether the server said that it speaks no TLS.
pub fn lacks_tls(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Tls(error) if error.to_string().contains("does not support TLS"))
}

/// What went wrong, in words. A line of Postgres' own source, which the driver adds, is not part of
/// it.
pub fn words(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(error) => {
            let mut text = error.message().to_owned();
            if let Some(code) = error.code() {
                // Writing to a String cannot fail.
                let _ = write!(text, " (SQLSTATE {code})");
            }
            text
        }
        sqlx::Error::Io(error) => match refusal(error) {
            Some(refused) => refused_words(refused),
            None => error.to_string(),
        },
        error if lacks_tls(error) => "the server does not speak TLS".to_owned(),
        sqlx::Error::Tls(error) => format!("TLS: {error}"),
        sqlx::Error::PoolTimedOut => "no answer in time".to_owned(),
        sqlx::Error::Protocol(text) => {
            format!("what answers there does not speak Postgres' protocol ({text})")
        }
        error => error.to_string(),
    }
}

/// Postgres' certificate, or the whole agreement on TLS, in words.
fn refused_words(error: &rustls::Error) -> String {
    use rustls::CertificateError as Bad;
    let rustls::Error::InvalidCertificate(bad) = error else {
        return format!("TLS: {error}");
    };
    match bad {
        Bad::UnknownIssuer => {
            "the server's certificate is not signed by an authority that is trusted here".to_owned()
        }
        Bad::NotValidForName => "the server's certificate is for another host name".to_owned(),
        Bad::NotValidForNameContext {
            expected,
            presented,
        } => format!(
            "the server's certificate is not for the host name `{}` but for {}",
            expected.to_str(),
            presented.join(", ")
        ),
        Bad::Expired | Bad::ExpiredContext { .. } => {
            "the server's certificate has run out".to_owned()
        }
        bad => format!("the server's certificate is refused: {bad}"),
    }
}

/// What to do about a connection that does not come about.
pub fn connect_remedy(error: &sqlx::Error) -> &'static str {
    match error {
        sqlx::Error::Io(error) => match refusal(error) {
            Some(rustls::Error::InvalidCertificate(
                rustls::CertificateError::NotValidForName
                | rustls::CertificateError::NotValidForNameContext { .. },
            )) => {
                "name the host as its certificate does, or use sslmode=verify-ca, which leaves the name aside"
            }
            Some(rustls::Error::InvalidCertificate(_)) => {
                "name the file with its authority's certificate: sslrootcert=FILE in the address, or PGSSLROOTCERT"
            }
            Some(_) => {
                "check the TLS settings of the server, and sslcert and sslkey where it asks for a certificate of ours"
            }
            None if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied
            ) =>
            {
                "check that the files which sslrootcert, sslcert and sslkey name, or the socket's folder, are there and can be read"
            }
            None => "start it, or say where it is (HALFHEARD_DATABASE_URL)",
        },
        error if lacks_tls(error) => {
            "switch TLS on there (`ssl = on`), or write sslmode=disable where the way to it is trusted"
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
                "check the user in HALFHEARD_DATABASE_URL, and pg_hba.conf, which says who may come from where and how"
            }
            Some("3D000") => {
                "make it with `createdb`, or give the right name (HALFHEARD_DATABASE_URL)"
            }
            Some("42501") => "grant this role CONNECT on the database, or use another role",
            Some("53300") => "end some connections, or raise max_connections there",
            _ => remedy(error).unwrap_or("see the server's log"),
        },
        _ => "start it, or say where it is (HALFHEARD_DATABASE_URL)",
    }
}

/// What to do about a statement that Postgres refuses, where that is known.
pub fn remedy(error: &sqlx::Error) -> Option<&'static str> {
    let sqlx::Error::Database(error) = error else {
        return None;
    };
    Some(match error.code()?.as_ref() {
        "25006" => {
            "this database takes no writes: it is a standby, or was made read-only; name the primary in HALFHEARD_DATABASE_URL, or have it take writes again"
        }
        "42501" => {
            "grant this role the right, or use the role that `coord migrate` ran as, which owns the tables"
        }
        "42P01" | "42703" | "42883" | "42704" | "3F000" => {
            "the tables are not those of this program: `coord migrate --check` says whether migrations are missing"
        }
        "57014" => {
            "the server's statement_timeout is too short for it: raise it for this role (ALTER ROLE ... SET statement_timeout)"
        }
        "53100" => "make room on the database's disk",
        "53300" => "end some connections, or raise max_connections there",
        code if code.starts_with("40") => {
            "another command or the coordinator was at the same rows: the same again will do"
        }
        _ => return None,
    })
}

/// [`words`] and, where there is one, the [`remedy`].
pub fn explained(error: &sqlx::Error) -> String {
    match remedy(error) {
        Some(remedy) => format!("{}; {remedy}", words(error)),
        None => words(error),
    }
}

/// Why migrating failed, without a line of Postgres' source.
pub fn migrate_words(error: &sqlx::migrate::MigrateError) -> String {
    use sqlx::migrate::MigrateError;
    match error {
        MigrateError::Execute(error) => explained(error),
        MigrateError::ExecuteMigration(error, version) => {
            format!("migration {version}: {}", explained(error))
        }
        // Others hold a database's error somewhere below.
        error => error
            .source()
            .and_then(|source| source.downcast_ref())
            .map_or_else(|| error.to_string(), explained),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_written_can_be_at_fault_for_not_being_written() {
        let classes = [
            ("22", Fault::Content),
            ("23", Fault::Content),
            ("08", Fault::Passing),
            ("40", Fault::Passing),
            ("53", Fault::Passing),
            ("57", Fault::Passing),
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
        assert_eq!(Fault::of(&sqlx::Error::PoolTimedOut), Fault::Passing);
        let tls = sqlx::Error::Tls("server does not support TLS".into());
        assert_eq!(Fault::of(&tls), Fault::Refusal);
        assert!(lacks_tls(&tls));
        assert!(words(&tls).contains("does not speak TLS"));
    }
}
