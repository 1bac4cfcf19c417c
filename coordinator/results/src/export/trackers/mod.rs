//! Training runs in the files of experiment trackers: [`mlflow`]'s file store, [`wandb`]'s offline runs.

pub mod mlflow;
mod names;
pub mod run;
pub mod wandb;
