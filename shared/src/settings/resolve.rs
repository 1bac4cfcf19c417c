//! Picks each setting from the first layer that has it.

use super::{ConfigFile, Origin, SettingsError};
use crate::{
    address::{holds_secret, redacted},
    artifacts::ArtifactStore,
    broker::{BrokerSettings, connection::valid_inbox},
    env::{self, Env, user_folder},
    text::parse_bytes,
};
use std::{
    fmt,
    path::{Path, PathBuf},
};

/// What counts as a secret in an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secret {
    /// A password. A user alone is fine (Postgres).
    Password,
    /// A password, or a user alone, which is a token (NATS) or a key (S3).
    Login,
}

/// The flags that both programs have.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// `--nats-url`.
    pub nats_url: Option<String>,
    /// `--nats-creds`.
    pub nats_creds: Option<PathBuf>,
    /// `--artifacts`.
    pub artifacts: Option<String>,
    /// `--data-dir`.
    pub data_dir: Option<PathBuf>,
    /// `--config`.
    pub config: Option<PathBuf>,
}

/// The layers below the flags.
pub struct Layers<'a> {
    env: Env<'a>,
    /// What the config file says; empty without one.
    pub file: ConfigFile,
    /// The config file that was read.
    pub path: Option<PathBuf>,
}

impl<'a> Layers<'a> {
    /// Reads the config file that `--config` or [`env::CONFIG`] names, or the user's.
    ///
    /// # Errors
    ///
    /// The file cannot be used.
    pub fn read(config: Option<&Path>, env: Env<'a>) -> Result<Self, SettingsError> {
        let named = config
            .map(Path::to_owned)
            .or_else(|| env(env::CONFIG).map(PathBuf::from));
        let default = user_folder(env, "XDG_CONFIG_HOME", ".config")
            .map(|folder| folder.join("halfheard/config.toml"));
        let (path, file) = ConfigFile::read(named.as_deref(), default.as_deref())?;
        Ok(Self { env, file, path })
    }

    /// The value of the first layer that has one, and which layer that is.
    pub fn pick<T: From<String>>(
        &self,
        flag: Option<(&'static str, T)>,
        variable: &'static str,
        file: Option<T>,
    ) -> (Option<T>, Origin) {
        if let Some((name, value)) = flag {
            return (Some(value), Origin::Flag(name));
        }
        if let Some(value) = (self.env)(variable).filter(|value| !value.is_empty()) {
            return (Some(value.into()), Origin::Environment(variable));
        }
        match (file, &self.path) {
            (Some(value), Some(path)) => (Some(value), Origin::File(path.clone())),
            _ => (None, Origin::Default),
        }
    }

    /// Like [`Self::pick`], for an address, which must not hold a secret if it is a flag. Of the two variables,
    /// the first holds the address and precedes the second, which names a file with it.
    ///
    /// # Errors
    ///
    /// The flag holds a secret; the file cannot be read.
    pub fn pick_address(
        &self,
        (name, flag): (&'static str, Option<&String>),
        (variable, variable_of_file): (&'static str, Option<&'static str>),
        secret: Secret,
        file: Option<String>,
    ) -> Result<(Option<String>, Origin), SettingsError> {
        if flag.is_some_and(|url| holds_secret(url, secret == Secret::Login)) {
            return Err(SettingsError::SecretInFlag {
                flag: name,
                variable,
            });
        }
        let picked = self.pick(flag.map(|url| (name, url.clone())), variable, file);
        if let Origin::File(_) | Origin::Default = picked.1
            && let Some(variable) = variable_of_file
            && let Some(path) = (self.env)(variable).filter(|path| !path.is_empty())
        {
            let url = secret_file(variable, PathBuf::from(path))?;
            return Ok((Some(url), Origin::Environment(variable)));
        }
        Ok(picked)
    }
}

/// The address in a file that a variable names. Whoever mounts secrets decides who may read them.
fn secret_file(variable: &'static str, path: PathBuf) -> Result<String, SettingsError> {
    let read = std::fs::read_to_string(&path).and_then(|text| match text.trim() {
        "" => Err(std::io::Error::other("it is empty")),
        url => Ok(url.to_owned()),
    });
    read.map_err(|source| SettingsError::SecretFile {
        variable,
        path,
        source,
    })
}

/// The settings that both programs have. `Debug` shows no password.
#[derive(Clone)]
pub struct Settings {
    /// How to reach the broker.
    pub broker: BrokerSettings,
    /// Where the broker's address came from.
    pub broker_origin: Origin,
    /// The artifact store's address, as [`ArtifactStore::open`] reads it.
    pub artifacts: String,
    /// Where the artifact store's address came from.
    pub artifacts_origin: Origin,
    /// The data folder: datasets, encoders, private servers.
    pub data_dir: PathBuf,
    /// Where the data folder came from.
    pub data_dir_origin: Origin,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("broker", &self.broker)
            .field("artifacts", &redacted(&self.artifacts))
            .field("data_dir", &self.data_dir)
            .finish_non_exhaustive()
    }
}

impl Settings {
    /// Resolves the settings of `program`, which is the name of its connection to the broker.
    ///
    /// # Errors
    ///
    /// A secret in a flag, a config file that cannot be used, an invalid value.
    pub fn resolve(flags: &Flags, env: Env, program: &str) -> Result<Self, SettingsError> {
        Self::from_layers(flags, Layers::read(flags.config.as_deref(), env)?, program)
    }

