//! `coord submit`: submits a spec as a sweep.

mod command;
mod push;

pub(crate) use command::{SubmitArgs, run};
