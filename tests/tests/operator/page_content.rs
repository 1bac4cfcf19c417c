//! What the page says about trainings, workers, results and failures, on real servers: numbers, links,
//! states, files; and that nothing of what specs, workers and programs say is taken for markup.
#![expect(clippy::unwrap_used, reason = "a test ends where something is wrong")]

use halfheard_e2e::{
    PATIENCE,
    browser::Served,
    finished::{self, Matrix},
    stage::Stage,
};
use halfheard_shared::{
    benchmark::Benchmark,
    ids::{JobId, SweepId},
};
use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};
use uuid::Uuid;

/// What no page may run or obey.
const HOSTILE: &str = "<script>alert(1)</script>\u{202e}\u{1b}[31m";

/// A sweep of LNLN with two seeds, as days of work would leave it.
struct Scene {
    stage: Stage,
    sweep: SweepId,
    /// The training of the first seed, which is done.
    done: JobId,
    /// That of the second seed, which has failed.
    failed: JobId,
    served: Served,
}

impl Scene {
    async fn new() -> Self {
        let stage = Stage::start().await.unwrap();
        let matrix = Matrix {
            name: "content".to_owned(),
            models: vec![("lnln".to_owned(), String::new())],
            datasets: vec![Benchmark::Mosi],
            seeds: vec![1111, 1112],
        };
        let sweep = finished::simulated(&stage.store, &matrix).await.unwrap();
        let training = |seed: i64| {
            sqlx::query_scalar::<_, Uuid>("SELECT id FROM job WHERE kind = 'train' AND seed = $1")
                .bind(seed)
                .fetch_one(stage.store.pool())
        };
        let (done, failed) = (training(1111).await.unwrap(), training(1112).await.unwrap());
        age(&stage, done, failed).await;
        let served = Served::start(&stage, &["--http-control"]).await.unwrap();
        let scene = Self {
            stage,
            sweep,
            done: JobId(done),
            failed: JobId(failed),
            served,
        };
        // It answers at once, and has pages once it is connected.
        let since = Instant::now();
        while scene.ask("/").0 != 200 {
            assert!(since.elapsed() < PATIENCE, "no page");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        scene
    }

    /// The answer to a GET: its status, head and body.
    fn ask(&self, path: &str) -> (u16, String, String) {
        let address = self
            .served
            .url
            .trim_start_matches("http://")
            .trim_end_matches('/');
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut text = Vec::new();
        stream.read_to_end(&mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_lowercase(), body.to_owned())
    }

    /// A page that is as pages have to be.
    fn page(&self, path: &str) -> String {
        let (status, head, body) = self.ask(path);
        assert_eq!(status, 200, "{path}: {body}");
        assert!(
            head.contains("content-security-policy: default-src 'none'"),
            "{head}"
        );
        assert!(
            !body.contains("<script>") && !body.contains('\u{202e}'),
            "{path}: {body}"
        );
        assert!(
            !body.contains(" style=") && !body.contains("<style"),
            "{path} has inline style"
        );
        assert_eq!(body.matches("<h1>").count(), 1, "{path}");
        assert_eq!(
            body.matches("<table").count(),
            body.matches("<caption>").count(),
            "{path}"
        );
        ids_are_unique(path, &body);
        body
    }

    fn until(&self, path: &str, enough: impl Fn(&str) -> bool) -> String {
        let since = Instant::now();
        loop {
            let (_, _, body) = self.ask(path);
            if enough(&body) {
                return self.page(path);
            }
            assert!(since.elapsed() < PATIENCE, "{path} stays {body}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    async fn beat(&self, name: &str, host: &str, rest: serde_json::Value) {
        let worker = serde_json::json!({
            "name": name, "host": host, "device": format!("GPU {HOSTILE}"), "version": "7.7",
        });
        let mut beat = serde_json::json!({
            "worker": worker, "pid": 1, "at_ms": 1_800_000_000_000_u64, "memory_bytes": 2_500_000_000_u64,
            "doing": null, "device_memory": 85_000_000_000_u64,
        });
        beat.as_object_mut()
            .unwrap()
            .extend(rest.as_object().unwrap().clone());
        let broker = &self.stage.broker;
        let subject = broker.names().heartbeat(name);
        broker
            .client()
            .publish(subject, beat.to_string().into())
            .await
            .unwrap();
        broker.client().flush().await.unwrap();
    }
}

/// Epochs, output, a failed training with its evaluations, a decline and a dead letter.
async fn age(stage: &Stage, done: Uuid, failed: Uuid) {
    let mut connection = stage.store.pool().acquire().await.unwrap();
    sqlx::raw_sql("SET session_replication_role = replica")
        .execute(&mut *connection)
        .await
        .unwrap();
    for (epoch, loss, mae) in [(1, "0.9", "1.25"), (2, "0.5", "1.125"), (3, "0.4", "null")] {
        for job in [done, failed] {
            sqlx::query(
                "INSERT INTO epoch_log (job, epoch, attempt, losses, metrics, train_seconds,
                                        eval_seconds, best_for)
                 SELECT $1, $2, a.id, $3::jsonb, $4::jsonb, 2, 1,
                        CASE $2 WHEN 2 THEN ARRAY['mae'] ELSE '{}' END
                 FROM attempt a WHERE a.job = $1",
            )
            .bind(job)
            .bind(epoch)
            .bind(format!(r#"{{"loss": {loss}, "part": {loss}}}"#))
            .bind(format!(r#"{{"mae": {mae}, "acc7": 0.25}}"#))
            .execute(&mut *connection)
            .await
            .unwrap();
        }
    }
    sqlx::query(
        "INSERT INTO attempt_output (attempt, tail, bytes, stored)
         SELECT id, $2, 100, false FROM attempt WHERE job = $1",
    )
    .bind(done)
    .bind(format!("50%\r100%\r\nlast line {HOSTILE}\n"))
    .execute(&mut *connection)
    .await
    .unwrap();
    for statement in [
        "UPDATE job SET state = 'failed', failures = 1, last_error = $2 WHERE $1 IN (id, train_job)",
        "UPDATE attempt SET outcome = 'failed', failure_kind = 'out_of_memory', errors = ARRAY['no step', $2]
         WHERE job = $1",
        "INSERT INTO attempt (id, job, worker, session, host, ended, outcome, failure_kind, errors)
         VALUES (gen_random_uuid(), $1, 'lame-0', gen_random_uuid(), 'lame', now(), 'handed_back',
                 'data_folder', ARRAY[$2])",
        "INSERT INTO dead_letter (subject, sequence, reason, payload)
         SELECT 'SUBJECT', 7, $2, '' WHERE $1 IS NOT NULL",
        "DELETE FROM attempt WHERE job IN (SELECT id FROM job WHERE train_job = $1) AND $2 <> ''",
    ] {
        sqlx::query(statement)
            .bind(failed)
            .bind(HOSTILE)
            .execute(&mut *connection)
            .await
            .unwrap();
    }
    sqlx::raw_sql("SET session_replication_role = origin; SELECT recount(id) FROM sweep")
        .execute(&mut *connection)
        .await
        .unwrap();
}

fn ids_are_unique(path: &str, body: &str) {
    let mut ids: Vec<&str> = body
        .split(" id=\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .collect();
    ids.sort_unstable();
    let all = ids.len();
    ids.dedup();
    assert_eq!(all, ids.len(), "{path}: {ids:?}");
}

#[track_caller]
fn contains(body: &str, parts: &[&str]) {
    for part in parts {
        assert!(body.contains(part), "no {part} in {body}");
    }
}

fn training_is_told(scene: &Scene) {
    let page = scene.page(&format!("/trainings/{}", scene.done));
    let escaped = "&lt;script&gt;alert(1)&lt;/script&gt;\u{fffd}\u{fffd}[31m";
    contains(
        &page,
        &[
            "<h1>lnln on mosi, seed 1111</h1>",
            &format!("<a href=\"/sweeps/{}\">content</a>", scene.sweep),
            &format!("<a href=\"/trainings/{}\">1112</a> (failed)", scene.failed),
            // Learning curves in the unit of tables, beside the other seed, with the best epoch.
            "loss by epoch. seed 1112: 0.900 at 1 to 0.400 at 3. seed 1111 (this one): 0.900 at 1",
            "MAE by epoch. seed 1112: 1.250 at 1 to 1.125 at 2. seed 1111 (this one): 1.250 at 1 to 1.125 at 2. kept: epoch 2: 1.125.",
            "Acc-7, % by epoch. seed 1112: 25.000",
            "16 of 16 cases are evaluated",
            "class=\"published\"",
            "Missing modalities",
        ],
    );
    contains(
        &page,
        &[
            "simulated",
            "last line ",
            escaped,
            "100%\nlast line",
            "checkpoints",
            "redrawn",
        ],
    );
    assert!(!page.contains("/retry\""), "nothing has failed here");
    let page = scene.page(&format!("/trainings/{}", scene.failed.short()));
    contains(
        &page,
        &[
            &format!("action=\"/jobs/{}/retry\"", scene.failed),
            "failed (out of memory)",
            &format!("caused by: </span>{escaped}"),
            "0 of 16 cases are evaluated",
        ],
    );
    assert_eq!(scene.ask("/trainings/ffffffffffff").0, 404);
}

async fn evaluation_leads_to_its_training(scene: &Scene) {
    let query = "SELECT id FROM job WHERE train_job = $1 LIMIT 1";
    let pool = scene.stage.store.pool();
    let eval: Uuid = sqlx::query_scalar(query)
        .bind(scene.done.0)
        .fetch_one(pool)
        .await
        .unwrap();
    let (status, head, _) = scene.ask(&format!("/trainings/{eval}"));
    assert_eq!(status, 303);
    assert!(
        head.contains(&format!("location: /trainings/{}#cases", scene.done)),
        "{head}"
    );
}

fn failures_are_grouped(scene: &Scene) {
    for path in [
        format!("/sweeps/{}/failures", scene.sweep),
        "/failures".to_owned(),
    ] {
        let page = scene.page(&path);
        contains(
            &page,
            &[
                "17 jobs</span>: &lt;script&gt;",
                "Failed for good (out of memory): 1 job, 1 attempt. 16 evaluation jobs",
                &format!(
                    "<a href=\"/trainings/{}\">train lnln on mosi, seed 1112</a>",
                    scene.failed
                ),
                "a device with more memory",
                &format!("action=\"/sweeps/{}/retry\"", scene.sweep),
                "Retry 17 failed jobs",
                "<a href=\"/workers?filter=lame-0\">lame-0</a>",
                "data folder",
            ],
        );
        assert_eq!(page.contains("Dead letters"), path == "/failures");
    }
}

fn tables_and_figures_are_there(scene: &Scene) {
    let base = format!("/sweeps/{}", scene.sweep);
    let page = scene.page(&format!("{base}/results"));
    contains(
        &page,
        &[
            "16 of 32 evaluations are done",
            &format!("<a href=\"{base}/tables/2\">Table 2. "),
            "wait for results",
            &format!("href=\"{base}/tables/9.csv\""),
            &format!("src=\"{base}/figures/2.svg?inline=1&amp;done="),
            "Figure 8 cannot be drawn yet: ",
        ],
    );
    for absent in [
        "/tables/3\"",
        "/tables/4\"",
        "/figures/6.svg",
        "/figures/7.svg",
    ] {
        assert!(
            !page.contains(absent),
            "{absent} says nothing about this sweep"
        );
    }
    for table in [
        "2",
        "8",
        "13",
        "cases",
        "curves",
        "laziness",
        "robustness",
        "ranks",
    ] {
        scene.page(&format!("{base}/tables/{table}"));
    }
    let compared = scene.page(&format!("{base}/tables/2?compare=published"));
    contains(
        &compared,
        &["published", "difference", "tables/2.csv?compare=published"],
    );
    let (status, head, csv) = scene.ask(&format!("{base}/tables/2.csv"));
    assert_eq!(status, 200);
    assert!(
        head.contains("filename=\"table-2.csv\"") && head.contains("text/csv"),
        "{head}"
    );
    assert!(csv.starts_with("table,dataset,case,method"), "{csv}");
    for end in ["tex", "md", "json"] {
        assert_eq!(scene.ask(&format!("{base}/tables/9.{end}")).0, 200);
    }
    for (path, status) in [
        ("tables/1", 404),
        ("tables/2.exe", 404),
        ("tables/2?optimism=1", 400),
        ("figures/3.svg", 404),
        ("figures/8.svg", 404),
        ("figures/8.svg?inline=1", 200),
    ] {
        assert_eq!(scene.ask(&format!("{base}/{path}")).0, status, "{path}");
    }
    let (status, head, svg) = scene.ask(&format!("{base}/figures/5.svg"));
    assert_eq!(status, 200, "{svg}");
    assert!(head.contains("content-type: image/svg+xml") && head.contains("default-src 'none'"));
    assert!(
        svg.contains("<svg") && !svg.contains("style="),
        "the policy forbids inline style"
    );
    scene.page(&format!("{base}/figures/5"));
}

async fn workers_are_told(scene: &Scene) {
    contains(&scene.page("/workers"), &["No worker was heard"]);
    let doing = serde_json::json!({
        "sweep": scene.sweep, "job": scene.done, "what": format!("train {HOSTILE}"), "epoch": 4,
        "max_epochs": 9, "step": 5, "steps": 10, "loss": 0.5,
    });
    scene
        .beat(
            "busy-1-0",
            "alpha",
            serde_json::json!({"doing": doing, "labels": ["big"]}),
        )
        .await;
    let fault = serde_json::json!({"kind": "dataset", "what": "dataset mosi", "chain": [HOSTILE]});
    let trouble = serde_json::json!({
        "fault": fault, "since_ms": 1_799_999_990_000_u64, "times": 3,
        "next_try_ms": 1_800_000_060_000_u64, "sits_out": true,
    });
    scene
        .beat("sick-1-0", "beta", serde_json::json!({"trouble": trouble}))
        .await;
    scene.beat("rest-1-0", "beta", serde_json::json!({})).await;
    scene.stage.store.drain("rest-1", "operator").await.unwrap();
    scene.stage.store.drain("gone-1", "operator").await.unwrap();
    let page = scene.until("/workers", |page| page.contains("3 workers on 2 machines"));
    contains(
        &page,
        &[
            "1 at work</a>",
            "1 drained</a>",
            "1 sitting out</a>",
            &format!("<a href=\"/trainings/{}\">train &lt;script&gt;", scene.done),
            // Of the last epoch: 10 steps in 2 s.
            "5.0 /s",
            "2.5 GB",
            "85.0 GB",
            "sits out: ",
            "for 10 s, retries in 1 min 0 s",
            "drained by operator",
            "action=\"/workers/busy-1-0/drain\"",
            "action=\"/workers/rest-1/undrain\"",
            "Drained, and not heard",
            "action=\"/workers/gone-1/undrain\"",
            "All have version 7.7",
        ],
    );
    let found = scene.page("/workers?filter=BIG");
    assert!(
        found.contains("worker-busy-1-0") && !found.contains("worker-rest-1-0"),
        "{found}"
    );
    let out = scene.page("/workers?state=out&filter=%3Cscript%3E");
    assert!(
        out.contains("worker-sick-1-0") && !out.contains("worker-busy-1-0"),
        "{out}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn content_pages_tell_what_there_is_and_run_nothing_of_it() {
    let scene = Scene::new().await;
    training_is_told(&scene);
    evaluation_leads_to_its_training(&scene).await;
    failures_are_grouped(&scene);
    tables_and_figures_are_there(&scene);
    workers_are_told(&scene).await;
}
