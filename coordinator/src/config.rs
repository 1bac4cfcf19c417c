//! Connection settings: where the broker, the database, the artifacts and the data folder are.
//!
//! Each comes from the first place that says it: a flag, the environment, the config file, and at
//! last a private server that `coord run` keeps under the data folder, or the usual local address.
//! A password is taken from the environment or from a file that only its owner can read, never
//! from a flag: every user of a machine can read the flags of every process.

use halfheard_results::figures::Sources;
use halfheard_shared::{
    address::{holds_secret, redacted},
    artifacts::ArtifactStore,
    broker::BrokerSettings,
    config_file::{ConfigFile, ConfigFileError, user_folder},
};
use halfheard_store::connect::PgConnectOptions;
use halfheard_store::{
    StoreError,
    connect::{options, verify_authority},
};
use std::{
    fmt,
    path::{Path, PathBuf},
};

/// Environment variables that [`Settings`] reads.
pub mod vars {
    /// The broker's address.
    pub const NATS_URL: &str = "HALFHEARD_NATS_URL";
    /// The broker's credentials file.
    pub const NATS_CREDS: &str = "HALFHEARD_NATS_CREDS";
    /// The authority that signed the broker's certificate, in PEM.
    pub const NATS_CA: &str = "HALFHEARD_NATS_CA";
    /// The client's certificate, in PEM.
    pub const NATS_CERT: &str = "HALFHEARD_NATS_CERT";
    /// The client's key, in PEM.
    pub const NATS_KEY: &str = "HALFHEARD_NATS_KEY";
    /// How many servers of a NATS cluster keep each stream.
    pub const NATS_REPLICAS: &str = "HALFHEARD_NATS_REPLICAS";
    /// The database's address.
    pub const DATABASE_URL: &str = "HALFHEARD_DATABASE_URL";
    /// The artifact store's address.
    pub const ARTIFACTS: &str = "HALFHEARD_ARTIFACTS";
    /// The data folder.
    pub const DATA_DIR: &str = "HALFHEARD_DATA_DIR";
    /// The config file.
    pub const CONFIG: &str = "HALFHEARD_CONFIG";
}

/// Why the settings cannot be used. No message holds an address: it may hold a password.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A secret where every user of the machine can read it.
    #[error(
        "{flag} holds a password or token, and every user of this machine can read the flags of a process: put it into {variable}, or into the config file (mode 0600), and leave the flag away"
    )]
    SecretInFlag {
        /// The flag.
        flag: &'static str,
        /// Where it belongs instead.
        variable: &'static str,
    },
    /// The config file cannot be used.
    #[error(transparent)]
    File(#[from] ConfigFileError),
    /// An address of the database that cannot be read.
    #[error(
        "the database's address in {origin} cannot be read ({reason}): write it as postgres://user@host:5432/name"
    )]
    Database {
        /// Where the address came from.
        origin: Origin,
        /// Why.
        reason: String,
    },
    /// A number that is none.
    #[error("{origin}: `{value}` is no number of servers: 1, 3 or 5")]
    Replicas {
        /// Where it came from.
        origin: Origin,
        /// What was said.
        value: String,
    },
    /// Only one half of a client's identity.
    #[error(
        "a client certificate needs both its halves: {} and {}",
        vars::NATS_CERT,
        vars::NATS_KEY
    )]
    HalfIdentity,
    /// No home folder.
    #[error(
        "there is no place for data: neither XDG_DATA_HOME nor HOME is set; name a folder with --data-dir or {}",
        vars::DATA_DIR
    )]
    NoHome,
}

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
    /// Nowhere: the default.
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

/// The flags that every command has.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "Connections and output")]
pub struct ConnectionFlags {
    /// The broker's address, without password [env: HALFHEARD_NATS_URL]
    #[arg(long, global = true, value_name = "URL", hide_short_help = true)]
    pub nats_url: Option<String>,
    /// The broker's credentials file, as `nsc` writes it [env: HALFHEARD_NATS_CREDS]
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true)]
    pub nats_creds: Option<PathBuf>,
    /// The database's address, without password [env: HALFHEARD_DATABASE_URL]
    #[arg(long, global = true, value_name = "URL", hide_short_help = true)]
    pub database_url: Option<String>,
    /// Where checkpoints lie: file:///folder, s3://bucket/prefix or nats:// [env: HALFHEARD_ARTIFACTS]
    #[arg(long, global = true, value_name = "URL", hide_short_help = true)]
    pub artifacts: Option<String>,
    /// The folder of datasets and of private servers [env: HALFHEARD_DATA_DIR] [default: the user's
    /// data folder]
    #[arg(long, global = true, value_name = "FOLDER")]
    pub data_dir: Option<PathBuf>,
    /// The config file [env: HALFHEARD_CONFIG] [default: ~/.config/halfheard/config.toml]
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true)]
    pub config: Option<PathBuf>,
    /// Print JSON for programs instead of text for people
    #[arg(long, global = true)]
    pub json: bool,
    /// When to use colours
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        default_value = "auto",
        hide_short_help = true
    )]
    pub color: Color,
}

