//! What a Postgres allows.

use super::Remark;
use halfheard_shared::error::chain;
use halfheard_store::{Store, StoreError, installation::ServerFacts};

/// The oldest version that has what the statements use.
const MIN_VERSION: i32 = 15;
/// Connections of one coordinator: its pool, and one to lead.
const CONNECTIONS: i64 = 10;
/// A submission of a million jobs takes about this long, in milliseconds.
const LONGEST_STATEMENT: i64 = 120_000;
/// Tables that only migrations write.
const READ_ONLY: [&str; 4] = ["job_transition", "published", "erratum", "reference_data"];
/// Tables whose only row is only changed.
const ONE_ROW: [&str; 2] = ["installation", "leadership"];

/// What must be changed.
///
/// # Errors
///
/// The database's.
pub(crate) async fn remarks(store: &Store) -> Result<Vec<Remark>, StoreError> {
    let mut remarks = of_facts(&store.server_facts().await?);
    remarks.extend(of_privileges(&store.missing_privileges().await?));
    let pooled = match store.keeps_sessions().await {
        Ok(keeps) => !keeps,
        Err(error) if loses_statements(&error) => true,
        // Away, or out of connections: said elsewhere.
        Err(error) => return Err(error),
    };
    if pooled {
        remarks.push(transaction_pooling());
    }
    Ok(remarks)
}

/// Whether a prepared statement was not there, or another's: a proxy hands out other sessions.
pub(super) fn loses_statements(error: &StoreError) -> bool {
    chain(error).contains("prepared statement")
}

/// What to say of a proxy that pools transactions.
pub(super) fn transaction_pooling() -> Remark {
    Remark::fatal(
        "a proxy between coord and Postgres pools transactions: a session changes its server between statements",
        "connect to Postgres itself, or let the proxy pool sessions (pgbouncer: pool_mode = session)",
    )
}

fn of_facts(facts: &ServerFacts) -> Vec<Remark> {
    let mut remarks = Vec::new();
    if facts.version / 10_000 < MIN_VERSION {
        remarks.push(Remark::fatal(
            format!("PostgreSQL {} is too old", facts.version / 10_000),
            format!("use PostgreSQL {MIN_VERSION} or newer"),
        ));
    }
    if facts.encoding != "UTF8" {
        remarks.push(Remark::fatal(
            format!("the database has the encoding {}", facts.encoding),
            "make it anew: createdb --encoding=UTF8 --template=template0",
        ));
    }
    if facts.standby {
        remarks.push(Remark::warning(
            "the database is a standby and takes no writes",
            "point HALFHEARD_DATABASE_URL at the primary, or promote it",
        ));
    } else if facts.read_only {
        remarks.push(Remark::warning(
            "transactions are read-only by default",
            "ALTER ROLE or ALTER DATABASE ... SET default_transaction_read_only = off",
        ));
    }
    let free = facts.max_connections - facts.used_connections;
    if free < CONNECTIONS {
        remarks.push(Remark::warning(
            format!(
                "{free} of {} connections are free; a coordinator uses {CONNECTIONS}",
                facts.max_connections
            ),
            "raise max_connections",
        ));
    }
    if let Some(limit) = facts.role_connections.filter(|&limit| limit < CONNECTIONS) {
        remarks.push(Remark::warning(
            format!("the login may open {limit} connections; a coordinator uses {CONNECTIONS}"),
            format!("ALTER ROLE ... CONNECTION LIMIT {CONNECTIONS}, for each coordinator"),
        ));
    }
    let timeout = facts.statement_timeout_ms;
    if timeout > 0 && timeout < LONGEST_STATEMENT {
        remarks.push(Remark::warning(
            format!("statements are ended after {timeout} ms, and a large submission takes longer"),
            "ALTER ROLE ... SET statement_timeout = 0",
        ));
    }
    remarks
}

fn of_privileges(missing: &[String]) -> Option<Remark> {
    let needed = |missing: &&String| {
        let (privilege, table) = missing.split_once(" on ").unwrap_or_default();
        if READ_ONLY.contains(&table) {
            privilege == "SELECT"
        } else if ONE_ROW.contains(&table) {
            matches!(privilege, "SELECT" | "UPDATE")
        } else {
            true
        }
    };
    let missing: Vec<&str> = missing.iter().filter(needed).map(String::as_str).collect();
    let first = missing.first()?;
    let rest = match missing.len() {
        1 => String::new(),
        more => format!(" and {} more", more - 1),
    };
    Some(Remark::fatal(
        format!("the login lacks {first}{rest}"),
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public, and USAGE ON ALL SEQUENCES",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::infrastructure::Weight;

    fn good() -> ServerFacts {
        ServerFacts {
            version: 180_006,
            max_connections: 97,
            used_connections: 3,
            role_connections: None,
            statement_timeout_ms: 0,
            idle_timeout_ms: 0,
            standby: false,
            read_only: false,
            encoding: "UTF8".to_owned(),
        }
    }

    #[test]
    fn ordinary_server_needs_no_change() {
        assert_eq!(of_facts(&good()), []);
        assert_eq!(of_privileges(&["INSERT on published".to_owned()]), None);
        assert_eq!(of_privileges(&["DELETE on leadership".to_owned()]), None);
    }

    #[test]
    fn each_limit_is_named() {
        let one = |facts: ServerFacts| {
            let remarks = of_facts(&facts);
            assert_eq!(remarks.len(), 1, "{remarks:?}");
            (remarks[0].weight, remarks[0].found.clone())
        };
        let old = ServerFacts {
            version: 140_011,
            ..good()
        };
        assert_eq!(
            one(old),
            (Weight::Fatal, "PostgreSQL 14 is too old".to_owned())
        );
        let full = ServerFacts {
            used_connections: 95,
            ..good()
        };
        assert!(one(full).1.starts_with("2 of 97 connections are free"));
        let few = ServerFacts {
            role_connections: Some(3),
            ..good()
        };
        assert!(one(few).1.contains("may open 3 connections"));
        let hasty = ServerFacts {
            statement_timeout_ms: 5000,
            ..good()
        };
        assert!(one(hasty).1.contains("5000 ms"));
        let standby = ServerFacts {
            standby: true,
            read_only: true,
            ..good()
        };
        assert_eq!(one(standby).0, Weight::Warning);
    }

    #[test]
    fn missing_privilege_is_named() {
        let missing = ["INSERT on epoch_log", "UPDATE on job"].map(str::to_owned);
        let remark = of_privileges(&missing).unwrap();
        assert_eq!(remark.weight, Weight::Fatal);
        assert_eq!(
            remark.found,
            "the login lacks INSERT on epoch_log and 1 more"
        );
    }
}
