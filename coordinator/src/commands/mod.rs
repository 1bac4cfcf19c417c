//! The commands of `coord`, one a file. Each has its arguments and `run(args, &settings)`.

pub mod audit;
pub mod cancel;
pub mod compare;
pub mod completions;
pub mod data;
pub mod doctor;
pub mod export;
pub mod failures;
pub mod figure;
pub mod forecast;
pub mod formats;
pub mod migrate;
pub mod pause;
pub mod plan;
pub mod progress;
pub mod protocol;
pub mod report;
pub mod retry;
pub mod run;
pub mod serve;
pub mod status;
pub mod submit;
pub mod table;
