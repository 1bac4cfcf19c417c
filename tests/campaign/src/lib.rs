//! A campaign of faults against a whole cluster: real broker, database, coordinators and workers, on
//! several machines that are namespaces of one. It talks to the programs only as their users do:
//! command lines, signals, and reads of the database.

pub mod apply;
pub mod campaign;
pub mod clock;
pub mod cluster;
pub mod daemon;
pub mod disks;
pub mod fault;
pub mod figures;
pub mod heartbeats;
pub mod journal;
pub mod monitor;
pub mod network;
pub mod options;
pub mod plan;
pub mod sandbox;
pub mod sql;
pub mod verdict;
pub mod work;
