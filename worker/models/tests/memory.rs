//! A training process keeps memory for the next step, so the kernel provides its pages once.

use halfheard_models::environment;
use std::{env, error::Error, fs, process::Command, thread};
use tch::{Device, Kind, Tensor};

/// Set in the child process, which allocates.
const CHILD: &str = "HALFHEARD_TEST_TAKES_MEMORY";
/// Pages of 4 kB per tensor: more than 32 MB, below which the C library keeps memory by default.
const PAGES: i64 = 9_216;
const TIMES: u64 = 48;

/// The number of pages that this process has requested from the kernel.
fn faults() -> Option<u64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // After the program's name in parentheses: the state, six numbers, then this.
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(7)?.parse().ok()
}

fn allocate_and_free() -> Option<u64> {
    let before = faults()?;
    for _ in 0..TIMES {
        let size = [PAGES, 1024];
        drop(Tensor::ones(size, (Kind::Float, Device::Cpu)));
    }
    Some(faults()? - before)
}

fn faults_of_child(tunables: Option<(&str, &str)>) -> Result<u64, Box<dyn Error>> {
    let child = Command::new(env::current_exe()?)
        .args([
            "--exact",
            "freed_memory_is_kept_for_the_next_step",
            "--nocapture",
        ])
        .env(CHILD, "1")
        .env_remove(environment::TUNABLES)
        .envs(tunables)
        .output()?;
    let out = String::from_utf8(child.stdout)?;
    let line = out.lines().find_map(|line| line.split_once("faults: "));
    let (_, count) = line.ok_or_else(|| format!("no count in {out}"))?;
    Ok(count.trim().parse()?)
}

#[test]
fn freed_memory_is_kept_for_the_next_step() {
    if env::var_os(CHILD).is_some() {
        // In a thread, as jobs run.
        let taken = thread::spawn(allocate_and_free).join().unwrap().unwrap();
        println!("faults: {taken}");
        return;
    }
    let kept = faults_of_child(Some((environment::TUNABLES, environment::KEEP_HEAP))).unwrap();
    let released = faults_of_child(None).unwrap();
    // The heap needs the pages of a few tensors until it has its size, not those of all.
    assert!(4 * kept < released, "{kept} of {released}");
}
