//! A short campaign: what `make chaos` does for half an hour.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::{Command, Stdio};

/// Minutes of faults; the work that is left over and the undisturbed run take about as long again.
const MINUTES: &str = "2.5";

#[test]
fn tables_after_a_short_campaign_are_those_of_an_undisturbed_run() {
    let out = std::env::temp_dir().join(format!("halfheard-campaign-{}", std::process::id()));
    let output = Command::new(env!("CARGO_BIN_EXE_halfheard-campaign"))
        .args(["--minutes", MINUTES, "--seed", "12", "--out"])
        .arg(&out)
        .env_remove("CHAOS_REPLAY")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    println!("{said}");
    assert!(output.status.success(), "{said}\n{error}");
    // Kept where it failed: its log can be replayed.
    std::fs::remove_dir_all(out).unwrap();
}
