//! `coord`: the command line, the orchestrator behind `coord serve`, and the private servers of one machine.

pub mod cli;
pub mod commands;
pub mod config;
pub mod exit;
pub mod local;
pub mod orchestrator;
pub mod show_error;
pub mod submission;
