//! `deploy/nats.conf` on a real nats-server: the two logins can do their work, and a worker nothing else.

use anyhow::{Context as _, Result, ensure};
use async_nats::jetstream::{self, AckKind, object_store};
use futures::StreamExt as _;
use missbench_shared::broker::{Broker, BrokerSettings, Queue};
use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{
    io::AsyncReadExt as _,
    process::{Child, Command},
    time::timeout,
};

const PATIENCE: Duration = Duration::from_secs(10);

/// A nats-server with the shipped configuration, on a free port and in a folder of its own.
struct Server {
    _process: Child,
    _folder: tempfile::TempDir,
    port: u16,
}

impl Server {
    async fn start() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let shipped = std::fs::read_to_string(root.join("deploy/nats.conf"))?;
        let folder = tempfile::tempdir()?;
        let port = free_port()?;
        let conf = replace_once(&shipped, "port: 4222", &format!("port: {port}"))?;
        let conf = replace_once(&conf, "http: 127.0.0.1:8222", "")?;
        let store = format!("store_dir: \"{}\"", folder.path().join("store").display());
        let conf = replace_once(&conf, "store_dir: \"/var/lib/nats\"", &store)?;
        let conf = replace_once(&conf, "max_file_store: 200GB", "max_file_store: 1GB")?;
        let file = folder.path().join("nats.conf");
        std::fs::write(&file, conf)?;
        let process = Command::new(nats_server(&root))
            .arg("-c")
            .arg(&file)
            .env("NATS_COORD_PASSWORD", "c-secret")
            .env("NATS_WORKER_PASSWORD", "w-secret")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("nats-server does not start; run `make setup`")?;
        Ok(Self {
            _process: process,
            _folder: folder,
            port,
        })
    }

    async fn connect(&self, login: &str) -> Result<Broker> {
        let settings = BrokerSettings::at(format!("nats://{login}@127.0.0.1:{}", self.port));
        Ok(timeout(PATIENCE, settings.connect_patiently()).await??)
    }
}

fn replace_once(text: &str, old: &str, new: &str) -> Result<String> {
    ensure!(
        text.matches(old).count() == 1,
        "deploy/nats.conf has not exactly one `{old}`"
    );
    Ok(text.replace(old, new))
}

fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?
        .local_addr()?
        .port())
}

fn nats_server(root: &Path) -> PathBuf {
    if let Some(own) = std::env::var_os("MISSBENCH_NATS_SERVER") {
        return own.into();
    }
    let deps = std::env::var_os("MISSBENCH_DEPS").map_or_else(|| root.join(".deps"), PathBuf::from);
    deps.join("nats/nats-server")
}

/// Publishes on a stream and says whether the broker took it: one that lacks the right is not answered.
async fn taken(broker: &Broker, subject: &str) -> bool {
    let publish = async {
        let ack = broker.jetstream().publish(subject.to_owned(), "x".into());
        ack.await?.await
    };
    matches!(timeout(Duration::from_secs(2), publish).await, Ok(Ok(_)))
}

#[tokio::test]
async fn the_worker_login_can_do_its_work() -> Result<()> {
    let server = Server::start().await?;
    let coord = server.connect("coord:c-secret").await?;
    coord.ensure().await?;
    coord
        .jetstream()
        .create_object_store(object_store::Config {
            bucket: "ARTIFACTS".to_owned(),
            ..Default::default()
        })
        .await?;
    ensure!(taken(&coord, "job.train.s").await && taken(&coord, "job.eval.s").await);

    let worker = server.connect("worker:w-secret").await?;
    for queue in Queue::ALL {
        let jobs = worker.jobs(queue).await?;
        let mut batch = jobs
            .fetch()
            .max_messages(1)
            .expires(Duration::from_secs(5))
            .messages()
            .await?;
        let job = batch
            .next()
            .await
            .context("no job")?
            .map_err(anyhow::Error::from_boxed)?;
        job.ack_with(AckKind::Progress)
            .await
            .map_err(anyhow::Error::from_boxed)?;
        timeout(PATIENCE, job.double_ack())
            .await?
            .map_err(anyhow::Error::from_boxed)?;
    }
    ensure!(
        taken(&worker, "result.s").await,
        "a worker cannot report a result"
    );

    worker.workers().await?.put("w1", "{}".into()).await?;
    ensure!(worker.workers().await?.get("w1").await?.is_some());

    let control = worker.sweeps().await?;
    let mut seen = control.watch_all().await?;
    coord.sweeps().await?.put("s", "cancelled".into()).await?;
    let entry = timeout(PATIENCE, seen.next())
        .await?
        .context("the watch ended")??;
    assert_eq!(entry.value.as_ref(), b"cancelled");
    assert_eq!(control.get("s").await?.as_deref(), Some(&b"cancelled"[..]));

    let artifacts = worker.jetstream().get_object_store("ARTIFACTS").await?;
    for content in [&[1_u8; 300_000][..], &[2_u8; 200_000][..]] {
        artifacts.put("checkpoints/a", &mut &content[..]).await?;
        let mut read = Vec::new();
        let mut object = artifacts.get("checkpoints/a").await?;
        timeout(PATIENCE, object.read_to_end(&mut read)).await??;
        assert_eq!(read, content);
    }
    artifacts.delete("checkpoints/a").await?;
    Ok(())
}

#[tokio::test]
async fn the_worker_login_can_do_nothing_else() -> Result<()> {
    let server = Server::start().await?;
    let coord = server.connect("coord:c-secret").await?;
    coord.ensure().await?;
    let worker = server.connect("worker:w-secret").await?;

    assert!(!taken(&worker, "job.train.s").await, "it made a job");
    assert!(
        !taken(&worker, "$KV.SWEEPS.s").await,
        "it cancelled a sweep"
    );
    let jobs = worker.jetstream();
    let delete = timeout(Duration::from_secs(2), jobs.delete_stream("JOBS")).await;
    assert!(!matches!(delete, Ok(Ok(_))), "it deleted a stream");
    let make = jobs.create_stream(jetstream::stream::Config {
        name: "MINE".to_owned(),
        ..Default::default()
    });
    let make = timeout(Duration::from_secs(2), make).await;
    assert!(!matches!(make, Ok(Ok(_))), "it made a stream");
    // Other workers' results are not its business.
    assert!(
        timeout(Duration::from_secs(2), worker.results())
            .await
            .map_or(true, |opened| opened.is_err()),
        "it opened the consumer of results"
    );
    // And all that was refused is still there.
    assert!(coord.jobs(Queue::Train).await.is_ok());
    Ok(())
}

#[tokio::test]
async fn a_wrong_password_is_refused_at_once() -> Result<()> {
    let server = Server::start().await?;
    server.connect("coord:c-secret").await?;
    assert!(server.connect("worker:c-secret").await.is_err());
    Ok(())
}