    /// Like [`Self::resolve`], for a program that picks more settings from the same layers.
    ///
    /// # Errors
    ///
    /// A secret in a flag, an invalid value.
    pub fn from_layers(
        flags: &Flags,
        mut layers: Layers,
        program: &str,
    ) -> Result<Self, SettingsError> {
        let file = std::mem::take(&mut layers.file);
        let (url, broker_origin) = layers.pick_address(
            ("--nats-url", flags.nats_url.as_ref()),
            (env::NATS_URL, Some(env::NATS_URL_FILE)),
            Secret::Login,
            file.nats_url,
        )?;
        let (artifacts, artifacts_origin) = layers.pick_address(
            ("--artifacts", flags.artifacts.as_ref()),
            (env::ARTIFACTS, None),
            Secret::Login,
            file.artifacts,
        )?;
        let creds = flags.nats_creds.clone().map(|path| ("--nats-creds", path));
        let mut broker = BrokerSettings {
            credentials: layers.pick(creds, env::NATS_CREDS, file.nats_creds).0,
            name: program.to_owned(),
            ..BrokerSettings::default()
        };
        if let Some(url) = url {
            broker.url = url;
        }
        broker.tls.ca = layers.pick(None, env::NATS_CA, file.nats_ca).0;
        let certificate = layers.pick(None, env::NATS_CERT, file.nats_cert).0;
        let key = layers.pick(None, env::NATS_KEY, file.nats_key).0;
        broker.tls.identity = match (certificate, key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => return Err(SettingsError::HalfIdentity),
        };
        let replicas = file.nats_replicas.map(|count| count.to_string());
        let (replicas, origin) = layers.pick(None, env::NATS_REPLICAS, replicas);
        if let Some(value) = replicas {
            broker.replicas = match value.parse() {
                Ok(count @ 1..=5) => count,
                _ => return Err(SettingsError::Replicas { origin, value }),
            };
        }
        let (limit, origin) = layers.pick(None, env::ARTIFACTS_MAX_BYTES, file.artifacts_max_bytes);
        if let Some(value) = limit {
            broker.artifacts_max_bytes = match parse_bytes(&value) {
                Some(bytes @ 1..) => Some(bytes),
                _ => return Err(SettingsError::Bytes { origin, value }),
            };
        }
        let (prefix, origin) = layers.pick(None, env::NATS_PREFIX, file.nats_prefix);
        if let Some(value) = prefix {
            broker.names = value
                .parse()
                .map_err(|source| SettingsError::Prefix { origin, source })?;
        }
        let (inbox, origin) = layers.pick(None, env::NATS_INBOX, file.nats_inbox);
        if let Some(value) = inbox {
            if !valid_inbox(&value) {
                return Err(SettingsError::Inbox { origin, value });
            }
            broker.inbox = Some(value);
        }
        let data_dir = flags.data_dir.clone().map(|path| ("--data-dir", path));
        let (data_dir, data_dir_origin) = layers.pick(data_dir, env::DATA_DIR, file.data_dir);
        let data_dir = match data_dir {
            Some(folder) => std::path::absolute(&folder).unwrap_or(folder),
            None => user_folder(layers.env, "XDG_DATA_HOME", ".local/share")
                .ok_or(SettingsError::NoHome)?
                .join("halfheard"),
        };
        let artifacts =
            artifacts.unwrap_or_else(|| ArtifactStore::url_of(&data_dir.join("artifacts")));
        Ok(Self {
            broker,
            broker_origin,
            artifacts,
            artifacts_origin,
            data_dir,
            data_dir_origin,
        })
    }
}
