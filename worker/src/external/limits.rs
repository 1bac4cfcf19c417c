//! What a program may use.

use std::time::Duration;

/// Bytes of a gigabyte, in which limits are given.
pub(crate) const GB: u64 = 1_000_000_000;

/// The limits of one run of a program.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Limits {
    /// Resident memory of all its processes together, in bytes.
    pub(crate) memory: u64,
    /// Bytes in its folder, inputs left out.
    pub(crate) disk: u64,
    /// Its processes.
    pub(crate) processes: u32,
    /// How long it may say nothing.
    pub(crate) silence: Duration,
    /// How long it may take in all.
    pub(crate) time: Duration,
    /// Bytes of a state, or of a checkpoint. They are read into memory.
    pub(crate) file: u64,
}
