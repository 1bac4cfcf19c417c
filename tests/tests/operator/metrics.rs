//! What machines see of real programs: metrics, health and readiness, while a sweep runs and while servers are away.
#![expect(clippy::unwrap_used, reason = "a test ends where something is wrong")]

use halfheard_e2e::{
    PATIENCE,
    finished::{self, Cell, Matrix},
    programs::{Process, output},
    servers::Postgres,
    site::Site,
};
use halfheard_shared::benchmark::Benchmark;
use halfheard_store::Store;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// 32 characters at least.
const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// One program's address.
struct Watched {
    port: u16,
}

impl Watched {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        Self { port }
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The status and the body; 0 while nobody listens.
    fn get(&self, path: &str, header: &str) -> (u16, String) {
        let Ok(mut stream) = TcpStream::connect(self.address()) else {
            return (0, String::new());
        };
        stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{header}\r\n",
            self.address()
        );
        let mut answer = String::new();
        if stream.write_all(request.as_bytes()).is_err()
            || stream.read_to_string(&mut answer).is_err()
        {
            return (0, answer);
        }
        let status = answer
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        (status.unwrap_or(0), body.to_owned())
    }

    fn metrics(&self) -> String {
        let (status, text) = self.get("/metrics", "");
        assert_eq!(status, 200, "{text}");
        text
    }

    /// The value of a series, with its labels as the text has them.
    fn value(&self, series: &str) -> Option<f64> {
        value(&self.metrics(), series)
    }

    /// Waits until `path` answers `status` and the body holds `part`.
    fn until(&self, path: &str, status: u16, part: &str) {
        let since = Instant::now();
        loop {
            let (now, body) = self.get(path, "");
            if now == status && body.contains(part) {
                return;
            }
            assert!(since.elapsed() < PATIENCE, "{path} stays {now}: {body}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until a series has a value that is `enough`.
    fn until_value(&self, series: &str, enough: impl Fn(f64) -> bool) {
        let since = Instant::now();
        while !self.value(series).is_some_and(&enough) {
            assert!(since.elapsed() < PATIENCE, "{series} in {}", self.metrics());
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

fn value(text: &str, series: &str) -> Option<f64> {
    let mut lines = text.lines();
    lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

/// The metrics in a text, each with its HELP and TYPE, and no series without.
fn families(text: &str) -> BTreeSet<String> {
    let mut described: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut names = BTreeSet::new();
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.split(' ');
            let (what, name) = (words.next().unwrap(), words.next().unwrap());
            assert!(
                described.entry(name).or_default().insert(what),
                "{line} twice"
            );
            continue;
        }
        let name = line.split(['{', ' ']).next().unwrap();
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|suffix| {
                name.strip_suffix(suffix)
                    .filter(|name| described.contains_key(name))
            })
            .unwrap_or(name);
        assert_eq!(described.get(family).map(BTreeSet::len), Some(2), "{line}");
        names.insert(family.to_owned());
    }
    names
}

/// What the reference lists under a heading.
fn documented(program: &str) -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = std::fs::read_to_string(root.join("docs/reference/metrics.md")).unwrap();
    let section = page.split(&format!("\n## {program}\n")).nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| row.split('`').next().unwrap().to_owned())
        .collect()
}

/// Has promtool check a text, where there is promtool.
fn lint(text: &str) {
    let unpacked =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../.deps/prometheus/usr/bin/promtool");
    let promtool = if unpacked.exists() {
        unpacked
    } else {
        PathBuf::from("promtool")
    };
    let started = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = started else {
        return eprintln!("promtool not found: metrics are not linted");
    };
    child
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
}

/// A program's children, whichever of its threads started them.
fn children(process: u32) -> Vec<u32> {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let of_thread = |thread: std::io::Result<std::fs::DirEntry>| {
        let path = thread.unwrap().path().join("children");
        std::fs::read_to_string(path).unwrap_or_default()
    };
    let text: String = threads.map(of_thread).collect();
    text.split_whitespace()
        .map(|pid| pid.parse().unwrap())
        .collect()
}

/// A coordinator that leads and a worker.
struct Scene {
    site: Site,
    coord: Watched,
    worker: Watched,
}

impl Scene {
    /// A sweep of two trainings with three cases each, a leader, and nobody who works.
    fn start() -> (Self, Process) {
        let site = Site::start().unwrap();
        site.spec("watched", &[1, 2]).unwrap();
        output(&mut site.coord(&["submit", "watched.toml"]).unwrap()).unwrap();
        let (coord, worker) = (Watched::new(), Watched::new());
        let mut leader = site.coord(&["serve", "--http", &coord.address()]).unwrap();
        let leader = Process::spawn(&mut leader).unwrap();
        (
            Self {
                site,
                coord,
                worker,
            },
            leader,
        )
    }

    /// Returns the names of what a coordinator exports while work waits.
    fn before_work(&self) -> BTreeSet<String> {
        let coord = &self.coord;
        coord.until("/readyz", 200, r#""ok":true"#);
        let ready = r#"halfheard_jobs{kind="train",state="ready"}"#;
        coord.until_value(ready, |jobs| jobs == 2.0);
        coord.until_value("halfheard_leader", |leads| leads == 1.0);
        let text = coord.metrics();
        for (series, expected) in [
            (r#"halfheard_sweeps{state="running"}"#, 1.0),
            (r#"halfheard_jobs{kind="eval",state="blocked"}"#, 6.0),
            (
                r#"halfheard_jobs_without_estimate{kind="train",state="ready"}"#,
                2.0,
            ),
        ] {
            assert_eq!(value(&text, series), Some(expected), "{series}");
        }
        assert!(value(&text, "halfheard_queue_age_seconds").unwrap() >= 0.0);
        assert!(
            text.contains(r#"name="watched",state="ready"} 2"#),
            "{text}"
        );
        families(&text)
    }

    /// A standby that other machines reach: ready, and its metrics ask for the token.
    fn standby_asks_for_its_token(&self) {
        let standby = Watched::new();
        let file = self.site.folder().join("token");
        std::fs::write(&file, TOKEN).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let everywhere = format!("0.0.0.0:{}", standby.port);
        let arguments = ["serve", "--http", &everywhere, "--http-token-file", "token"];
        let _process = Process::spawn(&mut self.site.coord(&arguments).unwrap()).unwrap();
        standby.until("/readyz", 200, r#""ok":true"#);
        assert_eq!(standby.get("/metrics", "").0, 401);
        assert_eq!(standby.get("/healthz", "").0, 200);
        let authorized = format!("Authorization: Bearer {TOKEN}\r\n");
        let (status, text) = standby.get("/metrics", &authorized);
        let leads = value(&text, "halfheard_leader");
        assert_eq!((status, leads), (200, Some(0.0)), "{text}");
    }

    async fn work(&self) -> Process {
        let mut command = self.site.worker("w").unwrap();
        command.args(["--http", &self.worker.address(), "--save-every", "0.01"]);
        let process = Process::spawn(&mut command).unwrap();
        self.worker.until("/readyz", 200, r#""slot 0":"ok""#);
        assert_eq!(self.site.finished().await.unwrap(), 8);
        let done = r#"halfheard_jobs{kind="eval",state="done"}"#;
        self.coord.until_value(done, |jobs| jobs == 6.0);
        let done = r#"halfheard_worker_jobs_total{slot="0",kind="train",outcome="done"}"#;
        self.worker.until_value(done, |jobs| jobs == 2.0);
        process
    }

    /// Checks what both export once the sweep is done, with the names that were `seen` before.
    async fn after_work(&self, mut seen: BTreeSet<String>) {
        let (coord, worker) = (self.coord.metrics(), self.worker.metrics());
        for (series, expected) in [
            (r#"halfheard_results_total{kind="train"}"#, 2.0),
            (r#"halfheard_results_total{kind="eval"}"#, 6.0),
            ("halfheard_jobs_granted_total", 8.0),
            ("halfheard_dead_letters_total", 0.0),
            (r#"halfheard_sweeps{state="finished"}"#, 1.0),
            (r#"halfheard_workers{state="idle"}"#, 1.0),
        ] {
            assert_eq!(value(&coord, series), Some(expected), "{series}");
        }
        let of_worker = |name: &str| value(&worker, &format!("halfheard_worker_{name}"));
        let steps = of_worker(r#"steps_total{slot="0",method="almt"}"#);
        let samples = of_worker(r#"samples_total{slot="0",method="almt"}"#);
        let train = "SELECT train_samples::bigint FROM dataset";
        let each = self.site.until(train, |_| true).await.unwrap() as f64;
        // Two jobs, four epochs, batches of 16.
        assert_eq!(steps, Some(2.0 * 4.0 * (each / 16.0).ceil()));
        assert_eq!(samples, Some(2.0 * 4.0 * each));
        assert!(of_worker(r#"save_seconds_count{slot="0"}"#).unwrap() >= 1.0);

        seen.extend(families(&coord));
        // What this sweep is too short and too healthy for: unit tests show them.
        for rare in [
            "training_step_seconds",
            "training_samples_per_second",
            "worker_sitting_out_seconds",
            "sweep_gpu_seconds",
        ] {
            seen.insert(format!("halfheard_{rare}"));
        }
        assert_eq!(seen, documented("Coordinator"));
        assert_eq!(families(&worker), documented("Worker"));
        lint(&coord);
        lint(&worker);
    }

    fn killed_slot_comes_back(&self, supervisor: &Process) {
        let slot = Pid::from_raw(children(supervisor.id())[0].cast_signed());
        kill(slot, Signal::SIGKILL).unwrap();
        self.worker.until("/readyz", 503, "starting");
        assert_eq!(self.worker.get("/healthz", "").0, 200);
        self.worker.until("/readyz", 200, r#""slot 0":"ok""#);
        let crashes = r#"halfheard_worker_slot_crashes_total{slot="0"}"#;
        assert_eq!(self.worker.value(crashes), Some(1.0));
    }

    /// Without a database: not ready, and healthy, and the last values stay with their age.
    fn database_goes_away(&mut self) {
        let coord = &self.coord;
        self.site.postgres.kill().unwrap();
        coord.until("/readyz", 503, r#""broker":"ok""#);
        assert_eq!(coord.get("/healthz", "").0, 200);
        let away = coord.metrics();
        assert_eq!(value(&away, "halfheard_database_up"), Some(0.0));
        let done = r#"halfheard_jobs{kind="eval",state="done"}"#;
        assert_eq!(value(&away, done), Some(6.0), "the last values stay");
        let age = value(&away, "halfheard_snapshot_age_seconds").unwrap();
        coord.until_value("halfheard_snapshot_age_seconds", |now| now > age + 6.0);
        self.site.postgres.resume().unwrap();
        coord.until("/readyz", 200, r#""ok":true"#);
        coord.until_value("halfheard_snapshot_age_seconds", |now| now < age + 6.0);
        let errors = r#"halfheard_database_errors_total{fault="transient"}"#;
        assert!(coord.value(errors).unwrap() >= 1.0);
    }

    fn broker_goes_away(&mut self) {
        let (coord, worker) = (&self.coord, &self.worker);
        self.site.nats.kill().unwrap();
        worker.until("/readyz", 503, "not connected");
        coord.until("/readyz", 503, r#""database":"ok""#);
        for watched in [coord, worker] {
            assert_eq!(watched.get("/healthz", "").0, 200);
        }
        self.site.nats.resume().unwrap();
        for watched in [coord, worker] {
            watched.until("/readyz", 200, r#""ok":true"#);
        }
        let reconnects = r#"halfheard_worker_reconnects_total{slot="0"}"#;
        worker.until_value(reconnects, |times| times == 1.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_export_what_the_reference_lists_through_a_sweep_and_outages() {
    let (mut scene, _leader) = Scene::start();
    let seen = scene.before_work();
    scene.standby_asks_for_its_token();
    let worker = scene.work().await;
    scene.after_work(seen).await;
    scene.killed_slot_comes_back(&worker);
    scene.database_goes_away();
    scene.broker_goes_away();
}

async fn run(store: &Store, statement: &'static str) {
    sqlx::query(statement).execute(store.pool()).await.unwrap();
}

#[tokio::test]
async fn pace_and_cost_come_from_the_rows_of_jobs_in_progress() {
    let postgres = Postgres::start().unwrap();
    let address = postgres.url().parse().unwrap();
    let store = Store::connect_with_retry(&address).await.unwrap();
    store.migrate().await.unwrap();
    let matrix = Matrix {
        name: "pace".to_owned(),
        models: vec![("almt".to_owned(), String::new())],
        datasets: vec![Benchmark::Mosi],
        seeds: vec![1, 2],
    };
    let answer = |cell: &Cell<'_>| finished::measured(cell, cell.labels.to_vec());
    let sweep = finished::fill(&store, &matrix, answer).await.unwrap();
    assert!(store.paces().await.unwrap().is_empty(), "nothing trains");
    run(&store, "ALTER TABLE job DISABLE TRIGGER job_state_changes").await;
    // Attempts of one slot overlap.
    run(
        &store,
        "UPDATE attempt SET started = '2026-01-01 00:00:00Z', ended = '2026-01-01 00:02:40Z',
                worker = 'w' || (SELECT seed FROM job WHERE job.id = attempt.job)",
    )
    .await;
    let busy = store.busy_seconds(&[sweep]).await.unwrap();
    assert_eq!(busy, [(sweep, 320.0)]);
    run(
        &store,
        "INSERT INTO epoch_log (job, epoch, attempt, losses, metrics, train_seconds, eval_seconds, best_for)
         SELECT a.job, epoch, a.id, '{}', '{}', epoch, 1, '{}'
         FROM attempt a JOIN job j ON j.id = a.job, (VALUES (9001), (9002)) e (epoch)
         WHERE j.kind = 'train'",
    )
    .await;
    run(
        &store,
        "UPDATE job SET state = 'running', lease_until = now(), worker = 'w',
                attempt = coalesce(attempt, id), session = coalesce(session, id)
         WHERE kind = 'train'",
    )
    .await;
    let paces = store.paces().await.unwrap();
    let [pace] = paces.as_slice() else {
        panic!("{paces:?}");
    };
    assert_eq!(
        (pace.method.as_str(), pace.jobs, pace.seconds),
        ("almt", 2, 9002.0)
    );
    assert!(pace.samples > 0);
    let hyper: serde_json::Value = serde_json::from_str(&pace.hyper).unwrap();
    assert!(hyper.is_object(), "{hyper}");
}
