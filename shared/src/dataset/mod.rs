//! Imported datasets: one memory-mappable safetensors file and a manifest beside it.
//!
//! `coord data import` and `coord data synthesize` write them, workers read them. The layout in a
//! data folder is [`DataFolder`]'s; what is in the file is [`layout`]'s.
//!
//! ```no_run
//! use halfheard_shared::dataset::{Dataset, Split};
//!
//! let data = Dataset::open("datasets/mosi/data.safetensors".as_ref())?;
//! let test = data.split(Split::Test);
//! let shapes = data.shapes();
//! // The audio features of sample 3, `[Ta, Da]` row by row.
//! let size = shapes.audio_len * shapes.audio_dim;
//! let audio = &test.audio()[3 * size..4 * size];
//! println!("{}: {} samples, {}", test.id(3), test.len(), audio[0]);
//! # Ok::<(), halfheard_shared::dataset::DatasetError>(())
//! ```

mod error;
mod folder;
pub mod layout;
mod manifest;
mod reader;
mod shapes;
mod split;
#[cfg(test)]
mod tests;
mod writer;

pub use error::DatasetError;
pub use folder::{DataFolder, Prepared};
pub use manifest::{
    FeatureStats, LengthSource, LengthStats, Manifest, NotFinite, Source, SplitManifest, Treatment,
};
pub use reader::{Dataset, SplitView, mask_problem};
pub use shapes::Shapes;
pub use split::Split;
pub use writer::{TensorFile, WriteError};

pub use crate::benchmark::{Kind, UnknownKind, valid_name};
