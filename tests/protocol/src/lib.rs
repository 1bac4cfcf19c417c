//! A model of the protocol by which jobs are granted, kept and reported: coordinators, broker, workers
//! and database with crashes, delays, doubles, losses, pauses and partitions, explored exhaustively for
//! small numbers.
//!
//! The models share [`rules`], the decisions about one job, and [`table`], the transitions that the
//! database enforces. Each rule can be left out ([`bug`]), and then the checker must find out.

pub mod bug;
pub mod explore;
pub mod leadership;
pub mod lease;
pub mod poison;
pub mod progress;
pub mod retrain;
pub mod rules;
pub mod stall;
pub mod table;
