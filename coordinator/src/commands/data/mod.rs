//! `coord data`: manages datasets.

mod args;
mod check;
mod command;
mod create;
mod describe;
mod list;
mod progress_bar;

pub(crate) use args::DataArgs;
pub(crate) use command::run;
