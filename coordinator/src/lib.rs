//! The coordinator.

pub mod backoff;
pub mod cli;
pub mod commands;
pub mod config;
pub mod data;
pub mod dispatch;
pub mod embedded;
pub mod gather;
pub mod leader;
pub mod lifecycle;
pub mod programs;
pub mod reconcile;
pub mod report;
pub mod serve;
pub mod store;
pub mod tables;
