//! A slot's process keeps memory for the next step: the kernel hands out pages once.

use std::{env, error::Error, fs, process::Command, thread};
use tch::{Device, Kind, Tensor};
use worker::memory;

/// In the child: it is the one that takes memory.
const CHILD: &str = "MISSBENCH_TEST_TAKES_MEMORY";
/// So many pages of 4 kB has a tensor.
const PAGES: u64 = 16_384;
const TIMES: u64 = 16;

/// How many pages this process has asked the kernel for.
fn faults() -> Option<u64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // Behind the program's name in parentheses: state, six numbers, and then this.
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(7)?.parse().ok()
}

fn take_and_free() -> Option<u64> {
    let before = faults()?;
    for _ in 0..TIMES {
        let size = [PAGES as i64, 1024];
        drop(Tensor::ones(size, (Kind::Float, Device::Cpu)));
    }
    Some(faults()? - before)
}

fn faults_of_child(tunables: Option<(&str, &str)>) -> Result<u64, Box<dyn Error>> {
    let child = Command::new(env::current_exe()?)
        .args(["--exact", "memory_is_kept_for_the_next_step", "--nocapture"])
        .env(CHILD, "1")
        .env_remove(memory::VARIABLE)
        .envs(tunables)
        .output()?;
    let out = String::from_utf8(child.stdout)?;
    let line = out.lines().find_map(|line| line.split_once("faults: "));
    let (_, count) = line.ok_or_else(|| format!("no count in {out}"))?;
    Ok(count.trim().parse()?)
}

#[test]
fn memory_is_kept_for_the_next_step() {
    if env::var_os(CHILD).is_some() {
        // In a thread, as jobs run.
        let taken = thread::spawn(take_and_free).join().unwrap().unwrap();
        println!("faults: {taken}");
        return;
    }
    // A tensor's pages once, and as many again for all else.
    let kept = faults_of_child(Some((memory::VARIABLE, memory::KEEP))).unwrap();
    assert!(kept < 2 * PAGES, "{kept}");
    if cfg!(target_env = "gnu") {
        // Otherwise the test would show nothing.
        let given_back = faults_of_child(None).unwrap();
        assert!(given_back > kept, "{given_back} and {kept}");
    }
}
