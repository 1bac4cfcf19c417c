//! The page of `coord serve --http` on real servers: who may look, what it shows, what it changes, and what
//! it says during an outage.
#![expect(clippy::unwrap_used, reason = "a test ends where something is wrong")]

use halfheard_e2e::{
    PATIENCE,
    finished::{self, Cell, Matrix},
    programs::{Process, coord},
    stage::Stage,
};
use halfheard_shared::{benchmark::Benchmark, ids::SweepId};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs::File,
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const HOSTILE: &str = "<img src=x onerror=alert(1)> & \"co\"";

/// A daemon with a page on a free port.
struct Daemon {
    process: Process,
    port: u16,
}

impl Daemon {
    fn start(stage: &Stage, flags: &[&str]) -> Self {
        let log = stage.data_dir().join("page.log");
        let mut command = coord(stage).unwrap();
        command
            .args(["serve", "--http", "127.0.0.1:0", "--color", "never"])
            .args(flags)
            .stderr(File::create(&log).unwrap());
        let process = Process::spawn(&mut command).unwrap();
        let daemon = Self {
            port: port_in(&log),
            process,
        };
        daemon.until("/style.css", |answer| answer.status == 200);
        daemon
    }

    /// Sends a request with further lines in its head.
    fn ask(&self, method: &str, path: &str, head: &[&str], body: &str) -> Answer {
        let mut stream = self.open(method, path, head, body);
        let mut text = Vec::new();
        stream.read_to_end(&mut text).unwrap();
        Answer::of(&String::from_utf8(text).unwrap())
    }

    fn open(&self, method: &str, path: &str, head: &[&str], body: &str) -> TcpStream {
        let mut lines = vec![format!("{method} {path} HTTP/1.1")];
        if !head.iter().any(|line| line.starts_with("Host:")) {
            lines.push(format!("Host: 127.0.0.1:{}", self.port));
        }
        lines.extend(head.iter().map(ToString::to_string));
        if !body.is_empty() {
            lines.push("Content-Type: application/x-www-form-urlencoded".to_owned());
        }
        lines.push(format!("Content-Length: {}", body.len()));
        lines.push("Connection: close\r\n\r\n".to_owned());
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
            .write_all(format!("{}{body}", lines.join("\r\n")).as_bytes())
            .unwrap();
        stream
    }

    fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], "")
    }

    /// Posts a form as the page's own forms do.
    fn post(&self, path: &str, head: &[&str], body: &str) -> Answer {
        let own = [&["Sec-Fetch-Site: same-origin"], head].concat();
        self.ask("POST", path, &own, body)
    }

    fn until(&self, path: &str, enough: impl Fn(&Answer) -> bool) -> Answer {
        let since = Instant::now();
        loop {
            let answer = self.get(path);
            if enough(&answer) {
                return answer;
            }
            assert!(since.elapsed() < PATIENCE, "{path} answers {answer:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn of(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        Self {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head: head.to_lowercase(),
            body: body.to_owned(),
        }
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines();
        let found = lines.find_map(|line| line.strip_prefix(&format!("{name}: ")));
        found.map(str::trim)
    }
}

