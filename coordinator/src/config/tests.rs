use super::*;
use halfheard_shared::settings::ConfigFileError;
use std::{collections::HashMap, os::unix::fs::PermissionsExt as _, path::Path};

#[derive(Default)]
struct Fake(HashMap<&'static str, String>);

impl Fake {
    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.0.insert(name, value.into());
        self
    }

    fn resolve(&self, flags: &ConnectionFlags) -> Result<Settings, SettingsError> {
        Settings::resolve(flags, &|name| self.0.get(name).cloned())
    }
}

/// An error with its hint.
fn reported(error: &SettingsError) -> String {
    format!("{error}; {}", error.hint().unwrap_or_default())
}

fn homes() -> (tempfile::TempDir, Fake) {
    let folder = tempfile::tempdir().unwrap();
    let around = Fake::default().with("HOME", folder.path().to_str().unwrap());
    (folder, around)
}

fn write_config(home: &Path, text: &str, mode: u32) {
    let folder = home.join(".config/halfheard");
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("config.toml");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn flag_beats_environment_beats_file() {
    let (home, around) = homes();
    write_config(
        home.path(),
        "nats_url = 'nats://file:1'\ndatabase_url = 'postgres://file:2/a'\n\
         artifacts = 'file:///from/file'\ndata_dir = 'below'\nnats_replicas = 3\n",
        0o644,
    );
    let settings = around.resolve(&ConnectionFlags::default()).unwrap();
    assert_eq!(settings.broker.url, "nats://file:1");
    assert_eq!(settings.broker.replicas, 3);
    assert_eq!(settings.database.get_host(), "file");
    assert_eq!(settings.artifacts, "file:///from/file");
    assert_eq!(
        settings.data_dir,
        home.path().join(".config/halfheard/below")
    );

    let around = around
        .with(env::NATS_URL, "nats://env:1")
        .with(env::DATABASE_URL, "postgres://env:2/a")
        .with(env::DATA_DIR, "/from/env");
    let settings = around.resolve(&ConnectionFlags::default()).unwrap();
    assert_eq!(settings.broker.url, "nats://env:1");
    assert_eq!(settings.broker_origin, Origin::Environment(env::NATS_URL));
    assert_eq!(settings.database.get_host(), "env");
    assert_eq!(settings.data_dir, Path::new("/from/env"));
    assert_eq!(settings.artifacts, "file:///from/file");

    let flags = ConnectionFlags {
        nats_url: Some("nats://flag:1".into()),
        database_url: Some("postgres://me@flag:2/a".into()),
        data_dir: Some("/from/flag".into()),
        artifacts: Some("s3://flag/x".into()),
        ..ConnectionFlags::default()
    };
    let settings = around.resolve(&flags).unwrap();
    assert_eq!(settings.broker.url, "nats://flag:1");
    assert_eq!(settings.database.get_host(), "flag");
    assert_eq!(settings.data_dir, Path::new("/from/flag"));
    assert_eq!(settings.artifacts, "s3://flag/x");
}

#[test]
fn defaults_are_in_the_users_data_folder() {
    let (home, around) = homes();
    let settings = around.resolve(&ConnectionFlags::default()).unwrap();
    let data = home.path().join(".local/share/halfheard");
    assert_eq!(settings.data_dir, data);
    assert_eq!(
        settings.artifacts,
        format!("file://{}/artifacts", data.display())
    );
    assert_eq!(settings.database_origin, Origin::Default);
    assert_eq!(settings.database.get_database(), Some("halfheard"));
    assert_eq!(settings.broker.url, "nats://127.0.0.1:4222");
}

#[test]
fn secret_in_flag_is_rejected_and_not_repeated() {
    let (_home, around) = homes();
    let nats = |url: &str| ConnectionFlags {
        nats_url: Some(url.into()),
        ..ConnectionFlags::default()
    };
    let database = |url: &str| ConnectionFlags {
        database_url: Some(url.into()),
        ..ConnectionFlags::default()
    };
    for (flags, variable) in [
        (nats("nats://ann:hush@host:4222"), env::NATS_URL),
        (nats("nats://hush@host:4222"), env::NATS_URL),
        (nats("nats://a:1,nats://ann:hush@b:2"), env::NATS_URL),
        (database("postgres://ann:hush@host/db"), env::DATABASE_URL),
        (database("postgres://ann:hu/sh@host/db"), env::DATABASE_URL),
        (database("postgres://ann:hu?sh@host/db"), env::DATABASE_URL),
        (
            database("postgres://host/db?password=hush"),
            env::DATABASE_URL,
        ),
    ] {
        let error = reported(&around.resolve(&flags).unwrap_err());
        assert!(error.contains(variable), "{error}");
        assert!(!error.contains("hu"), "{error}");
    }
    for flags in [
        database("postgres://ann@host/db?sslmode=verify-full"),
        nats("nats://host:4222"),
    ] {
        around.resolve(&flags).unwrap();
    }
}

#[test]
fn config_file_with_password_must_be_private() {
    let (home, around) = homes();
    let text = "database_url = 'postgres://ann:hush@host/db'";
    write_config(home.path(), text, 0o640);
    let error = around.resolve(&ConnectionFlags::default()).unwrap_err();
    assert!(
        matches!(
            error,
            SettingsError::Shared(settings::SettingsError::File(
                ConfigFileError::Exposed { .. }
            ))
        ),
        "{error}"
    );
    assert!(!error.to_string().contains("hush"));
    write_config(home.path(), text, 0o600);
    let settings = around.resolve(&ConnectionFlags::default()).unwrap();
    let shown = format!("{settings:?}");
    assert!(!shown.contains("hush"), "{shown}");
    assert!(shown.contains("host:5432/db"), "{shown}");
}

#[test]
fn invalid_config_file_is_reported_by_line_without_content() {
    let (home, around) = homes();
    write_config(
        home.path(),
        "nats_url = 'nats://x'\ndatabase = 'postgres://a:hush@h/d'\n",
        0o600,
    );
    let error = around
        .resolve(&ConnectionFlags::default())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("line 2") && error.contains("database"),
        "{error}"
    );
    assert!(!error.contains("hush"), "{error}");

    let flags = ConnectionFlags {
        config: Some(home.path().join("none.toml")),
        ..ConnectionFlags::default()
    };
    let error = around.resolve(&flags).unwrap_err();
    assert!(
        matches!(
            error,
            SettingsError::Shared(settings::SettingsError::File(
                ConfigFileError::Unreadable { .. }
            ))
        ),
        "{error}"
    );
}

