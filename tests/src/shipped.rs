//! What `deploy/` ships, as it is: the broker with its configuration and logins, and the compose file's
//! services with their commands and variables.

use anyhow::{Context as _, Result, ensure};
use halfheard_shared::broker::{Broker, BrokerSettings};
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
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
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
        let program = std::env::var_os("HALFHEARD_NATS_SERVER").map_or_else(
            || {
                let deps = std::env::var_os("HALFHEARD_DEPS");
                let deps = deps.map_or_else(|| deploy().join("../.deps"), PathBuf::from);
                deps.join("nats/nats-server")
            },
            PathBuf::from,
        );
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

/// One service of the compose file.
#[derive(Clone, Debug, Default)]
pub struct Service {
    pub command: Vec<String>,
    pub environment: BTreeMap<String, String>,
    /// Its volumes: `source:target` and maybe `:ro`.
    pub volumes: Vec<String>,
    pub text: String,
}

/// The compose file: services by name, and the commands in its header that people are to run.
#[derive(Clone, Debug)]
pub struct Compose {
    pub services: BTreeMap<String, Service>,
    /// The arguments after `docker compose run --rm coord` in the head comment, in order.
    pub coord_runs: Vec<Vec<String>>,
}

impl Compose {
    /// Reads `deploy/compose.yaml`, with the subset of YAML that it uses.
    pub fn read() -> Result<Self> {
        let text = std::fs::read_to_string(deploy().join("compose.yaml"))?;
        let coord_runs = text
            .lines()
            .filter_map(|line| line.strip_prefix("#   docker compose run --rm coord "))
            .map(|line| line.split_whitespace().map(str::to_owned).collect())
            .collect();
        let mut services = BTreeMap::new();
        let (mut within, mut name, mut key) = (false, String::new(), String::new());
        for line in text.lines() {
            let content = line.trim();
            if content.is_empty() || content.starts_with('#') {
                continue;
            }
            let depth = line.len() - line.trim_start().len();
            if depth == 0 {
                within = content == "services:";
                continue;
            }
            if !within {
                continue;
            }
            if depth == 2 {
                name = content.trim_end_matches(':').to_owned();
                services.insert(name.clone(), Service::default());
                continue;
            }
            let service = services.get_mut(&name).context("a line of no service")?;
            service.text.push_str(line);
            service.text.push('\n');
            if depth == 4 {
                let (before, value) = content.split_once(':').context("a key")?;
                key = before.to_owned();
                let value = value.trim();
                if key == "command" {
                    service.command = serde_json::from_str(value).context("the command")?;
                }
                continue;
            }
            match key.as_str() {
                "environment" => {
                    let (variable, value) = content.split_once(": ").context("a variable")?;
                    service
                        .environment
                        .insert(variable.to_owned(), value.trim().to_owned());
                }
                "volumes" => {
                    let volume = content.strip_prefix("- ").context("a volume")?;
                    service.volumes.push(volume.to_owned());
                }
                _ => {}
            }
        }
        ensure!(services.len() > 3, "deploy/compose.yaml has few services");
        Ok(Self {
            services,
            coord_runs,
        })
    }
}

/// Fills `${NAME}`, `${NAME:-default}` and `${NAME:?why}` in.
pub fn interpolate(text: &str, values: &BTreeMap<&str, String>) -> Result<String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        out.push_str(before);
        let (inside, after) = after.split_once('}').context("an open brace")?;
        let name: String = inside
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
            .collect();
        let value = values
            .get(name.as_str())
            .cloned()
            .or_else(|| inside[name.len()..].strip_prefix(":-").map(str::to_owned));
        out.push_str(&value.with_context(|| format!("{name} is not set"))?);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}
