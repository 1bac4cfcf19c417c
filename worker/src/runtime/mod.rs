//! One slot: takes jobs from the broker one after another, processes them and reports the results.
//!
//! libtorch has a thread of its own ([`engine`]). Everything else (heartbeats, reports, saving) runs
//! concurrently, so that a long step never looks like a dead worker; [`watch`] tells a long step from
//! one that hangs.

mod blobs;
mod dispatch;
mod ending;
mod engine;
mod errors;
mod eval_job;
mod eval_monitor;
mod faults;
mod grants;
mod health;
mod inject;
mod leases;
mod noop_job;
mod numerics_switch;
mod presence;
mod report;
mod retry;
mod self_report;
mod settings;
mod settling;
mod slot;
mod startup;
mod step_meter;
mod suspension;
mod tables;
mod traces;
mod train_job;
mod train_monitor;
mod watch;
mod watchdog;
mod work_loop;

pub(crate) use self::{
    errors::ERRORS,
    settings::SlotSettings,
    startup::{SlotError, run},
};
