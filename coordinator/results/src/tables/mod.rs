//! The paper's tables, and others, from a sweep's results.
//!
//! [`layout`] says what each of the paper's tables holds, [`paper`] builds it, [`comparison`] adds
//! other numbers below ours, [`derived`], [`cases`], [`curves`] and
//! [`reliance`] build the tables that the paper lacks, and [`mod@render`]
//! prints them. Numbers are rounded there and nowhere else.

pub mod cases;
pub mod comparison;
pub mod curves;
pub mod derived;
mod headings;
pub(crate) mod html;
mod latex;
pub mod layout;
mod lines;
mod markdown;
mod notes;
pub mod paper;
pub mod protocols;
pub mod reliance;
pub mod render;
mod table;
mod text;
mod value;

pub use table::{Block, Column, Companion, Row, Table};
pub use value::{ColumnMetric, CompanionValue, Rank, Value};

#[cfg(test)]
pub(crate) use table::tests::table as example;
