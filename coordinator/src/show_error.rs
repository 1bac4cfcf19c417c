//! How an error is shown to a person.

use halfheard_import::{ImportError, synthesize::SynthesizeError};
use halfheard_shared::error::{Printer, hint_of};
use halfheard_store::{StoreError, fault::PostgresError};

/// Prints errors with their causes and the hint of the one that has one.
const ERRORS: Printer = Printer::new(&[
    hint_of::<StoreError>,
    hint_of::<PostgresError>,
    hint_of::<ImportError>,
    hint_of::<SynthesizeError>,
]);

/// Prints `error` with its causes on standard error.
pub fn show(error: &anyhow::Error) {
    ERRORS.print(error.as_ref());
}
