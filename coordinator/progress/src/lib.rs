//! How far sweeps are: snapshots, forecasts of the time left, what workers do, and what none of them can.
//! `coord status`, `coord top` and the page show the same.

mod duration;
pub mod failures;
mod forecast;
mod needs;
mod pace;
mod snapshot;
mod workers;

pub use duration::format_duration;
pub use forecast::{Ending, Forecast, forecast_ending};
pub use needs::{no_external, unmet};
pub use pace::Pace;
pub use snapshot::Snapshot;
pub use workers::{describe_worker, live_workers};