/// When to use colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What a command needs to know of its surroundings.
///
/// `Debug` shows no password.
#[derive(Clone)]
pub struct Settings {
    /// How to reach the broker.
    pub broker: BrokerSettings,
    /// Where the broker's address came from.
    pub broker_origin: Origin,
    /// How to reach the database.
    pub database: PgConnectOptions,
    /// Where the database's address came from.
    pub database_origin: Origin,
    /// The artifact store's address, as [`halfheard_shared::artifacts`] reads it.
    pub artifacts: String,
    /// Where the artifact store's address came from.
    pub artifacts_origin: Origin,
    /// The data folder: datasets, encoders, private servers.
    pub data_dir: PathBuf,
    /// Where the data folder came from.
    pub data_dir_origin: Origin,
    /// The config file that was read, if there was one.
    pub config_file: Option<PathBuf>,
    /// Whether to print JSON.
    pub json: bool,
    /// Whether to use colours on standard output.
    pub color: bool,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("broker", &self.broker)
            .field("database", &self.database_address())
            .field("artifacts", &redacted(&self.artifacts))
            .field("data_dir", &self.data_dir)
            .field("config_file", &self.config_file)
            .field("json", &self.json)
            .field("color", &self.color)
            .finish()
    }
}

/// What surrounds the program; given as a value so that tests need not change their own process.
pub trait Surroundings {
    /// An environment variable that is set and not empty.
    fn var(&self, name: &str) -> Option<String>;
}

/// The process's own environment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Process;

impl Surroundings for Process {
    fn var(&self, name: &str) -> Option<String> {
        std::env::var(name).ok().filter(|value| !value.is_empty())
    }
}

impl Settings {
    /// Where figures find artifacts and data.
    pub fn sources(&self) -> Sources<'_> {
        Sources {
            artifacts: &self.artifacts,
            data_dir: &self.data_dir,
            broker: &self.broker,
        }
    }

    /// Puts the settings together.
    ///
    /// # Errors
    ///
    /// A secret in a flag, a config file that cannot be read or used, an address that is none.
    pub fn resolve(
        flags: &ConnectionFlags,
        around: &dyn Surroundings,
    ) -> Result<Self, SettingsError> {
        refuse_secret(
            flags.nats_url.as_deref(),
            "--nats-url",
            vars::NATS_URL,
            true,
        )?;
        refuse_secret(
            flags.database_url.as_deref(),
            "--database-url",
            vars::DATABASE_URL,
            false,
        )?;
        refuse_secret(
            flags.artifacts.as_deref(),
            "--artifacts",
            vars::ARTIFACTS,
            true,
        )?;

        let asked = flags
            .config
            .clone()
            .or_else(|| around.var(vars::CONFIG).map(PathBuf::from));
        let usual = config_home(around).map(|folder| folder.join("halfheard/config.toml"));
        let (config_file, file) = ConfigFile::read(asked.as_deref(), usual.as_deref())?;
        let pick = Picker {
            around,
            path: config_file.as_deref(),
        };

        let (url, broker_origin) = pick.text(
            flags.nats_url.clone(),
            "--nats-url",
            vars::NATS_URL,
            file.nats_url,
        );
        let (credentials, _) = pick.path(
            flags.nats_creds.clone(),
            "--nats-creds",
            vars::NATS_CREDS,
            file.nats_creds,
        );
        let mut broker = BrokerSettings {
            credentials,
            name: "coord".to_owned(),
            ..BrokerSettings::default()
        };
        if let Some(url) = url {
            broker.url = url;
        }
        broker.tls.ca = pick.path(None, "", vars::NATS_CA, file.nats_ca).0;
        let certificate = pick.path(None, "", vars::NATS_CERT, file.nats_cert).0;
        let key = pick.path(None, "", vars::NATS_KEY, file.nats_key).0;
        broker.tls.identity = match (certificate, key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => return Err(SettingsError::HalfIdentity),
        };
        let replicas = file.nats_replicas.map(|count| count.to_string());
        let (replicas, origin) = pick.text(None, "", vars::NATS_REPLICAS, replicas);
        if let Some(value) = replicas {
            broker.replicas = match value.parse() {
                Ok(count @ 1..=5) => count,
                _ => return Err(SettingsError::Replicas { origin, value }),
            };
        }

        let (url, database_origin) = pick.text(
            flags.database_url.clone(),
            "--database-url",
            vars::DATABASE_URL,
            file.database_url,
        );
        let database = match url {
            Some(url) => options(&url).map_err(|error| SettingsError::Database {
                origin: database_origin.clone(),
                reason: match error {
                    StoreError::Address { reason } => reason,
                    error => error.to_string(),
                },
            })?,
            // As libpq: PGHOST, PGUSER, PGPASSWORD, ~/.pgpass and the rest.
            None if around.var("PGDATABASE").is_some() => PgConnectOptions::new(),
            None => PgConnectOptions::new().database("halfheard"),
        };
        let database = verify_authority(database, around.var("PGSSLROOTCERT").is_some());

        let (data_dir, data_dir_origin) = pick.path(
            flags.data_dir.clone(),
            "--data-dir",
            vars::DATA_DIR,
            file.data_dir,
        );
        let data_dir = match data_dir {
            Some(folder) => std::path::absolute(&folder).unwrap_or(folder),
            None => data_home(around)
                .ok_or(SettingsError::NoHome)?
                .join("halfheard"),
        };

        let (artifacts, artifacts_origin) = pick.text(
            flags.artifacts.clone(),
            "--artifacts",
            vars::ARTIFACTS,
            file.artifacts,
        );
        let artifacts =
            artifacts.unwrap_or_else(|| ArtifactStore::url_of(&data_dir.join("artifacts")));

        Ok(Self {
            broker,
            broker_origin,
            database,
            database_origin,
            artifacts,
            artifacts_origin,
            data_dir,
            data_dir_origin,
            config_file,
            json: flags.json,
            color: use_color(flags.color, around),
        })
    }

    /// The database's address without user and password, for people and logs.
    pub fn database_address(&self) -> String {
        let options = &self.database;
        let database = options.get_database().unwrap_or_default();
        match options.get_socket() {
            Some(folder) => format!("{}, database {database}", folder.display()),
            None => format!(
                "postgres://{}:{}/{database}",
                options.get_host(),
                options.get_port()
            ),
        }
    }
}

