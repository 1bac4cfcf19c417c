//! Protocols and the datasets that follow them: which metrics there are, and by which of them a
//! checkpoint is the best one.
//!
//! A protocol ([`Kind`]) is built in or user-defined ([`definition`]); everything that
//! depends on it follows from its definition ([`Rules`]). A [`Benchmark`] is a dataset's name
//! with the protocol that it follows: results are kept under the name.

pub mod definition;
mod identity;
mod kind;
mod metric;
mod name;
mod rules;
#[cfg(test)]
mod tests;
pub mod whole;

pub use identity::{Benchmark, BenchmarkError, Own};
pub use kind::{Kind, OwnKind, UnknownKind};
pub use metric::{Criterion, Metric};
pub use name::valid_name;
pub use rules::{Binary, Rules, Scale};
