//! How a process that trains gets its memory.

/// The environment variable that the C library reads at a program's start.
pub const VARIABLE: &str = "GLIBC_TUNABLES";

/// Memory that was needed once is kept for the next step.
///
/// By default the C library asks the kernel anew for every large tensor and gives it back after use;
/// the kernel has to clear all its pages each time. A training step takes and frees the same
/// gigabytes again and again, so up to two fifths of its time went there. Blocks come from the heap
/// instead, whose end is not given back; one heap for all threads, since those of other threads than
/// the first have no room for large blocks.
pub const KEEP: &str = "glibc.malloc.mmap_max=0:glibc.malloc.arena_max=1:\
                        glibc.malloc.top_pad=67108864:glibc.malloc.trim_threshold=1099511627776";

/// The variable and its value for a child process that trains; nothing where the user has set it.
pub fn for_child() -> Option<(&'static str, &'static str)> {
    std::env::var_os(VARIABLE)
        .is_none()
        .then_some((VARIABLE, KEEP))
}
