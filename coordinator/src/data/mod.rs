//! Datasets: importing the field's feature pickles, making synthetic ones.

pub mod assemble;
mod fields;
pub mod import;
pub mod input;
pub mod synthesize;
