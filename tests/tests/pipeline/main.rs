//! From spec to row while processes are killed, servers are away and messages lie.

mod chaos;
mod database_refuses;
mod hostile_reports;
mod kills;
mod leaders;
mod messages;
mod outages;
mod poison;
mod submit;
