//! The page of `coord serve --http` in a real browser: sweeps in every state with hostile names, and a whole sweep of the
//! demo's size that is driven through the page alone. The checks are in `tests/browser`.

use anyhow::{Result, ensure};
use halfheard_e2e::{
    browser::{Browser, Served},
    finished::{self, Matrix},
    programs::{Process, coord, output, worker},
    stage::Stage,
    sweeps::{self, matrix, train_job},
    tiny::Tiny,
};
use halfheard_shared::{
    benchmark::Benchmark,
    ids::{JobId, SweepId},
    wire::{self, WorkerInfo},
};
use halfheard_store::Store;
use serde_json::json;
use sqlx::AssertSqlSafe;
use std::{collections::HashMap, path::Path, time::Duration};
use tokio::task::JoinHandle;
use uuid::Uuid;

/// What no page may run, follow or obey: markup, quotes, a right-to-left override, an escape sequence.
const HOSTILE: &str = "</script><script>window.hacked=1</script><img src=x onerror=\"window.hacked=1\">\"'&amp; \u{202e}live\u{1b}[31m\u{7}";
/// A part of it that has to be seen as it is.
const SHOWN: &str = "</script><script>window.hacked=1</script><img src=x onerror=";
/// The demo's cases.
const CASES: [&str; 16] = [
    "r=0",
    "r=0.1",
    "r=0.2",
    "r=0.3",
    "r=0.4",
    "r=0.5",
    "r=0.6",
    "r=0.7",
    "r=0.8",
    "r=0.9",
    "missing=l",
    "missing=a",
    "missing=v",
    "missing=la",
    "missing=lv",
    "missing=av",
];

/// Runs statements with the state machine's trigger off: rows as days of work would leave them.
async fn rewrite(store: &Store, statements: &[String]) -> Result<()> {
    let mut connection = store.pool().acquire().await?;
    sqlx::query("SET session_replication_role = replica")
        .execute(&mut *connection)
        .await?;
    for statement in statements {
        sqlx::query(AssertSqlSafe(statement.clone()))
            .execute(&mut *connection)
            .await?;
    }
    sqlx::query("SET session_replication_role = origin")
        .execute(&mut *connection)
        .await?;
    Ok(())
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Twenty epochs of every training job, with a loss of this name beside the total.
async fn add_curves(store: &Store, loss: &str) -> Result<()> {
    let curves = format!(
        "INSERT INTO epoch_log
         SELECT j.id, e, a.id,
                jsonb_build_object('loss', 1.6 * exp(-e / 7.0) + 0.4 + 0.03 * sin(e * 3 + j.seed), {}, 0.7 / e),
                jsonb_build_object('mae', 0.8 + 0.5 * exp(-e / 5.0) + 0.02 * cos(e * 2 + j.seed), 'corr', 0.7 - 0.5 / e),
                12.5, 1.5, CASE WHEN e IN (1, 2, 4, 9, 17) THEN ARRAY['mae'] ELSE ARRAY[]::text[] END
         FROM job j JOIN attempt a ON a.job = j.id, generate_series(1, 20) AS e WHERE j.kind = 'train'
         ON CONFLICT DO NOTHING",
        literal(loss)
    );
    rewrite(store, &[curves]).await
}

/// A finished sweep with curves and a hostile name.
async fn finished_sweep(store: &Store) -> Result<SweepId> {
    let matrix = Matrix {
        name: HOSTILE.to_owned(),
        models: ["almt", "lnln"]
            .map(|m| (m.to_owned(), String::new()))
            .into(),
        datasets: vec![Benchmark::Mosi],
        seeds: vec![1111, 1112, 1113],
    };
    let sweep = finished::simulated(store, &matrix).await?;
    add_curves(store, HOSTILE).await?;
    Ok(sweep)
}

/// A sweep whose training jobs are in all states, with the job of each state.
async fn sweep_in_all_states(store: &Store) -> Result<(SweepId, HashMap<&'static str, JobId>)> {
    let sweep = sweeps::sweep("states", 3);
    let states = ["ready", "queued", "running", "done", "failed", "cancelled"];
    let seeds = 1..=states.len() as u64;
    store
        .submit(&sweep, matrix(&sweep, seeds.clone(), &CASES))
        .await?;
    let mut statements = Vec::new();
    let mut jobs = HashMap::new();
    for (seed, state) in seeds.zip(states) {
        let id = train_job(&sweep, seed);
        jobs.insert(state, id);
        // Held for a day by a worker that nobody knows.
        let held = match state {
            "queued" | "running" => {
                "worker = 'gpu-0', attempt = gen_random_uuid(), session = gen_random_uuid(), started = now(),
                 lease_until = now() + interval '1 day',"
            }
            _ => "",
        };
        statements.push(format!(
            "UPDATE job SET {held} state = '{state}' WHERE id = '{id}'"
        ));
    }
    // Nobody is to begin with what is ready.
    statements.push(format!(
        "UPDATE job SET label = 'nobody' WHERE sweep = '{}'",
        sweep.id
    ));
    let failed = train_job(&sweep, 5);
    let error = literal(HOSTILE);
    statements.push(format!(
        "UPDATE job SET failures = 3, last_error = {error}, finished = now(), attempt = gen_random_uuid(),
                worker = 'gpu-0' WHERE id = '{failed}'"
    ));
    statements.push(format!(
        "UPDATE job SET state = 'failed', last_error = 'training job failed' WHERE train_job = '{failed}'"
    ));
    statements.push(format!(
        "INSERT INTO attempt (id, job, worker, session, host, device, version, started, ended, outcome, failure_kind, errors)
         SELECT coalesce(attempt, gen_random_uuid()), id, {error}, gen_random_uuid(), {error}, {error}, {error},
                now() - interval '9 minutes', now(), 'failed', 'permanent', ARRAY[{error}, 'the cause of it']
         FROM job WHERE id = '{failed}'"
    ));
    statements.push(format!(
        "INSERT INTO attempt_output SELECT id, {error}, 100, false FROM attempt WHERE job = '{failed}'"
    ));
    for (seed, state) in [(4, "ready"), (6, "cancelled")] {
        let train = train_job(&sweep, seed);
        statements.push(format!(
            "UPDATE job SET state = '{state}' WHERE train_job = '{train}'"
        ));
    }
    rewrite(store, &statements).await?;
    Ok((sweep.id, jobs))
}

/// Leads in the place of a coordinator, and does nothing: the page is a standby's, and rows stay as they were written.
async fn hold_lead(store: &Store) -> Result<JoinHandle<()>> {
    let lead = "UPDATE leadership SET holder = 'the test', expires = clock_timestamp() + interval '10 seconds'";
    sqlx::query(lead).execute(store.pool()).await?;
    let store = store.clone();
    Ok(tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let _ = sqlx::query(lead).execute(store.pool()).await;
        }
    }))
}

