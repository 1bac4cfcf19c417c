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

/// Numbers of another paper, by file: equal ones are found, and a bad file is refused with a hint.
#[test]
fn published_tables_are_compared_with_another_paper() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("paper.csv");
    let header = "paper,year,dataset,method,variant,case_id,metric,printed,source";
    // MISA at r=0 on MOSI, as Table 9 prints it.
    let copied = ["acc7", "acc5", "mae", "corr"].map(|metric| {
        let numbers = halfheard_shared::published::numbers().iter();
        let mut of_misa = numbers
            .filter(|n| (n.table, n.dataset.id(), n.method, n.case) == (9, "mosi", "misa", "r=0"));
        let printed = of_misa.find(|n| n.metric == metric).unwrap().printed;
        format!("Earlier,2022,mosi,misa,,r=0,{metric},{printed},made up")
    });
    std::fs::write(&file, format!("{header}\n{}\n", copied.join("\n"))).unwrap();
    let path = file.to_str().unwrap();
    let out = coord(&["--json", "audit", "published", "--against", path]).unwrap();
    let value: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let findings = value["findings"].as_array().unwrap();
    let of_rule = |f: &&serde_json::Value| f["rule"] == "other-paper" && f["severity"] == "warning";
    let found: Vec<_> = findings.iter().filter(of_rule).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0]["what"], "Earlier prints the same numbers");

    std::fs::write(&file, format!("{header}\nX,2022,mosi,misa,,r=0,acc9,1,s\n")).unwrap();
    let out = coord(&["audit", "published", "--against", path]).unwrap();
    assert_eq!(out.status.code(), Some(1));
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(text.contains("line 2: unknown metric \"acc9\""), "{text}");
    assert!(text.contains("hint: metrics are"), "{text}");

    let out = coord(&["audit", "demo", "--against", path]).unwrap();
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(text.contains("not a sweep"), "{text}");
}
