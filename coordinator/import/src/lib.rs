//! Datasets: imports the feature pickles of the field, and synthesizes small ones. Neither network nor
//! database.

mod assemble;
mod cube;
pub mod error;
mod fields;
pub mod import;
pub mod input;
pub mod nonfinite;
pub mod official;
pub mod opaque;
pub mod recognize;
mod root;
mod samples;
mod suspicion;
pub mod synthesize;

pub use error::ImportError;
