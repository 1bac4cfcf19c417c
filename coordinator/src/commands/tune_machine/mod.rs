//! `coord tune-machine`: measures how many slots with how many threads train fastest here.

mod args;
mod command;
mod progress;
mod report;

pub(crate) use args::TuneMachineArgs;
pub(crate) use command::run;
