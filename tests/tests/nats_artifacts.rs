//! Artifacts in the broker's object store with the shipped logins, and the compose file's quick start:
//! its own commands with its own variables, on real servers.

use anyhow::{Context as _, Result, ensure};
use halfheard_e2e::{
    programs::{Process, output, program},
    servers::Postgres,
    shipped::{COORD_PASSWORD, Compose, Service, ShippedNats, WORKER_PASSWORD, interpolate},
    tiny::Tiny,
};
use halfheard_shared::{
    artifacts::{ArtifactStore, Key},
    dataset::DataFolder,
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(240);

/// A command without this process's `HALFHEARD_*` variables.
fn bare(name: &str) -> Result<Command> {
    let mut command = Command::new(program(name)?);
    for (variable, _) in std::env::vars_os() {
        let name = variable.to_string_lossy().into_owned();
        if name.starts_with("HALFHEARD_") && name != "HALFHEARD_DEPS" {
            command.env_remove(variable);
        }
    }
    command
        .env("HALFHEARD_CONFIG", "/dev/null")
        .env("RUST_LOG", "info")
        .stdin(Stdio::null());
    Ok(command)
}

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
        let text = format!(
            r#"
            name = "{name}"
            methods = ["lnln"]
            seeds = [{seed}]
            rates = [0.0]
            epochs = 1
            [datasets.mosi]
            file = "tiny.safetensors"
            [encoders.en]
            path = "tiny-encoder"
            [hyper.lnln]
            batch_size = 16
            width = 16
            tokens = 4
            heads = 4
            "#
        );
        let path = folder.path().join(format!("{name}.toml"));
        std::fs::write(&path, text)?;
        Ok(path)
    };
    let url = nats_url(&nats, "coord", COORD_PASSWORD);
    let coord = || -> Result<Command> {
        let mut command = bare("coord")?;
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
        bare("worker")?
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

/// A container's folders on this machine, by where they are mounted.
fn places(
    service: &Service,
    values: &BTreeMap<&str, String>,
    folders: &BTreeMap<&str, PathBuf>,
) -> Result<Vec<(String, PathBuf)>> {
    service
        .volumes
        .iter()
        .map(|volume| {
            let volume = interpolate(volume, values)?;
            let mut parts = volume.split(':');
            let source = parts.next().context("a source")?;
            let target = parts.next().context("a target")?;
            let here = folders
                .get(source)
                .with_context(|| format!("`{source}` is mounted and not known here"))?;
            Ok((target.to_owned(), here.clone()))
        })
        .collect()
}

/// An argument or variable, translated to this machine.
fn here(word: &str, places: &[(String, PathBuf)]) -> String {
    let place = places
        .iter()
        .find(|(target, _)| word == target || word.starts_with(&format!("{target}/")));
    match place {
        Some((target, folder)) => format!("{}{}", folder.display(), &word[target.len()..]),
        None => word.to_owned(),
    }
}

#[expect(clippy::too_many_lines, reason = "one scenario, step by step")]
#[tokio::test(flavor = "multi_thread")]
async fn compose_quick_start_works_as_written() -> Result<()> {
    let compose = Compose::read()?;
    let nats = ShippedNats::start()?;
    let postgres = Postgres::start()?;
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name);
    for name in ["specs", "features", "volume", "worker"] {
        std::fs::create_dir_all(at(name))?;
    }
    // The demo, but small.
    let demo = std::fs::read_to_string(halfheard_e2e::shipped::deploy().join("demo.toml"))?;
    let mut small = demo;
    for (old, new) in [
        ("methods = [\"almt\", \"lnln\"]", "methods = [\"almt\"]"),
        ("epochs = 6", "epochs = 1"),
        ("train = 256", "train = 32"),
        ("valid = 64", "valid = 8"),
        ("test = 128", "test = 8"),
    ] {
        ensure!(small.contains(old), "deploy/demo.toml has no `{old}`");
        small = small.replacen(old, new, 1);
    }
    std::fs::write(at("specs/demo.toml"), small)?;

    let values = BTreeMap::from([
        ("NATS_COORD_PASSWORD", COORD_PASSWORD.to_owned()),
        ("NATS_WORKER_PASSWORD", WORKER_PASSWORD.to_owned()),
        ("POSTGRES_PASSWORD", "unused".to_owned()),
    ]);
    let deps = std::env::var_os("HALFHEARD_DEPS");
    let deps = deps.map_or_else(
        || halfheard_e2e::shipped::deploy().join("../.deps"),
        PathBuf::from,
    );
    let folders = BTreeMap::from([
        (".", at("specs")),
        ("./data", at("features")),
        ("data", at("volume")),
        ("../.deps/encoder", deps.join("encoder")),
    ]);
    let command = |name: &str, service: &Service, own: &Path| -> Result<Command> {
        let places = places(service, &values, &folders)?;
        let mut command = bare(name)?;
        command.env("HOME", own).current_dir(own);
        for (variable, value) in &service.environment {
            let value = interpolate(value, &values)?;
            let value = match variable.as_str() {
                "HALFHEARD_NATS_URL" => value.replace("nats:4222", &nats.host()),
                // The test's Postgres needs no password.
                "HALFHEARD_DATABASE_URL" => postgres.url(),
                _ if value == "/var/lib/halfheard" && name == "worker" => own.display().to_string(),
                _ => here(&value, &places),
            };
            ensure!(
                !value.contains("/var/lib/halfheard"),
                "{name}: {variable} is in the container's own folder, gone with it"
            );
            command.env(variable, value);
        }
        Ok(command)
    };
    let coord = &compose.services["coord"];
    let worker = &compose.services["worker"];
    let writes_nowhere = coord.text.contains("read_only: true");
    ensure!(writes_nowhere, "the container of coord may write");
    let _serve = Process::spawn(command("coord", coord, &at("volume"))?.args(&coord.command))?;
    let _worker = Process::spawn(command("worker", worker, &at("worker"))?.args(&worker.command))?;

    let runs: Vec<&Vec<String>> = compose
        .coord_runs
        .iter()
        .filter(|words| !words.join(" ").contains("benchmark.toml"))
        .filter(|words| words[0] != "data")
        .collect();
    ensure!(runs.len() == 2, "the quick start is another: {runs:?}");
    let places = places(coord, &values, &folders)?;
    let words =
        |run: &[String]| -> Vec<String> { run.iter().map(|word| here(word, &places)).collect() };
    let since = Instant::now();
    loop {
        let mut submit = command("coord", coord, &at("volume"))?;
        let ended = submit.args(words(runs[0])).output()?;
        let log = String::from_utf8_lossy(&ended.stderr).into_owned();
        if ended.status.success() {
            break;
        }
        // In the compose file the database is healthy before coord starts, and it migrates at once.
        ensure!(
            log.contains("migrat") && since.elapsed() < PATIENCE,
            "{runs:?}: {}: {log}",
            ended.status
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let table = output(command("coord", coord, &at("volume"))?.args(words(runs[1])))?;
    ensure!(table.contains("ALMT"), "{table}");
    // On this machine the worker sees the volume; in a container it has what was pushed.
    let manifest = DataFolder::new(at("volume")).manifest("demo")?;
    let login = format!("worker:{WORKER_PASSWORD}");
    let broker = nats.connect(&login).await?;
    let store = ArtifactStore::open("nats://", Some(&broker)).await?;
    let pushed = store.size(&Key::Blob(manifest.blake3.parse()?)).await?;
    assert_eq!(pushed, Some(manifest.bytes));
    Ok(())
}

/// The quick start's steps for your own data: it is imported into a persistent volume, and pushed.
#[test]
fn compose_data_folder_is_a_persistent_volume() -> Result<()> {
    let compose = Compose::read()?;
    let coord = &compose.services["coord"];
    let folder = &coord.environment["HALFHEARD_DATA_DIR"];
    let volume = format!("data:{folder}");
    ensure!(coord.volumes.contains(&volume), "{:?}", coord.volumes);
    ensure!(
        !coord.text.contains(&format!("\"{folder}")),
        "a tmpfs on it"
    );
    let submits = compose.coord_runs.iter().filter(|run| run[0] == "submit");
    ensure!(submits.clone().count() == 2, "{:?}", compose.coord_runs);
    for submit in submits {
        ensure!(submit.contains(&"--push".to_owned()), "{submit:?}");
    }
    let import = compose.coord_runs.iter().find(|run| run[0] == "data");
    let import = import.context("no import")?;
    let last = import.last().context("no file")?;
    ensure!(last.starts_with("/data/"), "{import:?}");
    ensure!(coord.volumes.iter().any(|v| v == "./data:/data:ro"));
    Ok(())
}
