//! Faults on purpose, for tests: only programs built with debug assertions know them.
//!
//! | variable | while the file that it names is there |
//! |---|---|
//! | `HALFHEARD_INJECT_DEVICE` | the device is broken |
//! | `HALFHEARD_INJECT_HOLD` | evaluations stand still once one of their cases is done |

use halfheard_models::train::{TrainError, catch_panics};

#[cfg(debug_assertions)]
fn wanted(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|file| std::path::Path::new(&file).exists())
}

#[cfg(not(debug_assertions))]
fn wanted(_variable: &str) -> bool {
    false
}

/// Breaks the device where that is wanted, in libtorch's words.
pub fn device() -> Result<(), TrainError> {
    catch_panics(None, || {
        if wanted("HALFHEARD_INJECT_DEVICE") {
            #[expect(
                clippy::panic,
                reason = "libtorch's refusals come as panics; it is caught here"
            )]
            {
                panic!("CUDA error: uncorrectable ECC error encountered");
            }
        }
        Ok(())
    })
}

/// Whether evaluations are to stand still after so many cases.
pub fn holds(done: usize) -> bool {
    done > 0 && wanted("HALFHEARD_INJECT_HOLD")
}
