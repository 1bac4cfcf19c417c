//! Results as files for notebooks: long tables, one value per row, as Parquet or CSV.
//!
//! [`columns`] turns rows of the store into columns, [`file`] writes them. [`trackers`] writes training runs as experiment
//! trackers read them.

pub mod columns;
pub mod file;
pub mod trackers;
