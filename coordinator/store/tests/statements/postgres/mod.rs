//! A private Postgres with a migrated database, for tests of statements alone.

use halfheard_store::Store;
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, User, chown, geteuid},
};
use std::{
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// How long a server may take to start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The server; it ends with this value.
pub(crate) struct Postgres {
    folder: tempfile::TempDir,
    child: Child,
    pub(crate) store: Store,
}

impl Postgres {
    /// Starts a server and migrates its database.
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        if let Some(user) = unprivileged() {
            chown(folder.path(), Some(user.uid), Some(user.gid)).unwrap();
        }
        let data = folder.path().join("data");
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
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|probe| probe.local_addr())
            .unwrap()
            .port();
        let child = program("postgres")
            .arg("-D")
            .arg(&data)
            .args(["-p", &port.to_string(), "-h", "127.0.0.1", "-k", ""])
            .args(["-c", "fsync=off", "-c", "deadlock_timeout=200ms"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let since = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            assert!(since.elapsed() < PATIENCE, "postgres did not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        let url = format!("postgres://postgres@127.0.0.1:{port}/postgres");
        let store = Store::connect_with_retry(&url.parse().unwrap())
            .await
            .unwrap();
        store.migrate().await.unwrap();
        Self {
            folder,
            child,
            store,
        }
    }

    /// A number from the database.
    pub(crate) async fn count(&self, query: &'static str) -> i64 {
        sqlx::query_scalar(query)
            .fetch_one(self.store.pool())
            .await
            .unwrap()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // An immediate shutdown ends its children too.
        let _ = kill(
            Pid::from_raw(self.child.id().cast_signed()),
            Signal::SIGQUIT,
        );
        let _ = self.child.wait();
        let _ = self.folder.path();
    }
}

/// PostgreSQL does not run as root; if root starts it, its programs run as `nobody`.
fn program(name: &str) -> Command {
    let deps = std::env::var_os("HALFHEARD_DEPS").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../.deps")),
        PathBuf::from,
    );
    let laid = deps.join("postgres/bin").join(name);
    let mut command = Command::new(if laid.exists() { laid } else { name.into() });
    command.current_dir("/").stdin(Stdio::null());
    if let Some(user) = unprivileged() {
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    command
}

fn unprivileged() -> Option<User> {
    geteuid()
        .is_root()
        .then(|| User::from_name("nobody").unwrap().unwrap())
}
