//! Datasets: imports the feature pickles of the field, and synthesizes small ones. Predictions: reads those
//! that were made elsewhere. Neither network nor database.

mod assemble;
pub mod cases;
mod cube;
pub mod error;
mod fields;
pub mod import;
pub mod input;
pub mod nonfinite;
pub mod official;
pub mod opaque;
pub mod predictions;
pub mod recognize;
mod root;
mod samples;
mod suspicion;
pub mod synthesize;

pub use error::ImportError;
