//! How a process that trains gets its memory, and how much it has.

/// The environment variable that the C library reads at a program's start.
pub const TUNABLES: &str = "GLIBC_TUNABLES";

/// Memory that was needed once is kept for the next step.
///
/// By default the C library asks the kernel anew for every large tensor and gives it back after use;
/// the kernel has to clear all its pages each time. A training step takes and frees the same
/// gigabytes again and again, so up to two fifths of its time went there. Blocks come from the heap
/// instead, whose end is not given back; one heap for all threads, since those of other threads than
/// the first have no room for large blocks.
pub const KEEP_HEAP: &str = "glibc.malloc.mmap_max=0:glibc.malloc.arena_max=1:\
                        glibc.malloc.top_pad=67108864:glibc.malloc.trim_threshold=1099511627776";

/// The variable and its value for a child process that trains; nothing where the user has set it.
pub fn child_environment() -> Option<(&'static str, &'static str)> {
    std::env::var_os(TUNABLES)
        .is_none()
        .then_some((TUNABLES, KEEP_HEAP))
}

/// Resident memory of this process in bytes; `None` where the kernel does not say.
pub fn resident_bytes() -> Option<u64> {
    status("VmRSS:")
}

/// The most that was resident of this process so far, in bytes; `None` where the kernel does not say.
pub fn peak_bytes() -> Option<u64> {
    status("VmHWM:")
}

/// A size that the kernel tells of this process, in bytes.
fn status(name: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let size = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = size.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}
