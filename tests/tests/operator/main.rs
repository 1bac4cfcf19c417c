//! What operators see and steer: commands, page, terminal, and machines that watch.

mod benchmarks;
mod drain;
mod housekeeping;
mod metrics;
mod notifications;
mod page;
mod page_browser;
mod page_content;
mod run;
mod status;
mod sweep_control;
mod top;
mod traces;
mod tune_machine;
