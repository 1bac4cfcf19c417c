//! Datasets: importing the field's feature pickles, making synthetic ones.

pub mod assemble;
mod cube;
mod fields;
pub mod import;
pub mod input;
pub mod nonfinite;
pub mod official;
pub mod opaque;
pub mod recognise;
mod root;
mod samples;
mod suspicion;
pub mod synthesize;
