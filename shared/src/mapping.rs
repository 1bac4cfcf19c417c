//! Why a file cannot be mapped into memory.

use std::io;

/// An error of mapping a file of `bytes`, with what is behind it where the system says only that
/// memory is short: a limit on the address space, as login nodes have one.
pub fn explain(error: io::Error, bytes: u64) -> io::Error {
    if error.kind() != io::ErrorKind::OutOfMemory {
        return error;
    }
    let size = gibibytes(bytes);
    io::Error::new(
        io::ErrorKind::OutOfMemory,
        match address_space() {
            Some(limit) => format!(
                "its {size} cannot be mapped: the address space of a process is limited to {} (ulimit -v). Raise the limit (`ulimit -v unlimited`), or work where there is none; the memory itself is not needed",
                gibibytes(limit)
            ),
            None => format!(
                "its {size} cannot be mapped: the system has no address space left for it ({error}); see vm.overcommit_memory and the limits of the container"
            ),
        },
    )
}

fn gibibytes(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / (1u64 << 30) as f64)
}

/// The limit on this process's address space in bytes (`ulimit -v`), if there is one.
pub fn address_space() -> Option<u64> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max address space"))?;
    // Max address space         6144000000           unlimited            bytes
    line.split_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_address_space_limit_is_explained() {
        let none = io::Error::from_raw_os_error(12);
        let text = explain(none, 8_510_084_547).to_string();
        assert!(text.starts_with("its 7.9 GiB cannot be mapped"), "{text}");
        let other = explain(io::Error::from_raw_os_error(19), 1);
        assert_eq!(other.raw_os_error(), Some(19));
    }
}
