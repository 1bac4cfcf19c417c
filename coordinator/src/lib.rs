//! `coord`: the command line, the orchestrator behind `coord serve`, and private servers on one machine.

pub mod cli;
pub mod commands;
pub mod config;
mod errors;
pub mod exit;
mod housekeeping;
mod http;
mod infrastructure;
pub mod local;
pub mod notify;
pub mod observe;
pub mod orchestrator;
mod output;
mod slurm;
mod submission;
mod tuning;

pub use halfheard_analysis as analysis;
