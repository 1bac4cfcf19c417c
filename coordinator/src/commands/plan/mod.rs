//! `coord plan`: shows what a spec expands to.

mod command;
mod estimate;
mod jobs;
mod model_name;
mod needs;
mod states;
mod summary;

pub(crate) use command::{PlanArgs, run};
