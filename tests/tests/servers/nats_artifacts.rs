//! Artifacts in the broker's object store with the shipped logins.

use anyhow::{Result, ensure};
use halfheard_e2e::{
    programs::{Process, bare, program},
    servers::Postgres,
    shipped::{COORD_PASSWORD, ShippedNats, WORKER_PASSWORD},
    tiny::Tiny,
};
use halfheard_shared::artifacts::ArtifactStore;
use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(240);

/// Waits for a condition.
async fn until(what: &str, mut state: impl AsyncFnMut() -> bool) -> Result<()> {
    let since = Instant::now();
    while !state().await {
        ensure!(since.elapsed() < PATIENCE, "{what} does not come");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// A worker with the worker login and `nats://` works as soon as a coordinator serves, and again after the broker lost
/// its storage.
#[tokio::test(flavor = "multi_thread")]
async fn coordinator_creates_the_bucket_for_the_worker_login() -> Result<()> {
    let mut nats = ShippedNats::start()?;
    let postgres = Postgres::start()?;
    let folder = tempfile::tempdir()?;
    Tiny::make(folder.path(), 48)?;
    let spec = |name: &str, seed: u64| -> Result<PathBuf> {
        let hyper = r#"
            [hyper.lnln]
            batch_size = 16
            width = 16
            tokens = 4
            heads = 4
            "#;
        let text = Tiny::spec_text(name, "lnln", seed) + hyper;
        let path = folder.path().join(format!("{name}.toml"));
        std::fs::write(&path, text)?;
        Ok(path)
    };
    let url = nats_url(&nats, "coord", COORD_PASSWORD);
    let coord = || -> Result<Command> {
        let mut command = bare(program("coord")?);
        command
            .env("HALFHEARD_NATS_URL", &url)
            .env("HALFHEARD_DATABASE_URL", postgres.url())
            .env("HALFHEARD_DATA_DIR", folder.path().join("coord"))
            .env("HALFHEARD_ARTIFACTS", "nats://");
        Ok(command)
    };
    // The worker first, as on a node that boots before the others.
    let log = folder.path().join("worker.log");
    let _worker = Process::spawn(
        bare(program("worker")?)
            .args(["--device", "cpu", "--threads", "1"])
            .env(
                "HALFHEARD_NATS_URL",
                nats_url(&nats, "worker", WORKER_PASSWORD),
            )
            .env("HALFHEARD_DATA_DIR", folder.path().join("worker"))
            .env("HALFHEARD_ARTIFACTS", "nats://")
            .stderr(std::fs::File::create(&log)?),
    )?;
    until("the worker's wait", async || {
        said(&log).contains("the coordinator makes it")
    })
    .await?;
    let _serve = Process::spawn(coord()?.args(["serve", "--migrate"]))?;
    let first = spec("first", 1)?;
    submit_when_migrated(&coord, &first)?;

    nats.lose_storage()?;
    let login = format!("worker:{WORKER_PASSWORD}");
    until("the bucket", async || match nats.connect(&login).await {
        Ok(broker) => ArtifactStore::open("nats://", Some(&broker)).await.is_ok(),
        Err(_) => false,
    })
    .await?;
    submit_when_migrated(&coord, &spec("second", 2)?)?;
    Ok(())
}

fn nats_url(nats: &ShippedNats, user: &str, password: &str) -> String {
    nats.url(&format!("{user}:{password}"))
}

fn said(log: &Path) -> String {
    std::fs::read_to_string(log).unwrap_or_default()
}

/// Submits a spec and waits for its end; the database may not be migrated at first.
fn submit_when_migrated(coord: &dyn Fn() -> Result<Command>, spec: &Path) -> Result<()> {
    let since = Instant::now();
    loop {
        let ended = coord()?.args(["submit", "--watch"]).arg(spec).output()?;
        if ended.status.success() {
            return Ok(());
        }
        let log = String::from_utf8_lossy(&ended.stderr).into_owned();
        ensure!(
            log.contains("migrat") && since.elapsed() < PATIENCE,
            "{}: {log}",
            ended.status
        );
        std::thread::sleep(Duration::from_millis(200));
    }
}
