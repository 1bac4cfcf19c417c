//! Measures how long an import takes and how much memory of its own it needs, on a generated file
//! with the shapes of MOSEI, against Python's `pickle.load` of the same file where there is a
//! `python3` with NumPy.
//!
//! Fails where the import needs more memory of its own than a small part of the file.

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use std::{
    fs::File,
    io::{BufWriter, Write},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Steps and features of MOSEI's unaligned file: text, audio, vision.
const TEXT: usize = 50;
const AUDIO: (usize, usize) = (500, 74);
const VISION: (usize, usize) = (500, 35);
/// The most memory of its own that an import may need, in MiB.
const OWN_MIB: u64 = 64;

/// Measure how long an import takes and how much memory of its own it needs
///
/// On a generated file with the shapes of MOSEI, against Python's `pickle.load` of the same file where there is a
/// `python3` with NumPy. Fails if the import needs more than 64 MiB of its own.
#[derive(Parser)]
#[command(after_help = "Examples:\n  bench_import\n  bench_import 8510")]
struct Options {
    /// Megabytes of the file; 8510 is MOSEI's own size, which needs as much disk again for the result
    #[arg(env = "HALFHEARD_BENCH_IMPORT_MB", default_value_t = 512)]
    megabytes: usize,
}

fn main() -> Result<()> {
    let Options { megabytes } = Options::parse();
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("mosei-like.pkl");
    let samples = write_features(&file, megabytes * 1_000_000)?;
    let bytes = file.metadata()?.len();
    println!(
        "a pickle of {:.2} GB with the shapes of MOSEI: {} samples in three splits",
        bytes as f64 / 1e9,
        samples
    );
    let coord = std::env::current_exe()?.with_file_name("coord");
    let data = dir.path().join("data");
    let mut import = Command::new(coord);
    import
        .args(["data", "import", "--as", "mosei", "--json", "--data-dir"])
        .arg(&data)
        .arg(&file);
    let (seconds, own) = measure(&mut import)?;
    println!(
        "coord data import: {seconds:6.2} s, {:.0} MB/s, {own} MiB of its own memory at most",
        bytes as f64 / 1e6 / seconds
    );
    ensure!(
        own <= OWN_MIB,
        "the import needs {own} MiB of its own, more than {OWN_MIB} MiB"
    );
    let with_numpy = Command::new("python3")
        .args(["-c", "import numpy"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if with_numpy {
        let mut peer = Command::new("python3");
        peer.args([
            "-c",
            "import pickle, sys; pickle.load(open(sys.argv[1], 'rb'))",
        ])
        .arg(&file);
        let (peer_seconds, peer_own) = measure(&mut peer)?;
        println!(
            "for comparison, Python's pickle.load, which checks and writes nothing: {peer_seconds:6.2} s, {peer_own} MiB of its own memory; the import takes {:.2} times as long and 1/{} of the memory",
            seconds / peer_seconds,
            peer_own / own.max(1)
        );
    } else {
        println!("no comparison with Python's pickle.load: there is no python3 with NumPy");
    }
    Ok(())
}

/// Runs a command to its end: seconds, and the most anonymous memory in MiB that it was seen with.
fn measure(command: &mut Command) -> Result<(f64, u64)> {
    let began = Instant::now();
    let mut child = command
        .stdout(Stdio::null())
        .spawn()
        .with_context(|| format!("{:?}", command.get_program()))?;
    let status = format!("/proc/{}/status", child.id());
    let mut most = 0;
    let done = loop {
        if let Some(done) = child.try_wait()? {
            break done;
        }
        most = most.max(anonymous_kib(&status));
        thread::sleep(Duration::from_millis(5));
    };
    ensure!(done.success(), "{:?} failed: {done}", command.get_program());
    Ok((began.elapsed().as_secs_f64(), most / 1024))
}

/// `RssAnon` of a process: its own memory, without the pages of mapped files.
fn anonymous_kib(status: &str) -> u64 {
    std::fs::read_to_string(status)
        .ok()
        .and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("RssAnon:"))?;
            line.split_whitespace().nth(1)?.parse().ok()
        })
        .unwrap_or(0)
}

/// Writes a pickle of about `bytes`, three quarters of it for training; returns its samples.
fn write_features(path: &Path, bytes: usize) -> Result<usize> {
    let sample = TEXT * 3 * 8 + (AUDIO.0 * AUDIO.1 + VISION.0 * VISION.1) * 4;
    let samples = (bytes / sample).max(4);
    let small = (samples / 8).max(1);
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
    out.write_all(b"\x80\x04}(")?;
    for (split, count) in [
        ("train", samples - 2 * small),
        ("valid", small),
        ("test", small),
    ] {
        text(&mut out, split)?;
        out.write_all(b"}(")?;
        text(&mut out, "text_bert")?;
        let mut row = Vec::new();
        for part in [101i64, 1, 0] {
            for at in 0..TEXT {
                let value = if at < 20 { part } else { 0 };
                row.extend(value.to_le_bytes());
            }
        }
        array(&mut out, "i8", &[count, 3, TEXT], &row)?;
        for (name, (steps, width)) in [("audio", AUDIO), ("vision", VISION)] {
            text(&mut out, name)?;
            let row: Vec<u8> = (0..steps * width)
                .flat_map(|at| ((at % 97) as f32 / 10.0).to_le_bytes())
                .collect();
            array(&mut out, "f4", &[count, steps, width], &row)?;
        }
        text(&mut out, "regression_labels")?;
        array(&mut out, "f4", &[count], &0.5f32.to_le_bytes())?;
        for (name, steps) in [("audio_lengths", AUDIO.0), ("vision_lengths", VISION.0)] {
            text(&mut out, name)?;
            array(&mut out, "i8", &[count], &(steps as i64).to_le_bytes())?;
        }
        out.write_all(b"u")?;
    }
    out.write_all(b"u.")?;
    out.flush()?;
    Ok(samples)
}

fn text(out: &mut impl Write, text: &str) -> Result<()> {
    out.write_all(b"X")?;
    out.write_all(&(text.len() as u32).to_le_bytes())?;
    Ok(out.write_all(text.as_bytes())?)
}

/// An array of `shape` whose every sample is `row`.
fn array(out: &mut impl Write, code: &str, shape: &[usize], row: &[u8]) -> Result<()> {
    out.write_all(
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R(K\x01(",
    )?;
    for size in shape {
        out.write_all(b"\x8a\x08")?;
        out.write_all(&(*size as i64).to_le_bytes())?;
    }
    out.write_all(b"tcnumpy\ndtype\n")?;
    text(out, code)?;
    out.write_all(b"\x89\x88\x87R(K\x03X\x01\x00\x00\x00<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89\x8e")?;
    out.write_all(&((shape[0] * row.len()) as u64).to_le_bytes())?;
    for _ in 0..shape[0] {
        out.write_all(row)?;
    }
    Ok(out.write_all(b"tb")?)
}
