//! `deploy/nats.conf` and `deploy/nats-teams.conf` on a real nats-server: each login can do its work, and
//! a worker's nothing else.

use anyhow::{Context as _, Result, ensure};
use async_nats::{
    HeaderMap,
    jetstream::{self, kv},
};
use futures::StreamExt as _;
use halfheard_e2e::shipped::ShippedNats;
use halfheard_shared::{
    artifacts::{ArtifactStore, Key, Tidied},
    broker::{Broker, reflected, topology::Installation},
    hash::Hash,
    ids::JobId,
};
use std::time::Duration;
use tokio::time::timeout;
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(10);
/// Long enough for the broker to have delivered what it delivers.
const SILENCE: Duration = Duration::from_millis(700);

fn installation() -> Installation {
    Installation {
        id: Uuid::from_u128(1),
        name: "test".to_owned(),
    }
}

/// A broker whose coordinator has made the streams, and a worker's connection.
async fn stage() -> Result<(ShippedNats, Broker, Broker)> {
    let server = ShippedNats::start()?;
    let coord = server.connect("coord:c-secret").await?;
    coord.ensure(&installation()).await?;
    let worker = server.connect("worker:w-secret").await?;
    Ok((server, coord, worker))
}

/// Publishes to a stream and returns whether the broker accepted it; without the privilege there is no answer.
async fn taken(broker: &Broker, subject: &str) -> bool {
    taken_with(broker, subject, HeaderMap::new()).await
}

async fn taken_with(broker: &Broker, subject: &str, headers: HeaderMap) -> bool {
    let context = broker.jetstream();
    let publish = async {
        let ack = context.publish_with_headers(subject.to_owned(), headers, "x".into());
        ack.await?.await
    };
    matches!(timeout(Duration::from_secs(2), publish).await, Ok(Ok(_)))
}

/// Whether `from` can make `to` hear something on a subject that it listens to.
async fn reaches(from: &Broker, to: &Broker, subject: String) -> Result<bool> {
    let mut heard = to.client().subscribe(subject.clone()).await?;
    to.client().flush().await?;
    tokio::time::sleep(Duration::from_millis(50)).await;
    from.client().publish(subject, "x".into()).await?;
    from.client().flush().await?;
    Ok(matches!(timeout(SILENCE, heard.next()).await, Ok(Some(_))))
}

/// How many messages a stream has.
async fn count(coord: &Broker, stream: &str) -> Result<u64> {
    let stream = coord.jetstream().get_stream(stream).await?;
    Ok(stream.cached_info().state.messages)
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
    coord.ensure(&installation()).await?;
    coord.ensure(&installation()).await?;
    let worker = server.connect("worker:w-secret").await?;
    let names = worker.names();

    // It asks, and is answered on its own inbox.
    let mut asks = coord.client().subscribe(names.asks()).await?;
    coord.client().flush().await?;
    let answering = tokio::spawn(async move {
        let ask = asks.next().await.context("no request")?;
        let reply = ask.reply.context("a request without a reply subject")?;
        ensure!(reply.starts_with("_INBOX_worker."), "{reply}");
        coord.client().publish(reply, "jobs".into()).await?;
        Ok(coord)
    });
    let request = worker.client().request(names.ask("w1"), "".into());
    let answer = timeout(PATIENCE, request).await??;
    assert_eq!(answer.payload.as_ref(), b"jobs");
    let coord = answering.await??;

    // It is told something.
    let mut told = worker.client().subscribe(names.tell("w1")).await?;
    worker.client().flush().await?;
    tokio::time::sleep(Duration::from_millis(50)).await;
    coord
        .client()
        .publish(names.tell("w1"), "you".into())
        .await?;
    let told = timeout(PATIENCE, told.next()).await?.context("nothing")?;
    ensure!(!reflected(told.headers.as_ref()));

    // It reports and gives signs of life, which the coordinator hears.
    ensure!(taken(&worker, &names.result("w1")).await, "no report");
    let mut beats = coord.client().subscribe(names.heartbeats()).await?;
    coord.client().flush().await?;
    worker.workers().await?.put("w1", "{}".into()).await?;
    let beat = timeout(PATIENCE, beats.next()).await?.context("no beat")?;
    assert_eq!(names.worker_of(&beat.subject), Some("w1"));
    ensure!(worker.workers().await?.get("w1").await?.is_some());
    Ok(())
}

