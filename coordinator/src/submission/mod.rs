//! From a spec file to a sweep's jobs: everything that is checked before anything is queued.

pub(crate) mod encoders;
mod files;
mod load;
pub(crate) mod memory;
mod program;
pub(crate) mod programs;
pub(crate) mod protocol;
pub(crate) mod report;
pub(crate) mod sharing;
mod submit;

pub(crate) use files::{FileError, encoder_shape, facts};
pub(crate) use load::{LoadError, Loaded, Synthesize, load};
pub(crate) use submit::{SubmitError, submit, user};
