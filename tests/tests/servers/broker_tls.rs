//! A nats-server with TLS and a certificate of a private authority.

use anyhow::{Context as _, Result};
use halfheard_e2e::{PATIENCE, servers::nats_server, tls::Authority};
use halfheard_shared::broker::{BrokerSettings, Tls, topology::Installation};
use std::process::Stdio;
use tokio::{net::TcpListener, process::Command, time::timeout};

#[tokio::test(flavor = "multi_thread")]
async fn tls_broker_is_accepted_and_unknown_authority_is_rejected() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let authority = Authority::new("an authority of our own")?;
    let ours = authority.write(folder.path(), "ours.pem")?;
    let theirs = Authority::new("another authority")?.write(folder.path(), "theirs.pem")?;
    let (certificate, key) = authority.sign(&["localhost"])?;
    let (certificate_file, key_file) = (
        folder.path().join("server.pem"),
        folder.path().join("server.key"),
    );
    std::fs::write(&certificate_file, certificate)?;
    std::fs::write(&key_file, key)?;
    let port = TcpListener::bind("127.0.0.1:0").await?.local_addr()?.port();
    let _server = Command::new(nats_server()?)
        .args(["-a", "127.0.0.1", "-p", &port.to_string(), "-js", "-sd"])
        .arg(folder.path().join("data"))
        .args(["--tls", "--tlscert"])
        .arg(&certificate_file)
        .arg("--tlskey")
        .arg(&key_file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("nats-server does not start; run `make setup`")?;
    let settings = |authority: &std::path::Path| BrokerSettings {
        tls: Tls {
            ca: Some(authority.to_owned()),
            ..Tls::default()
        },
        ..BrokerSettings::at(format!("tls://localhost:{port}"))
    };

    let broker = timeout(PATIENCE, settings(&ours).connect_with_retry()).await??;
    broker
        .ensure(&Installation {
            id: Default::default(),
            name: "tls".to_owned(),
        })
        .await?;
    assert!(broker.client().server_info().tls_required);

    // Not retried: a wrong certificate is permanent.
    let refused = timeout(PATIENCE, settings(&theirs).connect_with_retry()).await?;
    let error = refused.err().context("a stranger's server was trusted")?;
    let error = halfheard_shared::error::chain(&error);
    assert!(error.contains("certificate"), "{error}");
    Ok(())
}
