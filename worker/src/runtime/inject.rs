//! Fault injection for tests, in builds with debug assertions only.
//!
//! | variable | while the file that it names exists |
//! |---|---|
//! | `HALFHEARD_INJECT_DEVICE` | the device fails |
//! | `HALFHEARD_INJECT_HOLD` | evaluation pauses once one of its cases is done |

use halfheard_models::train::{TrainError, catch_panics};

#[cfg(debug_assertions)]
fn is_active(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|file| std::path::Path::new(&file).exists())
}

#[cfg(not(debug_assertions))]
fn is_active(_variable: &str) -> bool {
    false
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
