//! The environment of a training process: what the C library and OpenMP read at a program's start.

use std::{env, ffi::OsString};

/// The environment variable that configures the C library.
pub const TUNABLES: &str = "GLIBC_TUNABLES";

/// Keeps freed memory in the process for the next step.
///
/// By default, the C library maps every large tensor anew and unmaps it after use, and the kernel
/// clears all its pages each time. A training step allocates and frees the same gigabytes repeatedly,
/// which took up to two fifths of its time. With this setting, blocks come from a heap that never
/// shrinks; all threads share one heap, because those of other threads have no room for large blocks.
pub const KEEP_HEAP: &str = "glibc.malloc.mmap_max=0:glibc.malloc.arena_max=1:\
                        glibc.malloc.top_pad=67108864:glibc.malloc.trim_threshold=1099511627776";

/// The environment variable that says how often a thread of OpenMP looks for work before it sleeps.
const SPINS: &str = "GOMP_SPINCOUNT";

/// How often a thread looks: for some 0.1 ms.
///
/// By default it looks for a few milliseconds, about as long as the kernel lets a thread run. If another program takes a
/// core meanwhile, a thread that waits for one of its own burns the core that this one needs: beside a single busy
/// process on two cores, predictions took 1.3 to 1.5 times as long, once five times. On an idle machine, the difference
/// is lost in the noise.
const FEW_SPINS: &str = "5000";

/// With one of these set, the user has decided how threads wait.
const WAITING: [&str; 2] = [SPINS, "OMP_WAIT_POLICY"];

/// The variables of a training process, without those that the user has set.
pub fn of_training_process() -> Vec<(&'static str, &'static str)> {
    missing(|name| env::var_os(name))
}

fn missing(get: impl Fn(&str) -> Option<OsString>) -> Vec<(&'static str, &'static str)> {
    let mut variables = Vec::new();
    if get(TUNABLES).is_none() {
        variables.push((TUNABLES, KEEP_HEAP));
    }
    if WAITING.iter().all(|name| get(name).is_none()) {
        variables.push((SPINS, FEW_SPINS));
    }
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing_with(set: &[&str]) -> Vec<&'static str> {
        let variables = missing(|name| set.contains(&name).then(OsString::new));
        variables.into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn what_the_user_has_set_is_left_alone() {
        assert_eq!(missing_with(&[]), [TUNABLES, SPINS]);
        assert_eq!(missing_with(&[TUNABLES]), [SPINS]);
        assert_eq!(missing_with(&["OMP_WAIT_POLICY"]), [TUNABLES]);
        assert!(missing_with(&[TUNABLES, SPINS]).is_empty());
    }
}
