//! Fault injection and pacing for tests, in builds with debug assertions only.
//!
//! | variable | while the file that it names exists |
//! |---|---|
//! | `HALFHEARD_INJECT_DEVICE` | the device fails |
//! | `HALFHEARD_INJECT_HOLD` | evaluation pauses once one of its cases is done |
//! | `HALFHEARD_INJECT_HANG` | a training step, or a batch of an evaluation, does not end |
//!
//! | variable | seconds |
//! |---|---|
//! | `HALFHEARD_INJECT_PATIENCE` | the shortest time that a step may take |
//! | `HALFHEARD_INJECT_BEAT` | between heartbeats |
//! | `HALFHEARD_INJECT_RESEND` | until an unsettled report is sent again |

use halfheard_models::train::{TrainError, catch_panics};
use std::time::Duration;

#[cfg(debug_assertions)]
fn is_active(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|file| std::path::Path::new(&file).exists())
}

#[cfg(not(debug_assertions))]
fn is_active(_variable: &str) -> bool {
    false
}

#[cfg(debug_assertions)]
fn seconds(variable: &str) -> Option<Duration> {
    let seconds: f64 = std::env::var(variable).ok()?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(not(debug_assertions))]
fn seconds(_variable: &str) -> Option<Duration> {
    None
}

/// Fails as libtorch does on a broken device, if requested.
pub(super) fn device() -> Result<(), TrainError> {
    catch_panics(None, || {
        if is_active("HALFHEARD_INJECT_DEVICE") {
            #[expect(
                clippy::panic,
                reason = "libtorch's errors arrive as panics; this one is caught here"
            )]
            {
                panic!("CUDA error: uncorrectable ECC error encountered");
            }
        }
        Ok(())
    })
}

/// Whether evaluation pauses after `done` cases.
pub(super) fn holds(done: usize) -> bool {
    done > 0 && is_active("HALFHEARD_INJECT_HOLD")
}

/// Does not return while a step is to hang.
pub(super) fn hang() {
    while is_active("HALFHEARD_INJECT_HANG") {
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The shortest patience with a step.
pub(super) fn patience() -> Option<Duration> {
    seconds("HALFHEARD_INJECT_PATIENCE")
}

/// The interval between heartbeats.
pub(super) fn beat_every() -> Option<Duration> {
    seconds("HALFHEARD_INJECT_BEAT")
}

/// The first pause before an unsettled report is sent again.
pub(super) fn resend_every() -> Option<Duration> {
    seconds("HALFHEARD_INJECT_RESEND")
}
