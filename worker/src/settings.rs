//! What a worker needs to know of its surroundings: from flags, then the environment, then the
//! config file that `coord` reads too. A password is never taken from a flag, because every user
//! of a machine can read the flags of every process.

use halfheard_shared::{
    address::{holds_secret, redacted},
    artifacts::ArtifactStore,
    broker::BrokerSettings,
    config_file::{ConfigFile, ConfigFileError, user_folder},
};
use std::{fmt, path::PathBuf};

/// Why the settings cannot be used. No message holds an address: it may hold a password.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A secret where every user of the machine can read it.
    #[error(
        "{flag} holds a password or token, and every user of this machine can read the flags of a process: put it into {variable} or into the config file (mode 0600), and leave the flag away"
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
    /// Half a client's identity.
    #[error(
        "a client certificate needs both its halves: HALFHEARD_NATS_CERT and HALFHEARD_NATS_KEY"
    )]
    HalfIdentity,
    /// No home folder.
    #[error(
        "there is no place for data: neither XDG_DATA_HOME nor HOME is set; name a folder with --data-dir or HALFHEARD_DATA_DIR"
    )]
    NoHome,
}

/// The flags about connections.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "Connections")]
pub struct ConnectionFlags {
    /// The broker's address without password, several with commas between them; a login comes from
    /// the variable [env: HALFHEARD_NATS_URL] [default: nats://127.0.0.1:4222]
    #[arg(long, visible_alias = "nats", value_name = "URL")]
    pub nats_url: Option<String>,
    /// The broker's credentials file, as `nsc` writes it [env: HALFHEARD_NATS_CREDS]
    #[arg(long, visible_alias = "creds", value_name = "FILE")]
    pub nats_creds: Option<PathBuf>,
    /// Where checkpoints and saved states lie: file:///folder, s3://bucket/prefix (credentials from
    /// AWS_* variables) or nats:// [env: HALFHEARD_ARTIFACTS] [default: a folder in the data folder]
    #[arg(long, value_name = "URL")]
    pub artifacts: Option<String>,
    /// Where datasets and encoders are looked for and kept, by hash [env: HALFHEARD_DATA_DIR]
    /// [default: ~/.local/share/halfheard]
    #[arg(long, value_name = "FOLDER")]
    pub data_dir: Option<PathBuf>,
    /// The config file [env: HALFHEARD_CONFIG] [default: ~/.config/halfheard/config.toml]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Where everything is. `Debug` shows no password.
#[derive(Clone)]
pub struct Settings {
    /// How to reach the broker.
    pub broker: BrokerSettings,
    /// The artifact store's address.
    pub artifacts: String,
    /// The data folder.
    pub data_dir: PathBuf,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("broker", &self.broker)
            .field("artifacts", &redacted(&self.artifacts))
            .field("data_dir", &self.data_dir)
            .finish()
    }
}

