//! Tests of keys and of drawings.

mod drawings;
mod keys;
mod scene;
