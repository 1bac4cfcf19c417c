//! Namespaces of the campaign's own: its network, mounts and processes end with it, and nothing of
//! the machine is changed.

use crate::fault::Need;
use anyhow::{Context as _, Result};
use nix::unistd::geteuid;
use std::{
    env,
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
};

/// Set in the process that is inside.
const INSIDE: &str = "HALFHEARD_CAMPAIGN_INSIDE";

/// What this machine allows.
#[derive(Clone, Debug, Default)]
pub struct Allowed {
    network: bool,
    disks: bool,
    clocks: bool,
    /// What is left out, and why.
    pub left_out: Vec<String>,
}

impl Allowed {
    /// Whether faults with this need can be made.
    pub fn has(&self, need: Need) -> bool {
        match need {
            Need::Nothing => true,
            Need::Network => self.network,
            Need::Disks => self.disks,
            Need::Clocks => self.clocks,
        }
    }
}

/// Where a program is, on PATH or where system programs are.
pub fn tool(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

/// Runs this program again inside namespaces of its own. `None`: this process is inside, or the
/// machine does not allow it.
///
/// # Errors
///
/// The program cannot be started.
pub fn enter() -> Result<Option<ExitCode>> {
    if env::var_os(INSIDE).is_some() || !geteuid().is_root() {
        return Ok(None);
    }
    let Some(unshare) = tool("unshare") else {
        return Ok(None);
    };
    let flags = [
        "--mount",
        "--net",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
    ];
    let can = Command::new(&unshare)
        .args(flags)
        .arg("true")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !can {
        return Ok(None);
    }
    let status = Command::new(&unshare)
        .args(flags)
        .arg(env::current_exe()?)
        .args(env::args_os().skip(1))
        .env(INSIDE, "1")
        .status()
        .context("cannot run unshare")?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(Some(code.unwrap_or(1).into()))
}

/// Finds out what this machine allows.
pub fn look() -> Allowed {
    let mut allowed = Allowed::default();
    let mut word = |text: &str| allowed.left_out.push(text.to_owned());
    let is_inside = env::var_os(INSIDE).is_some();
    if !is_inside {
        word("network faults and full disks: they need root and `unshare` (namespaces of its own)");
    } else {
        let missing: Vec<&str> = ["ip", "setpriv", "mount", "nsenter"]
            .into_iter()
            .filter(|name| tool(name).is_none())
            .collect();
        if !missing.is_empty() {
            word(&format!(
                "network faults and full disks: missing {}",
                missing.join(", ")
            ));
        } else if !std::path::Path::new("/dev/net/tun").exists() {
            word("network faults: missing /dev/net/tun");
            allowed.disks = true;
        } else {
            allowed.disks = true;
            allowed.network = true;
        }
    }
    allowed.clocks = tool("cc").is_some();
    if !allowed.clocks {
        let text = "wrong clocks: missing a C compiler (`cc`)";
        allowed.left_out.push(text.to_owned());
    }
    allowed
}
