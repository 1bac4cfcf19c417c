//! Hints of errors.

use super::blobs::BlobError;
use halfheard_models::device::DeviceError;
use halfheard_shared::{
    artifacts::ArtifactError,
    broker::BrokerError,
    error::{Printer, causes, hint_of},
    settings::{ConfigFileError, SettingsError},
};
use halfheard_telemetry::{access::AccessError, traces::TracesError};
use std::error::Error;

/// Finds the hint of any error of this program.
pub(crate) const ERRORS: Printer = Printer::new(&[
    hint_of::<AccessError>,
    hint_of::<ArtifactError>,
    hint_of::<BlobError>,
    hint_of::<BrokerError>,
    hint_of::<ConfigFileError>,
    hint_of::<DeviceError>,
    hint_of::<SettingsError>,
    hint_of::<TracesError>,
]);

/// An error, its causes and its hint, for messages to the coordinator, where
/// nothing else is shown.
pub(super) fn causes_and_hint(error: &(dyn Error + 'static)) -> Vec<String> {
    let mut texts = causes(error);
    texts.extend(ERRORS.hint(error).map(|hint| format!("hint: {hint}")));
    texts
}
