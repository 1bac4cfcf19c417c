//! What is submitted, and what must not be in it.

use super::*;
use crate::config::ConnectionFlags;
use std::os::unix::fs::PermissionsExt as _;

fn settings() -> Settings {
    let env = |name: &str| {
        let value = match name {
            env::NATS_URL => "nats://worker:hu$h@broker:4222",
            env::DATABASE_URL => "postgres://coord:hush@db/halfheard",
            env::ARTIFACTS => "s3://bucket/it's",
            env::DATA_DIR => "/data",
            _ => return None,
        };
        Some(value.to_owned())
    };
    Settings::resolve(&ConnectionFlags::default(), &env).unwrap()
}

fn wanted(folder: &Path) -> Wanted {
    Wanted {
        partition: "gpu".to_owned(),
        time: "4:00:00".to_owned(),
        gres: Some("gpu:1".to_owned()),
        cpus: Some(4),
        memory: None,
        account: None,
        idle: Duration::from_secs(300),
        leave_within: Duration::from_secs(25),
        script: None,
        arguments: vec!["--save-every".to_owned(), "30".to_owned()],
        folder: folder.join("slurm"),
        settings: None,
        labels: vec!["a100".to_owned()],
        worker: Some("/opt/worker".into()),
        libtorch: None,
    }
}

#[test]
fn secrets_are_in_a_private_file_only() {
    let folder = tempfile::tempdir().unwrap();
    let wanted = wanted(folder.path());
    let job = Job::prepare(&wanted, uuid::Uuid::nil(), &settings()).unwrap();
    assert_eq!(job.name, "halfheard-00000000");
    assert_eq!(
        job.log(12),
        wanted.folder.join("gpu-12.log").display().to_string()
    );
    let script = std::fs::read_to_string(wanted.folder.join("worker.sbatch")).unwrap();
    assert!(!script.contains("\n#SBATCH") && script.starts_with("#!"));
    let shown = format!("{} {:?} {script}", job.arguments.join(" "), job.environment);
    assert!(
        !shown.contains("hu$h") && !shown.contains("hush"),
        "{shown}"
    );
    for part in [
        "--partition=gpu --time=4:00:00 --signal=B:TERM@60 ",
        "--requeue",
        "--gres=gpu:1 --cpus-per-task=4 ",
        "worker.sbatch --once 300 --label a100 --save-every 30",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let file = wanted.folder.join("worker.env");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&file), mode(&wanted.folder)), (0o600, 0o700));
    // As the script reads it. The database is not in it.
    let read = format!("set -a; . {}; env", file.display());
    let printed = std::process::Command::new("bash")
        .args(["-c", &read])
        .output()
        .unwrap();
    let printed = String::from_utf8(printed.stdout).unwrap();
    assert!(printed.contains("HALFHEARD_NATS_URL=nats://worker:hu$h@broker:4222\n"));
    assert!(printed.contains("HALFHEARD_ARTIFACTS=s3://bucket/it's\n"));
    assert!(!std::fs::read_to_string(&file).unwrap().contains("postgres"));
}

#[test]
fn exposed_files_and_secrets_in_arguments_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let prepare = |wanted: &Wanted| Job::prepare(wanted, uuid::Uuid::nil(), &settings());
    let mut secret = wanted(folder.path());
    secret.arguments = vec!["--nats-url=nats://ann:hush@h".to_owned()];
    let error = prepare(&secret).unwrap_err();
    assert!(matches!(error, SlurmError::SecretInArgument));
    let mut exposed = wanted(folder.path());
    let file = folder.path().join("own.env");
    std::fs::write(&file, "HALFHEARD_NATS_URL=nats://h\n").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
    exposed.settings = Some(file);
    assert!(matches!(prepare(&exposed), Err(SlurmError::Exposed { .. })));
    let open = wanted(folder.path());
    std::fs::set_permissions(&open.folder, std::fs::Permissions::from_mode(0o777)).unwrap();
    assert!(matches!(
        prepare(&open),
        Err(SlurmError::File { action: "use", .. })
    ));
}

#[test]
fn time_limits_are_read_as_slurm_does() {
    for (text, seconds) in [
        ("90", 5400),
        ("90:30", 5430),
        ("4:00:00", 14_400),
        ("2-12", 216_000),
        ("1-0:30", 88_200),
        ("1-01:00:05", 90_005),
    ] {
        assert_eq!(time_limit(text), Ok(Duration::from_secs(seconds)), "{text}");
    }
    for text in [
        "",
        "0",
        "four",
        "1:2:3:4",
        "-5",
        "99999999999999999999",
        "infinite",
        "1-",
    ] {
        assert!(time_limit(text).is_err(), "{text}");
    }
    assert_eq!(signal_before(Duration::from_secs(25)).as_secs(), 60);
    assert_eq!(signal_before(Duration::from_secs(300)).as_secs(), 335);
}

#[test]
fn gpus_of_a_request_are_counted() {
    for (gres, gpus) in [
        (None, 1),
        (Some("gpu"), 1),
        (Some("gpu:4"), 4),
        (Some("gpu:a100:2,tmp:5"), 2),
        (Some("gpu:0"), 1),
    ] {
        assert_eq!(super::gpus(gres), gpus, "{gres:?}");
    }
}
