//! Hints of errors.

use super::blobs::BlobError;
use halfheard_models::device::DeviceError;
use halfheard_shared::error::{Printer, causes, hint_of};
use std::error::Error;

/// Finds the hint of any error of this program.
pub(crate) const ERRORS: Printer = Printer::new(&[hint_of::<BlobError>, hint_of::<DeviceError>]);

/// An error, its causes and its hint, for messages to the coordinator: whoever reads them there
/// sees nothing else.
pub(super) fn causes_and_hint(error: &(dyn Error + 'static)) -> Vec<String> {
    let mut texts = causes(error);
    texts.extend(ERRORS.hint(error).map(|hint| format!("hint: {hint}")));
    texts
}