#[tokio::test]
async fn worker_login_can_use_artifacts_and_the_leader_tidies_them() -> Result<()> {
    let (_server, coord, worker) = stage().await?;
    let store = ArtifactStore::open("nats://", Some(&worker)).await?;
    let content: Vec<u8> = (0..1_300_001_u32).map(|i| (i % 251) as u8).collect();
    let checkpoint = Key::Checkpoint(Hash::of(&content));
    store.put(&checkpoint, content.clone().into()).await?;
    let limit = 2_000_000;
    let read = timeout(PATIENCE, store.get(&checkpoint, limit)).await??;
    ensure!(read.as_deref() == Some(&content[..]));

    let state = Key::Resume(JobId::derive(&[b"j"]));
    for version in [&[1_u8; 700_000][..], &[2; 600_000], &[], &[3; 10]] {
        store.put(&state, version.to_vec().into()).await?;
        let read = timeout(PATIENCE, store.get(&state, limit)).await??;
        ensure!(read.as_deref() == Some(version), "{} bytes", version.len());
    }
    let stream = "OBJ_halfheard_ARTIFACTS";
    let tidied = coord.tidy_artifacts().await?;
    assert_eq!(
        tidied,
        Tidied {
            versions: 3,
            bytes: 1_300_000
        }
    );
    // Three pieces and a description of the checkpoint, one of each of the state.
    assert_eq!(count(&coord, stream).await?, 6);
    ensure!(store.get(&state, limit).await?.as_deref() == Some(&[3; 10][..]));
    ensure!(store.get(&checkpoint, limit).await?.is_some());

    store.delete(&state).await?;
    store.delete(&state).await?;
    ensure!(store.get(&state, limit).await?.is_none());
    coord.tidy_artifacts().await?;
    assert_eq!(count(&coord, stream).await?, 4);
    ensure!(store.get(&state, limit).await?.is_none());
    assert_eq!(coord.tidy_artifacts().await?, Tidied::default());
    Ok(())
}

/// A description that names another object's pieces must not have them removed.
#[tokio::test]
async fn hostile_description_removes_nothing_of_others() -> Result<()> {
    let (_server, coord, worker) = stage().await?;
    let store = ArtifactStore::open("nats://", Some(&worker)).await?;
    let victim = Key::Checkpoint(Hash::of(b"victim"));
    store.put(&victim, "victim".into()).await?;
    let stream = coord
        .jetstream()
        .get_stream("OBJ_halfheard_ARTIFACTS")
        .await?;
    let meta = stream.get_raw_message(2).await?;
    let victim_nuid = serde_json::from_slice::<serde_json::Value>(&meta.payload)?["nuid"].clone();
    for nuid in [victim_nuid, ">".into(), "*".into(), "x.>".into()] {
        let forged = serde_json::json!({
            "name": "probes/mine", "bucket": "halfheard_ARTIFACTS", "nuid": nuid, "mtime": null
        });
        // Of its own object, but with the pieces of another.
        let subject = "$O.halfheard_ARTIFACTS.M.cHJvYmVzL21pbmU=";
        let ack = worker
            .jetstream()
            .publish(subject, forged.to_string().into());
        ack.await?.await?;
    }
    let own = Key::Probe("mine".to_owned());
    store.put(&own, "own".into()).await?;
    coord.tidy_artifacts().await?;
    ensure!(store.get(&victim, 100).await?.as_deref() == Some(&b"victim"[..]));
    ensure!(store.get(&own, 100).await?.as_deref() == Some(&b"own"[..]));
    Ok(())
}

