//! The settings of `coord`: those that it has in common with `worker`, the database, and the form of the output.

use crate::analysis::Sources;
use halfheard_page::Places;
use halfheard_shared::{
    address::redacted,
    broker::BrokerSettings,
    color::{self, ColorChoice},
    env::{self, Env},
    error::{Hint, hint_of},
    settings::{self, Flags, Layers, Secret},
};
use halfheard_store::{
    StoreError,
    connect::{PgConnectOptions, options, verify_authority},
};
use std::{fmt, path::PathBuf};

pub use halfheard_shared::settings::Origin;

/// Why the settings cannot be used. No message holds an address: it may hold a password.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// One of the settings that both programs have.
    #[error(transparent)]
    Shared(#[from] settings::SettingsError),
    /// An invalid address of the database.
    #[error("invalid database address in {origin}: {reason}")]
    Database {
        /// Where the address came from.
        origin: Origin,
        /// What is wrong with it.
        reason: String,
    },
}

impl Hint for SettingsError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Shared(error) => hint_of::<settings::SettingsError>(error),
            Self::Database { .. } => Some("write it as postgres://user@host:5432/name".to_owned()),
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
    /// The artifact store: file:///folder, s3://bucket/prefix or nats:// [env: HALFHEARD_ARTIFACTS]
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
    /// When to use colors
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        default_value = "auto",
        hide_short_help = true
    )]
    pub color: Color,
}

/// When to use colors.
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

impl From<Color> for ColorChoice {
    fn from(color: Color) -> Self {
        match color {
            Color::Auto => Self::Auto,
            Color::Always => Self::Always,
            Color::Never => Self::Never,
        }
    }
}

/// The settings of a command.
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

impl Settings {
    /// Where the page finds artifacts and data.
    pub(crate) fn places(&self) -> Places {
        Places {
            artifacts: self.artifacts.clone(),
            data_dir: self.data_dir.clone(),
            broker: self.broker.clone(),
        }
    }

    /// Where figures find artifacts and data.
    pub fn sources(&self) -> Sources<'_> {
        Sources {
            artifacts: &self.artifacts,
            data_dir: &self.data_dir,
            broker: &self.broker,
        }
    }

    /// Resolves the settings.
    ///
    /// # Errors
    ///
    /// A secret in a flag, a config file that cannot be used, an invalid value.
    pub fn resolve(flags: &ConnectionFlags, env: Env) -> Result<Self, SettingsError> {
        let layers = Layers::read(flags.config.as_deref(), env)?;
        let (url, database_origin) = layers.pick_address(
            ("--database-url", flags.database_url.as_ref()),
            (env::DATABASE_URL, Some(env::DATABASE_URL_FILE)),
            Secret::Password,
            layers.file.database_url.clone(),
        )?;
        let database = match url {
            Some(url) => options(&url).map_err(|error| SettingsError::Database {
                origin: database_origin.clone(),
                reason: match error {
                    StoreError::Address { reason } => reason,
                    error => error.to_string(),
                },
            })?,
            // As libpq: PGHOST, PGUSER, PGPASSWORD, ~/.pgpass and the rest.
            None if env("PGDATABASE").is_some() => PgConnectOptions::new(),
            None => PgConnectOptions::new().database("halfheard"),
        };
        let database = verify_authority(database, env("PGSSLROOTCERT").is_some());
        let config_file = layers.path.clone();
        let common = Flags {
            nats_url: flags.nats_url.clone(),
            nats_creds: flags.nats_creds.clone(),
            artifacts: flags.artifacts.clone(),
            data_dir: flags.data_dir.clone(),
            config: flags.config.clone(),
        };
        let common = settings::Settings::from_layers(&common, layers, "coord")?;
        Ok(Self {
            broker: common.broker,
            broker_origin: common.broker_origin,
            database,
            database_origin,
            artifacts: common.artifacts,
            artifacts_origin: common.artifacts_origin,
            data_dir: common.data_dir,
            data_dir_origin: common.data_dir_origin,
            config_file,
            json: flags.json,
            color: color::stdout(),
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

#[cfg(test)]
mod tests;
