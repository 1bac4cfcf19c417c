//! What the fuzz targets share.

mod folder;

pub use folder::{Scratch, encoder_files};