#[tokio::test]
async fn worker_login_cannot_make_purge_or_delete_anything() -> Result<()> {
    let (_server, coord, worker) = stage().await?;
    let names = worker.names();
    ensure!(taken(&worker, &names.result("w1")).await);
    worker.workers().await?.put("w1", "{}".into()).await?;
    let store = ArtifactStore::open("nats://", Some(&worker)).await?;
    let key = Key::Checkpoint(Hash::of(b"c"));
    store.put(&key, "c".into()).await?;

    let api = [
        "STREAM.DELETE",
        "STREAM.PURGE",
        "STREAM.UPDATE",
        "STREAM.MSG.DELETE",
        "STREAM.MSG.GET",
        "STREAM.SNAPSHOT",
        "CONSUMER.NAMES",
        "CONSUMER.CREATE",
        "CONSUMER.DURABLE.CREATE",
    ];
    let streams = [
        "halfheard_RESULTS",
        "KV_halfheard_WORKERS",
        "OBJ_halfheard_ARTIFACTS",
    ];
    for stream in streams {
        for call in api {
            let subject = format!("$JS.API.{call}.{stream}");
            let request = worker
                .client()
                .request(subject.clone(), "{\"seq\":1}".into());
            let answer = timeout(Duration::from_millis(400), request).await;
            ensure!(!matches!(answer, Ok(Ok(_))), "{subject} was answered");
        }
    }
    let make = worker.jetstream().create_stream(jetstream::stream::Config {
        name: "MINE".to_owned(),
        ..Default::default()
    });
    let make = timeout(Duration::from_secs(1), make).await;
    ensure!(!matches!(make, Ok(Ok(_))), "it made a stream");
    let make = worker.jetstream().create_key_value(kv::Config {
        bucket: "MINE".to_owned(),
        ..Default::default()
    });
    let make = timeout(Duration::from_secs(1), make).await;
    ensure!(!matches!(make, Ok(Ok(_))), "it made a bucket");

    // A rollup empties a stream by a message that its login may publish.
    for subject in [
        names.result("w1"),
        "$KV.halfheard_WORKERS.w1".to_owned(),
        "$O.halfheard_ARTIFACTS.C.x".to_owned(),
    ] {
        for scope in ["all", "sub"] {
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Rollup", scope);
            let taken = taken_with(&worker, &subject, headers).await;
            ensure!(!taken, "{subject} was rolled up");
        }
    }
    for stream in streams {
        ensure!(count(&coord, stream).await? > 0, "{stream} is empty");
    }
    ensure!(store.get(&key, 10).await?.is_some());
    Ok(())
}

#[tokio::test]
async fn worker_login_cannot_read_reports_requests_or_answers() -> Result<()> {
    let (server, coord, worker) = stage().await?;
    let names = worker.names();
    let other = server.connect("worker:w-secret").await?;
    // Reports of others: neither in the stream nor on their way.
    ensure!(taken(&other, &names.result("w2")).await);
    ensure!(
        timeout(Duration::from_secs(1), worker.results())
            .await
            .map_or(true, |opened| opened.is_err()),
        "it opened the consumer of reports"
    );
    for subject in [names.results(), names.asks(), names.heartbeats()] {
        let from = if subject.starts_with("$KV") {
            "$KV.halfheard_WORKERS.w2".to_owned()
        } else {
            subject.replace('>', "w2")
        };
        let mut heard = worker.client().subscribe(subject.clone()).await?;
        worker.client().flush().await?;
        tokio::time::sleep(Duration::from_millis(50)).await;
        other.client().publish(from, "x".into()).await?;
        other.client().flush().await?;
        let heard = timeout(SILENCE, heard.next()).await;
        ensure!(!matches!(heard, Ok(Some(_))), "it heard {subject}");
    }
    // What the broker answers to the coordinator.
    for inbox in ["_INBOX.>", "_INBOX_coord.>", ">", "*.*.*"] {
        let mut heard = worker.client().subscribe(inbox).await?;
        worker.client().flush().await?;
        tokio::time::sleep(Duration::from_millis(50)).await;
        coord.jetstream().query_account().await?;
        let heard = timeout(SILENCE, heard.next()).await;
        ensure!(!matches!(heard, Ok(Some(_))), "it listens on {inbox}");
    }
    Ok(())
}

