//! What `deploy/` ships, as it is: the broker with its configuration and logins, the compose file's services with their
//! commands and variables, and a program's HTTP port.

use anyhow::{Context as _, Result, ensure};
use halfheard_shared::broker::{Broker, BrokerSettings};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(30);

/// The coordinator's password in tests.
pub const COORD_PASSWORD: &str = "c-secret";
/// The workers' password in tests.
pub const WORKER_PASSWORD: &str = "w-secret";

/// The folder `deploy`.
pub fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

/// The folder of what set-up installs.
pub fn deps() -> PathBuf {
    std::env::var_os("HALFHEARD_DEPS").map_or_else(|| deploy().join("../.deps"), PathBuf::from)
}

/// A nats-server with a configuration in `deploy`, on a free port and in a folder of its own.
#[derive(Debug)]
pub struct ShippedNats {
    folder: tempfile::TempDir,
    process: Option<Child>,
    port: u16,
}

impl ShippedNats {
    /// Starts it with `deploy/nats.conf`.
    pub fn start() -> Result<Self> {
        Self::with("nats.conf")
    }

    /// Starts it with another configuration in `deploy`.
    pub fn with(conf: &str) -> Result<Self> {
        let shipped = std::fs::read_to_string(deploy().join(conf))?;
        let folder = tempfile::tempdir()?;
        let port = free_port()?;
        let store = format!("store_dir: \"{}\"", folder.path().join("store").display());
        let mut text = shipped;
        for (old, new) in [
            ("port: 4222", format!("port: {port}")),
            ("http: 127.0.0.1:8222", String::new()),
            ("store_dir: \"/var/lib/nats\"", store),
            ("max_file_store: 200GB", "max_file_store: 1GB".to_owned()),
        ] {
            ensure!(
                text.matches(old).count() == 1,
                "deploy/{conf} has not exactly one `{old}`"
            );
            text = text.replace(old, &new);
        }
        std::fs::write(folder.path().join("nats.conf"), text)?;
        let mut server = Self {
            folder,
            process: None,
            port,
        };
        server.resume()?;
        Ok(server)
    }

    /// Restarts it with its store.
    pub fn resume(&mut self) -> Result<()> {
        let program = std::env::var_os("HALFHEARD_NATS_SERVER")
            .map_or_else(|| deps().join("nats/nats-server"), PathBuf::from);
        let mut process = Command::new(program)
            .arg("-c")
            .arg(self.folder.path().join("nats.conf"))
            .env("NATS_COORD_PASSWORD", COORD_PASSWORD)
            .env("NATS_WORKER_PASSWORD", WORKER_PASSWORD)
            .env("NATS_RED_PASSWORD", WORKER_PASSWORD)
            .env("NATS_BLUE_PASSWORD", WORKER_PASSWORD)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("nats-server does not start; run `make setup`")?;
        let since = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            ensure!(
                process.try_wait()?.is_none() && since.elapsed() < PATIENCE,
                "nats-server does not start with its configuration in deploy/"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        self.process = Some(process);
        Ok(())
    }

    /// Kills it with SIGKILL.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill()?;
            process.wait()?;
        }
        Ok(())
    }

    /// Restarts it with an empty store, as after the loss of a disk.
    pub fn lose_storage(&mut self) -> Result<()> {
        self.kill()?;
        std::fs::remove_dir_all(self.folder.path().join("store"))?;
        self.resume()
    }

    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its address with a login, `user:password`.
    pub fn url(&self, login: &str) -> String {
        format!("nats://{login}@{}", self.host())
    }

    /// A connection with a login, `user:password`.
    pub async fn connect(&self, login: &str) -> Result<Broker> {
        let settings = BrokerSettings::at(self.url(login));
        Ok(timeout(PATIENCE, settings.connect_with_retry()).await??)
    }
}

impl Drop for ShippedNats {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// One service of the compose file, as Docker Compose itself reads it.
#[derive(Clone, Debug)]
pub struct Service(Value);

impl Service {
    /// What its container runs: the entry point and the command; `program` where the image names it.
    pub fn words(&self, program: &str) -> Vec<String> {
        let mut words = strings(&self.0["entrypoint"]);
        if words.is_empty() {
            words.push(program.to_owned());
        }
        words.extend(strings(&self.0["command"]));
        words
    }

    /// What its health check runs.
    pub fn health_check(&self) -> Vec<String> {
        strings(&self.0["healthcheck"]["test"]).split_off(1)
    }

    pub fn environment(&self) -> BTreeMap<String, String> {
        let variables = self.0["environment"].as_object().into_iter().flatten();
        variables
            .map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()))
            .collect()
    }

    /// Where its folders and files are mounted, and from what: a path or the name of a volume, empty for one of its own.
    pub fn mounts(&self) -> BTreeMap<String, String> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let volumes = self.0["volumes"].as_array().into_iter().flatten();
        volumes
            .map(|volume| (text(&volume["target"]), text(&volume["source"])))
            .chain(
                strings(&self.0["tmpfs"])
                    .into_iter()
                    .map(|target| (target, String::new())),
            )
            .collect()
    }

    pub fn is_read_only(&self) -> bool {
        self.0["read_only"] == true
    }
}

/// The strings of a list. Compose doubles a dollar, so that its output can be read again.
fn strings(list: &Value) -> Vec<String> {
    let words = list.as_array().into_iter().flatten();
    words
        .map(|word| word.as_str().unwrap_or_default().replace("$$", "$"))
        .collect()
}

/// The compose file: services by name, and the commands in its header that people are to run.
#[derive(Clone, Debug)]
pub struct Compose {
    pub services: BTreeMap<String, Service>,
    /// The arguments after `docker compose exec coord coord` in the head comment, in order.
    pub coord_runs: Vec<Vec<String>>,
}

impl Compose {
    /// Reads `deploy/compose.yaml` with Compose's own parser, which needs no daemon.
    pub fn read() -> Result<Self> {
        let file = deploy().join("compose.yaml");
        let coord_runs = std::fs::read_to_string(&file)?
            .lines()
            .filter_map(|line| line.strip_prefix("#   docker compose exec coord coord "))
            .map(|line| line.split_whitespace().map(str::to_owned).collect())
            .collect();
        let mut parser = Command::new(deps().join("checkers/docker-compose"));
        parser
            .arg("-f")
            .arg(&file)
            .args(["config", "--format", "json"]);
        let parsed = parser
            .env_remove("HALFHEARD_ARTIFACTS")
            .output()
            .context("Compose's parser does not start; run `python3 deploy/setup.py --tests`")?;
        let errors = String::from_utf8_lossy(&parsed.stderr);
        ensure!(parsed.status.success(), "{errors}");
        let parsed: Value = serde_json::from_slice(&parsed.stdout)?;
        let services = parsed["services"].as_object().context("no services")?;
        let services = services.iter();
        Ok(Self {
            services: services
                .map(|(name, value)| (name.clone(), Service(value.clone())))
                .collect(),
            coord_runs,
        })
    }
}

/// Asks a program on this machine with `deploy/docker/probe`, as the compose file's health checks do.
pub fn probe(port: u16, path: &str) -> Result<bool> {
    let mut probe = Command::new(deploy().join("docker/probe"));
    let asked = probe.arg(port.to_string()).arg(path).output()?;
    Ok(asked.status.success())
}

/// A free port on the loopback.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}
