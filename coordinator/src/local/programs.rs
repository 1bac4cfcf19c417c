//! The programs and folders that `coord` uses and does not bring along: nats-server, PostgreSQL,
//! libtorch, the text encoders and the worker.
//!
//! Each is looked for where its environment variable says, then under `.deps/` above this program's
//! own file (where `make setup` puts it) or where `HALFHEARD_DEPS` says, then on `PATH`. What a
//! variable names must be usable: a wrong one is an error, not a reason to look elsewhere.
//!
//! What is found is executed, so nothing is looked for where anybody may have put it: not in the
//! current folder, which may be a foreign checkout, and not in a `.deps` that belongs to another user.

use halfheard_shared::encoder::{Encoder, EncoderError};
use std::{
    env,
    ffi::OsString,
    fmt,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The oldest nats-server that will do.
const NATS_MIN: Version = Version(2, 10);
/// The oldest PostgreSQL that will do.
const POSTGRES_MIN: Version = Version(15, 0);
/// The libtorch that the worker is built for.
const TORCH: Version = Version(2, 11);

/// Something that is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// The broker.
    Nats,
    /// The database: a folder of programs.
    Postgres,
    /// The folder of libtorch.
    Libtorch,
    /// The folder of the English text encoder.
    EncoderEn,
    /// The folder of the Chinese text encoder.
    EncoderZh,
    /// The worker.
    Worker,
}

impl Part {
    /// The variable that names it.
    pub fn variable(self) -> &'static str {
        match self {
            Part::Nats => "HALFHEARD_NATS_SERVER",
            Part::Postgres => "HALFHEARD_POSTGRES_BIN",
            Part::Libtorch => "LIBTORCH",
            Part::EncoderEn => "HALFHEARD_ENCODER_EN",
            Part::EncoderZh => "HALFHEARD_ENCODER_ZH",
            Part::Worker => "HALFHEARD_WORKER",
        }
    }

    /// How to come by it.
    pub fn remedy(self) -> String {
        let variable = self.variable();
        match self {
            Part::Nats => format!(
                "`make setup` lays one down; or install nats-server {NATS_MIN} or newer, or name one in {variable}"
            ),
            Part::Postgres => format!(
                "`make setup` lays one down; or install PostgreSQL {POSTGRES_MIN} or newer, or name the folder of its programs in {variable}"
            ),
            Part::Libtorch => format!(
                "`make setup` lays one down; or name the folder of a libtorch {TORCH} in {variable}"
            ),
            Part::EncoderEn => format!(
                "name the folder of your BERT or RoBERTa, as the hub has it, in {variable} (docs/reference/encoders.md); `make setup` lays a small one down"
            ),
            Part::EncoderZh => format!(
                "name the folder of a Chinese BERT, as the hub has it, in {variable} (docs/reference/encoders.md); only SIMS needs it"
            ),
            Part::Worker => {
                format!(
                    "build it: `cargo build --release -p halfheard-worker`; or name it in {variable}"
                )
            }
        }
    }

    /// Where it lies under `.deps/`.
    fn below_deps(self) -> &'static str {
        match self {
            Part::Nats => "nats/nats-server",
            Part::Postgres => "postgres/bin",
            Part::Libtorch => "libtorch",
            Part::EncoderEn => "encoder",
            Part::EncoderZh => "encoder-zh",
            Part::Worker => "worker",
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Part::Nats => "nats-server",
            Part::Postgres => "PostgreSQL",
            Part::Libtorch => "libtorch",
            Part::EncoderEn => "the English text encoder",
            Part::EncoderZh => "the Chinese text encoder",
            Part::Worker => "the worker",
        })
    }
}

/// Why a part cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// It is nowhere.
    #[error("{part} is missing: {}", part.remedy())]
    Missing {
        /// What.
        part: Part,
    },
    /// It is there and cannot be used.
    #[error("{part} at {path} cannot be used: {reason}; {remedy}")]
    Unusable {
        /// What.
        part: Part,
        /// Where.
        path: PathBuf,
        /// Why.
        reason: String,
        /// What to do.
        remedy: String,
    },
}

impl ProgramError {
    /// What was found, without what to do.
    pub fn found(&self) -> String {
        match self {
            ProgramError::Missing { .. } => "none found".to_owned(),
            ProgramError::Unusable { path, reason, .. } => {
                format!("{} cannot be used: {reason}", path.display())
            }
        }
    }

    /// What to do.
    pub fn remedy(&self) -> String {
        match self {
            ProgramError::Missing { part } => part.remedy(),
            ProgramError::Unusable { remedy, .. } => remedy.clone(),
        }
    }
}

/// A part that was found and can be used.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Found {
    /// The program, or the folder.
    pub path: PathBuf,
    /// Its version, as it says itself; for an encoder what it is.
    pub version: String,
}

