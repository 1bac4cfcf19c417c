//! Small file systems in memory that can be full at once, without a byte written: their size becomes
//! what is used of them.

use anyhow::{Context as _, Result, ensure};
use nix::sys::statvfs::statvfs;
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// A folder that is a file system of its own.
#[derive(Clone, Debug)]
pub struct Disk {
    path: PathBuf,
    mebibytes: u64,
}

impl Disk {
    /// Makes it.
    ///
    /// # Errors
    ///
    /// It cannot be mounted.
    pub fn mount(path: &Path, mebibytes: u64) -> Result<Self> {
        std::fs::create_dir_all(path)?;
        let options = format!("size={mebibytes}m,mode=0755");
        mount(&["-t", "tmpfs", "-o", &options, "campaign"], path)?;
        Ok(Self {
            path: path.to_owned(),
            mebibytes,
        })
    }

    /// Leaves no room.
    ///
    /// # Errors
    ///
    /// It cannot be mounted again.
    pub fn fill(&self) -> Result<()> {
        // What is written in between makes the first try fail: less than is used is refused.
        let mut last = Ok(());
        for _ in 0..10 {
            let stat = statvfs(&self.path)?;
            let used = (stat.blocks() - stat.blocks_free()) * stat.fragment_size();
            let options = format!("remount,size={}", used.max(4096));
            last = mount(&["-o", &options], &self.path);
            if last.is_ok() {
                break;
            }
        }
        last
    }

    /// Gives the room back.
    ///
    /// # Errors
    ///
    /// It cannot be mounted again.
    pub fn free(&self) -> Result<()> {
        let options = format!("remount,size={}m", self.mebibytes);
        mount(&["-o", &options], &self.path)
    }
}

fn mount(args: &[&str], path: &Path) -> Result<()> {
    let output = Command::new("mount")
        .args(args)
        .arg(path)
        .output()
        .context("cannot run mount")?;
    ensure!(
        output.status.success(),
        "mount {}: {}",
        path.display(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