#[test]
fn certificate_without_key_is_rejected() {
    let (_home, around) = homes();
    let around = around.with(env::NATS_CERT, "/c.pem");
    let error = around.resolve(&ConnectionFlags::default()).unwrap_err();
    assert!(matches!(
        error,
        SettingsError::Shared(settings::SettingsError::HalfIdentity)
    ));
}

#[test]
fn address_is_read_from_the_file_of_a_mounted_secret() {
    let (home, around) = homes();
    write_config(home.path(), "nats_url = 'nats://config'\n", 0o600);
    let secret = home.path().join("url");
    let path = secret.to_str().unwrap();
    std::fs::write(&secret, "postgres://ann:hush@db/sweeps\n").unwrap();
    let around = around.with(env::DATABASE_URL_FILE, path);
    let settings = around.resolve(&ConnectionFlags::default()).unwrap();
    assert_eq!(settings.database.get_host(), "db");
    assert_eq!(
        settings.database_origin,
        Origin::Environment(env::DATABASE_URL_FILE)
    );
    // Like the variable, it precedes the config file.
    let around = around.with(env::NATS_URL_FILE, path);
    let settings = around.resolve(&ConnectionFlags::default()).unwrap();
    assert_eq!(settings.broker.url, "postgres://ann:hush@db/sweeps");
    let around = around.with(env::NATS_URL, "nats://env");
    let settings = around.resolve(&ConnectionFlags::default()).unwrap();
    assert_eq!(settings.broker_origin, Origin::Environment(env::NATS_URL));
    for content in [Some(" \n"), None] {
        match content {
            Some(text) => std::fs::write(&secret, text).unwrap(),
            None => std::fs::remove_file(&secret).unwrap(),
        }
        let error = around.resolve(&ConnectionFlags::default()).unwrap_err();
        let text = reported(&error);
        assert!(
            text.contains("HALFHEARD_DATABASE_URL_FILE") && text.contains(path),
            "{text}"
        );
    }
}
