//! Checks whether a part can be used, and which version it is.

use halfheard_shared::encoder::{Encoder, EncoderError};
use std::{
    fmt,
    path::Path,
    process::{Command, Stdio},
    sync::LazyLock,
};

/// The file with the versions, which `deploy/setup.py` reads, too.
const DEPS: &str = include_str!("../../../../deploy/deps.json");

/// The oldest supported nats-server.
pub(super) static NATS_MIN: LazyLock<Version> = LazyLock::new(|| pinned("nats", "minimum"));
/// The oldest supported PostgreSQL.
pub(super) static POSTGRES_MIN: LazyLock<Version> = LazyLock::new(|| pinned("postgres", "minimum"));
/// The libtorch that the worker is built for.
pub(super) static TORCH: LazyLock<Version> = LazyLock::new(|| pinned("libtorch", "exact"));

/// Returns version `key` of a part.
#[expect(
    clippy::expect_used,
    reason = "the file is compiled in, and a test reads it"
)]
fn pinned(part: &str, key: &str) -> Version {
    let deps: serde_json::Value = serde_json::from_str(DEPS).expect("deps.json is valid JSON");
    let version = deps["parts"][part][key].as_str().and_then(Version::find);
    version.expect("deps.json has the version")
}

/// Major and minor version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(pub(super) u32, pub(super) u32);

impl Version {
    /// Finds the first version number in `text`.
    pub(super) fn find(text: &str) -> Option<Self> {
        let start = text.find(|c: char| c.is_ascii_digit())?;
        let mut numbers = text[start..].split('.').map(|part| {
            part.chars()
                .take_while(char::is_ascii_digit)
                .collect::<String>()
        });
        let first = numbers.next()?.parse().ok()?;
        let second = numbers.next().and_then(|n| n.parse().ok()).unwrap_or(0);
        Some(Version(first, second))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            0 => write!(f, "{}", self.0),
            second => write!(f, "{}.{second}", self.0),
        }
    }
}

/// Runs `command` and returns what it prints.
pub(super) fn reported_version(mut command: Command) -> Result<String, String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot run it: {error}"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let last = stderr.trim().lines().last().unwrap_or_default();
        return Err(format!("{}: {last}", output.status));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

pub(super) fn program(path: &Path, flag: &str, min: Version) -> Result<String, String> {
    let mut command = Command::new(path);
    command.arg(flag);
    let reported = reported_version(command)?;
    match Version::find(&reported) {
        Some(version) if version >= min => Ok(reported),
        Some(_) => Err(format!("it is {reported}, and {min} or newer is required")),
        None => Err(format!("it reports no version but `{reported}`")),
    }
}

pub(super) fn postgres(folder: &Path) -> Result<String, String> {
    for name in ["postgres", "initdb"] {
        if !folder.join(name).exists() {
            return Err(format!("program `{name}` is missing"));
        }
    }
    program(&folder.join("postgres"), "--version", *POSTGRES_MIN)
}

pub(super) fn libtorch(folder: &Path) -> Result<String, String> {
    if !folder.join("lib/libtorch_cpu.so").exists() {
        return Err("lib/libtorch_cpu.so is missing".to_owned());
    }
    // Every distribution of libtorch has one of the two.
    let version = std::fs::read_to_string(folder.join("build-version"))
        .ok()
        .or_else(|| {
            let header = "include/torch/headeronly/version.h";
            let text = std::fs::read_to_string(folder.join(header)).ok()?;
            let number = |name: &str| {
                let define = format!("#define TORCH_VERSION_{name} ");
                let line = text.lines().find_map(|line| line.strip_prefix(&define))?;
                Some(line.trim().to_owned())
            };
            Some(format!(
                "{}.{}.{}",
                number("MAJOR")?,
                number("MINOR")?,
                number("PATCH")?
            ))
        })
        .map(|version| version.trim().to_owned())
        .ok_or("its version is unknown")?;
    match Version::find(&version) {
        Some(found) if found == *TORCH => Ok(version),
        _ => Err(format!(
            "it is {version}, and the worker is built for {}",
            *TORCH
        )),
    }
}

pub(super) fn encoder(folder: &Path) -> Result<String, Box<EncoderError>> {
    let encoder = Encoder::open(folder)?;
    encoder.token_ids()?;
    Ok(encoder.to_string())
}