#[tokio::test]
async fn worker_login_cannot_speak_for_the_coordinator() -> Result<()> {
    let (server, coord, worker) = stage().await?;
    let names = worker.names();
    let other = server.connect("worker:w-secret").await?;
    ensure!(reaches(&coord, &other, names.tell("w2")).await?);
    ensure!(!reaches(&worker, &other, names.tell("w2")).await?);
    ensure!(!reaches(&worker, &coord, names.ping("c1")).await?);
    // Nor may the coordinator be made to: it answers workers only on their inboxes.
    let mut told = other.client().subscribe(names.tell("w2")).await?;
    other.client().flush().await?;
    coord
        .client()
        .publish("halfheard.result.w2", "an answer".into())
        .await?;
    coord.client().flush().await?;
    ensure!(!matches!(timeout(SILENCE, told.next()).await, Ok(Some(_))));
    assert_eq!(count(&coord, "halfheard_RESULTS").await?, 0);
    Ok(())
}

/// The broker sends the answer to a read wherever the reader says. What comes that way can be told.
#[tokio::test]
async fn reflected_message_is_recognized() -> Result<()> {
    let (server, coord, worker) = stage().await?;
    let names = worker.names();
    let other = server.connect("worker:w-secret").await?;
    let mut told = other.client().subscribe(names.tell("w2")).await?;
    other.client().flush().await?;
    worker.workers().await?.put("w1", "forged".into()).await?;
    let read = "$JS.API.DIRECT.GET.KV_halfheard_WORKERS.$KV.halfheard_WORKERS.w1";
    for target in [names.tell("w2"), names.result("w2")] {
        let client = worker.client();
        client.publish_with_reply(read, target, "".into()).await?;
        client.flush().await?;
    }
    let told = timeout(PATIENCE, told.next())
        .await?
        .context("nothing came")?;
    assert_eq!(told.payload.as_ref(), b"forged");
    ensure!(reflected(told.headers.as_ref()), "{:?}", told.headers);
    tokio::time::sleep(SILENCE).await;
    let stream = coord.jetstream().get_stream("halfheard_RESULTS").await?;
    let report = stream.get_raw_message(1).await?;
    ensure!(reflected(Some(&report.headers)), "{:?}", report.headers);
    Ok(())
}

#[tokio::test]
async fn teams_cannot_speak_or_listen_for_each_other() -> Result<()> {
    let server = ShippedNats::with("nats-teams.conf")?;
    let coord = server.connect("coord:c-secret").await?;
    coord.ensure(&installation()).await?;
    let red = server.connect("red:w-secret").await?;
    let blue = server.connect("blue:w-secret").await?;
    let names = red.names();

    ensure!(taken(&red, &names.result("red.w")).await);
    ensure!(!taken(&red, &names.result("blue.w")).await, "a report");
    ensure!(!taken(&red, &names.result("w")).await, "of no team");
    ensure!(taken(&red, "$KV.halfheard_WORKERS.red.w").await);
    ensure!(!taken(&red, "$KV.halfheard_WORKERS.blue.w").await, "a beat");
    ensure!(reaches(&red, &coord, names.ask("red.w")).await?);
    ensure!(!reaches(&red, &coord, names.ask("blue.w")).await?);
    ensure!(reaches(&coord, &red, names.tell("red.w")).await?);
    ensure!(!reaches(&coord, &red, names.tell("blue.w")).await?);
    for inbox in ["_INBOX_blue.>", "_INBOX_coord.>", "_INBOX.>"] {
        let mut heard = red.client().subscribe(inbox).await?;
        red.client().flush().await?;
        tokio::time::sleep(Duration::from_millis(50)).await;
        blue.jetstream()
            .get_stream("OBJ_halfheard_ARTIFACTS")
            .await?;
        let heard = timeout(SILENCE, heard.next()).await;
        ensure!(!matches!(heard, Ok(Some(_))), "it listens on {inbox}");
    }
    // Both use the same artifacts: a model that one trained, the other evaluates.
    let key = Key::Checkpoint(Hash::of(b"c"));
    let store = ArtifactStore::open("nats://", Some(&red)).await?;
    store.put(&key, "c".into()).await?;
    let store = ArtifactStore::open("nats://", Some(&blue)).await?;
    ensure!(store.get(&key, 10).await?.is_some());
    Ok(())
}

#[tokio::test]
async fn wrong_password_is_rejected_immediately() -> Result<()> {
    let server = ShippedNats::start()?;
    server.connect("coord:c-secret").await?;
    assert!(server.connect("worker:c-secret").await.is_err());
    Ok(())
}
