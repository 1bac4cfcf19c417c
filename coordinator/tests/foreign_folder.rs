//! `coord` in someone else's folder: nothing in it is executed.

use std::{os::unix::fs::PermissionsExt as _, process::Command};

#[test]
fn deps_of_the_current_folder_are_not_executed() {
    let folder = tempfile::tempdir().unwrap();
    let marker = folder.path().join("was-executed");
    for program in [
        "nats/nats-server",
        "postgres/bin/postgres",
        "postgres/bin/initdb",
        "worker",
    ] {
        let path = folder.path().join(".deps").join(program);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let script = format!("#!/bin/sh\necho {program} >> '{}'\n", marker.display());
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut coord = Command::new(env!("CARGO_BIN_EXE_coord"));
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("HALFHEARD_") {
            coord.env_remove(variable);
        }
    }
    // With nothing on PATH, a program of the current folder would be the first that is found.
    let output = coord
        .args(["doctor", "--json"])
        .current_dir(folder.path())
        .env("PATH", folder.path())
        .env("HOME", folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("nats-server"), "{said}");
    assert!(
        !marker.exists(),
        "executed: {}",
        std::fs::read_to_string(&marker).unwrap_or_default()
    );
    // Named on purpose, they are.
    let named = Command::new(env!("CARGO_BIN_EXE_coord"))
        .args(["doctor", "--json"])
        .current_dir(folder.path())
        .env("HALFHEARD_DEPS", folder.path().join(".deps"))
        .env("HOME", folder.path())
        .output()
        .unwrap();
    assert!(
        marker.exists(),
        "{}",
        String::from_utf8_lossy(&named.stdout)
    );
}
