//! The processes that a process has started, all generations of them, as the kernel lists them.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    collections::{HashMap, HashSet},
    fs,
    time::{Duration, Instant},
};

/// A process below another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pid: i32,
    parent: i32,
    /// Whether it has ended, and only its parent has not noticed.
    ended: bool,
    /// Resident pages.
    pages: u64,
}

/// What a program uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// Its processes.
    pub(super) processes: u32,
    /// Their resident memory, in bytes; pages that they share count for each.
    pub(super) memory: u64,
}

/// The fields of `/proc/PID/stat`. The name, which is in parentheses, may hold anything.
fn parse(pid: i32, stat: &str) -> Option<Process> {
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    Some(Process {
        pid,
        parent: fields.get(1)?.parse().ok()?,
        ended: matches!(*fields.first()?, "Z" | "X"),
        pages: fields.get(21)?.parse().ok()?,
    })
}

/// All processes below `root`, itself left out. Who loses its parent stays below `root` if that adopts
/// orphans.
pub(super) fn below(root: i32) -> Vec<Process> {
    let Ok(listed) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let mut children: HashMap<i32, Vec<Process>> = HashMap::new();
    for entry in listed.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // It may have ended meanwhile.
        let stat = fs::read_to_string(entry.path().join("stat"));
        if let Some(process) = stat.ok().and_then(|stat| parse(pid, &stat)) {
            children.entry(process.parent).or_default().push(process);
        }
    }
    let (mut found, mut parents) = (Vec::new(), vec![root]);
    while let Some(parent) = parents.pop() {
        for process in children.remove(&parent).unwrap_or_default() {
            parents.push(process.pid);
            found.push(process);
        }
    }
    found
}

/// What the processes below `root` use.
pub(super) fn usage(root: i32) -> Usage {
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE);
    let page = page.ok().flatten().unwrap_or(4096) as u64;
    let mut usage = Usage::default();
    for process in below(root).iter().filter(|process| !process.ended) {
        usage.processes += 1;
        usage.memory += process.pages * page;
    }
    usage
}

fn signal(pid: i32, signal: Signal) {
    // It may have ended meanwhile.
    let _ = kill(Pid::from_raw(pid), signal);
}

/// Ends all processes below `root`. Each is stopped before any is killed: what multiplies faster than it
/// can be killed is outrun. Returns whether none is left.
pub(super) fn end_below(root: i32, patience: Duration) -> bool {
    let since = Instant::now();
    let alive = || {
        let all = below(root).into_iter();
        all.filter(|process| !process.ended)
            .map(|process| process.pid)
    };
    loop {
        let mut stopped = HashSet::new();
        loop {
            let fresh: Vec<i32> = alive().filter(|pid| stopped.insert(*pid)).collect();
            if fresh.is_empty() || since.elapsed() > patience {
                break;
            }
            for pid in fresh {
                signal(pid, Signal::SIGSTOP);
            }
        }
        for pid in alive() {
            signal(pid, Signal::SIGKILL);
        }
        if alive().next().is_none() {
            return true;
        }
        if since.elapsed() > patience {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn stat_is_read_whatever_the_name_of_the_process() {
        let fields = "S 7 1 1 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 5 1000 33 18446";
        let process = parse(9, &format!("9 (a) b) {fields}")).unwrap();
        assert_eq!(
            (process.parent, process.pages, process.ended),
            (7, 33, false)
        );
        assert_eq!(parse(9, "9 (a"), None);
    }

    #[test]
    fn grandchildren_are_found_and_ended() {
        let mut shell = Command::new("sh")
            .args(["-c", "sh -c 'sleep 600 & sleep 600' & wait"])
            .spawn()
            .unwrap();
        let root = shell.id() as i32;
        let since = Instant::now();
        while usage(root).processes < 3 {
            assert!(
                since.elapsed() < Duration::from_secs(10),
                "{:?}",
                usage(root)
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(usage(root).memory > 0);
        assert!(end_below(root, Duration::from_secs(5)));
        // Its parent was not ended, and goes on.
        assert!(shell.wait().is_ok());
    }
}
