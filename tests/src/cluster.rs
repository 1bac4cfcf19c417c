//! A simulated cluster: scripted workers whose jobs are timers, for the real coordinator, broker and database. All
//! times here are simulated seconds, unless they are a [`std::time::Duration`].

pub mod bound;
pub mod costs;
pub mod journal;
pub mod machines;
