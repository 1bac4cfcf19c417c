//! Dispatch: answers workers' requests with jobs out of the database.

mod asks;
mod jobs;
mod sessions;

pub(in crate::orchestrator) use asks::dispatch;
