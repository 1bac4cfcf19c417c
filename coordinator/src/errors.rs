//! How `coord` prints errors.

use crate::{
    analysis::DrawError,
    commands::{export::ExportError, logs::LogsError},
    config::SettingsError,
    housekeeping::{own_store::OtherStore, restore::RestoreError},
    infrastructure::Remark,
    local::{LocalError, measurement::MeasureError, programs::ProgramError},
    orchestrator::retry::RetryError,
    slurm::SlurmError,
    submission::{FileError, LoadError, SubmitError, encoders::ExamineError, report},
};
use halfheard_import::{ImportError, predictions::PredictionsError, synthesize::SynthesizeError};
use halfheard_results::{audit::other::OtherPapersError, figures::FigureError};
use halfheard_shared::error::{Printer, hint_of};
use halfheard_store::{
    StoreError, fault::PostgresError, imported::ImportError as StoreImportError,
    results::ResultsError,
};

/// Prints errors with their causes and hints, and a refused spec as a report with its lines.
pub(crate) const PRINTER: Printer = Printer::new(&[
    hint_of::<halfheard_shared::artifacts::ArtifactError>,
    hint_of::<halfheard_shared::broker::BrokerError>,
    hint_of::<DrawError>,
    hint_of::<ExamineError>,
    hint_of::<ExportError>,
    hint_of::<FigureError>,
    hint_of::<FileError>,
    hint_of::<ImportError>,
    hint_of::<LoadError>,
    hint_of::<LocalError>,
    hint_of::<LogsError>,
    hint_of::<MeasureError>,
    hint_of::<OtherPapersError>,
    hint_of::<OtherStore>,
    hint_of::<PostgresError>,
    hint_of::<PredictionsError>,
    hint_of::<ProgramError>,
    hint_of::<Remark>,
    hint_of::<RestoreError>,
    hint_of::<ResultsError>,
    hint_of::<RetryError>,
    hint_of::<SettingsError>,
    hint_of::<SlurmError>,
    hint_of::<StoreError>,
    hint_of::<StoreImportError>,
    hint_of::<SubmitError>,
    hint_of::<SynthesizeError>,
    hint_of::<halfheard_telemetry::traces::TracesError>,
])
.drawing(report::draw);
