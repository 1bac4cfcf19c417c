//! Snapshots of what `coord` prints without servers: its help pages and its errors.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    path::Path,
    process::{Command, Output},
};

const SPEC: &str = r#"
name = "demo"
methods = ["lnlm"]
seedz = [1]
rates = [0.0, 1.5]
[datasets.mosi]
file = "dataset:mosi"
[encoders.en]
path = "no-such-folder"
"#;

fn coord(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_coord"))
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .env("HOME", folder)
        .env("HALFHEARD_DATA_DIR", "/nonexistent/data")
        // No database listens there.
        .env("PGHOST", "127.0.0.1")
        .env("PGPORT", "1")
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn help_pages_match_their_snapshots() {
    let folder = tempfile::tempdir().unwrap();
    let pages: &[&[&str]] = &[
        &[],
        &["audit"],
        &["backup"],
        &["cancel"],
        &["certify"],
        &["compare"],
        &["completions"],
        &["data"],
        &["data", "check"],
        &["data", "import"],
        &["data", "list"],
        &["data", "synthesize"],
        &["delete"],
        &["doctor"],
        &["drain"],
        &["export"],
        &["figure"],
        &["gc"],
        &["logs"],
        &["migrate"],
        &["pause"],
        &["plan"],
        &["priority"],
        &["report"],
        &["restore"],
        &["resume"],
        &["retry"],
        &["run"],
        &["serve"],
        &["slurm"],
        &["status"],
        &["submit"],
        &["table"],
        &["top"],
        &["tune-machine"],
        &["workers"],
    ];
    for page in pages {
        let help = coord(folder.path(), &[*page, &["--help"][..]].concat());
        assert!(help.status.success(), "{page:?}");
        let name = ["help", &page.join("_")].join("_");
        insta::assert_snapshot!(name.trim_end_matches('_'), text(&help.stdout));
    }
}

#[test]
fn errors_match_their_snapshots() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("spec.toml"), SPEC).unwrap();
    let valid = SPEC.replace("lnlm", "lnln").replace("seedz", "seeds");
    let valid = valid.replace("1.5", "0.5");
    std::fs::write(folder.path().join("missing.toml"), valid).unwrap();
    std::fs::write(folder.path().join("gbk.toml"), b"name = \"a\"\n# \xd6\xd0").unwrap();
    let cases: &[(&str, &[&str])] = &[
        ("unknown_command", &["statsu"]),
        ("missing_argument", &["plan"]),
        (
            "secret_in_flag",
            &["status", "--nats-url", "nats://me:hush@host"],
        ),
        ("no_database", &["status"]),
        ("unreachable_database", &["migrate"]),
        ("unreadable_spec", &["plan", "absent.toml"]),
        ("invalid_spec", &["plan", "spec.toml"]),
        ("missing_files", &["plan", "missing.toml"]),
        ("other_encoding", &["plan", "gbk.toml"]),
        (
            "unknown_hardware",
            &["plan", "spec.toml", "--hardware", "abacusx8"],
        ),
        ("unknown_dataset", &["data", "check", "mosi"]),
        (
            "unknown_protocol",
            &["data", "import", "--as", "iemocap", "x.pkl"],
        ),
    ];
    for (name, arguments) in cases {
        let output = coord(folder.path(), arguments);
        assert!(!output.status.success(), "{name}");
        insta::assert_snapshot!(format!("error_{name}"), text(&output.stderr));
    }
}

#[test]
fn color_flag_applies_to_errors_and_reports() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("spec.toml"), SPEC).unwrap();
    for arguments in [["status", "--color"], ["plan", "spec.toml"]] {
        let mut arguments = arguments.to_vec();
        if arguments[1] != "--color" {
            arguments.push("--color");
        }
        for (when, colored) in [("always", true), ("never", false)] {
            let output = coord(folder.path(), &[&arguments[..], &[when][..]].concat());
            let stderr = text(&output.stderr);
            assert_eq!(
                stderr.contains('\u{1b}'),
                colored,
                "{arguments:?} {when}: {stderr}"
            );
        }
    }
}
