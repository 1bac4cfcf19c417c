//! What operators are told: each event once, whichever coordinator leads, by a command and by a webhook.

use anyhow::{Context as _, Result, ensure};
use halfheard_coordinator::notify::{NotifyOptions, Webhook};
use halfheard_e2e::{
    PATIENCE,
    programs::{self, Process},
    stage::{Coordinator, Stage},
    sweeps::{eval_job, matrix, noops, sweep, train_job},
    worker::{Act, ScriptedWorker},
};
use halfheard_shared::wire::{
    FailureKind, Fault, FaultKind, Heartbeat, JobMessage, Trouble, WorkerInfo,
};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpListener,
};
use tokio_util::sync::CancellationToken;

/// A script that stores each event in a file of its own.
fn script(folder: &Path) -> Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let path = folder.join("tell.sh");
    let text = "#!/bin/sh\nset -eu\nout=$(mktemp \"$1/event.XXXXXX\")\ncat >\"$out.part\"\n\
                printf '\\n%s\\n%s\\n' \"$HALFHEARD_EVENT\" \"${HALFHEARD_SWEEP_NAME:-}\" >>\"$out.part\"\n\
                mv \"$out.part\" \"$out.told\"\n";
    fs::write(&path, text)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

/// What the script was told so far.
fn told(folder: &Path) -> Result<Vec<Value>> {
    let mut events = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "told") {
            let text = fs::read_to_string(&path)?;
            let mut lines = text.lines();
            let event: Value = serde_json::from_str(lines.next().context("empty")?)?;
            assert_eq!(lines.next(), event["event"].as_str());
            let name = event["sweep"]["name"].as_str();
            assert_eq!(lines.next(), Some(name.unwrap_or_default()));
            events.push(event);
        }
    }
    Ok(events)
}

fn kinds(events: &[Value]) -> Vec<&str> {
    let mut kinds: Vec<&str> = events.iter().filter_map(|e| e["event"].as_str()).collect();
    kinds.sort_unstable();
    kinds
}

