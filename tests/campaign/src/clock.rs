//! Wrong clocks: a library that shifts the time of day of the processes that load it.

use anyhow::{Context as _, Result, ensure};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const SOURCE: &str = include_str!("clock.c");

/// Compiles the library into `folder`.
///
/// # Errors
///
/// The compiler fails.
pub fn compile(folder: &Path) -> Result<PathBuf> {
    let source = folder.join("clock.c");
    fs::write(&source, SOURCE)?;
    let library = folder.join("libclock.so");
    let output = Command::new("cc")
        .args(["-shared", "-fPIC", "-O2", "-o"])
        .args([&library, &source])
        .output()
        .context("cannot run cc")?;
    ensure!(
        output.status.success(),
        "cc: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(library)
}

/// A clock that the processes on one machine share.
#[derive(Clone, Debug)]
pub struct Clock {
    library: PathBuf,
    file: PathBuf,
}

impl Clock {
    /// A clock that is right.
    ///
    /// # Errors
    ///
    /// Its file cannot be written.
    pub fn new(library: &Path, folder: &Path, host: &str) -> Result<Self> {
        let clock = Self {
            library: library.to_owned(),
            file: folder.join(format!("clock-{host}")),
        };
        clock.shift(0)?;
        Ok(clock)
    }

    /// Shifts it from now on.
    ///
    /// # Errors
    ///
    /// Its file cannot be written.
    pub fn shift(&self, seconds: i64) -> Result<()> {
        use std::os::unix::fs::FileExt as _;
        // In place: processes have mapped this very file.
        let file = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&self.file)?;
        Ok(file.write_all_at(&seconds.to_ne_bytes(), 0)?)
    }

    /// Lets a program live by it.
    pub fn apply(&self, command: &mut Command) {
        command
            .env("LD_PRELOAD", &self.library)
            .env("HALFHEARD_CAMPAIGN_CLOCK", &self.file);
    }
}
