//! `deploy/nats.conf` on a real nats-server: the two logins can do their work, and a worker nothing else.

use anyhow::{Context as _, Result, ensure};
use async_nats::jetstream::{self, AckKind};
use futures::StreamExt as _;
use halfheard_e2e::shipped::ShippedNats;
use halfheard_shared::{
    artifacts::ArtifactStore,
    broker::{Broker, Queue},
};
use std::time::Duration;
use tokio::{io::AsyncReadExt as _, time::timeout};

const PATIENCE: Duration = Duration::from_secs(10);

/// Publishes to a stream and returns whether the broker accepted it; without the privilege there is no answer.
async fn taken(broker: &Broker, subject: &str) -> bool {
    let publish = async {
        let ack = broker.jetstream().publish(subject.to_owned(), "x".into());
        ack.await?.await
    };
    matches!(timeout(Duration::from_secs(2), publish).await, Ok(Ok(_)))
}

#[tokio::test]
async fn worker_login_can_do_its_work() -> Result<()> {
    let server = ShippedNats::start()?;
    let coord = server.connect("coord:c-secret").await?;
    // A worker may not create the bucket, and its error says who does.
    let early = server.connect("worker:w-secret").await?;
    let early = ArtifactStore::open("nats://", Some(&early)).await;
    let early = early.err().context("it made the bucket")?;
    ensure!(early.is_retryable(), "{early}");
    let why = std::error::Error::source(&early).map(ToString::to_string);
    ensure!(
        why.as_ref().is_some_and(|why| why.contains("coord serve")),
        "{why:?}"
    );
    coord.ensure().await?;
    coord.ensure().await?;
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
async fn worker_login_can_do_nothing_else() -> Result<()> {
    let server = ShippedNats::start()?;
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
    // It may not read other workers' results.
    assert!(
        timeout(Duration::from_secs(2), worker.results())
            .await
            .map_or(true, |opened| opened.is_err()),
        "it opened the consumer of results"
    );
    // Everything is still there.
    assert!(coord.jobs(Queue::Train).await.is_ok());
    Ok(())
}

#[tokio::test]
async fn wrong_password_is_rejected_immediately() -> Result<()> {
    let server = ShippedNats::start()?;
    server.connect("coord:c-secret").await?;
    assert!(server.connect("worker:c-secret").await.is_err());
    Ok(())
}
