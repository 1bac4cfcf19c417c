use super::*;
use std::{collections::HashMap, os::unix::fs::PermissionsExt as _};

#[derive(Default)]
struct Fake(HashMap<&'static str, String>);

impl Fake {
    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.0.insert(name, value.into());
        self
    }
}

impl Surroundings for Fake {
    fn var(&self, name: &str) -> Option<String> {
        self.0.get(name).cloned()
    }
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
fn flags_win_over_the_environment_and_it_over_the_file() {
    let (home, around) = homes();
    write_config(
        home.path(),
        "nats_url = 'nats://file:1'\ndatabase_url = 'postgres://file:2/a'\n\
         artifacts = 'file:///from/file'\ndata_dir = 'below'\nnats_replicas = 3\n",
        0o644,
    );
    let settings = Settings::resolve(&ConnectionFlags::default(), &around).unwrap();
    assert_eq!(settings.broker.url, "nats://file:1");
    assert_eq!(settings.broker.replicas, 3);
    assert_eq!(settings.database.get_host(), "file");
    assert_eq!(settings.artifacts, "file:///from/file");
    assert_eq!(
        settings.data_dir,
        home.path().join(".config/halfheard/below")
    );

    let around = around
        .with(vars::NATS_URL, "nats://env:1")
        .with(vars::DATABASE_URL, "postgres://env:2/a")
        .with(vars::DATA_DIR, "/from/env");
    let settings = Settings::resolve(&ConnectionFlags::default(), &around).unwrap();
    assert_eq!(settings.broker.url, "nats://env:1");
    assert_eq!(settings.broker_origin, Origin::Environment(vars::NATS_URL));
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
    let settings = Settings::resolve(&flags, &around).unwrap();
    assert_eq!(settings.broker.url, "nats://flag:1");
    assert_eq!(settings.database.get_host(), "flag");
    assert_eq!(settings.data_dir, Path::new("/from/flag"));
    assert_eq!(settings.artifacts, "s3://flag/x");
}

#[test]
fn with_nothing_said_everything_lies_in_the_users_data_folder() {
    let (home, around) = homes();
    let settings = Settings::resolve(&ConnectionFlags::default(), &around).unwrap();
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
fn a_secret_in_a_flag_is_refused_and_not_repeated() {
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
        (nats("nats://ann:hush@host:4222"), vars::NATS_URL),
        (nats("nats://hush@host:4222"), vars::NATS_URL),
        (nats("nats://a:1,nats://ann:hush@b:2"), vars::NATS_URL),
        (database("postgres://ann:hush@host/db"), vars::DATABASE_URL),
        (database("postgres://ann:hu/sh@host/db"), vars::DATABASE_URL),
        (database("postgres://ann:hu?sh@host/db"), vars::DATABASE_URL),
        (
            database("postgres://host/db?password=hush"),
            vars::DATABASE_URL,
        ),
    ] {
        let error = Settings::resolve(&flags, &around).unwrap_err().to_string();
        assert!(error.contains(variable), "{error}");
        assert!(!error.contains("hu"), "{error}");
    }
    for flags in [
        database("postgres://ann@host/db?sslmode=verify-full"),
        nats("nats://host:4222"),
    ] {
        Settings::resolve(&flags, &around).unwrap();
    }
}

#[test]
fn a_config_file_with_a_password_must_be_its_owners_alone() {
    let (home, around) = homes();
    let text = "database_url = 'postgres://ann:hush@host/db'";
    write_config(home.path(), text, 0o640);
    let error = Settings::resolve(&ConnectionFlags::default(), &around).unwrap_err();
    assert!(
        matches!(error, SettingsError::File(ConfigFileError::Exposed { .. })),
        "{error}"
    );
    assert!(!error.to_string().contains("hush"));
    write_config(home.path(), text, 0o600);
    let settings = Settings::resolve(&ConnectionFlags::default(), &around).unwrap();
    let shown = format!("{settings:?}");
    assert!(!shown.contains("hush"), "{shown}");
    assert!(shown.contains("host:5432/db"), "{shown}");
}

#[test]
fn a_wrong_config_file_is_named_with_its_line_and_without_its_content() {
    let (home, around) = homes();
    write_config(
        home.path(),
        "nats_url = 'nats://x'\ndatabase = 'postgres://a:hush@h/d'\n",
        0o600,
    );
    let error = Settings::resolve(&ConnectionFlags::default(), &around)
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
    let error = Settings::resolve(&flags, &around).unwrap_err();
    assert!(
        matches!(
            error,
            SettingsError::File(ConfigFileError::Unreadable { .. })
        ),
        "{error}"
    );
}

#[test]
fn half_an_identity_is_refused() {
    let (_home, around) = homes();
    let around = around.with(vars::NATS_CERT, "/c.pem");
    let error = Settings::resolve(&ConnectionFlags::default(), &around).unwrap_err();
    assert!(matches!(error, SettingsError::HalfIdentity));
}
