//! `coord export`: results as files, for notebooks and for experiment trackers.

mod command;
mod trackers;

pub(crate) use command::{ExportArgs, ExportError, run};
