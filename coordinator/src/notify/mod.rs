//! Notifications: what happened, as JSON, to a command or a webhook, each event once.

mod args;
mod command;
mod deliver;
mod event;
mod options;
mod stall;
mod watch;
mod webhook;

pub(crate) use args::NotifyArgs;
pub(crate) use deliver::{GRACE, Notifier};
pub use options::NotifyOptions;
pub(crate) use watch::{Scene, Watch};
pub use webhook::Webhook;
