//! `coord logs`: what became of a job, and what its program wrote.

mod command;
mod output;
mod story;

pub(crate) use command::{LogsArgs, run};
pub(crate) use output::LogsError;