fn port_in(log: &Path) -> u16 {
    let since = Instant::now();
    loop {
        let text = std::fs::read_to_string(log).unwrap();
        let port = text
            .split_once("http://127.0.0.1:")
            .and_then(|(_, rest)| rest.split_once('/'))
            .and_then(|(port, _)| port.parse().ok());
        if let Some(port) = port {
            return port;
        }
        assert!(since.elapsed() < PATIENCE, "no address in {text}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What a `coord serve` says that ends at once.
fn refused(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{command:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// A finished sweep of one method with two seeds, of which one evaluation has failed.
async fn sweep(stage: &Stage, name: &str) -> SweepId {
    let matrix = Matrix {
        name: name.to_owned(),
        models: vec![("almt".to_owned(), String::new())],
        datasets: vec![Benchmark::Mosi],
        seeds: vec![7, 8],
    };
    // The truth, but for 0.5: a mean absolute error that a page can be searched for.
    let answer = |cell: &Cell<'_>| {
        let off = cell.labels.iter().map(|label| label + 0.5).collect();
        finished::measured(cell, off)
    };
    let sweep = finished::fill(&stage.store, &matrix, answer).await.unwrap();
    sqlx::raw_sql(
        "ALTER TABLE job DISABLE TRIGGER job_state_changes;
         UPDATE job SET state = 'failed', last_error = 'it broke' WHERE id =
             (SELECT id FROM job WHERE kind = 'eval' AND seed = 8 ORDER BY position LIMIT 1);
         ALTER TABLE job ENABLE TRIGGER job_state_changes;",
    )
    .execute(stage.store.pool())
    .await
    .unwrap();
    sweep
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "one scenario, step by step")]
async fn page_shows_sweeps_refuses_others_and_outlives_outages() {
    let mut stage = Stage::start().await.unwrap();
    let sweep = sweep(&stage, HOSTILE).await;
    let daemon = Daemon::start(&stage, &[]);
    let list = daemon.until("/", |answer| answer.status == 200);
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "deny"),
        ("cache-control", "no-store"),
        ("referrer-policy", "same-origin"),
    ] {
        assert_eq!(list.header(name), Some(value), "{name}");
    }
    let policy = list.header("content-security-policy").unwrap();
    assert!(
        policy.starts_with("default-src 'none'; style-src 'self'") && !policy.contains("unsafe")
    );
    let escaped = "&lt;img src=x onerror=alert(1)&gt; &amp; &quot;co&quot;";
    assert!(
        list.body.contains(escaped) && !list.body.contains("<img"),
        "{}",
        list.body
    );
    assert!(list.body.contains("97 %, 33 of 34 jobs"), "{}", list.body);
    assert!(
        list.body.contains("finished with failures"),
        "{}",
        list.body
    );
    assert!(!list.body.contains("<form"), "read-only");

    let map = daemon.get(&format!("/sweeps/{sweep}"));
    assert_eq!(map.status, 200);
    assert!(
        map.body.contains("ALMT") && map.body.contains("validation"),
        "{}",
        map.body
    );
    assert!(
        map.body.contains("</span>0.500</a>"),
        "a number of seed 7: {}",
        map.body
    );
    assert!(
        map.body.contains("✗ trained <small>15/16</small>"),
        "{}",
        map.body
    );
    assert!(map.body.contains(escaped) && !map.body.contains("<img"));
    let other = daemon.get(&format!("/sweeps/{sweep}?metric=corr"));
    assert!(other.body.contains("</span>1.000</a>"), "{}", other.body);
    let short = daemon.get(&format!("/sweeps/{}", sweep.short()));
    assert_eq!(
        short.header("location"),
        Some(format!("/sweeps/{sweep}").as_str())
    );
    for (path, status) in [
        ("/sweeps/none", 404),
        ("/nowhere", 404),
        ("/sweeps/%00", 404),
    ] {
        assert_eq!(daemon.get(path).status, status, "{path}");
    }

    let foreign = daemon.ask("GET", "/", &["Host: evil.example:9350"], "");
    assert_eq!(foreign.status, 421);
    assert!(!foreign.body.contains("onerror"));
    let pause = format!("/sweeps/{sweep}/pause");
    assert_eq!(
        daemon.post(&pause, &[], "").status,
        403,
        "no --http-control"
    );
    assert_eq!(daemon.get(&pause).status, 405);

    // Whoever listens hears of a change, and the end.
    let mut events = daemon.open("GET", "/events", &[], "");
    let mut heard = String::new();
    hear(&mut events, &mut heard, 1);
    stage
        .store
        .set_terms(sweep, &halfheard_store::terms::Terms::with_priority(3))
        .await
        .unwrap();
    hear(&mut events, &mut heard, 2);
    daemon.until("/", |answer| answer.body.contains("<dd>3</dd>"));

    stage.postgres.kill().unwrap();
    let away = daemon.until("/", |answer| answer.status == 503);
    assert_eq!(away.header("retry-after"), Some("5"));
    assert!(
        away.body.contains("comes back when the database does"),
        "{}",
        away.body
    );
    assert_eq!(daemon.get("/style.css").status, 200);
    stage.postgres.resume().unwrap();
    daemon.until("/", |answer| answer.status == 200);

    let since = Instant::now();
    kill(
        Pid::from_raw(daemon.process.id().cast_signed()),
        Signal::SIGTERM,
    )
    .unwrap();
    events.read_to_string(&mut heard).unwrap();
    assert!(daemon.process.wait(PATIENCE).unwrap().success());
    assert!(
        since.elapsed() < Duration::from_secs(30),
        "listeners hold the end up"
    );
}

/// Reads events until so many changes were told.
fn hear(events: &mut TcpStream, heard: &mut String, changes: usize) {
    let mut buffer = [0; 4096];
    while heard.matches("event: change").count() < changes {
        let read = events.read(&mut buffer).unwrap();
        assert!(read > 0, "the end after {heard}");
        heard.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "one scenario, step by step")]
async fn page_changes_what_its_own_forms_ask_for() {
    let stage = Stage::start().await.unwrap();
    let sweep = sweep(&stage, "steered").await;
    let daemon = Daemon::start(&stage, &["--http-control", "--http-user-header", "X-User"]);
    let ann = "X-User: ann";
    let nobody = daemon.until("/", |answer| answer.status != 503);
    assert_eq!(nobody.status, 401);
    let list = daemon.ask("GET", "/", &[ann], "");
    assert!(
        list.body.contains("<form") && list.body.contains(">ann<"),
        "{}",
        list.body
    );
    let path = |what: &str| format!("/sweeps/{sweep}/{what}");
    let state = async || -> (String, i32) {
        sqlx::query_as("SELECT state::text, priority FROM sweep")
            .fetch_one(stage.store.pool())
            .await
            .unwrap()
    };

    for site in [
        &["Sec-Fetch-Site: cross-site"][..],
        &["Sec-Fetch-Site: same-site"],
        &["Origin: http://evil.example"],
        &["Origin: null"],
        &[],
    ] {
        let head = [&[ann], site].concat();
        let answer = daemon.ask("POST", &path("pause"), &head, "");
        assert_eq!(answer.status, 403, "{site:?}");
    }
    assert_eq!(state().await.0, "running");
    let own = format!("Origin: http://127.0.0.1:{}", daemon.port);
    let paused = daemon.ask("POST", &path("pause"), &[ann, &own], "");
    assert_eq!(paused.status, 303);
    assert_eq!(state().await.0, "paused");
    let told = daemon.ask("GET", paused.header("location").unwrap(), &[ann], "");
    assert!(
        told.body.contains("Paused: jobs in progress continue"),
        "{}",
        told.body
    );
    let lie = daemon.ask("GET", "/?did=<b>paid</b>", &[ann], "");
    assert!(!lie.body.contains("paid"));
    daemon.post(&path("resume"), &[ann], "");
    assert_eq!(
        daemon.post(&path("priority"), &[ann], "priority=-5").status,
        303
    );
    assert_eq!(
        daemon
            .post(&path("priority"), &[ann], "priority=many")
            .status,
        400
    );
    assert_eq!(state().await, ("running".to_owned(), -5));

    let failed: String = sqlx::query_scalar("SELECT id::text FROM job WHERE state = 'failed'")
        .fetch_one(stage.store.pool())
        .await
        .unwrap();
    let again = daemon.post(&format!("/jobs/{failed}/retry"), &[ann], "");
    let shown = again.header("location").unwrap();
    assert!(
        shown.starts_with("/trainings/") && shown.ends_with("?did=retried-1"),
        "{shown}"
    );
    assert_eq!(
        stage
            .count("SELECT count(*) FROM job WHERE state = 'failed'")
            .await
            .unwrap(),
        0
    );
    let asks = daemon.ask("GET", &path("cancel"), &[ann], "");
    assert!(
        asks.body.contains("Its 1 unfinished jobs stop"),
        "{}",
        asks.body
    );
    daemon.post(&path("cancel"), &[ann], "");
    assert_eq!(state().await.0, "cancelled");
    let goes_on = daemon.post(&path("retry"), &[ann], "");
    // The result of the one job is there.
    assert!(
        goes_on
            .header("location")
            .unwrap()
            .ends_with("?did=resumed"),
        "{goes_on:?}"
    );
    assert_eq!(state().await.0, "running");

    daemon.post("/workers/gpu7-12/drain", &[ann], "x=");
    let drained = stage.store.drained().await.unwrap();
    assert_eq!(
        (drained[0].worker.as_str(), drained[0].by.as_str()),
        ("gpu7-12", "ann")
    );
    assert_eq!(
        daemon.post("/workers/a%20b/drain", &[ann], "x=").status,
        400
    );
    daemon.post("/workers/gpu7-12/undrain", &[ann], "");
    assert!(stage.store.drained().await.unwrap().is_empty());
    let log = std::fs::read_to_string(stage.data_dir().join("page.log")).unwrap();
    assert!(
        log.contains("user=\"ann\"") && log.contains("did=\"priority--5\""),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn token_opens_the_page_and_nothing_else_does() {
    let stage = Stage::start().await.unwrap();
    let file = stage.data_dir().join("token");
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let name = file.to_str().unwrap().to_owned();
    let serve = |flags: &[&str]| {
        let mut command = coord(&stage).unwrap();
        command.arg("serve").args(flags);
        command
    };
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let open = refused(&mut serve(&[
        "--http",
        "127.0.0.1:0",
        "--http-token-file",
        &name,
    ]));
    assert!(
        open.contains("others can read the token") && open.contains("hint: chmod"),
        "{open}"
    );
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let wide = refused(&mut serve(&["--http", "0.0.0.0:0"]));
    assert!(wide.contains("hint: pass --http-token-file"), "{wide}");

    let daemon = Daemon::start(&stage, &["--http-token-file", &name]);
    let taken = refused(&mut serve(&[
        "--http",
        &format!("127.0.0.1:{}", daemon.port),
    ]));
    assert!(
        taken.contains("cannot serve the page at") && taken.contains("hint:"),
        "{taken}"
    );

    let bearer = format!("Authorization: Bearer {TOKEN}");
    let head = |line: &str| daemon.ask("GET", "/", &[line], "").status;
    daemon.until("/", |answer| answer.status != 503);
    assert_eq!(head("X: y"), 401);
    assert_eq!(head(&bearer), 200);
    let form = daemon.ask("GET", "/workers", &["Accept: text/html"], "");
    assert!(
        form.status == 401 && form.body.contains("name=\"to\" value=\"/workers\""),
        "{form:?}"
    );
    assert_eq!(
        form.header("www-authenticate"),
        Some("bearer realm=\"halfheard\"")
    );

    let login = daemon.post("/login", &[], &format!("token={TOKEN}&to=%2Fworkers"));
    assert_eq!(
        (login.status, login.header("location")),
        (303, Some("/workers"))
    );
    let cookie = login.header("set-cookie").unwrap();
    assert!(
        cookie.contains("httponly; samesite=strict") && !cookie.contains(TOKEN),
        "{cookie}"
    );
    let cookie = format!("Cookie: {}", cookie.split(';').next().unwrap());
    assert_eq!(head(&cookie), 200);
    assert_eq!(head(&format!("{cookie}0")), 401);
    assert_eq!(
        daemon
            .ask("POST", "/login", &["Sec-Fetch-Site: cross-site"], "token=x")
            .status,
        403
    );

    let guess = || daemon.post("/login", &[], "token=guess").status;
    assert_eq!(guess(), 401);
    let mut guesses: Vec<u16> = (0..10).map(|_| guess()).collect();
    assert_eq!(guesses.pop(), Some(429));
    assert_eq!(guesses, [401; 9]);
    assert_eq!(
        head(&bearer),
        429,
        "not even the right one may be guessed now"
    );
    assert_eq!(head(&cookie), 200, "who is logged in goes on");
    let log = std::fs::read_to_string(stage.data_dir().join("page.log")).unwrap();
    assert!(log.contains("wrong token") && !log.contains(TOKEN), "{log}");
}
