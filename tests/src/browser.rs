//! The pinned headless Chromium in which tests look at the page. `make browser` installs it.

use crate::{
    programs::{Process, coord},
    stage::Stage,
};
use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use std::{
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

/// Node.js, Chromium and its driver, as `tests/browser/install.sh` leaves them.
#[derive(Clone, Debug)]
pub struct Browser {
    folder: PathBuf,
}

impl Browser {
    /// The installed one. `None`, and a line that says so, where there is none.
    ///
    /// # Errors
    ///
    /// There is none in CI, where nothing may be skipped.
    pub fn find() -> Result<Option<Self>> {
        let deps = std::env::var_os("HALFHEARD_DEPS").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("../.deps"),
            PathBuf::from,
        );
        let folder = std::path::absolute(deps)?.join("browser");
        if folder.join("tag").is_file() {
            return Ok(Some(Self { folder }));
        }
        ensure!(
            std::env::var_os("CI").is_none(),
            "missing {}: run `make browser`",
            folder.display()
        );
        eprintln!("skipped: no browser; `make browser` installs it");
        Ok(None)
    }

    /// Runs a script of `tests/browser` on a scene and waits for its success, while the tasks of the test go on.
    ///
    /// # Errors
    ///
    /// It cannot be run, or an assertion in it failed; what it says is on the standard streams.
    pub async fn run(&self, script: &str, scene: &Value) -> Result<()> {
        let mut command = Command::new(self.folder.join("node/bin/node"));
        if script.ends_with(".test.mjs") {
            command.args(["--test-reporter=spec", "--test"]);
        }
        command
            .arg(scripts().join(script))
            .env("HALFHEARD_BROWSER", &self.folder)
            .env("HALFHEARD_SCENE", scene.to_string())
            // What a node above this one sets for its own tests.
            .env_remove("NODE_TEST_CONTEXT");
        succeed(script, command).await
    }

    /// Records a program in a terminal as an SVG of frames; `steps` are as in `tests/browser/record.py`.
    ///
    /// # Errors
    ///
    /// The program ended early, or with an error.
    pub async fn record(&self, program: &Command, out: &Path, steps: &[&str]) -> Result<()> {
        let mut command = Command::new("python3");
        command
            .arg(scripts().join("record.py"))
            .arg(out)
            .args(steps)
            .arg("--")
            .arg(program.get_program())
            .args(program.get_args())
            .env("PYTHONPATH", self.folder.join("python"))
            .env("PYTHONDONTWRITEBYTECODE", "1");
        for (name, value) in program.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        succeed("record.py", command).await
    }
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("browser")
}

async fn succeed(what: &str, mut command: Command) -> Result<()> {
    let status = tokio::task::spawn_blocking(move || command.status()).await?;
    let status = status.with_context(|| format!("cannot run {what}"))?;
    ensure!(status.success(), "{what} ended with {status}");
    Ok(())
}

/// `coord serve` with its page.
#[derive(Debug)]
pub struct Served {
    /// Where the page is.
    pub url: String,
    _coord: Process,
}

impl Served {
    /// Starts it on a free port, with more arguments, and waits until the page can be reached.
    ///
    /// # Errors
    ///
    /// It cannot be reached.
    pub async fn start(stage: &Stage, arguments: &[&str]) -> Result<Self> {
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let mut command = coord(stage)?;
        command.args(["serve", "--http", &address.to_string()]);
        let coord = Process::spawn(command.args(arguments))?;
        let since = Instant::now();
        while TcpStream::connect(address).is_err() {
            if since.elapsed() > crate::PATIENCE {
                bail!("no page at {address}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(Self {
            url: format!("http://{address}/"),
            _coord: coord,
        })
    }
}
