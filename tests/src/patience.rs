//! How long tests wait.

use std::time::Duration;

/// How long a test waits for a state. It only bounds a hang: a busy machine takes many times as long as an idle one, and
/// no test may fail for that.
pub const PATIENCE: Duration = Duration::from_secs(300);
