//! Arguments.

use halfheard_import::cases::Format;
use halfheard_shared::case::Case;
use std::path::PathBuf;

/// Arguments of `coord cases`.
#[derive(clap::Args, Debug)]
pub(crate) struct CasesArgs {
    #[command(subcommand)]
    pub(super) command: CasesCommand,
}

#[derive(clap::Subcommand, Debug)]
pub(super) enum CasesCommand {
    /// Write the erased splits of every case as files, for models that run elsewhere
    Export(ExportArgs),
}

/// Which formats to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Formats {
    /// The field's own layout
    Pickle,
    /// One tensor a field
    Safetensors,
    /// Both
    Both,
}

impl Formats {
    pub(super) fn all(self) -> &'static [Format] {
        match self {
            Self::Pickle => &[Format::Pickle],
            Self::Safetensors => &[Format::Safetensors],
            Self::Both => &[Format::Pickle, Format::Safetensors],
        }
    }
}

#[derive(clap::Args, Debug)]
#[command(after_help = "\
FOLDER/DATASET/test/CASE.pkl and .safetensors have the test split as workers give it to their models in
this case; FOLDER/DATASET/valid/ the validation split in which checkpoints are selected (the rate that the
spec selects at). manifest.json has the hashes of all files and of their masks.

A pickle is {\"test\": {\"id\", \"raw_text\", \"text_bert\", \"audio\", \"vision\", \"audio_lengths\",
\"vision_lengths\", \"regression_labels\", \"text_kept\", \"audio_kept\", \"vision_kept\"}}. Missing
audio and vision steps are zeros, missing tokens the encoder's unknown token. Labels are the dataset's:
a model must not see those of the test split.

Examples:
  coord cases export deploy/benchmark.toml --out cases
  coord cases export my.toml --out cases --case r=0.5 --case missing=la --format pickle
  coord predictions import mine.csv --method my-model --seed 1111")]
pub(super) struct ExportArgs {
    /// The spec, a TOML file
    pub(super) spec: PathBuf,
    /// The folder to write, which must not exist or be empty
    #[arg(long, value_name = "FOLDER")]
    pub(super) out: PathBuf,
    /// Only these cases [default: all of the spec]
    #[arg(long = "case", value_name = "CASE")]
    pub(super) cases: Vec<Case>,
    /// Only this dataset [default: all of the spec]
    #[arg(long)]
    pub(super) dataset: Option<String>,
    /// The formats
    #[arg(long, value_enum, default_value = "both")]
    pub(super) format: Formats,
}
