//! One job from its grant to its result: workers that ask, beat and report, a leader that grants,
//! renews, ingests and expires, and the broker between them.
//!
//! A tick is the time within which a message between parts that work arrives, and in which a worker
//! that works is heard. Within a tick, everything takes turns in every order.

mod leader;
mod model;
mod state;
mod worker;

pub use model::{Action, Lease};
pub use state::{Ask, Faults, State, Wrong};
