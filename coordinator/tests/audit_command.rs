//! `coord audit published`: without a database, with an exit code and machine-readable findings.

use std::process::{Command, Output};

fn coord(arguments: &[&str]) -> std::io::Result<Output> {
    let home = tempfile::tempdir()?;
    Command::new(env!("CARGO_BIN_EXE_coord"))
        .args(arguments)
        .env_clear()
        .env("HOME", home.path())
        .output()
}

#[test]
fn published_tables_are_audited_without_a_database() {
    let out = coord(&["audit", "published", "--format", "json"]).unwrap();
    assert_eq!(out.status.code(), Some(4), "{out:?}");
    let value: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let findings = value["findings"].as_array().unwrap();
    let counts = &value["counts"];
    let total: u64 = ["errors", "warnings", "notes"]
        .iter()
        .map(|level| counts[level].as_u64().unwrap())
        .sum();
    assert_eq!(total, findings.len() as u64);
    for finding in findings {
        for key in ["what", "why", "place"] {
            assert!(!finding[key].as_str().unwrap().is_empty(), "{finding}");
        }
        assert!(!finding["places"].as_array().unwrap().is_empty());
    }
    assert_eq!(
        coord(&["--json", "audit", "published"]).unwrap().stdout,
        out.stdout
    );

    let text = String::from_utf8(coord(&["audit", "published"]).unwrap().stdout).unwrap();
    assert!(text.starts_with("Audit of the published Tables 2 to 14"));
    assert!(!text.contains('\x1b'), "a pipe gets no colors");
    let last = text.lines().last().unwrap();
    assert!(last.contains("match a known erratum"), "{last}");
}

#[test]
fn audit_of_a_sweep_without_a_database_fails() {
    let out = coord(&["audit", "demo"]).unwrap();
    assert_eq!(out.status.code(), Some(1), "{out:?}");
    assert!(!out.stderr.is_empty());
}
