//! `coord data`, with text and JSON output.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../import/tests/files/pickler/mod.rs"]
mod pickler;

use halfheard_shared::dataset::Kind;
use pickler::{Py, dataset, field};
use sha2::{Digest as _, Sha256};
use std::{
    io::Write as _,
    path::Path,
    process::{Command, Output},
};

/// Runs `coord data` with a separate data folder.
fn coord(home: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_coord"))
        .arg("data")
        .args(arguments)
        .arg("--data-dir")
        .arg(home.join("data"))
        .env_clear()
        .env("HOME", home)
        .current_dir(home)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

/// A file with one `-inf` in audio and one NaN in vision.
fn unclean() -> Vec<u8> {
    let mut content = dataset(Kind::Mosi);
    let mut audio = [0.5; 12];
    audio[3] = f32::NEG_INFINITY;
    *field(&mut content, "train", "audio") = Py::floats(&[2, 3, 2], &audio);
    let mut vision = [0.5; 12];
    vision[0] = f32::NAN;
    *field(&mut content, "test", "vision") = Py::floats(&[2, 2, 3], &vision);
    content.pickle()
}

#[expect(clippy::too_many_lines, reason = "one scenario, step by step")]
#[test]
fn import_reports_changes_and_records_them_in_the_manifest() {
    let home = tempfile::tempdir().unwrap();
    let pickle = unclean();
    std::fs::write(home.path().join("x.pkl"), &pickle).unwrap();
    let out = coord(home.path(), &["import", "--as", "mosi", "x.pkl"]);
    assert_eq!(out.status.code(), Some(1));
    let said = text(&out.stderr);
    assert!(
        said.contains("split test: `vision`, sample 0: NaN at step 0, feature 0"),
        "{said}"
    );
    assert!(said.contains("--nonfinite zero"), "{said}");

    let out = coord(
        home.path(),
        &[
            "import",
            "--as",
            "CMU-MOSI",
            "x.pkl",
            "--nonfinite",
            "zero",
            "--json",
        ],
    );
    assert!(out.status.success(), "{}", text(&out.stderr));
    let made: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let source = &made["manifest"]["source"];
    assert_eq!(made["manifest"]["name"], "mosi");
    assert_eq!(source["nonfinite"], "zero");
    let digest: String = Sha256::digest(&pickle)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    assert_eq!(source["sha256"], digest);
    assert!(source.get("official").is_none());
    assert_eq!(
        source["treatment"]["train"]["zeroed"]["audio"]["neg_inf"],
        1
    );
    assert_eq!(source["treatment"]["test"]["zeroed"]["vision"]["nan"], 1);
    assert_eq!(source["treatment"]["test"]["audio_lengths"], "given");
    assert_eq!(source["treatment"]["test"]["vision_lengths"], "full");

    // The pickle's hash is that of what is in the gzip file.
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&pickle).unwrap();
    std::fs::write(home.path().join("x.pkl.gz"), encoder.finish().unwrap()).unwrap();
    let out = coord(
        home.path(),
        &[
            "import",
            "--as",
            "mosi",
            "x.pkl.gz",
            "--nonfinite",
            "zero",
            "--name",
            "packed",
            "--json",
        ],
    );
    let packed: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(packed["manifest"]["source"]["sha256"], digest);
    assert_eq!(packed["manifest"]["blake3"], made["manifest"]["blake3"]);

    let said = text(&coord(home.path(), &["check", "mosi"]).stdout);
    for says in [
        "`mosi` is valid",
        "official unknown; no published file has this SHA-256 (5 are known)",
        "note: train: 1 audio values were set to 0 (1 -inf)",
        "note: test: 1 vision values were set to 0 (1 NaN)",
    ] {
        assert!(said.contains(says), "`{says}` is not in {said}");
    }
    // As it stands in the manifest of a published file.
    let manifest = home.path().join("data/datasets/packed/manifest.json");
    let known = std::fs::read_to_string(&manifest).unwrap().replacen(
        "\"sha256\"",
        "\"official\": \"MMSA MOSI/Processed/unaligned_50.pkl\", \"sha256\"",
        1,
    );
    std::fs::remove_file(&manifest).unwrap();
    std::fs::write(&manifest, known).unwrap();
    let said_of_it = text(&coord(home.path(), &["check", "packed"]).stdout);
    assert!(
        said_of_it.contains("official MMSA MOSI/Processed/unaligned_50.pkl (by its SHA-256)"),
        "{said_of_it}"
    );
    let said = text(&coord(home.path(), &["list"]).stdout);
    assert!(said.contains("set to 0"), "{said}");
    assert!(said.contains("mosi mosi 2/2/2 4 3x2 2x3 2 "), "{said}");

    let said = text(&coord(home.path(), &["import", "--as", "iemocap", "x.pkl"]).stderr);
    assert!(
        said.contains("expected mosi, mosei, sims, or simsv2"),
        "{said}"
    );
    let said = text(&coord(home.path(), &["import", "--help"]).stdout);
    for says in [
        "[N, L, 3]",
        "--nonfinite zero",
        "treated as aligned",
        "Nothing in the file is executed",
    ] {
        assert!(said.contains(says), "`{says}` is not in {said}");
    }
}

