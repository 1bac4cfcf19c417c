//! Slurm jobs for workers, submitted and retired by the work that is left: `coord slurm`.
//!
//! [`policy`] decides, a pure function of the work and the allocations; [`client`] talks to Slurm's
//! programs, whose output [`queue`] reads; [`job`] is what is submitted; [`feed`] is the loop.

mod client;
mod error;
pub(crate) mod feed;
pub(crate) mod job;
mod observe;
pub(crate) mod policy;
mod program;
mod queue;
mod state;

pub(crate) use client::Slurm;
pub(crate) use error::SlurmError;
pub(crate) use state::SlurmState;
