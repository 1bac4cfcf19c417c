//! The systemd units as they are: their command lines with their variables and the examples of settings, on real servers
//! without systemd. And what every deployment file says to the programs, against what the programs know.

use anyhow::{Context as _, Result, bail, ensure};
use halfheard_e2e::{
    programs::{Process, bare, output, program},
    servers::Postgres,
    shipped::{COORD_PASSWORD, ShippedNats, WORKER_PASSWORD, deploy, free_port, probe},
    sweeps::sweep,
    tiny::{Tiny, jobs},
};
use halfheard_store::Store;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(120);
/// What a service manager waits beyond the worker's own budget, at least.
const SPARE: Duration = Duration::from_secs(5);

/// A unit in `deploy/systemd`.
struct Unit(Vec<(String, String)>);

impl Unit {
    /// Reads it as the instance `0`.
    fn read(name: &str) -> Result<Self> {
        let text = fs::read_to_string(deploy().join("systemd").join(name))?.replace("%i", "0");
        let lines = text.lines().filter(|line| !line.starts_with(['#', '[']));
        Ok(Self(
            lines
                .filter_map(|line| line.split_once('='))
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
        ))
    }

    fn all(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0
            .iter()
            .filter(move |(own, _)| own == key)
            .map(|(_, value)| value.as_str())
    }

    fn one(&self, key: &str) -> Result<&str> {
        let mut values = self.all(key);
        match (values.next(), values.next()) {
            (Some(value), None) => Ok(value),
            _ => bail!("not one {key}"),
        }
    }

    fn seconds(&self, key: &str) -> Result<Duration> {
        let text = self.one(key)?;
        let number = text
            .strip_suffix('s')
            .with_context(|| format!("{key}={text}"))?;
        Ok(Duration::from_secs(number.parse()?))
    }

    /// Its variables: its own, then those of its files, with `changes` for this machine.
    fn environment(&self, files: &str, changes: &[(&str, String)]) -> BTreeMap<String, String> {
        let own = self.all("Environment");
        let files = files.lines().filter(|line| !line.starts_with('#'));
        own.chain(files)
            .filter_map(|line| line.split_once('='))
            .chain(changes.iter().map(|(name, value)| (*name, value.as_str())))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    /// Its program with the arguments of its command line.
    fn command(&self, environment: &BTreeMap<String, String>) -> Result<Command> {
        let mut words = self.one("ExecStart")?.split_whitespace();
        let path = words.next().context("no program")?;
        let name = Path::new(path).file_name().and_then(|name| name.to_str());
        let mut command = bare(program(name.context("no name")?)?);
        for word in words {
            let variable = word
                .strip_prefix("${")
                .and_then(|word| word.strip_suffix('}'));
            command.arg(match variable {
                Some(name) => environment
                    .get(name)
                    .with_context(|| format!("{name} is not set"))?,
                None => word,
            });
        }
        command.envs(environment);
        Ok(command)
    }
}

fn example(name: &str, password: &str, nats: &ShippedNats) -> Result<String> {
    let text = fs::read_to_string(deploy().join("systemd").join(name))?;
    let address = "127.0.0.1:4222";
    ensure!(
        text.contains(&format!("PASSWORD@{address}")),
        "{name} has another address"
    );
    Ok(text
        .replace("PASSWORD", password)
        .replace(address, &nats.host()))
}

/// What systemd hears of its services.
struct Manager(UnixDatagram);

impl Manager {
    fn listen(path: &Path) -> Result<Self> {
        let socket = UnixDatagram::bind(path)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self(socket))
    }

    fn hears(&self, expected: &str) -> Result<()> {
        let mut buffer = [0; 64];
        let length = self
            .0
            .recv(&mut buffer)
            .with_context(|| format!("nobody says {expected}"))?;
        ensure!(&buffer[..length] == expected.as_bytes(), "not {expected}");
        Ok(())
    }
}