impl Settings {
    /// Puts the settings together; `var` reads the environment.
    ///
    /// # Errors
    /// A secret in a flag, a config file that cannot be used.
    pub fn resolve(
        flags: &ConnectionFlags,
        var: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, SettingsError> {
        let var = |name: &str| var(name).filter(|value| !value.is_empty());
        if flags
            .nats_url
            .as_deref()
            .is_some_and(|url| holds_secret(url, true))
        {
            return Err(SettingsError::SecretInFlag {
                flag: "--nats-url",
                variable: "HALFHEARD_NATS_URL",
            });
        }
        if flags
            .artifacts
            .as_deref()
            .is_some_and(|url| holds_secret(url, true))
        {
            return Err(SettingsError::SecretInFlag {
                flag: "--artifacts",
                variable: "HALFHEARD_ARTIFACTS",
            });
        }
        let asked = flags
            .config
            .clone()
            .or_else(|| var("HALFHEARD_CONFIG").map(PathBuf::from));
        let usual = user_folder(var, "XDG_CONFIG_HOME", ".config")
            .map(|folder| folder.join("halfheard/config.toml"));
        let (_, file) = ConfigFile::read(asked.as_deref(), usual.as_deref())?;
        let path = |flag: Option<PathBuf>, name: &str, file: Option<PathBuf>| {
            flag.or_else(|| var(name).map(PathBuf::from)).or(file)
        };
        let text = |flag: Option<String>, name: &str, file: Option<String>| {
            flag.or_else(|| var(name)).or(file)
        };

        let mut broker = BrokerSettings {
            credentials: path(
                flags.nats_creds.clone(),
                "HALFHEARD_NATS_CREDS",
                file.nats_creds,
            ),
            name: "worker".to_owned(),
            ..BrokerSettings::default()
        };
        if let Some(url) = text(flags.nats_url.clone(), "HALFHEARD_NATS_URL", file.nats_url) {
            broker.url = url;
        }
        broker.tls.ca = path(None, "HALFHEARD_NATS_CA", file.nats_ca);
        let certificate = path(None, "HALFHEARD_NATS_CERT", file.nats_cert);
        let key = path(None, "HALFHEARD_NATS_KEY", file.nats_key);
        broker.tls.identity = match (certificate, key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => return Err(SettingsError::HalfIdentity),
        };

        let data_dir = match path(flags.data_dir.clone(), "HALFHEARD_DATA_DIR", file.data_dir) {
            Some(folder) => std::path::absolute(&folder).unwrap_or(folder),
            None => user_folder(var, "XDG_DATA_HOME", ".local/share")
                .ok_or(SettingsError::NoHome)?
                .join("halfheard"),
        };
        let artifacts = text(
            flags.artifacts.clone(),
            "HALFHEARD_ARTIFACTS",
            file.artifacts,
        )
        .unwrap_or_else(|| ArtifactStore::url_of(&data_dir.join("artifacts")));
        Ok(Self {
            broker,
            artifacts,
            data_dir,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::HashMap, os::unix::fs::PermissionsExt as _, path::Path};

    fn resolve(flags: ConnectionFlags, vars: &[(&str, &str)]) -> Result<Settings, SettingsError> {
        let vars: HashMap<String, String> = vars
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        Settings::resolve(&flags, &|name| vars.get(name).cloned())
    }

    #[test]
    fn flags_come_before_the_environment_and_the_file_comes_last() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.toml");
        std::fs::write(
            &path,
            "nats_url = \"nats://file\"\nartifacts = \"s3://file\"\ndata_dir = \"/file\"\ndatabase_url = \"postgres://x\"\n",
        )
        .unwrap();
        let flags = ConnectionFlags {
            data_dir: Some("/flag".into()),
            config: Some(path),
            ..ConnectionFlags::default()
        };
        let vars = [
            ("HALFHEARD_DATA_DIR", "/var"),
            ("HALFHEARD_ARTIFACTS", "s3://var"),
        ];
        let settings = resolve(flags, &vars).unwrap();
        assert_eq!(settings.data_dir, Path::new("/flag"));
        assert_eq!(settings.artifacts, "s3://var");
        assert_eq!(settings.broker.url, "nats://file");
    }

    #[test]
    fn a_password_in_a_flag_is_refused_and_not_repeated() {
        let flags = ConnectionFlags {
            nats_url: Some("nats://ann:hush@host".to_owned()),
            ..ConnectionFlags::default()
        };
        let error = resolve(flags, &[("HOME", "/home/ann")]).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("HALFHEARD_NATS_URL") && !text.contains("hush"));
        // In the environment it may stand; nothing shows it.
        let vars = [
            ("HOME", "/home/ann"),
            ("HALFHEARD_NATS_URL", "nats://ann:hush@host"),
        ];
        let settings = resolve(ConnectionFlags::default(), &vars).unwrap();
        assert!(!format!("{settings:?}").contains("hush"));
        assert_eq!(
            settings.artifacts,
            "file:///home/ann/.local/share/halfheard/artifacts"
        );
    }

    /// As `coord` reads it: its own test says the same.
    #[test]
    fn the_config_file_is_read_by_the_rules_of_coord() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join(".config/halfheard");
        std::fs::create_dir_all(&folder).unwrap();
        let write = |text: &str| std::fs::write(folder.join("config.toml"), text).unwrap();
        let vars = [("HOME", home.path().to_str().unwrap())];
        write("data_dir = 'below'\nnats_creds = 'own.creds'\nnats_replicas = 3\n");
        let settings = resolve(ConnectionFlags::default(), &vars).unwrap();
        assert_eq!(settings.data_dir, folder.join("below"));
        assert_eq!(settings.broker.credentials, Some(folder.join("own.creds")));
        let artifacts = folder.join("below/artifacts");
        assert_eq!(
            settings.artifacts,
            format!("file://{}", artifacts.display())
        );
        write("nats_url = 'nats://x'\ndatabase = 'postgres://a:hush@h/d'\n");
        let error = resolve(ConnectionFlags::default(), &vars)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("line 2") && error.contains("database"),
            "{error}"
        );
        assert!(!error.contains("hush"), "{error}");
    }

    #[test]
    fn a_config_file_with_a_password_must_be_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.toml");
        std::fs::write(&path, "nats_url = \"nats://ann:hush@host\"").unwrap();
        let flags = ConnectionFlags {
            config: Some(path.clone()),
            data_dir: Some("/x".into()),
            ..ConnectionFlags::default()
        };
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(
            resolve(flags.clone(), &[]),
            Err(SettingsError::File(ConfigFileError::Exposed { .. }))
        ));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(resolve(flags, &[]).is_ok());
    }
}
