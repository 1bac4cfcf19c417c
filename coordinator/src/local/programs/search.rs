//! Where parts are searched for.

use super::{
    check::{self, NATS_MIN},
    part::{Found, Part, ProgramError},
};
use std::{
    env,
    ffi::OsString,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
};

/// Where to search.
#[derive(Clone, Debug)]
pub struct Programs {
    pub(super) variables: Vec<(Part, PathBuf)>,
    pub(super) deps: Vec<PathBuf>,
    pub(super) path: Vec<PathBuf>,
    /// The folders of this program, which usually hold the worker.
    pub(super) beside: Vec<PathBuf>,
}

impl Programs {
    /// Searches by this process's environment and in the folders above its program.
    pub fn discover() -> Self {
        let var = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
        let variables = Part::ALL
            .into_iter()
            .filter_map(|part| var(part.variable()).map(|value| (part, value.into())))
            .collect();
        let program = env::current_exe().ok();
        let above: Vec<PathBuf> = program
            .iter()
            .flat_map(|program| program.ancestors().skip(1))
            .map(Path::to_owned)
            .collect();
        let deps = match var("HALFHEARD_DEPS") {
            Some(folder) => vec![folder.into()],
            None => installed(program.as_deref(), &above),
        };
        let path = var("PATH")
            .map(|path: OsString| env::split_paths(&path).collect())
            .unwrap_or_default();
        Self {
            variables,
            deps,
            path,
            // A test's program is one folder deeper.
            beside: above.into_iter().take(2).collect(),
        }
    }

    /// As [`Programs::discover`], but searches `folder` before other `.deps` folders.
    pub fn with_deps(folder: impl Into<PathBuf>) -> Self {
        let mut programs = Self::discover();
        programs.deps.insert(0, folder.into());
        programs
    }

    /// The same, as if the variable of `part` were `path`.
    #[cfg(test)]
    pub(crate) fn with(mut self, part: Part, path: impl Into<PathBuf>) -> Self {
        self.variables.retain(|(other, _)| *other != part);
        self.variables.push((part, path.into()));
        self
    }

    /// Finds `part` and checks that it can be used.
    ///
    /// # Errors
    ///
    /// It is missing or unusable: it does not run, is too old, or lacks a file.
    pub fn find(&self, part: Part) -> Result<Found, ProgramError> {
        let path = self.locate(part)?;
        let checked = match part {
            Part::Nats => check::program(&path, "--version", *NATS_MIN),
            Part::Postgres => check::postgres(&path),
            Part::Libtorch => check::libtorch(&path),
            Part::EncoderEn | Part::EncoderZh => {
                // Its own remedy is better than how to get another one.
                return match check::encoder(&path) {
                    Ok(version) => Ok(Found { path, version }),
                    Err(error) => Err(ProgramError::Unusable {
                        part,
                        path,
                        reason: error.found,
                        remedy: error.remedy,
                    }),
                };
            }
            Part::Worker => self.check_worker(&path),
        };
        match checked {
            Ok(version) => Ok(Found { path, version }),
            Err(reason) => Err(ProgramError::Unusable {
                part,
                path,
                reason,
                remedy: part.remedy(),
            }),
        }
    }

    /// Returns the `LD_LIBRARY_PATH` by which a worker finds libtorch, if that is installed.
    pub(crate) fn library_path(&self) -> Option<OsString> {
        let libtorch = self.locate(Part::Libtorch).ok()?.join("lib");
        let set = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
        env::join_paths(
            std::iter::once(libtorch)
                .chain(env::split_paths(&set).filter(|p| !p.as_os_str().is_empty())),
        )
        .ok()
    }

    fn locate(&self, part: Part) -> Result<PathBuf, ProgramError> {
        if let Some((_, path)) = self.variables.iter().find(|(other, _)| *other == part) {
            let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
            return if path.exists() {
                Ok(path)
            } else {
                Err(ProgramError::Unusable {
                    part,
                    path,
                    reason: format!("{} names it, but it does not exist", part.variable()),
                    remedy: part.remedy(),
                })
            };
        }
        let in_deps = self.deps.iter().map(|deps| deps.join(part.path_in_deps()));
        let usual: Vec<PathBuf> = match part {
            Part::Nats => self
                .path
                .iter()
                .map(|folder| folder.join("nats-server"))
                .collect(),
            Part::Postgres => self
                .path
                .iter()
                .filter(|folder| folder.join("postgres").exists())
                .filter_map(|folder| {
                    // PATH may have only a link; initdb and the rest are beside its target.
                    let real = folder.join("postgres").canonicalize().ok()?;
                    real.parent().map(Path::to_owned)
                })
                .chain(system_postgres())
                .collect(),
            Part::Worker => self
                .beside
                .iter()
                .chain(&self.path)
                .map(|folder| folder.join("worker"))
                .collect(),
            Part::Libtorch | Part::EncoderEn | Part::EncoderZh => Vec::new(),
        };
        // The worker beside this program is the one of the same build.
        let mut places: Vec<PathBuf> = match part {
            Part::Worker => usual.into_iter().chain(in_deps).collect(),
            _ => in_deps.chain(usual).collect(),
        };
        places.retain(|path| path.exists());
        places
            .into_iter()
            .next()
            .map(|path| std::path::absolute(&path).unwrap_or(path))
            .ok_or(ProgramError::Missing { part })
    }

    fn check_worker(&self, path: &Path) -> Result<String, String> {
        let mut command = Command::new(path);
        command.arg("--version");
        if let Some(libraries) = self.library_path() {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        check::reported_version(command)
    }
}

/// Returns the `.deps` in the folders `above` a program that belong to the program's owner, to root or
/// to this user: in a world-writable folder, anybody may have created one.
pub(super) fn installed(program: Option<&Path>, above: &[PathBuf]) -> Vec<PathBuf> {
    let owner = |path: &Path| std::fs::metadata(path).map(|meta| meta.uid()).ok();
    let mut trusted = vec![0, nix::unistd::geteuid().as_raw()];
    trusted.extend(program.and_then(owner));
    let trusts = |path: &PathBuf| {
        let link = std::fs::symlink_metadata(path).map(|meta| meta.uid()).ok();
        let owners = [link, owner(path)];
        owners
            .iter()
            .all(|owner| owner.is_some_and(|owner| trusted.contains(&owner)))
    };
    above
        .iter()
        .map(|folder| folder.join(".deps"))
        .filter(trusts)
        .collect()
}

/// Lists the folders where distributions install PostgreSQL, the newest version first.
fn system_postgres() -> Vec<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = [("/usr/lib/postgresql", ""), ("/usr", "pgsql-")]
        .into_iter()
        .filter_map(|(folder, prefix)| Some((std::fs::read_dir(folder).ok()?, prefix)))
        .flat_map(|(entries, prefix)| {
            entries.flatten().filter_map(move |entry| {
                let name = entry.file_name().into_string().ok()?;
                let version = name.strip_prefix(prefix)?.parse().ok()?;
                Some((version, entry.path().join("bin")))
            })
        })
        .filter(|(_, folder)| folder.join("postgres").exists())
        .collect();
    found.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    found.into_iter().map(|(_, folder)| folder).collect()
}
