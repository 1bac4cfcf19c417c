//! The commands of `coord`, one a file. Each has its arguments and `run(args, &settings)`.

pub mod cancel;
pub mod completions;
pub mod data;
pub mod migrate;
pub mod serve;
pub mod table;
