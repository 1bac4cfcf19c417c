//! The database over TLS, and permanent errors: every command ends at once with a hint.

use anyhow::{Context as _, Result, ensure};
use halfheard_e2e::{
    PATIENCE,
    programs::program,
    servers::Postgres,
    tls::{Authority, TlsProxy},
};
use std::process::Output;
use tokio::process::Command;

/// Runs `coord ARGS` on a database, to its end.
async fn coord(database: &str, args: &[&str]) -> Result<Output> {
    let mut command = Command::new(program("coord")?);
    command
        .args(args)
        .env("HALFHEARD_DATABASE_URL", database)
        // Nothing listens there: the database is tried first.
        .env("HALFHEARD_NATS_URL", "nats://127.0.0.1:1")
        .env("HALFHEARD_CONFIG", "/dev/null")
        .env("NO_COLOR", "1")
        .env_remove("RUST_LOG")
        .kill_on_drop(true);
    tokio::time::timeout(PATIENCE, command.output())
        .await
        .with_context(|| format!("`coord {}` did not end", args.join(" ")))?
        .map_err(Into::into)
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

async fn works(database: &str) -> Result<String> {
    let output = coord(database, &["migrate"]).await?;
    let errors = errors(&output);
    ensure!(output.status.success(), "{database}: {errors}");
    Ok(errors)
}

/// A command and the daemon exit with 1 at once, and both print `what` and the `remedy`.
async fn is_refused(database: &str, what: &str, remedy: &str) -> Result<()> {
    for args in [["migrate"], ["status"], ["serve"]] {
        let output = coord(database, &args).await?;
        let errors = errors(&output);
        let reported = format!("coord {} on {database}: {errors}", args[0]);
        ensure!(output.status.code() == Some(1), "{reported}");
        ensure!(errors.contains(what), "no `{what}`: {reported}");
        ensure!(errors.contains(remedy), "no `{remedy}`: {reported}");
        ensure!(!errors.contains("start it"), "wrong advice: {reported}");
        ensure!(
            !errors.contains("at line"),
            "Postgres' own source: {reported}"
        );
        ensure!(!errors.contains("retrying"), "it waited: {reported}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn sslmode_decides_encryption_and_verification() -> Result<()> {
    let postgres = Postgres::start()?;
    let folder = tempfile::tempdir()?;
    let authority = Authority::new("an authority of our own")?;
    let ours = authority.write(folder.path(), "ours.pem")?;
    let ours = ours.display();
    let theirs = Authority::new("another authority")?.write(folder.path(), "theirs.pem")?;
    let theirs = theirs.display();
    let proxy = TlsProxy::encrypting(postgres.port(), &authority, &["localhost"]).await?;
    let address = |host: &str, query: &str| {
        format!(
            "postgres://postgres@{host}:{}/postgres?{query}",
            proxy.port()
        )
    };

    for query in [
        "sslmode=require".to_owned(),
        format!("sslmode=require&sslrootcert={ours}"),
        format!("sslmode=verify-ca&sslrootcert={ours}"),
        format!("sslmode=verify-full&sslrootcert={ours}"),
    ] {
        let before = proxy.encrypted();
        works(&address("localhost", &query)).await?;
        assert!(proxy.encrypted() > before, "{query}");
    }
    // The name does not matter if it is not verified.
    works(&address(
        "127.0.0.1",
        &format!("sslmode=verify-ca&sslrootcert={ours}"),
    ))
    .await?;
    assert_eq!(proxy.unencrypted(), 0);

    for mode in ["verify-full", "verify-ca", "require"] {
        is_refused(
            &address("localhost", &format!("sslmode={mode}&sslrootcert={theirs}")),
            "certificate is not signed by a trusted authority",
            "sslrootcert=FILE",
        )
        .await?;
    }
    is_refused(
        &address("localhost", "sslmode=verify-full"),
        "certificate is not signed by a trusted authority",
        "sslrootcert=FILE",
    )
    .await?;
    is_refused(
        &address(
            "127.0.0.1",
            &format!("sslmode=verify-full&sslrootcert={ours}"),
        ),
        "certificate is not for the host name `127.0.0.1` but for",
        "name the host as its certificate does",
    )
    .await?;
    is_refused(
        &address(
            "localhost",
            "sslmode=verify-full&sslrootcert=/nowhere/at/all.pem",
        ),
        "No such file",
        "sslrootcert",
    )
    .await?;
    assert_eq!(proxy.unencrypted(), 0);

    // The Postgres itself has no TLS.
    let plain = format!("{}?sslmode", postgres.url());
    for mode in ["require", "verify-full"] {
        is_refused(
            &format!("{plain}={mode}"),
            "the server does not support TLS",
            "sslmode=disable",
        )
        .await?;
    }
    Ok(())
}

/// On Linux, 0.0.0.0 reaches this machine and is not a loopback address: the nearest thing to another host.
#[tokio::test(flavor = "multi_thread")]
async fn unencrypted_connection_to_another_host_warns() -> Result<()> {
    let postgres = Postgres::start()?;
    let authority = Authority::new("an authority of our own")?;
    let encrypting = TlsProxy::encrypting(postgres.port(), &authority, &["localhost"]).await?;
    let plain = TlsProxy::plain(postgres.port()).await?;
    let address = |host: &str, proxy: &TlsProxy, query: &str| {
        format!(
            "postgres://postgres@{host}:{}/postgres{query}",
            proxy.port()
        )
    };
    const WARNING: &str = "connection to Postgres at 0.0.0.0 is not encrypted";

    for query in ["", "?sslmode=disable"] {
        let said = works(&address("0.0.0.0", &plain, query)).await?;
        assert!(said.contains(WARNING), "{query}: {said}");
        assert!(said.contains("sslmode=verify-full"), "{said}");
        let said = works(&address("127.0.0.1", &plain, query)).await?;
        assert!(!said.contains("not encrypted"), "{said}");
    }
    // Encryption that the server offers is used for all connections.
    let said = works(&address("0.0.0.0", &encrypting, "")).await?;
    assert!(!said.contains("not encrypted"), "{said}");
    assert!(encrypting.encrypted() > 1);
    assert_eq!(encrypting.unencrypted(), 0);
    let said = works(&address("0.0.0.0", &encrypting, "?sslmode=disable")).await?;
    assert!(said.contains(WARNING), "{said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rejected_login_ends_every_command_with_its_hint() -> Result<()> {
    let postgres = Postgres::start()?;
    let admin = postgres.url();
    for statement in [
        "CREATE ROLE locked LOGIN PASSWORD 'right'",
        "CREATE ROLE guest LOGIN",
        "CREATE DATABASE closed",
        "REVOKE CONNECT ON DATABASE closed FROM PUBLIC",
    ] {
        postgres.execute(statement).await?;
    }
    postgres
        .allow_first("host all locked 127.0.0.1/32 scram-sha-256")
        .await?;
    let address = |login: &str, database: &str| {
        let (_, rest) = admin.split_once('@').unwrap_or_default();
        let (host, _) = rest.split_once('/').unwrap_or_default();
        format!("postgres://{login}@{host}/{database}")
    };

    for login in ["locked:wrong", "locked"] {
        is_refused(
            &address(login, "postgres"),
            "password authentication failed for user \"locked\"",
            "PGPASSWORD",
        )
        .await?;
    }
    is_refused(
        &address("stranger", "postgres"),
        "role \"stranger\" does not exist",
        "pg_hba.conf",
    )
    .await?;
    is_refused(
        &address("postgres", "nowhere"),
        "database \"nowhere\" does not exist",
        "createdb",
    )
    .await?;
    is_refused(
        &address("guest", "closed"),
        "permission denied for database \"closed\"",
        "CONNECT",
    )
    .await?;
    // The first statement finds a missing privilege.
    let output = coord(&address("guest", "postgres"), &["migrate"]).await?;
    let said = errors(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("permission denied for schema public"),
        "{said}"
    );
    assert!(said.contains("grant this role the privilege"), "{said}");
    assert!(!said.contains("at line"), "{said}");
    Ok(())
}
