//! `coord cases`: the cases of a spec as files.

mod args;
mod command;
mod export;

pub(crate) use self::{args::CasesArgs, command::run};
