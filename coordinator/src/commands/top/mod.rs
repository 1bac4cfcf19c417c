//! `coord top`: sweeps, their maps, workers, training curves and failures, live in a terminal.
//!
//! [`state`] is everything that a drawing depends on; [`update`] changes it by an event and says what is to
//! be done, [`draw`] draws it: both are pure. [`load`] reads the database and the broker, [`act`] does what
//! the operator confirmed, and [`command`] connects them.

mod act;
mod command;
mod curves;
mod draw;
mod load;
mod map;
mod state;
mod text;
mod update;

pub(crate) use command::{TopArgs, run};
pub(crate) use map::Map;

#[cfg(test)]
mod tests;
