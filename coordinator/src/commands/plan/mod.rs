//! `coord plan`: shows what a spec expands to.

mod command;
mod estimate;
mod forecast;
mod forecast_text;
mod hardware;
mod jobs;
mod model_name;
mod needs;
mod states;
mod summary;

pub(crate) use command::{PlanArgs, run};
