//! Finds what is wrong or suspect in results, by computation: in the paper's tables
//! ([`published()`]) and in a sweep ([`SweepAudit`]).
//!
//! A rule is a function from [`Cell`]s to [`Finding`]s; it names no method, table or value. Rules never
//! consult the known errata: these only label findings, and a test checks that each is found without
//! them.

mod carry;
mod cell;
mod chance;
pub mod classes;
mod close;
mod f1;
mod finding;
mod known;
mod means;
mod no_effect;
pub mod other;
mod published;
mod range;
pub mod render;
mod repeated;
mod same;
mod shifted;
mod spread;
mod sweep;
mod trend;

pub use cell::{Cell, Place};
pub use finding::{Finding, Rule, Severity};
pub use published::{implausible_spreads, published, published_beside};
pub use sweep::{SweepAudit, collapsed};
