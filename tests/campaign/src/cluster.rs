//! The cluster: broker, database, two coordinators, three workers with their slots, a shared store.

use crate::{
    clock::Clock,
    daemon::Daemon,
    disks::Disk,
    fault::{COORDINATORS, Need, SLOTS, WORKERS},
    journal::Journal,
    network::{self, Network},
    sandbox::Allowed,
    sql::Sql,
};
use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::signal::Signal,
    unistd::{User, chown, geteuid},
};
use serde_json::json;
use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// How long a server may take to start, and a program to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Programs {
    pub coord: PathBuf,
    pub worker: PathBuf,
    pub nats_server: PathBuf,
    /// The folder of Postgres' programs.
    pub postgres: PathBuf,
}

impl Programs {
    /// Finds them: `coord` and `worker` in `folder`, the servers where set-up installs them.
    ///
    /// # Errors
    ///
    /// One is missing.
    pub fn find(folder: &Path) -> Result<Self> {
        let deps = std::env::var_os("HALFHEARD_DEPS").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.deps"),
            PathBuf::from,
        );
        let or = |name: &str, default: &str| {
            std::env::var_os(name).map_or_else(|| deps.join(default), PathBuf::from)
        };
        let programs = Self {
            coord: folder.join("coord"),
            worker: folder.join("worker"),
            nats_server: or("HALFHEARD_NATS_SERVER", "nats/nats-server"),
            postgres: or("HALFHEARD_POSTGRES_BIN", "postgres/bin"),
        };
        for program in [
            &programs.coord,
            &programs.worker,
            &programs.nats_server,
            &programs.postgres.join("psql"),
        ] {
            ensure!(program.is_file(), "missing {}", program.display());
        }
        Ok(programs)
    }
}

/// What all clusters of one campaign share.
#[derive(Clone, Debug)]
pub struct Ground {
    pub programs: Programs,
    pub allowed: Allowed,
    pub network: Option<Network>,
}

impl Ground {
    /// A program on a machine.
    pub fn on(&self, host: &str, program: &Path) -> Command {
        if self.network.is_none() {
            return Command::new(program);
        }
        let mut command = Command::new("ip");
        command.args(["netns", "exec", host]).arg(program);
        command
    }

    fn address(&self, host: &str) -> String {
        match self.network {
            Some(_) => network::address(host),
            None => Ipv4Addr::LOCALHOST.to_string(),
        }
    }
}

/// The folders of a cluster.
#[derive(Clone, Debug)]
pub struct Folders {
    pub root: PathBuf,
    pub store: PathBuf,
    pub broker: PathBuf,
    pub database: PathBuf,
    pub work: PathBuf,
    pub logs: PathBuf,
}

impl Folders {
    /// The data folder of a worker.
    pub fn data(&self, host: &str) -> PathBuf {
        self.root.join(format!("data-{host}"))
    }
}

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    pub ground: Ground,
    pub folders: Folders,
    pub sql: Sql,
    pub clocks: BTreeMap<String, Clock>,
    pub disks: BTreeMap<String, Disk>,
    broker: Mutex<Daemon>,
    database: Mutex<Daemon>,
    /// Coordinators and supervisors by machine.
    programs: BTreeMap<String, Mutex<Daemon>>,
    /// Process of each supervisor, which is asked for while it is locked.
    supervisors: BTreeMap<String, std::sync::atomic::AtomicI32>,
    environment: Vec<(String, String)>,
    /// The broker's host and port.
    pub broker_address: String,
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}

/// Whom Postgres runs as if this process is root.
fn unprivileged() -> Result<Option<User>> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    let user = User::from_name("nobody")?.context("missing user `nobody`")?;
    Ok(Some(user))
}

