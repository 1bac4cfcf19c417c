//! How many slots with how many threads train fastest on this machine's CPU: measured by
//! `coord tune-machine`, kept in the data folder, used by `coord run`.

mod candidates;
mod choice;
mod file;
mod machine;
mod state;

pub(crate) use candidates::{Candidate, Cores, candidates};
pub(crate) use choice::{Choice, Measured, MethodRate, Room, choose, shares};
pub(crate) use file::{Tuning, path};
pub(crate) use machine::Machine;
pub(crate) use state::{Unused, of_installed_worker, of_sweep, of_this_machine};
