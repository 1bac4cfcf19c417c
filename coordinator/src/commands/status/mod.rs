//! `coord status`: shows sweep progress.

mod all;
mod allocations;
mod artifacts;
mod command;
mod needs;
mod sweep;
mod workers;

pub(crate) use self::{
    command::{StatusArgs, run},
    needs::versions,
    workers::BrokerState,
};
