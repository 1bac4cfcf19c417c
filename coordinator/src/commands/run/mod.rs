//! `coord run`: runs a whole sweep on this machine, with private servers and workers.

mod args;
mod command;
mod context;
mod map;
mod slots;
mod summary;

pub(crate) use args::RunArgs;
pub(crate) use command::run;
