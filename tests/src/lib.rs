//! What the end-to-end tests share: real servers on free loopback ports, a scripted worker that
//! speaks the wire protocol without libtorch, small sweeps, and a dump of what came out.

pub mod dump;
pub mod finished;
pub mod programs;
pub mod servers;
pub mod stage;
pub mod sweeps;
pub mod tiny;
pub mod tls;
pub mod worker;