impl Cluster {
    /// Makes a cluster below `root` and starts its servers; no program of ours yet.
    ///
    /// # Errors
    ///
    /// Anything fails.
    pub fn make(ground: &Ground, root: &Path, library: Option<&Path>) -> Result<Self> {
        let folder = |name: &str| root.join(name);
        let folders = Folders {
            root: root.to_owned(),
            store: folder("store"),
            broker: folder("broker"),
            database: folder("database"),
            work: folder("work"),
            logs: folder("logs"),
        };
        let Folders {
            store,
            broker,
            database,
            work,
            logs,
            ..
        } = &folders;
        for folder in [store, broker, database, work, logs] {
            fs::create_dir_all(folder)?;
        }
        let mut disks = BTreeMap::new();
        let mut clocks = BTreeMap::new();
        let is_small = ground.allowed.has(Need::Disks);
        if is_small {
            disks.insert("store".to_owned(), Disk::mount(store, 2048)?);
            disks.insert("broker".to_owned(), Disk::mount(broker, 512)?);
        }
        for host in WORKERS {
            let data = folders.data(host);
            fs::create_dir_all(&data)?;
            if is_small {
                disks.insert(host.to_owned(), Disk::mount(&data, 512)?);
            }
        }
        if let Some(library) = library {
            for host in WORKERS.iter().chain(&COORDINATORS) {
                clocks.insert((*host).to_owned(), Clock::new(library, root, host)?);
            }
        }
        let (nats_port, database_port) = (free_port()?, free_port()?);
        let broker_address = format!("{}:{nats_port}", ground.address("nats"));
        let database_address = format!(
            "postgres://postgres@{}:{database_port}/postgres",
            ground.address("db")
        );
        let environment = [
            ("HALFHEARD_NATS_URL", format!("nats://{broker_address}")),
            ("HALFHEARD_DATABASE_URL", database_address),
            ("HALFHEARD_ARTIFACTS", format!("file://{}", store.display())),
            ("HALFHEARD_DATA_DIR", work.display().to_string()),
            ("HALFHEARD_CONFIG", "/dev/null".to_owned()),
        ];
        let mut cluster = Self {
            ground: ground.clone(),
            sql: Sql::new(
                &ground.programs.postgres.join("psql"),
                database,
                database_port,
            ),
            broker: Mutex::new(broker_daemon(ground, &folders, nats_port)),
            database: Mutex::new(database_daemon(ground, &folders, database_port)?),
            folders,
            clocks,
            disks,
            programs: BTreeMap::new(),
            supervisors: BTreeMap::new(),
            environment: environment
                .map(|(name, value)| (name.to_owned(), value))
                .into(),
            broker_address,
        };
        cluster.add_programs();
        cluster.database().start()?;
        cluster.broker().start()?;
        cluster.wait_for_database(PATIENCE)?;
        cluster.coord(&["migrate"])?;
        Ok(cluster)
    }

    /// Describes coordinators and workers.
    fn add_programs(&mut self) {
        for host in COORDINATORS {
            let mut make = self.template(host, &self.ground.programs.coord, &["serve"]);
            make.vary = None;
            let log = self.folders.logs.join(format!("coord-{host}.log"));
            let daemon = Daemon::new(&format!("coord {host}"), log, move || make.command());
            self.programs.insert(host.to_owned(), Mutex::new(daemon));
        }
        for host in WORKERS {
            let slots = SLOTS.to_string();
            let args = [
                "--slots",
                slots.as_str(),
                "--device",
                "cpu",
                "--threads",
                "1",
                "--save-every",
                "1",
                "--name",
                host,
            ];
            let mut make = self.template(host, &self.ground.programs.worker, &args);
            make.vary = Some(self.folders.data(host));
            let log = self.folders.logs.join(format!("worker-{host}.log"));
            let daemon = Daemon::new(&format!("worker {host}"), log, move || make.command());
            self.programs.insert(host.to_owned(), Mutex::new(daemon));
            self.supervisors.insert(host.to_owned(), 0.into());
        }
    }

    fn template(&self, host: &str, program: &Path, args: &[&str]) -> Template {
        Template {
            ground: self.ground.clone(),
            host: host.to_owned(),
            program: program.to_owned(),
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            environment: self.environment.clone(),
            clock: self.clocks.get(host).cloned(),
            vary: None,
        }
    }

    /// Starts coordinators and workers.
    ///
    /// # Errors
    ///
    /// One cannot be started.
    pub fn start_programs(&self) -> Result<()> {
        for host in COORDINATORS.iter().chain(&WORKERS) {
            self.start(host)?;
        }
        Ok(())
    }

    /// Starts the program of a machine.
    ///
    /// # Errors
    ///
    /// It cannot be started.
    pub fn start(&self, host: &str) -> Result<()> {
        let mut program = self.program(host)?;
        self.start_locked(host, &mut program)
    }

    /// Starts the program of a machine, which the caller has locked.
    ///
    /// # Errors
    ///
    /// It cannot be started.
    pub fn start_locked(&self, host: &str, program: &mut Daemon) -> Result<()> {
        program.start()?;
        if let (Some(known), Some(pid)) = (self.supervisors.get(host), program.pid()) {
            known.store(pid, std::sync::atomic::Ordering::Relaxed);
        }
        Ok(())
    }

    /// The process of a worker's supervisor, which may have ended.
    pub fn supervisor(&self, host: &str) -> Option<i32> {
        let pid = self.supervisors.get(host)?;
        Some(pid.load(std::sync::atomic::Ordering::Relaxed)).filter(|&pid| pid > 0)
    }

