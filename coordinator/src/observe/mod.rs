//! What machines see of a coordinator: metrics, whether it lives, whether it can work.
//!
//! Tasks in the background look at the database, the broker and the workers; a request is answered from
//! what they saw last, whatever those do at the moment.

pub(crate) mod events;
mod gauges;
mod looks;
pub mod observer;
mod probe;