async fn until(what: &str, mut state: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let since = Instant::now();
    while !state().await? {
        ensure!(since.elapsed() < PATIENCE, "timed out waiting for {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// What a program on this machine answers.
fn get(port: u16, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

async fn count(store: &Store, query: &'static str) -> Result<i64> {
    Ok(sqlx::query_scalar(query).fetch_one(store.pool()).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn units_run_a_sweep_and_stop_within_their_budgets() -> Result<()> {
    let (coord, worker) = (Unit::read("coord.service")?, Unit::read("worker@.service")?);
    let nats = ShippedNats::start()?;
    let postgres = Postgres::start()?;
    let folder = tempfile::tempdir()?;
    let home = folder.path().display().to_string();
    let (coord_port, worker_port) = (free_port()?, free_port()?);
    let manager = Manager::listen(&folder.path().join("notify"))?;
    let at = |port: u16| {
        vec![
            ("NOTIFY_SOCKET", format!("{home}/notify")),
            ("HTTP", format!("127.0.0.1:{port}")),
            ("HALFHEARD_DATA_DIR", home.clone()),
            ("HOME", home.clone()),
        ]
    };
    let mut changes = at(coord_port);
    changes.push(("HALFHEARD_DATABASE_URL", postgres.url()));
    let settings = example("coord.env.example", COORD_PASSWORD, &nats)?;
    let coordinator = Process::spawn(&mut coord.command(&coord.environment(&settings, &changes))?)?;
    ensure!(coord.one("Type")? == "notify" && worker.one("Type")? == "notify");
    manager.hears("READY=1")?;
    until("the coordinator", async || probe(coord_port, "/readyz")).await?;

    let tiny = Tiny::make(folder.path(), 320)?;
    let sweep = sweep("units", 0);
    let store = Store::connect_with_retry(&postgres.url().parse()?).await?;
    store
        .submit(
            &sweep,
            jobs(&sweep, &tiny.spec("lnln", 1, 60)?, &["r=0.5"])?,
        )
        .await?;
    let asked = asked_by_autoscalers()?;
    until("the autoscalers' metrics", async || {
        let metrics = get(coord_port, "/metrics")?;
        Ok(asked
            .iter()
            .all(|name| metrics.contains(&format!("\n{name}{{"))))
    })
    .await?;
    let mut changes = at(worker_port);
    changes.push(("HALFHEARD_DEVICE", "cpu".to_owned()));
    // Beside other tests.
    changes.push(("HALFHEARD_THREADS", "1".to_owned()));
    changes.push((
        "LD_LIBRARY_PATH",
        std::env::var("LD_LIBRARY_PATH").unwrap_or_default(),
    ));
    changes.push(("LIBTORCH", std::env::var("LIBTORCH").unwrap_or_default()));
    let settings = example("worker.env.example", WORKER_PASSWORD, &nats)?;
    let environment = worker.environment(&settings, &changes);
    let first = Process::spawn(&mut worker.command(&environment)?)?;
    manager.hears("READY=1")?;
    until("the worker", async || probe(worker_port, "/readyz")).await?;
    let epochs = async || count(&store, "SELECT count(*) FROM epoch_log").await;
    until("an epoch", async || Ok(epochs().await? > 0)).await?;

    // `systemctl stop`: one signal to the main process.
    ensure!(worker.one("KillMode")? == "mixed");
    let budget = Duration::from_secs(environment["HALFHEARD_LEAVE_WITHIN"].parse()?);
    ensure!(worker.seconds("TimeoutStopSec")? >= budget + SPARE);
    let status = first.terminate(budget)?;
    ensure!(status.code() == Some(0), "{status}");
    manager.hears("STOPPING=1")?;
    until("the hand-back", async || {
        Ok(store.progress(sweep.id).await?.ready == 1)
    })
    .await?;
    let handed_back = "SELECT count(*) FROM attempt WHERE outcome = 'handed_back'";
    let handed_back = count(&store, handed_back).await?;
    ensure!(
        handed_back == 1 && epochs().await? < 60,
        "it trained to its end"
    );

    let _second = Process::spawn(&mut worker.command(&environment)?)?;
    until("the results", async || {
        Ok(store.progress(sweep.id).await?.done == 2)
    })
    .await?;
    let status = coordinator.terminate(coord.seconds("TimeoutStopSec")?)?;
    ensure!(status.success(), "{status}");
    Ok(())
}

/// The metrics that the autoscalers ask for.
fn asked_by_autoscalers() -> Result<BTreeSet<String>> {
    let mut asked = BTreeSet::new();
    for file in [
        "deploy/kubernetes/components/keda/scaledobject.yaml",
        "docs/guide/kubernetes.md",
    ] {
        let text = fs::read_to_string(deploy().join("..").join(file))?;
        let exported =
            names(&text, "halfheard_").filter(|name| *name != "halfheard_wanted_workers");
        asked.extend(exported.map(str::to_owned));
    }
    ensure!(asked.len() == 3, "{asked:?}");
    Ok(asked)
}

/// A user's units do the same.
#[test]
fn units_of_a_user_run_the_same_commands() -> Result<()> {
    for name in ["coord.service", "worker@.service"] {
        let (system, user) = (Unit::read(name)?, Unit::read(&format!("user/{name}"))?);
        let arguments = |unit: &Unit| -> Result<String> {
            let line = unit.one("ExecStart")?.to_owned();
            Ok(line.split_once(' ').context("no arguments")?.1.to_owned())
        };
        ensure!(arguments(&system)? == arguments(&user)?, "{name}");
        ensure!(
            system.seconds("TimeoutStopSec")? == user.seconds("TimeoutStopSec")?,
            "{name}"
        );
    }
    Ok(())
}

/// Every word in `text` that begins with `prefix`, to its last letter, digit or underscore.
fn names<'a>(text: &'a str, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    text.match_indices(prefix).map(|(at, _)| {
        let rest = &text[at..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        &rest[..end.unwrap_or(rest.len())]
    })
}

/// Files below a folder.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        match path.is_dir() {
            true => found.extend(files(&path)?),
            false => found.push(path),
        }
    }
    Ok(found)
}

/// The lines of a deployment file that are no comment.
fn lines(path: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(path)?;
    let lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with('#'));
    Ok(lines.map(str::to_owned).collect())
}

/// The command line of one of our programs in a line of YAML, of a unit, of a Dockerfile or of a script.
fn our_words(line: &str) -> Option<Vec<String>> {
    let list = || -> Option<Vec<String>> {
        let (from, to) = (line.find('[')?, line.rfind(']')?);
        serde_json::from_str(line.get(from..=to)?).ok()
    };
    let plain = |line: &str| Some(line.split_whitespace().map(str::to_owned).collect());
    let mut words: Vec<String> = list()
        .or_else(|| plain(line.strip_prefix("ExecStart=")?))
        .or_else(|| plain(line.strip_prefix("exec ")?))
        .or_else(|| plain(line.strip_prefix("\"$worker\" ")?))?;
    words.retain(|word| {
        !["coord", "worker"]
            .iter()
            .any(|name| word.rsplit('/').next() == Some(name))
    });
    let subcommand = matches!(words.first()?.as_str(), "serve" | "migrate");
    (subcommand || words[0].starts_with("--")).then_some(words)
}

#[test]
fn every_flag_and_variable_of_the_deployment_files_exists() -> Result<()> {
    let mut paths = vec![deploy().join("compose.yaml")];
    for folder in ["kubernetes", "systemd", "docker", "slurm"] {
        paths.extend(files(&deploy().join(folder))?);
    }
    let mut help = BTreeMap::new();
    for (program_name, arguments) in [
        ("coord", vec!["serve", "--help"]),
        ("worker", vec!["--help"]),
    ] {
        help.insert(
            program_name,
            output(bare(program(program_name)?).args(arguments))?,
        );
    }
    let variables = include_str!("../../../shared/src/env.rs");
    let (mut flags, mut commands, mut found) = (BTreeSet::new(), 0, BTreeSet::new());
    for path in &paths {
        for line in lines(path)? {
            if let Some(words) = our_words(&line) {
                commands += 1;
                let of = if words[0] == "serve" {
                    "coord"
                } else {
                    "worker"
                };
                for word in words.iter().filter(|word| word.starts_with("--")) {
                    let flag = word.split('=').next().unwrap_or(word);
                    let known = help[of].split_whitespace().any(|known| known == flag);
                    ensure!(known, "{}: `{of}` has no {flag}", path.display());
                    flags.insert((of, flag.to_owned()));
                }
            }
            for name in names(&line, "HALFHEARD_") {
                // The script's own.
                let own = ["HALFHEARD_ENV", "HALFHEARD_REQUEUE"].contains(&name)
                    && path.ends_with("slurm/worker.sbatch");
                ensure!(
                    own || variables.contains(&format!("\"{name}\"")),
                    "{}: no program reads {name}",
                    path.display()
                );
                found.insert(name.to_owned());
            }
        }
    }
    ensure!(
        commands >= 9 && flags.len() >= 8 && found.len() >= 9,
        "{commands}: {flags:?} {found:?}"
    );
    Ok(())
}