    /// The broker.
    pub fn broker(&self) -> MutexGuard<'_, Daemon> {
        self.broker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The database.
    pub fn database(&self) -> MutexGuard<'_, Daemon> {
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The program of a machine.
    ///
    /// # Errors
    ///
    /// It has none.
    pub fn program(&self, host: &str) -> Result<MutexGuard<'_, Daemon>> {
        let program = self
            .programs
            .get(host)
            .context("a machine without program")?;
        Ok(program.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Runs `coord` on the operator's machine; its output.
    ///
    /// # Errors
    ///
    /// It fails: what it says.
    pub fn coord(&self, args: &[&str]) -> Result<String> {
        let program = &self.ground.programs.coord;
        let output = self.template("op", program, args).command().output()?;
        ensure!(
            output.status.success(),
            "coord {}: {}: {}",
            args.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Waits until the database answers.
    ///
    /// # Errors
    ///
    /// It does not in time.
    pub fn wait_for_database(&self, patience: Duration) -> Result<()> {
        let since = Instant::now();
        while self.sql.rows("SELECT 1").is_err() {
            ensure!(since.elapsed() < patience, "the database does not start");
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Starts again what has ended by itself, as a service manager would, and says so.
    ///
    /// # Errors
    ///
    /// It cannot be started.
    pub fn restart_ended(&self, journal: &Journal) -> Result<()> {
        for (host, program) in &self.programs {
            // Locked: a fault is at work on it.
            let Ok(mut program) = program.try_lock() else {
                continue;
            };
            if let Some(status) = program.ended() {
                let facts = json!({ "program": program.name(), "status": status.to_string() });
                journal.write("exited", facts);
                self.start_locked(host, &mut program)?;
            }
        }
        for server in [&self.broker, &self.database] {
            if let Ok(mut server) = server.try_lock()
                && let Some(status) = server.ended()
            {
                let facts = json!({ "program": server.name(), "status": status.to_string() });
                journal.write("exited", facts);
                server.start()?;
            }
        }
        Ok(())
    }

    /// Ends everything, gracefully where that is possible.
    ///
    /// # Errors
    ///
    /// A program did not end in time after SIGTERM, or cannot be waited for.
    pub fn stop(&self) -> Result<()> {
        let mut late = Vec::new();
        for host in WORKERS.iter().chain(&COORDINATORS) {
            let mut program = self.program(host)?;
            if !program.end(Signal::SIGTERM, PATIENCE)? {
                late.push(program.name().to_owned());
            }
        }
        self.broker().kill()?;
        self.database().end(Signal::SIGINT, PATIENCE)?;
        ensure!(
            late.is_empty(),
            "{} did not end on SIGTERM",
            late.join(", ")
        );
        Ok(())
    }
}

/// How a program is started.
struct Template {
    ground: Ground,
    host: String,
    program: PathBuf,
    args: Vec<String>,
    environment: Vec<(String, String)>,
    clock: Option<Clock>,
    /// The data folder of a worker.
    vary: Option<PathBuf>,
}

impl Template {
    fn command(&self) -> Command {
        let mut command = self.ground.on(&self.host, &self.program);
        command
            .args(&self.args)
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        if let Some(data) = &self.vary {
            // A worker knows no database.
            command.env_remove("HALFHEARD_DATABASE_URL");
            command.env("HALFHEARD_DATA_DIR", data);
        }
        if let Some(clock) = &self.clock {
            clock.apply(&mut command);
        }
        command
    }
}

fn broker_daemon(ground: &Ground, folders: &Folders, port: u16) -> Daemon {
    let (ground, address) = (ground.clone(), ground.address("nats"));
    let data = folders.broker.join("data");
    let log = folders.logs.join("nats.log");
    Daemon::new("nats", log, move || {
        let mut command = ground.on("nats", &ground.programs.nats_server);
        command.args(["-a", &address, "-p", &port.to_string(), "-js", "-sd"]);
        command.arg(&data);
        command
    })
}

fn database_daemon(ground: &Ground, folders: &Folders, port: u16) -> Result<Daemon> {
    let user = unprivileged()?;
    if let Some(user) = &user {
        chown(&folders.database, Some(user.uid), Some(user.gid))?;
    }
    let ids = user.map(|user| (user.uid.to_string(), user.gid.to_string()));
    let (ground, address) = (ground.clone(), ground.address("db"));
    let folder = folders.database.clone();
    let program = move |name: &str| {
        let path = ground.programs.postgres.join(name);
        let mut command = match &ids {
            None => ground.on("db", &path),
            Some((uid, gid)) => {
                let setpriv = crate::sandbox::tool("setpriv").unwrap_or_else(|| "setpriv".into());
                let mut command = ground.on("db", &setpriv);
                command.args(["--reuid", uid, "--regid", gid, "--clear-groups"]);
                command.arg(path);
                command
            }
        };
        command.current_dir("/");
        command
    };
    let data = folder.join("data");
    let made = program("initdb")
        .arg("-D")
        .arg(&data)
        .args([
            "-U",
            "postgres",
            "--auth=trust",
            "--encoding=UTF8",
            "--no-sync",
        ])
        .output()
        .context("cannot run initdb")?;
    ensure!(
        made.status.success(),
        "initdb: {}",
        String::from_utf8_lossy(&made.stderr)
    );
    // All machines of this network, and no other can reach it.
    let access = data.join("pg_hba.conf");
    let mut rules = fs::read_to_string(&access)?;
    rules.push_str("host all all 10.77.0.0/24 trust\n");
    fs::write(&access, rules)?;
    let log = folders.logs.join("postgres.log");
    Ok(Daemon::new("postgres", log, move || {
        let mut command = program("postgres");
        command.arg("-D").arg(&data);
        command.args(["-p", &port.to_string(), "-h", &address, "-k"]);
        command.arg(&folder);
        // SIGKILL loses nothing that the kernel has.
        command.args(["-c", "fsync=off", "-c", "max_connections=200"]);
        command
    }))
}
