//! `coord predictions`: results of models that were trained elsewhere.

mod args;
mod command;
mod delete;
mod import;
mod test_split;

pub(crate) use self::{args::PredictionsArgs, command::run};