/// A version's first two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Version(u32, u32);

impl Version {
    /// The first numbers in `text`.
    fn find(text: &str) -> Option<Self> {
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

/// Where to look.
#[derive(Clone, Debug)]
pub struct Programs {
    variables: Vec<(Part, PathBuf)>,
    deps: Vec<PathBuf>,
    path: Vec<PathBuf>,
    /// The folder of this program: the worker is usually beside it.
    beside: Vec<PathBuf>,
}

impl Programs {
    /// Where this process should look: its environment, and the folders above its own program.
    pub fn discover() -> Self {
        let var = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
        let variables = [
            Part::Nats,
            Part::Postgres,
            Part::Libtorch,
            Part::EncoderEn,
            Part::EncoderZh,
            Part::Worker,
        ]
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
            None => laid_down(program.as_deref(), &above),
        };
        let path = var("PATH")
            .map(|path: OsString| env::split_paths(&path).collect())
            .unwrap_or_default();
        Self {
            variables,
            deps,
            path,
            // A test's program lies one folder below.
            beside: above.into_iter().take(2).collect(),
        }
    }

    /// As [`Programs::discover`], with `folder` as the first place of laid-down parts.
    pub fn with_deps(folder: impl Into<PathBuf>) -> Self {
        let mut programs = Self::discover();
        programs.deps.insert(0, folder.into());
        programs
    }

    /// The same, with the variable of `part` set to `path`.
    pub fn with(mut self, part: Part, path: impl Into<PathBuf>) -> Self {
        self.variables.retain(|(other, _)| *other != part);
        self.variables.push((part, path.into()));
        self
    }

    /// Looks for `part` and checks that it can be used.
    ///
    /// # Errors
    ///
    /// It is nowhere, or cannot be used: does not run, is too old, lacks a file.
    pub fn find(&self, part: Part) -> Result<Found, ProgramError> {
        let path = self.locate(part)?;
        let checked = match part {
            Part::Nats => check_program(&path, "--version", NATS_MIN),
            Part::Postgres => check_postgres(&path),
            Part::Libtorch => check_libtorch(&path),
            Part::EncoderEn | Part::EncoderZh => {
                // It knows better what to do than how to come by another.
                return match check_encoder(&path) {
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

    /// The environment that a worker needs to find libtorch, if it was found.
    pub fn library_path(&self) -> Option<OsString> {
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
                    reason: format!("{} names it and there is nothing", part.variable()),
                    remedy: part.remedy(),
                })
            };
        }
        let laid = self.deps.iter().map(|deps| deps.join(part.below_deps()));
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
                    // initdb and the rest lie beside the real file where PATH has only a link.
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
            Part::Worker => usual.into_iter().chain(laid).collect(),
            _ => laid.chain(usual).collect(),
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
        say_version(command)
    }
}

/// The folders `.deps` in the folders `above` a program that belong to who owns the program, to root
/// or to this user: in a folder where everybody may write, somebody else may have made one.
fn laid_down(program: Option<&Path>, above: &[PathBuf]) -> Vec<PathBuf> {
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

/// Where distributions put PostgreSQL's programs, the newest first.
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

fn say_version(mut command: Command) -> Result<String, String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("it does not run: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.trim().lines().last().unwrap_or_default();
        return Err(format!("it ends with {}: {said}", output.status));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn check_program(path: &Path, flag: &str, least: Version) -> Result<String, String> {
    let mut command = Command::new(path);
    command.arg(flag);
    let said = say_version(command)?;
    match Version::find(&said) {
        Some(version) if version >= least => Ok(said),
        Some(_) => Err(format!("it is {said}, and {least} or newer is needed")),
        None => Err(format!("it does not say its version but `{said}`")),
    }
}

fn check_postgres(folder: &Path) -> Result<String, String> {
    for program in ["postgres", "initdb"] {
        if !folder.join(program).exists() {
            return Err(format!("it has no program `{program}`"));
        }
    }
    check_program(&folder.join("postgres"), "--version", POSTGRES_MIN)
}

fn check_libtorch(folder: &Path) -> Result<String, String> {
    if !folder.join("lib/libtorch_cpu.so").exists() {
        return Err("it has no lib/libtorch_cpu.so".to_owned());
    }
    // One of the two is in every distribution of libtorch.
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
        .ok_or("it does not say its version")?;
    match Version::find(&version) {
        Some(found) if found == TORCH => Ok(version),
        _ => Err(format!(
            "it is {version}, and the worker is built for {TORCH}"
        )),
    }
}

fn check_encoder(folder: &Path) -> Result<String, Box<EncoderError>> {
    let encoder = Encoder::open(folder)?;
    encoder.token_ids()?;
    Ok(encoder.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn bare() -> Programs {
        Programs {
            variables: Vec::new(),
            deps: Vec::new(),
            path: Vec::new(),
            beside: Vec::new(),
        }
    }

    fn script(path: &Path, says: &str) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, format!("#!/bin/sh\necho '{says}'\n")).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn a_variable_wins_over_deps_and_deps_over_path() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        script(&at("own"), "nats-server: v2.12.1");
        script(&at("deps/nats/nats-server"), "nats-server: v2.15.0");
        script(&at("bin/nats-server"), "nats-server: v2.11.0");
        let mut programs = bare();
        programs.path = vec![at("empty"), at("bin")];
        assert_eq!(
            programs.find(Part::Nats).unwrap().path,
            at("bin/nats-server")
        );
        programs.deps = vec![at("deps")];
        assert_eq!(
            programs.find(Part::Nats).unwrap().path,
            at("deps/nats/nats-server")
        );
        let programs = programs.with(Part::Nats, at("own"));
        assert_eq!(
            programs.find(Part::Nats).unwrap().version,
            "nats-server: v2.12.1"
        );
        let error = programs
            .with(Part::Nats, at("gone"))
            .find(Part::Nats)
            .unwrap_err();
        assert!(
            error.to_string().contains("HALFHEARD_NATS_SERVER names it"),
            "{error}"
        );
    }

    #[test]
    fn deps_of_another_user_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let deps = folder.path().join(".deps");
        std::fs::create_dir(&deps).unwrap();
        let above = [folder.path().join("bin"), folder.path().to_owned()];
        assert_eq!(laid_down(None, &above), std::slice::from_ref(&deps));
        if nix::unistd::geteuid().is_root() {
            let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
            std::os::unix::fs::chown(&deps, Some(nobody.uid.as_raw()), None).unwrap();
            assert!(laid_down(None, &above).is_empty());
            // Unless the program itself is that user's.
            assert_eq!(laid_down(Some(&deps), &above), [deps]);
        }
    }

    #[test]
    fn what_is_too_old_or_missing_is_refused_with_a_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let old = folder.path().join("nats-server");
        script(&old, "nats-server: v2.9.25");
        let error = bare()
            .with(Part::Nats, &old)
            .find(Part::Nats)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("2.9.25") && error.contains("2.10 or newer"),
            "{error}"
        );
        let error = bare().find(Part::Postgres).err().map(|e| e.to_string());
        // A machine may have its own.
        if let Some(error) = error {
            assert!(error.contains("make setup"), "{error}");
        }
        let error = bare().find(Part::EncoderEn).unwrap_err().to_string();
        assert!(error.contains("HALFHEARD_ENCODER_EN"), "{error}");
    }

    #[test]
    fn versions_are_read_where_they_stand() {
        assert_eq!(Version::find("nats-server: v2.15.1"), Some(Version(2, 15)));
        assert_eq!(
            Version::find("postgres (PostgreSQL) 18.6"),
            Some(Version(18, 6))
        );
        assert_eq!(
            Version::find("postgres (PostgreSQL) 19devel"),
            Some(Version(19, 0))
        );
        assert_eq!(Version::find("2.11.0+cpu"), Some(Version(2, 11)));
        assert_eq!(Version::find("none"), None);
    }

    #[test]
    fn an_encoder_says_what_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let write =
            |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        let find = || {
            bare()
                .with(Part::EncoderEn, folder.path())
                .find(Part::EncoderEn)
        };
        assert!(find().unwrap_err().to_string().contains("no config.json"));
        write("config.json", r#"{"model_type": "gpt2"}"#);
        let error = find().unwrap_err().to_string();
        assert!(error.contains("it is a `gpt2`"), "{error}");
        assert_eq!(
            error.matches("docs/reference/encoders.md").count(),
            1,
            "{error}"
        );
        write(
            "config.json",
            r#"{"model_type": "bert", "hidden_size": 4, "num_hidden_layers": 1,
                "num_attention_heads": 2, "intermediate_size": 6, "vocab_size": 104,
                "max_position_embeddings": 8}"#,
        );
        let config = halfheard_shared::encoder::Config::read(folder.path()).unwrap();
        let zeros = [0; 4 * 104 * 4];
        let tensors = config.tensors().map(|(name, shape)| {
            let shape: Vec<usize> = shape.iter().map(|&d| d as usize).collect();
            let bytes = &zeros[..4 * shape.iter().product::<usize>()];
            let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape, bytes);
            (name, view.unwrap())
        });
        let weights = safetensors::serialize(tensors, None).unwrap();
        std::fs::write(folder.path().join("model.safetensors"), weights).unwrap();
        assert_eq!(
            find().unwrap().version,
            "BERT of width 4, 1 layers, 104 tokens"
        );
    }
}