struct Picker<'a> {
    around: &'a dyn Surroundings,
    path: Option<&'a Path>,
}

impl Picker<'_> {
    fn text(
        &self,
        flag: Option<String>,
        name: &'static str,
        variable: &'static str,
        file: Option<String>,
    ) -> (Option<String>, Origin) {
        if let Some(value) = flag {
            return (Some(value), Origin::Flag(name));
        }
        if let Some(value) = self.around.var(variable) {
            return (Some(value), Origin::Environment(variable));
        }
        match (file, self.path) {
            (Some(value), Some(path)) => (Some(value), Origin::File(path.to_owned())),
            _ => (None, Origin::Default),
        }
    }

    /// As [`Picker::text`].
    fn path(
        &self,
        flag: Option<PathBuf>,
        name: &'static str,
        variable: &'static str,
        file: Option<PathBuf>,
    ) -> (Option<PathBuf>, Origin) {
        if let Some(value) = flag {
            return (Some(value), Origin::Flag(name));
        }
        if let Some(value) = self.around.var(variable) {
            return (Some(value.into()), Origin::Environment(variable));
        }
        match (file, self.path) {
            (Some(value), Some(path)) => (Some(value), Origin::File(path.to_owned())),
            _ => (None, Origin::Default),
        }
    }
}

fn refuse_secret(
    url: Option<&str>,
    flag: &'static str,
    variable: &'static str,
    user_is_secret: bool,
) -> Result<(), SettingsError> {
    match url {
        Some(url) if holds_secret(url, user_is_secret) => {
            Err(SettingsError::SecretInFlag { flag, variable })
        }
        _ => Ok(()),
    }
}

fn data_home(around: &dyn Surroundings) -> Option<PathBuf> {
    user_folder(|name| around.var(name), "XDG_DATA_HOME", ".local/share")
}

fn config_home(around: &dyn Surroundings) -> Option<PathBuf> {
    user_folder(|name| around.var(name), "XDG_CONFIG_HOME", ".config")
}

fn use_color(when: Color, around: &dyn Surroundings) -> bool {
    use std::io::IsTerminal as _;
    match when {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => {
            around.var("NO_COLOR").is_none()
                && around.var("TERM").as_deref() != Some("dumb")
                && std::io::stdout().is_terminal()
        }
    }
}

#[cfg(test)]
mod tests;