/// A small file must not make a large process. The limit is on the address space: over it an
/// allocation fails and the process dies instead of ending with a refusal.
#[cfg(target_os = "linux")]
#[test]
fn hostile_pickles_are_refused_in_little_memory() {
    let home = tempfile::tempdir().unwrap();
    let many = |start: &[u8], unit: &[u8], count: usize| {
        [b"\x80\x04", start, &unit.repeat(count), b"N."].concat()
    };
    let escaped = [
        &b"cnumpy\ndtype\nq\x00X\xe0\x01\0\0"[..],
        &"\u{10fffe}".repeat(120).into_bytes(),
        b"\x85q\x010",
    ]
    .concat();
    for (name, bytes, limit) in [
        ("memo", many(b"N", b"\x94", 9_000_000), "memo entries"),
        ("stack", many(b"", b"N", 9_000_000), "values on the stack"),
        ("lists", many(b"", b"]0", 4_000_000), "objects"),
        ("full lists", many(b"]", b"]Naa", 2_000_000), "objects"),
        ("classes", many(b"", b"ca\nB\n0", 4_000_001), "objects"),
        (
            "objects",
            many(b"ca\nB\nq\x000", b"h\x00)\x81Na0", 1_000_000),
            "objects",
        ),
        (
            "reasons",
            many(&escaped, b"h\x00h\x01R0", 200_000),
            "objects",
        ),
    ] {
        let file = home.path().join("bomb.pkl");
        std::fs::write(&file, bytes).unwrap();
        let out = Command::new("sh")
            .args([
                "-c",
                "ulimit -v 800000 && exec \"$0\" data import --as mosi \"$1\" --data-dir \"$2\"",
            ])
            .arg(env!("CARGO_BIN_EXE_coord"))
            .arg(&file)
            .arg(home.path().join("data"))
            // Both take address space for each core of the machine.
            .envs([("MALLOC_ARENA_MAX", "1"), ("TOKIO_WORKER_THREADS", "1")])
            .output()
            .unwrap();
        let said = text(&out.stderr);
        assert_eq!(out.status.code(), Some(1), "{name}: {said}");
        assert!(
            said.contains("over the limit of ") && said.contains(limit),
            "{name}: {said}"
        );
    }
}

#[cfg(target_os = "linux")]
#[test]
fn pipe_is_rejected_by_name() {
    let dir = tempfile::tempdir().unwrap();
    // The shell's form of `<(zcat x.pkl.gz)`.
    let output = Command::new("bash")
        .args([
            "-c",
            "exec \"$0\" data import --as mosi <(echo x) --data-dir \"$1\"",
        ])
        .arg(env!("CARGO_BIN_EXE_coord"))
        .arg(dir.path().join("data"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("is not a regular file"), "{said}");
}

/// A login node may limit the address space of a process; the system reports only that memory is
/// exhausted.
#[cfg(target_os = "linux")]
#[test]
fn address_space_limit_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("large.pkl");
    // Sparse: it occupies no disk space.
    std::fs::write(&file, b"\x80\x04").unwrap();
    std::fs::File::options()
        .write(true)
        .open(&file)
        .unwrap()
        .set_len(64 << 30)
        .unwrap();
    let output = Command::new("sh")
        .args([
            "-c",
            "ulimit -v 16000000 && exec \"$0\" data import --as mosi \"$1\" --data-dir \"$2\"",
        ])
        .arg(env!("CARGO_BIN_EXE_coord"))
        .arg(&file)
        .arg(dir.path().join("data"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let words = said.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("64.0 GiB cannot be mapped: the address space of a process is limited to 15.3 GiB (ulimit -v)"), "{words}");
}
