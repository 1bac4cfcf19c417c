//! `coord`: the command line, the orchestrator behind `coord serve`, and private servers on one machine.

pub mod analysis;
pub mod cli;
pub mod commands;
pub mod config;
mod errors;
pub mod exit;
mod housekeeping;
mod infrastructure;
pub mod local;
pub mod orchestrator;
mod output;
mod submission;
