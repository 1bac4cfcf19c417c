//! Shared by the end-to-end tests: real servers on free loopback ports, a scripted worker that speaks the wire
//! protocol without libtorch, small sweeps, and dumps of results.

pub mod browser;
pub mod cluster;
pub mod dump;
pub mod finished;
pub mod leader;
mod patience;
pub mod process;
pub mod programs;
pub mod proxy;
pub mod pty;
pub mod saved;
pub mod servers;
pub mod shipped;
pub mod site;
pub mod stage;
pub mod sweeps;
pub mod tiny;
pub mod tls;
pub mod worker;

pub use patience::PATIENCE;
