//! Reads the repository's own sources for the checks in `tests/`: import cycles between modules, what crates depend on,
//! file sizes and links in Markdown. Nothing is built or run.

pub mod cycles;
pub mod files;
pub mod links;
pub mod manifests;
mod modules;
