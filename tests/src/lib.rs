//! Shared by the end-to-end tests: real servers on free loopback ports, a scripted worker that speaks the wire
//! protocol without libtorch, small sweeps, and dumps of results.

use std::time::Duration;

/// How long a test waits for a state. It only bounds a hang: a busy machine takes many times as long as an idle one, and
/// no test may fail for that.
pub const PATIENCE: Duration = Duration::from_secs(300);

pub mod dump;
pub mod finished;
pub mod programs;
pub mod saved;
pub mod servers;
pub mod shipped;
pub mod stage;
pub mod sweeps;
pub mod tiny;
pub mod tls;
pub mod worker;
