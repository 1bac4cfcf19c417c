//! Where a figure finds what is not in the database.

use halfheard_shared::broker::BrokerSettings;
use std::path::Path;

/// Artifacts and data, for the figures that show more than results.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a> {
    /// The artifact store: a URL.
    pub artifacts: &'a str,
    /// The folder of imported datasets.
    pub data_dir: &'a Path,
    /// The broker, for artifacts that it keeps.
    pub broker: &'a BrokerSettings,
}
