//! From a spec file to a sweep's jobs: what is checked before anything is queued.

pub mod demand;
pub mod encoders;
pub mod specs;
