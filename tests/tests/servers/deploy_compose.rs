//! The compose file's quick start: its own commands with its own variables and secrets, on real servers without containers.

use anyhow::{Context as _, Result, ensure};
use halfheard_e2e::{
    programs::{Process, bare, output, program},
    servers::Postgres,
    shipped::{
        COORD_PASSWORD, Compose, Service, ShippedNats, WORKER_PASSWORD, deploy, deps, free_port,
        probe,
    },
};
use halfheard_shared::{
    artifacts::{ArtifactStore, Key},
    dataset::DataFolder,
};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(240);
/// What surrounds a path in a shell's line.
const AROUND: [char; 4] = [' ', '\n', '>', ')'];

/// A service on this machine: its mounted folders, and the port that stands for its own.
struct Here<'a> {
    service: &'a Service,
    folders: BTreeMap<&'static str, PathBuf>,
    own_port: u16,
    port: u16,
}

impl Here<'_> {
    /// A word of its command line, translated to this machine.
    fn word(&self, word: &str) -> String {
        let word = word
            .replace(
                &format!("0.0.0.0:{}", self.own_port),
                &format!("127.0.0.1:{}", self.port),
            )
            .replace(
                &format!("127.0.0.1:{}", self.own_port),
                &format!("127.0.0.1:{}", self.port),
            );
        word.split_inclusive(AROUND)
            .map(|token| {
                let path = token.trim_end_matches(AROUND);
                let below =
                    |target: &&str| path == *target || path.starts_with(&format!("{target}/"));
                match self.folders.keys().find(|target| below(target)) {
                    Some(target) => format!(
                        "{}{}",
                        self.folders[target].display(),
                        &token[target.len()..]
                    ),
                    None => token.to_owned(),
                }
            })
            .collect()
    }

    /// A command with the service's variables, in its data folder.
    fn command(&self, words: &[String]) -> Result<Command> {
        let mounted = self.service.mounts();
        for target in mounted.keys() {
            ensure!(
                self.folders.contains_key(target.as_str()),
                "`{target}` is mounted and not known here"
            );
        }
        let own = &self.folders["/var/lib/halfheard"];
        let bin = program("coord")?;
        let bin = bin.parent().context("a folder")?.display().to_string();
        let (first, rest) = words.split_first().context("no command")?;
        let mut command = bare(first);
        command
            .args(rest.iter().map(|word| self.word(word)))
            .env("PATH", format!("{bin}:{}", std::env::var("PATH")?))
            .env("HOME", own)
            // Beside other tests.
            .env("HALFHEARD_THREADS", "1")
            .current_dir(own);
        for (variable, value) in self.service.environment() {
            command.env(variable, self.word(&value));
        }
        Ok(command)
    }
}

/// The demo, but small.
fn write_small_demo(path: &Path) -> Result<()> {
    let mut small = fs::read_to_string(deploy().join("demo.toml"))?;
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
    Ok(fs::write(path, small)?)
}

/// The secrets as the quick start makes them, for servers elsewhere.
fn make_secrets(folder: &Path, nats: &ShippedNats, postgres: &Postgres) -> Result<()> {
    fs::create_dir(folder)?;
    fs::write(folder.join("nats-coord-password"), COORD_PASSWORD)?;
    fs::write(folder.join("nats-worker-password"), WORKER_PASSWORD)?;
    output(Command::new(deploy().join("secrets.sh")).arg(folder))?;
    for name in ["coord-nats-url", "worker-nats-url"] {
        let url = fs::read_to_string(folder.join(name))?;
        ensure!(url.ends_with("@nats:4222"), "{name} is for another host");
        fs::write(folder.join(name), url.replace("nats:4222", &nats.host()))?;
    }
    Ok(fs::write(
        folder.join("coord-database-url"),
        postgres.url(),
    )?)
}

#[tokio::test(flavor = "multi_thread")]
async fn compose_quick_start_works_as_written() -> Result<()> {
    let compose = Compose::read()?;
    let nats = ShippedNats::start()?;
    let postgres = Postgres::start()?;
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name);
    for name in ["specs", "features", "volume", "worker", "tmp"] {
        fs::create_dir_all(at(name))?;
    }
    write_small_demo(&at("specs/demo.toml"))?;
    make_secrets(&at("secrets"), &nats, &postgres)?;

    let coord = Here {
        service: &compose.services["coord"],
        folders: BTreeMap::from([
            ("/specs", at("specs")),
            ("/data", at("features")),
            ("/encoder", deps().join("encoder")),
            ("/var/lib/halfheard", at("volume")),
            ("/run/secrets", at("secrets")),
            ("/tmp", at("tmp")),
        ]),
        own_port: 9350,
        port: free_port()?,
    };
    let worker = Here {
        service: &compose.services["worker"],
        folders: BTreeMap::from([
            ("/var/lib/halfheard", at("worker")),
            ("/run/secrets", at("secrets")),
            ("/tmp", at("tmp")),
        ]),
        own_port: 9351,
        port: free_port()?,
    };
    ensure!(coord.service.is_read_only() && worker.service.is_read_only());
    let _serve = Process::spawn(&mut coord.command(&coord.service.words("coord"))?)?;
    let _worker = Process::spawn(&mut worker.command(&worker.service.words("worker"))?)?;
    // `docker compose up --wait`.
    for here in [&coord, &worker] {
        let check = here.service.health_check();
        ensure!(
            check == ["probe", &here.own_port.to_string(), "/readyz"],
            "{check:?}"
        );
        let since = Instant::now();
        while !probe(here.port, "/readyz")? {
            ensure!(since.elapsed() < PATIENCE, "{check:?} does not succeed");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    let runs: Vec<&Vec<String>> = compose
        .coord_runs
        .iter()
        .filter(|words| !words.join(" ").contains("benchmark.toml"))
        .filter(|words| words[0] != "data")
        .collect();
    ensure!(runs.len() == 2, "the quick start is another: {runs:?}");
    let run = |words: &[String]| -> Result<String> {
        let words = [&["coord".to_owned()], words].concat();
        output(&mut coord.command(&words)?)
    };
    run(runs[0])?;
    let table = run(runs[1])?;
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
    let mounts = coord.mounts();
    let folder = &coord.environment()["HALFHEARD_DATA_DIR"];
    ensure!(
        mounts.get(folder).is_some_and(|source| source == "data"),
        "{mounts:?}"
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
    ensure!(mounts["/data"].ends_with("/deploy/data"), "{mounts:?}");
    Ok(())
}
