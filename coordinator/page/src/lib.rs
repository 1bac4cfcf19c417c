//! The page of a coordinator: sweeps, trainings, workers, results and failures, live.
//!
//! Rendered on the server, without a build step: a browser needs neither script nor network beyond this
//! server. A small script asks for the page again when something changed ([`changes`]) and puts what is
//! new in its place. Everything that comes from specs, workers and messages is escaped by the templates,
//! and the content security policy lets nothing else run.

pub mod access;
mod board;
mod cache;
mod changes;
mod control;
mod did;
mod error;
mod failed;
mod failures;
mod guard;
mod guesses;
mod kept;
mod layout;
mod live;
mod login;
mod maps;
mod marks;
mod origin;
mod page;
mod results;
mod router;
mod sweep;
mod sweeps;
mod training;
mod visit;
mod workers;
mod written;

pub use page::{Page, Places};
pub use router::{guarded, routes};
