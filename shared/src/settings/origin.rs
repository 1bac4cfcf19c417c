//! Provenance of settings.

use std::{fmt, path::PathBuf};

/// Where a setting came from.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A flag.
    Flag(&'static str),
    /// An environment variable.
    Environment(&'static str),
    /// The config file.
    File(PathBuf),
    /// The private servers that run on the data folder.
    Private,
    /// The default.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Flag(name) => write!(f, "the flag {name}"),
            Origin::Environment(name) => write!(f, "the variable {name}"),
            Origin::File(path) => write!(f, "the config file {}", path.display()),
            Origin::Private => f.write_str("the servers of `coord run`"),
            Origin::Default => f.write_str("the default"),
        }
    }
}
