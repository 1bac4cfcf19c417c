//! A slot's process keeps memory for the next step: the kernel hands out pages once.

use std::{env, fs, process::Command, thread};
use tch::{Device, Kind, Tensor};
use worker::memory;

/// In the child: it is the one that takes memory.
const CHILD: &str = "MISSBENCH_TEST_TAKES_MEMORY";
/// So many pages of 4 kB has a tensor.
const PAGES: u64 = 16_384;
const TIMES: u64 = 16;

/// How many pages this process has asked the kernel for.
fn faults() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    // Behind the program's name in parentheses: state, seven numbers, and then this.
    let (_, rest) = stat.rsplit_once(") ").unwrap();
    rest.split(' ').nth(7).unwrap().parse().unwrap()
}

fn take_and_free() {
    // In a thread, as jobs run.
    let taken = thread::spawn(|| {
        let before = faults();
        for _ in 0..TIMES {
            drop(Tensor::ones(
                [PAGES as i64, 1024],
                (Kind::Float, Device::Cpu),
            ));
        }
        faults() - before
    });
    println!("faults: {}", taken.join().unwrap());
}

fn faults_of_child(tunables: Option<(&str, &str)>) -> u64 {
    let child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "memory_is_kept_for_the_next_step", "--nocapture"])
        .env(CHILD, "1")
        .env_remove(memory::VARIABLE)
        .envs(tunables)
        .output()
        .unwrap();
    let out = String::from_utf8(child.stdout).unwrap();
    let line = out.lines().find_map(|l| l.split_once("faults: ")).unwrap();
    line.1.trim().parse().unwrap()
}

#[test]
fn memory_is_kept_for_the_next_step() {
    if env::var_os(CHILD).is_some() {
        return take_and_free();
    }
    // A tensor's pages once, and as many again for all else.
    let kept = faults_of_child(Some((memory::VARIABLE, memory::KEEP)));
    assert!(kept < 2 * PAGES, "{kept}");
    if cfg!(target_env = "gnu") {
        // Otherwise the test would show nothing.
        let given_back = faults_of_child(None);
        assert!(given_back > kept, "{given_back} and {kept}");
    }
}
