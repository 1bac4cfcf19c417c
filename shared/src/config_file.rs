//! The config file that `coord` and `worker` both read, by the same rules: every key has to be
//! known, a relative path in it is relative to it, and one with a password must be its owner's alone.

use crate::address::holds_secret;
use serde::Deserialize;
use std::{
    io::Read as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

/// The most bytes of a config file that are read.
const MAX_BYTES: u64 = 1 << 20;

/// What the file says. The keys are the names of the environment variables, in small letters and
/// without their common beginning. Paths are absolute, or relative to the current folder as the
/// file's own path is.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    /// The broker's address.
    pub nats_url: Option<String>,
    /// The broker's credentials file.
    pub nats_creds: Option<PathBuf>,
    /// The authority that signed the broker's certificate, in PEM.
    pub nats_ca: Option<PathBuf>,
    /// The client's certificate, in PEM.
    pub nats_cert: Option<PathBuf>,
    /// The client's key, in PEM.
    pub nats_key: Option<PathBuf>,
    /// How many servers of a NATS cluster keep each stream; `coord` alone uses it.
    pub nats_replicas: Option<usize>,
    /// The database's address; `coord` alone uses it.
    pub database_url: Option<String>,
    /// The artifact store's address.
    pub artifacts: Option<String>,
    /// The data folder.
    pub data_dir: Option<PathBuf>,
}

/// Why a config file cannot be used. No message quotes it: it may hold a password.
#[derive(Debug, thiserror::Error)]
pub enum ConfigFileError {
    /// It was asked for and is not there, or it cannot be read.
    #[error("the config file {} cannot be read: {source}", path.display())]
    Unreadable {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is none.
    #[error("the config file {} is wrong: {reason}", path.display())]
    Invalid {
        /// Its path.
        path: PathBuf,
        /// Why, with the line.
        reason: String,
    },
    /// It holds a password and others can read it.
    #[error("the config file {0} holds a password and other users can read it: `chmod 600 {0}`", path.display())]
    Exposed {
        /// Its path.
        path: PathBuf,
    },
}

impl ConfigFile {
    /// Reads the file that was `asked` for, or else the one in the `usual` place, which need not be
    /// there. Returns the path of the one that was read.
    ///
    /// # Errors
    ///
    /// It cannot be read, has a key that is not known or a value that does not fit, or shows a
    /// password to other users.
    pub fn read(
        asked: Option<&Path>,
        usual: Option<&Path>,
    ) -> Result<(Option<PathBuf>, Self), ConfigFileError> {
        let Some(path) = asked.or(usual).map(Path::to_owned) else {
            return Ok((None, Self::default()));
        };
        let text = match read(&path) {
            Ok(text) => text,
            Err(error) if asked.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
                return Ok((None, Self::default()));
            }
            Err(source) => return Err(ConfigFileError::Unreadable { path, source }),
        };
        let mut file: Self = toml::from_str(&text).map_err(|error| ConfigFileError::Invalid {
            path: path.clone(),
            // Not the error's own text: it quotes the line, which may hold a password.
            reason: match error.span() {
                Some(span) => {
                    let before = text.get(..span.start).unwrap_or(&text);
                    let line = before.matches('\n').count() + 1;
                    format!("line {line}: {}", error.message())
                }
                None => error.message().to_owned(),
            },
        })?;
        let open =
            || std::fs::metadata(&path).is_ok_and(|meta| meta.permissions().mode() & 0o077 != 0);
        if file.holds_secret() && open() {
            return Err(ConfigFileError::Exposed { path });
        }
        file.resolve_paths(path.parent().unwrap_or(Path::new("")));
        Ok((Some(path), file))
    }

    fn holds_secret(&self) -> bool {
        let holds = |url: &Option<String>, user_is_secret| {
            url.as_deref()
                .is_some_and(|url| holds_secret(url, user_is_secret))
        };
        holds(&self.nats_url, true)
            || holds(&self.database_url, false)
            || holds(&self.artifacts, true)
    }

    fn resolve_paths(&mut self, folder: &Path) {
        for path in [
            &mut self.nats_creds,
            &mut self.nats_ca,
            &mut self.nats_cert,
            &mut self.nats_key,
            &mut self.data_dir,
        ]
        .into_iter()
        .flatten()
        {
            *path = folder.join(&*path);
        }
    }
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?
        .take(MAX_BYTES + 1)
        .read_to_string(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(std::io::Error::other("it is larger than 1 MiB"));
    }
    Ok(text)
}

/// A folder of the user's: what `variable` names, or `below` the home folder. `None` without a home.
pub fn user_folder(
    var: impl Fn(&str) -> Option<String>,
    variable: &str,
    below: &str,
) -> Option<PathBuf> {
    var(variable)
        .map(PathBuf::from)
        // The standard: a relative path in these variables is to be ignored.
        .filter(|path| path.is_absolute())
        .or_else(|| var("HOME").map(|home| Path::new(&home).join(below)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_relative_to_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.toml");
        std::fs::write(
            &path,
            "data_dir = 'd'\nnats_creds = '/c'\nnats_ca = '../ca.pem'\n",
        )
        .unwrap();
        let (found, file) = ConfigFile::read(Some(&path), None).unwrap();
        assert_eq!(found.as_deref(), Some(&*path));
        assert_eq!(file.data_dir, Some(folder.path().join("d")));
        assert_eq!(file.nats_creds, Some("/c".into()));
        assert_eq!(file.nats_ca, Some(folder.path().join("../ca.pem")));
    }

    #[test]
    fn one_that_is_too_large_or_no_text_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.toml");
        for content in [vec![b'#'; (1 << 20) + 1], vec![0xff]] {
            std::fs::write(&path, content).unwrap();
            let error = ConfigFile::read(Some(&path), None).unwrap_err();
            assert!(
                matches!(error, ConfigFileError::Unreadable { .. }),
                "{error}"
            );
        }
        let none = folder.path().join("none.toml");
        assert!(ConfigFile::read(None, Some(&none)).unwrap().0.is_none());
        assert!(ConfigFile::read(Some(&none), None).is_err());
    }
}
