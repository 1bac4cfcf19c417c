//! Folders and files of the private servers, with their permissions.

use super::LocalError;
use nix::unistd::User;
use std::{
    io::{Read as _, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

fn failed(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> LocalError {
    let path = path.to_owned();
    move |source| LocalError::File {
        action,
        path,
        source,
    }
}

/// Creates `folder` with `mode`, unless it exists.
pub(super) fn create_folder(folder: &Path, mode: u32) -> Result<(), LocalError> {
    if !folder.is_dir() {
        std::fs::create_dir_all(folder).map_err(failed("create", folder))?;
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(mode))
            .map_err(failed("set the permissions of", folder))?;
    }
    Ok(())
}

/// Makes `user` the owner of `path`.
pub(super) fn change_owner(path: &Path, user: &User) -> Result<(), LocalError> {
    nix::unistd::chown(path, Some(user.uid), Some(user.gid))
        .map_err(|error| failed("change the owner of", path)(error.into()))
}

/// Writes a file atomically that only its owner can read.
pub(super) fn write_private(
    path: &Path,
    content: &str,
    owner: Option<&User>,
) -> Result<(), LocalError> {
    let new = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        // A leftover may have other permissions.
        match std::fs::remove_file(&new) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(content.as_bytes())?;
        file.sync_all()
    };
    write().map_err(failed("write", path))?;
    if let Some(owner) = owner {
        change_owner(&new, owner)?;
    }
    std::fs::rename(&new, path).map_err(failed("write", path))
}

/// Reads a file.
pub(super) fn read(path: &Path) -> Result<String, LocalError> {
    std::fs::read_to_string(path).map_err(failed("read", path))
}

/// Removes a folder with its content, if it exists.
pub(super) fn remove_folder(path: &Path) -> Result<(), LocalError> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(failed("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Renames a folder or file.
pub(super) fn rename(from: &Path, to: &Path) -> Result<(), LocalError> {
    std::fs::rename(from, to).map_err(failed("rename a file to", to))
}

/// Generates a random password.
pub(super) fn random_password() -> Result<String, LocalError> {
    let source = Path::new("/dev/urandom");
    let mut bytes = [0_u8; 24];
    std::fs::File::open(source)
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(failed("read", source))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Copies a folder with its content, readable by everybody; links stay links.
pub(super) fn copy_tree(from: &Path, to: &Path) -> Result<(), LocalError> {
    std::fs::create_dir(to).map_err(failed("create", to))?;
    std::fs::set_permissions(to, std::fs::Permissions::from_mode(0o755))
        .map_err(failed("set the permissions of", to))?;
    let entries = std::fs::read_dir(from).map_err(failed("read", from))?;
    for entry in entries {
        let entry = entry.map_err(failed("read", from))?;
        let (source, target): (PathBuf, PathBuf) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().map_err(failed("read", &source))?;
        if kind.is_dir() {
            copy_tree(&source, &target)?;
        } else if kind.is_symlink() {
            std::fs::read_link(&source)
                .and_then(|link| std::os::unix::fs::symlink(link, &target))
                .map_err(failed("copy", &source))?;
        } else {
            let copy = || -> std::io::Result<()> {
                std::fs::copy(&source, &target)?;
                let mode = std::fs::metadata(&source)?.permissions().mode();
                // Executable for everybody if it is for its owner.
                let mode = if mode & 0o100 != 0 { 0o755 } else { 0o644 };
                std::fs::set_permissions(&target, std::fs::Permissions::from_mode(mode))
            };
            copy().map_err(failed("copy", &source))?;
        }
    }
    Ok(())
}
