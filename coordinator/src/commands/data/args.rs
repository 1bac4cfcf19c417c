//! The arguments.

use crate::submission::protocol::ProtocolArgs;
use std::path::PathBuf;

/// Arguments of `coord data`.
#[derive(clap::Args, Debug)]
pub(crate) struct DataArgs {
    #[command(subcommand)]
    pub(super) command: DataCommand,
}

#[derive(clap::Subcommand, Debug)]
pub(super) enum DataCommand {
    /// Import a feature pickle (.pkl, .pkl.gz); nothing in it is ever executed
    Import(ImportArgs),
    /// Create a small synthetic dataset that a model can learn
    Synthesize(SynthesizeArgs),
    /// List the datasets in the data folder
    List,
    /// Verify a dataset's hash and values, and describe it
    Check(CheckArgs),
}

#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  coord data import --as mosi unaligned_50.pkl
  coord data import --as sims sims/unaligned_39.pkl.gz --name sims-v1
  coord data import mine.pkl --name mine --label-range -1..1 --language zh --classes 2,3,5
  coord data import --as simsv2 sims_unaligned.pkl

The file is a pickled dict of train, valid (or dev, val) and test. Each split is a dict:
  text_bert           [N, 3, L] or [N, L, 3]: token ids, mask, segments
  audio, vision       [N, T, D] arrays, or lists of N arrays
  regression_labels   [N]; SIMS also _T, _A, _V
  audio_lengths, vision_lengths, id, raw_text   are optional
A file without lengths whose audio and vision have as many steps as the text has tokens is treated as
aligned: the lengths are those of the text's mask. Padding at the start is moved to the end. Whatever
was filled in, moved or set to 0 is printed and recorded in the manifest. Other keys are ignored.

Nothing in the file is executed. Objects other than plain data (pandas, PyTorch) are opaque; where one
is needed, the command prints Python code that converts the file.

Audio and vision values that are not finite:
  no option           as in the dataset's own loader: -inf in audio becomes 0 (MMSA; mosi, mosei, sims),
                      -inf in audio and vision (simsv2); others are refused, with counts
  --nonfinite zero    all become 0
  --nonfinite refuse  all are refused")]
pub(super) struct ImportArgs {
    /// The feature pickle
    pub(super) file: PathBuf,
    #[command(flatten)]
    pub(super) protocol: ProtocolArgs,
    /// Name of the dataset in the data folder [default: that of --as]
    #[arg(long)]
    pub(super) name: Option<String>,
    /// Replace a dataset of this name with other content
    #[arg(long)]
    pub(super) replace: bool,
    /// What to do with audio and vision values that are not finite [default: as in the dataset's own
    /// loader, see below]
    #[arg(long, value_enum, value_name = "WHAT")]
    pub(super) nonfinite: Option<OnNonFinite>,
    /// Maximum size of the expanded file, with KiB, MiB or GiB [default: 1 GiB, or 250 times the size
    /// of the file if that is more]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub(super) max_bytes: Option<u64>,
}

/// Values of `--nonfinite`.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum OnNonFinite {
    /// Set them to 0 and count them
    Zero,
    /// Refuse the file, with their number and the position of the first
    Refuse,
}

#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  coord data synthesize --as mosi --name toy
  coord data synthesize --label-range 0..5 --language en --classes 2,6 --name stars

The same settings and vocabulary give the same file, byte for byte, on every machine.")]
pub(super) struct SynthesizeArgs {
    #[command(flatten)]
    pub(super) protocol: ProtocolArgs,
    /// Name of the dataset in the data folder
    #[arg(long)]
    pub(super) name: String,
    /// Number of training samples
    #[arg(long, default_value_t = 256, value_name = "N")]
    pub(super) train: usize,
    /// Number of validation samples
    #[arg(long, default_value_t = 64, value_name = "N")]
    pub(super) valid: usize,
    /// Number of test samples
    #[arg(long, default_value_t = 128, value_name = "N")]
    pub(super) test: usize,
    /// Text length in tokens
    #[arg(long, default_value_t = 20, value_name = "L")]
    pub(super) text: usize,
    /// Audio steps and features
    #[arg(long, default_value = "30x8", value_name = "TxD", value_parser = parse_size)]
    pub(super) audio: (usize, usize),
    /// Vision steps and features
    #[arg(long, default_value = "24x12", value_name = "TxD", value_parser = parse_size)]
    pub(super) vision: (usize, usize),
    /// Seed of everything random
    #[arg(long, default_value_t = 1)]
    pub(super) seed: u64,
    /// The encoder's vocabulary, a vocab.txt [default: that of the installed English encoder]
    #[arg(long, value_name = "FILE")]
    pub(super) vocab: Option<PathBuf>,
    /// Replace a dataset of this name with other content
    #[arg(long)]
    pub(super) replace: bool,
}

#[derive(clap::Args, Debug)]
pub(super) struct CheckArgs {
    /// Name of a dataset in the data folder, or a data file
    #[arg(value_name = "NAME|FILE")]
    pub(super) dataset: String,
}

/// Parses `30x8`.
fn parse_size(text: &str) -> Result<(usize, usize), String> {
    text.split_once('x')
        .and_then(|(steps, features)| Some((steps.parse().ok()?, features.parse().ok()?)))
        .ok_or_else(|| "expected steps and features such as 30x8".to_owned())
}

/// Parses `4096`, `512MiB`, `64 GiB`.
fn parse_bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    let shift = match unit.trim() {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return Err("expected a number with B, KiB, MiB or GiB".to_owned()),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| "invalid number of bytes".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_parsed() {
        assert_eq!(parse_size("30x8"), Ok((30, 8)));
        assert!(parse_size("30").is_err() && parse_size("ax8").is_err());
        assert_eq!(parse_bytes("4096"), Ok(4096));
        assert_eq!(parse_bytes("64 GiB"), Ok(64 << 30));
        assert!(parse_bytes("12 parsecs").is_err() && parse_bytes("99999999999999GiB").is_err());
    }
}
