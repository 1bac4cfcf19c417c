//! Progress of a sweep: snapshots, a forecast of the time left, and a live display.

mod display;
mod duration;
mod follow;
mod forecast;
mod pace;
mod snapshot;
mod workers;

pub(crate) use display::Display;
pub(crate) use duration::format_duration;
pub(crate) use follow::{Observer, follow};
pub use forecast::Forecast;
pub(crate) use pace::Pace;
pub use snapshot::Snapshot;
pub(crate) use workers::describe_worker;
pub use workers::live_workers;
