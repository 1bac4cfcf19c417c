//! A slot's process keeps memory for the next step: the kernel hands out pages once.

use halfheard_models::memory;
use std::{env, error::Error, fs, process::Command, thread};
use tch::{Device, Kind, Tensor};

/// In the child: it is the one that takes memory.
const CHILD: &str = "HALFHEARD_TEST_TAKES_MEMORY";
/// So many pages of 4 kB has a tensor: more than 32 MB, below which the C library keeps memory anyway.
const PAGES: i64 = 9_216;
const TIMES: u64 = 48;

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
        let size = [PAGES, 1024];
        drop(Tensor::ones(size, (Kind::Float, Device::Cpu)));
    }
    Some(faults()? - before)
}

fn faults_of_child(tunables: Option<(&str, &str)>) -> Result<u64, Box<dyn Error>> {
    let child = Command::new(env::current_exe()?)
        .args(["--exact", "memory_is_kept_for_the_next_step", "--nocapture"])
        .env(CHILD, "1")
        .env_remove(memory::TUNABLES)
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
    let kept = faults_of_child(Some((memory::TUNABLES, memory::KEEP_HEAP))).unwrap();
    let given_back = faults_of_child(None).unwrap();
    // A few tensors' pages, because the heap has to find its shape, and not those of all.
    assert!(4 * kept < given_back, "{kept} of {given_back}");
}
