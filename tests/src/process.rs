//! What a process takes.

/// Resident memory of a process, in megabytes.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Now.
    pub now: f64,
    /// The most so far.
    pub peak: f64,
}

/// The memory of a process as the kernel counts it; zeros if there is no such process.
pub fn memory(process: u32) -> Memory {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok())
            .map_or(0.0, |kilobytes| kilobytes / 1024.0)
    };
    Memory {
        now: of("VmRSS:"),
        peak: of("VmHWM:"),
    }
}

/// Seconds of processor time that the threads of a process have taken; 0 if there is no such process.
pub fn processor_seconds(process: u32) -> f64 {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{process}/task")) else {
        return 0.0;
    };
    let taken = threads.flatten().filter_map(|thread| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<f64>().ok()
    });
    taken.sum::<f64>() / 1e9
}

/// As [`processor_seconds`], of a process and all that descend from it and still run.
pub fn tree_seconds(process: u32) -> f64 {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let parents: Vec<(u32, u32)> = processes
        .filter_map(|folder| folder.file_name().to_str()?.parse().ok())
        .filter_map(|process| Some((process, parent(process)?)))
        .collect();
    let mut tree = vec![process];
    let mut next = 0;
    while let Some(&of) = tree.get(next) {
        tree.extend(
            parents
                .iter()
                .filter(|(_, parent)| *parent == of)
                .map(|(child, _)| child),
        );
        next += 1;
    }
    tree.into_iter().map(processor_seconds).sum()
}

fn parent(process: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // After the name, which may contain anything: the state, then the parent.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}
