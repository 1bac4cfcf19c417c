//! Why settings cannot be used.

use super::{ConfigFileError, Origin};
use crate::{
    broker::InvalidPrefix,
    env,
    error::{Hint, hint_of},
};
use std::path::PathBuf;

/// Why settings cannot be used. No message holds an address: it may hold a password.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A password where every user of the machine can read it.
    #[error(
        "{flag} holds a password or token, and every user of this machine can read the flags of a process"
    )]
    SecretInFlag {
        /// The flag.
        flag: &'static str,
        /// The variable to use instead.
        variable: &'static str,
    },
    /// A variable names a file with an address, which cannot be read or is empty.
    #[error("cannot read an address from {}, which {variable} names", path.display())]
    SecretFile {
        /// The variable.
        variable: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// The config file cannot be used.
    #[error(transparent)]
    File(#[from] ConfigFileError),
    /// A replica count that NATS does not have.
    #[error("invalid replica count `{value}` in {origin}")]
    Replicas {
        /// Where it came from.
        origin: Origin,
        /// What was given.
        value: String,
    },
    /// Not a number of bytes.
    #[error("invalid number of bytes `{value}` in {origin}")]
    Bytes {
        /// Where it came from.
        origin: Origin,
        /// What was given.
        value: String,
    },
    /// A prefix that the broker does not allow.
    #[error("invalid prefix in {origin}")]
    Prefix {
        /// Where it came from.
        origin: Origin,
        /// The reason.
        source: InvalidPrefix,
    },
    /// An inbox that the broker does not allow.
    #[error("invalid inbox `{value}` in {origin}")]
    Inbox {
        /// Where it came from.
        origin: Origin,
        /// What was given.
        value: String,
    },
    /// A certificate without its key, or the reverse.
    #[error("both the client certificate and its key are required")]
    HalfIdentity,
    /// No home folder.
    #[error("cannot determine the data folder: neither XDG_DATA_HOME nor HOME is set")]
    NoHome,
}

impl Hint for SettingsError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::SecretInFlag { variable, .. } => Some(format!(
                "set {variable}, or put it into the config file (mode 0600), and remove the flag"
            )),
            Self::SecretFile { variable, .. } => Some(format!(
                "mount the secret there, readable for this user, or set {} itself",
                variable.trim_end_matches("_FILE")
            )),
            Self::File(error) => hint_of::<ConfigFileError>(error),
            Self::Replicas { .. } => Some("use 1, 3 or 5".to_owned()),
            Self::Bytes { .. } => Some("write it as `64GB` or `1.5TB`".to_owned()),
            Self::Prefix { source, .. } => source.hint(),
            Self::Inbox { .. } => {
                Some("use letters, digits, hyphens and underscores: `_INBOX_worker`".to_owned())
            }
            Self::HalfIdentity => Some(format!("set {} and {}", env::NATS_CERT, env::NATS_KEY)),
            Self::NoHome => Some(format!("pass --data-dir or set {}", env::DATA_DIR)),
        }
    }
}
