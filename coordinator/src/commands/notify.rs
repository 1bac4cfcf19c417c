//! Notifies workers of a change to a sweep.

use crate::{
    config::Settings, local::Database, orchestrator::sweep_control::publish_soon, output::Output,
};
use halfheard_shared::{error::chain, ids::SweepId};

/// Publishes the control of a sweep to the broker. If that fails, says so and returns false: then the
/// leader does it later. A private database that was started for this command has no broker and needs
/// none: `coord run` publishes to its own.
pub(crate) async fn notify_workers(
    database: &Database,
    settings: &Settings,
    sweep: SweepId,
) -> bool {
    if database.is_private() {
        return true;
    }
    match publish_soon(database, &settings.broker, sweep).await {
        Ok(()) => true,
        Err(error) => {
            Output::of(settings).note(format_args!(
                "workers are not notified yet; `coord serve` will do it: {}",
                chain(&error)
            ));
            false
        }
    }
}
