//! One slot: takes jobs from the broker one after another, processes them and reports the results.
//!
//! libtorch has a thread of its own ([`engine`]). Everything else (acknowledgements, heartbeats,
//! reports, saving) runs concurrently, so that a long step never looks like a dead worker.

mod blobs;
mod dispatch;
mod ending;
mod engine;
mod errors;
mod eval_job;
mod eval_monitor;
mod faults;
mod health;
mod inject;
mod job_queue;
mod leases;
mod noop_job;
mod numerics_switch;
mod outcomes;
mod presence;
mod report;
mod retry;
mod slot;
mod startup;
mod suspension;
mod sweep_control;
mod train_job;
mod train_monitor;
mod work_loop;

pub(crate) use self::{
    errors::ERRORS,
    slot::SlotSettings,
    startup::{SlotError, run},
};
