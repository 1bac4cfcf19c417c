//! Feature files, as people have them, and files for others.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cases;
mod damage;
mod forms;
mod pickler;
mod pickles;
mod protocols_parity;
mod python;
mod values;
