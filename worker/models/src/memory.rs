//! Memory of training processes: heap configuration and resident size.

/// The environment variable that configures the C library at program start.
pub const TUNABLES: &str = "GLIBC_TUNABLES";

/// Keeps freed memory in the process for the next step.
///
/// By default, the C library maps every large tensor anew and unmaps it after use, and the kernel
/// clears all its pages each time. A training step allocates and frees the same gigabytes repeatedly,
/// which took up to two fifths of its time. With this setting, blocks come from a heap that never
/// shrinks; all threads share one heap, because those of other threads have no room for large blocks.
pub const KEEP_HEAP: &str = "glibc.malloc.mmap_max=0:glibc.malloc.arena_max=1:\
                        glibc.malloc.top_pad=67108864:glibc.malloc.trim_threshold=1099511627776";

/// The variable and its value for a training process; `None` if the user has set it.
pub fn child_environment() -> Option<(&'static str, &'static str)> {
    std::env::var_os(TUNABLES)
        .is_none()
        .then_some((TUNABLES, KEEP_HEAP))
}

/// Resident memory of this process in bytes; `None` if the kernel does not report it.
pub fn resident_bytes() -> Option<u64> {
    status("VmRSS:")
}

/// Peak resident memory of this process in bytes; `None` if the kernel does not report it.
pub fn peak_bytes() -> Option<u64> {
    status("VmHWM:")
}

/// A size from the kernel's status of this process, in bytes.
fn status(name: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let size = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = size.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}
