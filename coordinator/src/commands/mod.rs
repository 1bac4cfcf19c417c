//! The commands of `coord`, one module each with its arguments and `run(args, &settings)`.

pub(crate) mod audit;
pub(crate) mod backup;
pub(crate) mod cancel;
pub(crate) mod compare;
pub(crate) mod completions;
pub(crate) mod data;
pub(crate) mod dead_letters;
pub(crate) mod delete;
pub(crate) mod doctor;
pub(crate) mod export;
pub mod failures;
pub(crate) mod figure;
mod formats;
pub(crate) mod gc;
pub(crate) mod migrate;
pub(crate) mod pause;
pub(crate) mod plan;
pub(crate) mod report;
pub(crate) mod restore;
pub(crate) mod retry;
pub(crate) mod run;
pub(crate) mod serve;
pub(crate) mod set;
pub(crate) mod status;
pub(crate) mod submit;
pub(crate) mod table;
pub mod watch;
