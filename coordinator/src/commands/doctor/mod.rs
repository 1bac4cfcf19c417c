//! `coord doctor`: checks the environment and suggests fixes.

mod artifacts;
mod command;
mod finding;
mod programs;
mod servers;
mod storage;

pub(crate) use command::{DoctorArgs, run};
