//! The programs and folders that `coord` uses and does not contain: nats-server, PostgreSQL,
//! libtorch, the text encoders and the worker.
//!
//! Each is looked for at its environment variable, then below `.deps/` in the folders above this
//! program's file (where `make setup` installs it) or below `HALFHEARD_DEPS`, then on `PATH`. What a
//! variable names must be usable; otherwise that is an error, not a reason to search on.
//!
//! What is found is executed. So nothing is searched where anybody may have put it: not in the current
//! folder, which may be someone else's checkout, and not in a `.deps` of another user.

mod check;
mod part;
mod search;

pub use part::{Found, Part, ProgramError};
pub use search::Programs;

#[cfg(test)]
mod tests;
