//! The config file.

use crate::{address::holds_secret, error::Hint};
use serde::Deserialize;
use std::{
    io::Read as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

const MAX_BYTES: u64 = 1 << 20;

/// What the file says. The keys are the names of the environment variables in lowercase without their prefix. Every key
/// must be known; relative paths are relative to the file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    /// The broker's address.
    pub nats_url: Option<String>,
    /// The broker's credentials file.
    pub nats_creds: Option<PathBuf>,
    /// The certificate authority to trust for the broker, in PEM.
    pub nats_ca: Option<PathBuf>,
    /// The client certificate, in PEM.
    pub nats_cert: Option<PathBuf>,
    /// The client key, in PEM.
    pub nats_key: Option<PathBuf>,
    /// How many servers of a NATS cluster keep each stream. Only `coord` uses it.
    pub nats_replicas: Option<usize>,
    /// The prefix of all names on the broker: several installations can share it.
    pub nats_prefix: Option<String>,
    /// The first token of the subjects on which the broker answers this login.
    pub nats_inbox: Option<String>,
    /// The database's address. Only `coord` uses it.
    pub database_url: Option<String>,
    /// The artifact store's address.
    pub artifacts: Option<String>,
    /// How many bytes artifacts may take on the broker: `64GB`. Only `coord` uses it, when it makes the bucket.
    pub artifacts_max_bytes: Option<String>,
    /// The data folder.
    pub data_dir: Option<PathBuf>,
}

/// Why a config file cannot be used. No message quotes the file: it may hold a password.
#[derive(Debug, thiserror::Error)]
pub enum ConfigFileError {
    /// It was named and does not exist, or it cannot be read.
    #[error("cannot read the config file {}", path.display())]
    Unreadable {
        /// The config file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// Invalid TOML, an unknown key, or a value of the wrong type.
    #[error("invalid config file {}: {reason}", path.display())]
    Invalid {
        /// The config file.
        path: PathBuf,
        /// What is wrong, with the line.
        reason: String,
    },
    /// It holds a password and other users can read it.
    #[error("the config file {} holds a password and other users can read it", path.display())]
    Exposed {
        /// The config file.
        path: PathBuf,
    },
}

impl Hint for ConfigFileError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Exposed { path } => Some(format!("`chmod 600 {}`", path.display())),
            Self::Unreadable { .. } | Self::Invalid { .. } => None,
        }
    }
}

impl ConfigFile {
    /// Reads the file that was `named`, or else the `default` one, which need not exist. Returns the path of the file that
    /// was read.
    ///
    /// # Errors
    ///
    /// It cannot be read, has an unknown key or an invalid value, or shows a password to other users.
    pub(super) fn read(
        named: Option<&Path>,
        default: Option<&Path>,
    ) -> Result<(Option<PathBuf>, Self), ConfigFileError> {
        let Some(path) = named.or(default).map(Path::to_owned) else {
            return Ok((None, Self::default()));
        };
        let text = match read(&path) {
            Ok(text) => text,
            Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
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
        let exposed =
            || std::fs::metadata(&path).is_ok_and(|meta| meta.permissions().mode() & 0o077 != 0);
        if file.holds_secret() && exposed() {
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
        return Err(std::io::Error::other("larger than 1 MiB"));
    }
    Ok(text)
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
    fn oversized_or_binary_file_is_rejected() {
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