/// A web server that keeps what is posted, and answers the first request with 503.
async fn hook() -> Result<(String, Arc<Mutex<Vec<(u16, String)>>>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = format!("http://{}/T0/secret-path", listener.local_addr()?);
    let posts: Arc<Mutex<Vec<(u16, String)>>> = Arc::default();
    let kept = posts.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut stream = BufReader::new(stream);
            let (mut line, mut length) = (String::new(), 0);
            while stream.read_line(&mut line).await.is_ok_and(|read| read > 2) {
                if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap_or(0);
                }
                line.clear();
            }
            let mut body = vec![0; length];
            if stream.read_exact(&mut body).await.is_err() {
                continue;
            }
            let answer = {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                let status = if kept.is_empty() { 503 } else { 200 };
                kept.push((status, String::from_utf8_lossy(&body).into_owned()));
                format!("HTTP/1.1 {status} Said\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            };
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    Ok((address, posts))
}

/// The real program: killed in the middle, it tells of the end once, by both ways, and shows no secret.
#[tokio::test(flavor = "multi_thread")]
async fn end_of_a_sweep_is_told_once_across_restarts() -> Result<()> {
    let stage = Stage::start().await?;
    let folder = tempfile::tempdir()?;
    let script = script(folder.path())?;
    let (address, posts) = hook().await?;
    let sweep = sweep("a \"night's\" sweep; $(id)", 0);
    stage
        .store
        .submit(&sweep, matrix(&sweep, 0..3, &["r=0", "r=0.5"]))
        .await?;
    let broken = eval_job(&sweep, 1, "r=0.5");
    let _worker = ScriptedWorker::start(
        &stage.broker,
        "w",
        Arc::new(move |job, _| match job.job == broken {
            true => Act::Fail(FailureKind::Permanent, vec!["no such rate".to_owned()]),
            false => Act::Delay(Duration::from_millis(300)),
        }),
    );
    let log = folder.path().join("log");
    let serve = || -> Result<Process> {
        let mut command = programs::coord(&stage)?;
        let notify = format!("{} {}", script.display(), folder.path().display());
        command
            .args(["serve", "--once", "-v", "--notify", &notify])
            .env("HALFHEARD_NOTIFY_WEBHOOK", &address)
            .stderr(
                fs::OpenOptions::new()
                    .append(true)
                    .create(true)
                    .open(&log)?,
            );
        Process::spawn(&mut command)
    };
    let first = serve()?;
    stage
        .until(sweep.id, PATIENCE, |progress| progress.done > 0)
        .await?;
    first.kill()?;
    stage.end_lead().await?;
    let status = serve()?.wait(PATIENCE)?;
    assert_eq!(status.code(), Some(3), "one job failed");
    let events = told(folder.path())?;
    assert_eq!(kinds(&events), ["sweep_finished"]);
    let sweep = &events[0]["sweep"];
    assert_eq!(
        (&sweep["jobs"]["done"], &sweep["jobs"]["failed"]),
        (&8.into(), &1.into())
    );
    assert_eq!(sweep["failures"][0]["errors"][0], "no such rate");
    let text = events[0]["text"].as_str().context("no text")?;
    assert!(
        text.contains("finished: 8 of 9 jobs done, 1 failed"),
        "{text}"
    );
    {
        let posts = posts.lock().unwrap_or_else(PoisonError::into_inner);
        let statuses: Vec<u16> = posts.iter().map(|(status, _)| *status).collect();
        assert_eq!(statuses, [503, 200], "tried again once");
        assert_eq!(serde_json::from_str::<Value>(&posts[1].1)?, events[0]);
    }
    // Once more, with nothing left to do.
    assert_eq!(serve()?.wait(PATIENCE)?.code(), Some(3));
    assert_eq!(told(folder.path())?.len(), 1);
    let log = fs::read_to_string(&log)?;
    assert!(
        log.contains("sweep_finished") && !log.contains("secret"),
        "{log}"
    );
    Ok(())
}

/// A worker that sits out, as its heartbeat says.
fn sitting_out() -> Result<Heartbeat> {
    let worker = WorkerInfo {
        name: "gpu7-0".to_owned(),
        host: "gpu7".to_owned(),
        device: "cpu".to_owned(),
        version: "0".to_owned(),
        processor: String::new(),
    };
    let json = serde_json::json!({
        "worker": worker, "pid": 1, "at_ms": 100_000, "memory_bytes": 0, "doing": null,
    });
    let mut beat: Heartbeat = serde_json::from_value(json)?;
    let chain = vec!["permission \u{1b}[2Jdenied".to_owned()];
    beat.trouble = Some(Trouble {
        fault: Fault::new(FaultKind::Store, "the artifact store", chain),
        since_ms: 0,
        times: 3,
        next_try_ms: None,
        sits_out: true,
    });
    Ok(beat)
}

/// Waits until the script was told so much.
async fn until(folder: &Path, expected: &[&str]) -> Result<Vec<Value>> {
    let since = Instant::now();
    loop {
        let events = told(folder)?;
        if kinds(&events) == expected {
            return Ok(events);
        }
        ensure!(since.elapsed() < PATIENCE, "told {:?}", kinds(&events));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A sweep without workers, one with too many failures, a worker that sits out, and a refused message;
/// a coordinator that takes over tells none of them again.
#[tokio::test(flavor = "multi_thread")]
async fn troubles_are_told_once_with_their_reasons() -> Result<()> {
    let stage = Stage::start().await?;
    let folder = tempfile::tempdir()?;
    let command = vec![
        script(folder.path())?.display().to_string(),
        folder.path().display().to_string(),
    ];
    let serve = || -> Coordinator {
        stage.serve_with(halfheard_coordinator::orchestrator::options::ServeOptions {
            notify: Some(NotifyOptions {
                command: Some(command.clone()),
                webhook: None::<Webhook>,
                after: Duration::from_secs(1),
                every: Duration::from_millis(100),
            }),
            ..Stage::options()
        })
    };
    // What is over before anybody looks is not told.
    let old = sweep("old", 0);
    stage.store.submit(&old, noops(&old, 0)).await?;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let coordinator = serve();
    let waits = sweep("waits", 0);
    let mut strict = sweep("strict", 0);
    strict.terms.max_failures = Some(Some(0));
    stage.store.submit(&waits, noops(&waits, 1)).await?;
    let events = until(folder.path(), &["sweep_stalled"]).await?;
    assert_eq!(events[0]["reason"], "no worker is connected");
    assert_eq!(events[0]["sweep"]["name"], "waits");

    let beat = serde_json::to_vec(&sitting_out()?)?;
    let names = stage.broker.names();
    let client = stage.broker.client();
    client
        .publish(names.heartbeat("gpu7-0"), beat.into())
        .await?;
    let events = until(folder.path(), &["sweep_stalled", "worker_sits_out"]).await?;
    let event = events
        .iter()
        .find(|e| e["worker"] == "gpu7-0")
        .context("no worker")?;
    let text = event["text"].as_str().context("no text")?;
    assert!(
        text.contains("sits out for 1 min 40 s: cannot use the artifact store"),
        "{text:?}"
    );
    assert!(!text.contains('\u{1b}'), "{text:?}");

    let subject = names.result("gpu7-0");
    stage
        .broker
        .jetstream()
        .publish(subject, "?".into())
        .await?
        .await?;
    stage
        .store
        .submit(&strict, matrix(&strict, 0..2, &[]))
        .await?;
    stage.store.pause(waits.id, None).await?;
    let bad = train_job(&strict, 0);
    let never = CancellationToken::new();
    let act = move |job: &JobMessage, _| match job.job == bad {
        true => Act::Fail(FailureKind::Permanent, vec!["bad data".to_owned()]),
        false => Act::WaitFor(never.clone()),
    };
    let worker = ScriptedWorker::start(&stage.broker, "w", Arc::new(act));
    let expected = [
        "dead_letters",
        "sweep_paused",
        "sweep_stalled",
        "worker_sits_out",
    ];
    until(folder.path(), &expected).await?;
    drop(worker);
    coordinator.kill().await;
    stage.end_lead().await?;
    let second = serve();
    tokio::time::sleep(Duration::from_secs(3)).await;
    second.stop().await?;
    assert_eq!(kinds(&told(folder.path())?), expected, "told again");
    Ok(())
}
