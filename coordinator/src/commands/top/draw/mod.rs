//! Draws the state. Everything can be read without color: states are symbols and words, what is chosen is
//! marked with `>` or brackets.

mod failures;
mod frame;
mod map;
mod parts;
mod sweeps;
mod training;
mod workers;

pub(super) use frame::draw;
pub(super) use parts::Look;