/// Says every second that a worker is there that asks for nothing, and whose every word is `text`.
fn babbling_worker(
    stage: &Stage,
    name: &str,
    text: &str,
    (sweep, job): (SweepId, JobId),
) -> JoinHandle<()> {
    let broker = stage.broker.clone();
    let worker = WorkerInfo {
        name: name.to_owned(),
        host: text.to_owned(),
        device: text.to_owned(),
        version: text.to_owned(),
        processor: text.to_owned(),
    };
    let beat = json!({
        "worker": worker, "pid": 7, "at_ms": 0, "memory_bytes": 3_000_000_000_u64, "wire": wire::VERSION,
        "labels": [text], "methods": ["lnln"], "device_memory": 85_899_345_920_u64,
        "doing": {
            "sweep": sweep, "job": job, "what": text, "epoch": 3, "max_epochs": 20,
            "step": 5, "steps": 40, "loss": 0.5,
        },
    });
    tokio::spawn(async move {
        let subject = broker.names().heartbeat(&worker.name);
        loop {
            let _ = broker
                .client()
                .publish(subject.clone(), beat.to_string().into())
                .await;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    })
}

/// Every kind of page: opens, loads nothing from elsewhere, shows hostile text as text, can be read by everybody.
#[tokio::test(flavor = "multi_thread")]
async fn pages_hold_in_a_browser() -> Result<()> {
    let Some(browser) = Browser::find()? else {
        return Ok(());
    };
    let stage = Stage::start().await?;
    let finished = finished_sweep(&stage.store).await?;
    let (states, jobs) = sweep_in_all_states(&stage.store).await?;
    let lead = hold_lead(&stage.store).await?;
    let served = Served::start(&stage, &[]).await?;
    let babbling = babbling_worker(&stage, "gpu-1", HOSTILE, (states, jobs["running"]));
    let (map, failed) = (format!("/sweeps/{finished}"), jobs["failed"]);
    let scene = json!({
        "url": served.url,
        "finished": {"map": map, "results": format!("{map}/results")},
        "states": {"map": format!("/sweeps/{states}"), "jobs": jobs},
        "hostile": {"shown": SHOWN, "pages": ["/", "/workers", "/failures", format!("/trainings/{failed}"), map]},
    });
    let looked = browser.run("page.test.mjs", &scene).await;
    babbling.abort();
    lead.abort();
    looked
}

/// The demo's two methods with their sixteen cases, and a program that fails until a file is there.
fn demo(folder: &Path, flag: &Path) -> Result<String> {
    Tiny::make(folder, 96)?;
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/external/mean.py");
    std::fs::copy(program, folder.join("mean.py"))?;
    std::fs::write(
        folder.join("gate.py"),
        "import json, os, runpy, sys\n\
         job = json.load(open(os.environ['HALFHEARD_JOB']))\n\
         if not os.path.exists(job['hyper']['flag']): sys.exit('the license server does not answer')\n\
         runpy.run_path('mean.py', run_name='__main__')\n",
    )?;
    let spec = folder.join("demo.toml");
    std::fs::write(
        &spec,
        format!(
            r#"
            name = "demo"
            methods = ["almt", "lnln", "mean"]
            seeds = [1111]
            rates = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
            missing = ["l", "a", "v", "la", "lv", "av"]
            epochs = 6
            [datasets.mosi]
            file = "tiny.safetensors"
            [encoders.en]
            path = "tiny-encoder"
            [hyper.almt]
            batch_size = 16
            width = 16
            [hyper.lnln]
            batch_size = 16
            width = 16
            tokens = 4
            heads = 4
            [[external]]
            id = "mean"
            command = ["python3", "gate.py"]
            files = ["gate.py", "mean.py"]
            [external.hyper]
            rate = 0.05
            sleep = 0.0
            flag = "{}"
            "#,
            flag.display()
        ),
    )?;
    Ok(spec.display().to_string())
}

/// A whole sweep of the demo's size through the page alone: paused, given a priority, resumed, watched live, a failed job
/// retried, a worker drained.
#[tokio::test(flavor = "multi_thread")]
async fn sweep_is_driven_through_the_page_alone() -> Result<()> {
    let Some(browser) = Browser::find()? else {
        return Ok(());
    };
    let stage = Stage::start().await?;
    let served = Served::start(&stage, &["--http-control", "--attempts", "1"]).await?;
    let folder = tempfile::tempdir()?;
    let flag = folder.path().join("license");
    let spec = demo(folder.path(), &flag)?;
    output(coord(&stage)?.args(["submit", &spec]))?;
    let mut command = worker(&stage)?;
    command.args(["--allow-external", "--slots", "2", "--name", "desk"]);
    // It begins when the page has paused the sweep.
    let begin = folder.path().join("begin");
    let started = tokio::spawn(start_when(begin.clone(), command));
    let scene = json!({"url": served.url, "flag": flag, "begin": begin, "jobs": 51, "workers": ["desk-0", "desk-1"]});
    if let Err(error) = browser.run("operator.test.mjs", &scene).await {
        return Err(error.context(stage.not_done().await));
    }

    let _workers = started.await??;
    let sweep = stage.store.find_sweep("demo").await?;
    let progress = stage.store.progress(sweep.id).await?;
    ensure!((progress.done, progress.failed) == (51, 0), "{progress:?}");
    ensure!(stage.count("SELECT priority::bigint FROM sweep").await? == 7);
    ensure!(stage.count("SELECT count(*) FROM conflict").await? == 0);
    ensure!(stage.count("SELECT count(*) FROM drained_worker").await? == 0);
    Ok(())
}

/// Starts a process once the file is there.
async fn start_when(
    file: std::path::PathBuf,
    mut command: std::process::Command,
) -> Result<Process> {
    while !file.exists() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Process::spawn(&mut command)
}

/// A sweep of the paper's methods in the middle of its way: the first are done, some run, one failed, the last wait.
async fn half_done(store: &Store) -> Result<(SweepId, Vec<JobId>)> {
    let matrix = Matrix {
        name: "robustness".to_owned(),
        models: finished::paper_methods(),
        datasets: vec![Benchmark::Mosi, Benchmark::Sims],
        seeds: finished::SEEDS.to_vec(),
    };
    let sweep = finished::simulated(store, &matrix).await?;
    add_curves(store, "reconstruction").await?;
    // Training jobs by how far the sweep is, methods in turn.
    let part = |from: i64, to: i64| {
        format!(
            "(SELECT id FROM (SELECT id, row_number() OVER (ORDER BY position) AS n FROM job
              WHERE sweep = '{sweep}' AND kind = 'train') AS t WHERE n BETWEEN {from} AND {to})"
        )
    };
    let (failed, begun, waiting) = (part(26, 26), part(27, 30), part(31, 1000));
    let error = literal("the loss is not finite at epoch 3");
    let lost = |jobs: &str| {
        [
            format!(
                "DELETE FROM result WHERE job IN (SELECT id FROM job WHERE train_job IN {jobs})"
            ),
            format!(
                "DELETE FROM evaluation WHERE job IN (SELECT id FROM job WHERE train_job IN {jobs})"
            ),
            format!("DELETE FROM checkpoint WHERE job IN {jobs}"),
        ]
    };
    // Since this morning: training takes ten minutes or so, an evaluation some seconds.
    let mut statements = vec![
        "CREATE TEMP TABLE span AS SELECT id, ended, ended - make_interval(secs =>
             CASE kind WHEN 'train' THEN 540 + 40 * (seed % 4) ELSE 6 + seed % 4 END) AS started
         FROM (SELECT *, now() - interval '5 hours' * (1 - position / 1000.0) AS ended FROM job) AS j"
            .to_owned(),
        "UPDATE attempt SET device = 'NVIDIA H100', started = span.started, ended = span.ended,
                seconds = extract(epoch FROM span.ended - span.started) FROM span WHERE span.id = job"
            .to_owned(),
        "UPDATE job SET started = span.started, finished = span.ended FROM span WHERE span.id = job.id".to_owned(),
        "UPDATE sweep SET created = now() - interval '6 hours'".to_owned(),
    ];
    for (jobs, evaluations) in [
        (&failed, "failed"),
        (&begun, "blocked"),
        (&waiting, "blocked"),
    ] {
        statements.extend(lost(jobs));
        statements.push(format!(
            "UPDATE job SET state = '{evaluations}' WHERE train_job IN {jobs}"
        ));
    }
    statements.extend([
        format!("UPDATE job SET state = 'failed', failures = 3, last_error = {error} WHERE id IN {failed}"),
        format!("UPDATE attempt SET outcome = 'failed', failure_kind = 'non_finite', errors = ARRAY['training', {error}] WHERE job IN {failed}"),
        format!("DELETE FROM epoch_log WHERE job IN {failed} AND epoch > 2 OR job IN {begun} AND epoch > 9 OR job IN {waiting}"),
        format!("DELETE FROM attempt WHERE job IN {waiting}"),
        format!("UPDATE attempt SET ended = NULL, outcome = NULL, started = now() - interval '9 minutes' WHERE job IN {begun}"),
        format!(
            "UPDATE job SET state = 'running', finished = NULL, started = now() - interval '9 minutes', worker = 'gpu-0',
                    lease_until = now() + interval '1 day', session = gen_random_uuid(),
                    attempt = (SELECT id FROM attempt WHERE job = job.id LIMIT 1) WHERE id IN {begun}"
        ),
        format!("UPDATE job SET state = 'ready', started = NULL, finished = NULL, worker = NULL, label = 'a100' WHERE id IN {waiting}"),
    ]);
    rewrite(store, &statements).await?;
    let begun: Vec<Uuid> = sqlx::query_scalar(AssertSqlSafe(format!(
        "SELECT id FROM job WHERE id IN {begun}"
    )))
    .fetch_all(store.pool())
    .await?;
    Ok((sweep, begun.into_iter().map(JobId).collect()))
}

