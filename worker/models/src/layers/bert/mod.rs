//! BERT and RoBERTa, under the weight names of Hugging Face.
//!
//! [`halfheard_shared::encoder`] decides which folders can be loaded and reads their configuration.

mod encoder;
mod layout;
#[cfg(test)]
mod tests;

#[cfg(test)]
use encoder::Injection;
pub use encoder::{Bert, BertConfig};
