//! Text encoders as they are published: a folder in the Hugging Face layout.
//!
//! [`Encoder::open`] is the one reader of such a folder, for `coord plan`, `submit` and `doctor` as
//! for the worker: what it accepts can be trained; the rest is rejected with what was found, what was
//! expected, and what to do. It reads headers, not weights; [`Encoder::tensor`]
//! reads those. Nothing in a file is ever executed, and sizes that a file claims are checked before
//! they are believed.
//!
//! Names are those of the field's models without a prefix (`embeddings.word_embeddings.weight`):
//! `bert.`, `roberta.` and `model.` are stripped, `LayerNorm.gamma` and `LayerNorm.beta` are
//! `weight` and `bias`, heads and buffers of other tasks (`cls.*`, `lm_head.*`, `position_ids`) are
//! ignored.

mod config;
mod error;
mod files;
mod header;
mod reader;
mod texts;
mod tokens;
mod torch;
mod values;
mod zip;

pub use config::{Architecture, Config};
pub use error::EncoderError;
pub use files::{WeightFiles, is_plain};
pub use reader::{Encoder, MAX_LIST, identity, read_list, write_list};
pub use texts::{EncoderFacts, TextFacts};
pub use tokens::{TokenIds, vocabulary};

#[cfg(test)]
mod tests;