/// Pictures of the page and a recording of `coord top` for the documentation.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "writes docs/images: `make screenshots`"]
async fn screenshots() -> Result<()> {
    let browser = Browser::find()?;
    let browser = browser.ok_or_else(|| anyhow::anyhow!("no browser: run `make browser`"))?;
    let stage = Stage::start().await?;
    let (sweep, begun) = half_done(&stage.store).await?;
    let lead = hold_lead(&stage.store).await?;
    let served = Served::start(&stage, &["--http-control"]).await?;
    let workers: Vec<JoinHandle<()>> = begun
        .iter()
        .enumerate()
        .map(|(slot, job)| {
            babbling_worker(&stage, &format!("gpu-{slot}"), "NVIDIA H100", (sweep, *job))
        })
        .collect();
    let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/images");
    let scene = json!({"url": served.url, "map": format!("/sweeps/{sweep}"), "images": images});
    browser.run("screenshots.mjs", &scene).await?;
    // Sweeps, the map, two cells to the right, its training, workers, failures, and the end.
    let steps = [
        "110x26",
        "4:2",
        "2:\\e[C\\e[C",
        "2:\\r",
        "3:3",
        "2:5",
        "2:q",
    ];
    let mut top = coord(&stage)?;
    browser
        .record(top.arg("top"), &images.join("top.svg"), &steps)
        .await?;
    workers.iter().for_each(JoinHandle::abort);
    lead.abort();
    Ok(())
}
