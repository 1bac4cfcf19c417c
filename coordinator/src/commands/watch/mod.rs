//! Progress of a sweep: snapshots, a forecast of the time left, and a live display.

mod display;
mod follow;

pub(crate) use display::Display;
pub(crate) use follow::{Observer, follow};
pub use halfheard_progress::{Forecast, Snapshot, live_workers};
pub(crate) use halfheard_progress::{Pace, describe_worker, format_duration};
