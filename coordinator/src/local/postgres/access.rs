//! Programs and files that an unprivileged user can use.
//!
//! Postgres refuses to run as root. Started by root, it runs as an unprivileged user, who needs access
//! to its programs and its files. If that user cannot reach them (below `/root`, for example), the
//! files go to `/var/lib/halfheard` and the programs are copied there, once.

use super::super::{LocalError, files, programs::Found};
use nix::unistd::{User, geteuid};
use std::{
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// For root: the folder of what the unprivileged user must reach.
const STATE: &str = "/var/lib/halfheard";
/// The variable that names the unprivileged user.
const USER: &str = "HALFHEARD_POSTGRES_USER";

/// Returns a command for a program of Postgres, run as `user`, without this process's environment.
pub(super) fn command(program: &Path, user: Option<&User>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().current_dir("/").stdin(Stdio::null());
    for name in ["PATH", "LD_LIBRARY_PATH"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    if let Some(user) = user {
        // This also drops supplementary groups.
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    command
}

/// Returns the user to run Postgres as, if this process is root.
pub(super) fn unprivileged_user() -> Result<Option<User>, LocalError> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    let name = std::env::var(USER)
        .ok()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "nobody".to_owned());
    match User::from_name(&name) {
        Ok(Some(user)) if !user.uid.is_root() => Ok(Some(user)),
        _ => Err(LocalError::NoUser { user: name }),
    }
}

/// The folders of Postgres' programs and files.
pub(super) struct Folders {
    pub(super) programs: PathBuf,
    pub(super) files: PathBuf,
}

impl Folders {
    pub(super) fn prepare(
        programs: &Found,
        root: &Path,
        user: Option<&User>,
    ) -> Result<Self, LocalError> {
        let folder = root.join("postgres");
        let Some(user) = user else {
            files::create_folder(&folder, 0o700)?;
            return Ok(Self {
                programs: programs.path.clone(),
                files: folder,
            });
        };
        let programs = accessible_programs(programs, user)?;
        let files = accessible_folder(&programs, &folder, user)?;
        Ok(Self { programs, files })
    }
}

/// Returns the folder of the programs, or of a copy that `user` can run.
fn accessible_programs(programs: &Found, user: &User) -> Result<PathBuf, LocalError> {
    let Err(reason) = try_as(&programs.path, Path::new("/"), user) else {
        return Ok(programs.path.clone());
    };
    let inaccessible = || LocalError::Inaccessible {
        user: user.name.clone(),
        path: programs.path.clone(),
        reason: reason.clone(),
    };
    // Postgres finds its libraries and shared files relative to its programs.
    let installation = programs.path.parent().ok_or_else(inaccessible)?;
    if !installation.join("share").exists() || !installation.join("lib").exists() {
        return Err(inaccessible());
    }
    let stamp = |path: &Path| {
        let changed = std::fs::metadata(path).and_then(|meta| meta.modified());
        format!("{} {changed:?}", path.display())
    };
    let name = short_hash(&format!(
        "{} {}",
        programs.version,
        stamp(&programs.path.join("postgres"))
    ));
    let copy = Path::new(STATE).join(format!("postgres-{name}"));
    let bin = programs.path.file_name().ok_or_else(inaccessible)?;
    if !copy.join(bin).join("postgres").exists() {
        files::create_folder(Path::new(STATE), 0o711)?;
        let new = Path::new(STATE).join(format!("postgres-{name}.{}", std::process::id()));
        tracing::info!(from = %installation.display(), to = %copy.display(), user = user.name,
            "copying PostgreSQL to where its user can run it");
        files::remove_folder(&new)?;
        files::copy_tree(installation, &new)?;
        // Another process may have been faster; its copy is just as good.
        if files::rename(&new, &copy).is_err() {
            files::remove_folder(&new)?;
        }
    }
    let copied = copy.join(bin);
    match try_as(&copied, Path::new("/"), user) {
        Ok(()) => Ok(copied),
        Err(reason) => Err(LocalError::Inaccessible {
            user: user.name.clone(),
            path: copied,
            reason,
        }),
    }
}

/// Returns `folder`, owned by `user`, or a replacement that the user can access.
fn accessible_folder(programs: &Path, folder: &Path, user: &User) -> Result<PathBuf, LocalError> {
    let replacement = Path::new(STATE).join(short_hash(&folder.display().to_string()));
    let initialized = |folder: &Path| folder.join("data/PG_VERSION").exists();
    if !initialized(&replacement) || initialized(folder) {
        files::create_folder(folder, 0o700)?;
        files::change_owner(folder, user)?;
        if try_as(programs, folder, user).is_ok() {
            return Ok(folder.to_owned());
        }
    }
    files::create_folder(Path::new(STATE), 0o711)?;
    files::create_folder(&replacement, 0o700)?;
    files::change_owner(&replacement, user)?;
    match try_as(programs, &replacement, user) {
        Ok(()) => Ok(replacement),
        Err(reason) => Err(LocalError::Inaccessible {
            user: user.name.clone(),
            path: replacement,
            reason,
        }),
    }
}

/// Checks that `user` can run the programs with `folder` as the current folder.
fn try_as(programs: &Path, folder: &Path, user: &User) -> Result<(), String> {
    let output = command(&programs.join("postgres"), Some(user))
        .arg("--version")
        .current_dir(folder)
        .output()
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(())
    } else {
        let stderr = String::from_utf8_lossy(&output.stderr);
        Err(format!("{}: {}", output.status, stderr.trim()))
    }
}

fn short_hash(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex()[..16].to_owned()
}
