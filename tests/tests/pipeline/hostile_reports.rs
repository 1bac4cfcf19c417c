//! A worker that says what is not so: nothing of it counts, all of it can be read, and none of it drives the
//! operator's terminal.

use anyhow::{Context as _, Result, ensure};
use async_nats::HeaderMap;
use halfheard_e2e::{
    PATIENCE,
    programs::{coord, output},
    stage::Stage,
    sweeps::{matrix, sweep, train_job},
    worker::{Act, ScriptedWorker},
};
use halfheard_shared::{
    ids::{AttemptId, JobId},
    wire::{
        Failure, FailureKind, Fault, FaultKind, ResultBody, ResultMessage, Work, WorkerInfo, encode,
    },
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const CASES: [&str; 2] = ["r=0", "missing=la"];
const EVIL: &str = "\u{1b}]0;owned\u{7}\u{1b}[2J\u{9b}31m\u{202e}\r";

fn report(worker: &str, job: JobId, attempt: AttemptId, body: ResultBody) -> ResultMessage {
    ResultMessage {
        job,
        attempt,
        worker: WorkerInfo {
            name: worker.to_owned(),
            host: EVIL.to_owned(),
            device: EVIL.to_owned(),
            version: EVIL.to_owned(),
            processor: EVIL.to_owned(),
        },
        body,
    }
}

fn failure() -> ResultBody {
    ResultBody::Failed(Failure {
        chain: vec![EVIL.repeat(10); 20],
        kind: FailureKind::Permanent,
    })
}

fn trained() -> ResultBody {
    ResultBody::Trained {
        checkpoints: Vec::new(),
        epochs: 1,
        seconds: 1.0,
        peak_memory: 0,
    }
}

/// The row of a job, as far as a report could change it.
async fn row(
    stage: &Stage,
    job: JobId,
) -> Result<(String, Option<Uuid>, i32, i32, Option<String>)> {
    Ok(sqlx::query_as(
        "SELECT state::text, attempt, failures, losses, last_error FROM job WHERE id = $1",
    )
    .bind(job.0)
    .fetch_one(stage.store.pool())
    .await?)
}

/// Whose subject, headers, payload, and a part of the reason for which it is refused.
type Lie = (&'static str, HeaderMap, Vec<u8>, &'static str);

/// What the hostile worker sends: on which subject, with which headers, what, and a part of the reason for
/// which it is refused.
fn lies(job: JobId, attempt: AttemptId) -> Result<Vec<Lie>> {
    let forged = AttemptId(Uuid::new_v4());
    let plain = HeaderMap::new;
    let mut reflected = HeaderMap::new();
    reflected.insert("Nats-Stream", "KV_halfheard_WORKERS");
    let declined = ResultBody::Declined {
        after_epoch: 0,
        fault: Fault::new(FaultKind::Device, EVIL, vec![EVIL.to_owned()]),
    };
    let message = |worker: &str, job, attempt, body| encode(&report(worker, job, attempt, body));
    let other = JobId::derive(&[b"no such job"]);
    Ok(vec![
        (
            "evil",
            plain(),
            message("evil", job, forged, trained())?,
            "never granted",
        ),
        (
            "evil",
            plain(),
            message("evil", job, forged, failure())?,
            "never granted",
        ),
        (
            "evil",
            plain(),
            message("evil", job, attempt, trained())?,
            "granted to worker",
        ),
        (
            "evil",
            plain(),
            message("evil", job, attempt, failure())?,
            "granted to worker",
        ),
        (
            "evil",
            plain(),
            message("evil", job, attempt, declined)?,
            "granted to worker",
        ),
        (
            "evil",
            plain(),
            message("honest", job, attempt, failure())?,
            "speaks for worker",
        ),
        (
            "evil",
            plain(),
            message("evil", other, attempt, failure())?,
            "",
        ),
        (
            "honest",
            reflected,
            message("honest", job, attempt, failure())?,
            "answer of a stream",
        ),
        ("evil", plain(), EVIL.repeat(1000).into_bytes(), "version"),
        ("evil", plain(), vec![0xfd; 4096], "version"),
        ("evil", plain(), Vec::new(), "empty"),
    ])
}

/// The commands show what was set aside, and nothing of it reaches the terminal.
fn letters_can_be_read(stage: &Stage, lies: usize) -> Result<()> {
    let status = output(coord(stage)?.arg("status"))?;
    let said = format!("{lies} messages (`coord dead-letters`)");
    ensure!(status.contains(&said), "{status}");
    let letters = output(coord(stage)?.arg("dead-letters"))?;
    ensure!(
        letters.contains("never granted") && letters.contains("a failure of job"),
        "{letters}"
    );
    harmless(&letters)?;
    let json = output(coord(stage)?.args(["dead-letters", "--json"]))?;
    harmless(&json)?;
    let json: serde_json::Value = serde_json::from_str(&json)?;
    assert_eq!(json["dead_letters"].as_array().map(Vec::len), Some(lies));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn lies_of_a_worker_change_nothing_and_can_be_read() -> Result<()> {
    let stage = Stage::start().await?;
    let sweep = sweep("honest", 0);
    stage
        .store
        .submit(&sweep, matrix(&sweep, [1], &CASES))
        .await?;
    let _coordinator = stage.serve();
    let go = CancellationToken::new();
    let _honest = ScriptedWorker::start(&stage.broker, "honest", {
        let go = go.clone();
        Arc::new(move |job, _| match job.work {
            Work::Train(_) => Act::WaitFor(go.clone()),
            _ => Act::Complete,
        })
    });
    stage
        .until(sweep.id, PATIENCE, |progress| progress.running == 1)
        .await?;
    let job = train_job(&sweep, 1);
    let before = row(&stage, job).await?;
    let attempt = AttemptId(before.1.context("no attempt")?);

    let lies = lies(job, attempt)?;
    let subjects = stage.broker.names().clone();
    for (worker, headers, payload, _) in &lies {
        let subject = subjects.result(worker);
        let context = stage.broker.jetstream();
        let ack = context.publish_with_headers(subject, headers.clone(), payload.clone().into());
        ack.await?.await?;
    }
    let since = Instant::now();
    let count = "SELECT count(*) FROM dead_letter";
    while stage.count(count).await? < lies.len() as i64 {
        ensure!(
            since.elapsed() < PATIENCE,
            "{} were set aside",
            stage.count(count).await?
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let letters = stage.store.dead_letters(100).await?;
    assert_eq!(letters.len(), lies.len());
    for (worker, _, payload, why) in &lies {
        let subject = subjects.result(worker);
        let kept = letters.iter().find(|letter| {
            letter.subject == subject
                && payload.starts_with(&letter.payload)
                && letter.reason.contains(why)
        });
        ensure!(
            kept.is_some(),
            "missing: {why}; {:?}",
            letters.iter().map(|l| &l.reason).collect::<Vec<_>>()
        );
    }
    // The job is where it was, and its worker goes on and finishes.
    assert_eq!(row(&stage, job).await?, before);
    go.cancel();
    let progress = stage.finished(sweep.id, PATIENCE).await?;
    assert_eq!((progress.done, progress.failed), (3, 0));
    assert_eq!(stage.count("SELECT count(*) FROM conflict").await?, 0);
    assert_eq!(
        stage
            .count("SELECT count(*) FROM attempt WHERE worker = 'evil'")
            .await?,
        0
    );

    letters_can_be_read(&stage, lies.len())
}

/// Whether a text may go to a terminal.
fn harmless(text: &str) -> Result<()> {
    let bad = text.chars().find(|c| {
        (c.is_control() && *c != '\n')
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    });
    ensure!(bad.is_none(), "{bad:?} in {text:?}");
    Ok(())
}

/// Escape sequences in everything that a worker says of itself, and in why its jobs fail.
#[tokio::test(flavor = "multi_thread")]
async fn words_of_workers_do_not_drive_the_terminal() -> Result<()> {
    let stage = Stage::start().await?;
    let sweep = sweep("words", 0);
    stage
        .store
        .submit(&sweep, matrix(&sweep, [1, 2], &CASES))
        .await?;
    let _coordinator = stage.serve();
    let evil = ScriptedWorker::start(
        &stage.broker,
        "evil",
        Arc::new(|_, _| Act::Fail(FailureKind::Permanent, vec![EVIL.to_owned(); 30])),
    );
    let progress = stage.finished(sweep.id, PATIENCE).await?;
    ensure!(progress.failed >= 2 && progress.done == 0, "{progress:?}");
    evil.kill().await;

    let info = report(
        "evil",
        JobId::derive(&[b"j"]),
        AttemptId(Uuid::nil()),
        failure(),
    )
    .worker;
    let fault = Fault::new(FaultKind::Store, EVIL, vec![EVIL.to_owned()]);
    let beat = serde_json::json!({
        "worker": info, "pid": 1, "at_ms": 1, "memory_bytes": 1, "labels": [EVIL], "methods": [EVIL],
        "doing": {
            "sweep": sweep.id, "job": train_job(&sweep, 1), "what": EVIL, "epoch": 1, "max_epochs": 2,
            "step": 1, "steps": 2, "loss": null
        },
        "trouble": {
            "fault": fault, "since_ms": 1, "times": 1, "next_try_ms": null, "sits_out": true
        },
    });
    let beat = beat.to_string();
    for name in ["evil", "other"] {
        // Under another's name, too, which is not shown at all.
        let subject = stage.broker.names().heartbeat(name);
        let ack = stage
            .broker
            .jetstream()
            .publish(subject, beat.clone().into());
        ack.await?.await?;
    }
    for arguments in [
        &["status"][..],
        &["status", "words"],
        &["status", "--json"],
        &["status", "words", "--json"],
    ] {
        let text = output(coord(&stage)?.args(arguments))?;
        harmless(&text)?;
        ensure!(text.contains("evil") && text.contains("owned"), "{text}");
        ensure!(text.matches("sits_out").count() <= 1, "{text}");
    }
    Ok(())
}
