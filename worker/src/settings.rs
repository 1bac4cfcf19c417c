//! The connection flags of `worker`; the rest of its settings is shared with `coord`.

use halfheard_shared::{
    env::Env,
    settings::{Flags, Settings, SettingsError},
};
use std::path::PathBuf;

/// The flags for connections.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "Connections")]
pub(crate) struct ConnectionFlags {
    /// The broker's address, or several separated by commas; put passwords into the variable [env:
    /// HALFHEARD_NATS_URL, or HALFHEARD_NATS_URL_FILE for a file with it] [default:
    /// nats://127.0.0.1:4222]
    #[arg(long, visible_alias = "nats", value_name = "URL")]
    pub(crate) nats_url: Option<String>,
    /// The broker's credentials file, as `nsc` writes it [env: HALFHEARD_NATS_CREDS]
    #[arg(long, visible_alias = "creds", value_name = "FILE")]
    pub(crate) nats_creds: Option<PathBuf>,
    /// The artifact store, for checkpoints and saved states: file:///folder, s3://bucket/prefix
    /// (credentials from AWS_* variables) or nats:// [env: HALFHEARD_ARTIFACTS] [default: a folder in
    /// the data folder]
    #[arg(long, value_name = "URL")]
    pub(crate) artifacts: Option<String>,
    /// The data folder, for datasets and encoders by their hash [env: HALFHEARD_DATA_DIR] [default:
    /// ~/.local/share/halfheard]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) data_dir: Option<PathBuf>,
    /// The config file [env: HALFHEARD_CONFIG] [default: ~/.config/halfheard/config.toml]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

impl ConnectionFlags {
    /// Resolves the settings.
    ///
    /// # Errors
    ///
    /// A secret in a flag, a config file that cannot be used, an invalid value.
    pub(crate) fn resolve(&self, env: Env) -> Result<Settings, SettingsError> {
        let flags = Flags {
            nats_url: self.nats_url.clone(),
            nats_creds: self.nats_creds.clone(),
            artifacts: self.artifacts.clone(),
            data_dir: self.data_dir.clone(),
            config: self.config.clone(),
        };
        Settings::resolve(&flags, env, "worker")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use halfheard_shared::{error::Hint as _, settings::ConfigFileError};
    use std::{collections::HashMap, os::unix::fs::PermissionsExt as _, path::Path};

    fn resolve(flags: ConnectionFlags, vars: &[(&str, &str)]) -> Result<Settings, SettingsError> {
        let vars: HashMap<String, String> = vars
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        flags.resolve(&|name| vars.get(name).cloned())
    }

    #[test]
    fn flag_beats_environment_beats_file() {
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
    fn secret_in_flag_is_rejected_and_not_repeated() {
        let flags = ConnectionFlags {
            nats_url: Some("nats://ann:hush@host".to_owned()),
            ..ConnectionFlags::default()
        };
        let error = resolve(flags, &[("HOME", "/home/ann")]).unwrap_err();
        let text = format!("{error}; {}", error.hint().unwrap());
        assert!(text.contains("HALFHEARD_NATS_URL") && !text.contains("hush"));
        // It is allowed in the environment; nothing shows it.
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
    fn config_file_is_read_like_coord_does() {
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
    fn config_file_with_password_must_be_private() {
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
