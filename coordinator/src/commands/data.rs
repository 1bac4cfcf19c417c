//! `coord data`: imports datasets, makes synthetic ones, lists and checks them.

use crate::{
    commands::protocol::{As, ProtocolArgs, in_spec},
    config::Settings,
    local::programs::{Part, Programs},
};
use anyhow::{Context as _, bail};
use comfy_table::{CellAlignment, Table, presets};
use halfheard_import::{
    import::{self, Imported, Request, Stage},
    nonfinite::NonFinite,
    official,
    synthesize::{self, Vocabulary},
};
use halfheard_shared::dataset::{
    DataFolder, Dataset, DatasetError, Kind, Manifest, Shapes, Source, Split, layout::MANIFEST_FILE,
};
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};
use serde_json::json;
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

/// Arguments of `coord data`.
#[derive(clap::Args, Debug)]
pub struct DataArgs {
    #[command(subcommand)]
    command: DataCommand,
}

#[derive(clap::Subcommand, Debug)]
enum DataCommand {
    /// Import a feature pickle (.pkl, .pkl.gz); nothing in it is ever executed
    Import(ImportArgs),
    /// Make a small dataset that a model can learn, for trying things out
    Synthesize(SynthesizeArgs),
    /// List the datasets in the data folder
    List,
    /// Read a dataset through: its hash, its values; print what is in it
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
  audio_lengths, vision_lengths, id, raw_text   may be absent
Files without lengths whose audio and vision have as many steps as the text has tokens are taken as
aligned: lengths are those of the text's mask. Padding at the start is moved to the end. Whatever was
filled in, moved or set to 0 is printed and kept in the manifest. Other keys are passed over.

Nothing in the file is executed: objects that are no plain data (pandas, PyTorch) are opaque, and
where one is needed the command prints the lines of Python that convert the file.

Values of audio and vision that are not finite:
  no option           as the dataset's own loader: -inf in audio becomes 0 (MMSA; mosi, mosei, sims),
                      -inf in audio and vision (simsv2); all else is refused, with counts
  --nonfinite zero    all become 0
  --nonfinite refuse  all are refused")]
struct ImportArgs {
    /// The feature pickle
    file: PathBuf,
    #[command(flatten)]
    protocol: ProtocolArgs,
    /// The name it gets in the data folder [default: that of --as]
    #[arg(long)]
    name: Option<String>,
    /// Replace a dataset of that name that has other content
    #[arg(long)]
    replace: bool,
    /// What to do with audio and vision values that are not finite [default: what the dataset's own
    /// loader does, see below]
    #[arg(long, value_enum, value_name = "WHAT")]
    nonfinite: Option<OnNonFinite>,
    /// The most bytes that the file may expand to, with KiB, MiB or GiB [default: 1 GiB, or 250
    /// times its own size if that is more]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    max_bytes: Option<u64>,
}

/// Values of `--nonfinite`.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum OnNonFinite {
    /// Set them to 0, and count them
    Zero,
    /// Refuse the file, and say how many there are and where the first is
    Refuse,
}

#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  coord data synthesize --as mosi --name toy
  coord data synthesize --label-range 0..5 --language en --classes 2,6 --name stars

The same settings and vocabulary give the same file, byte for byte, on every machine.")]
struct SynthesizeArgs {
    #[command(flatten)]
    protocol: ProtocolArgs,
    /// The name it gets in the data folder
    #[arg(long)]
    name: String,
    /// Training samples
    #[arg(long, default_value_t = 256, value_name = "N")]
    train: usize,
    /// Validation samples
    #[arg(long, default_value_t = 64, value_name = "N")]
    valid: usize,
    /// Test samples
    #[arg(long, default_value_t = 128, value_name = "N")]
    test: usize,
    /// Text length in tokens
    #[arg(long, default_value_t = 20, value_name = "L")]
    text: usize,
    /// Audio steps and features
    #[arg(long, default_value = "30x8", value_name = "TxD", value_parser = parse_size)]
    audio: (usize, usize),
    /// Vision steps and features
    #[arg(long, default_value = "24x12", value_name = "TxD", value_parser = parse_size)]
    vision: (usize, usize),
    /// Everything follows from it
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The English encoder's vocabulary, a vocab.txt [default: that of the encoder laid down by set-up]
    #[arg(long, value_name = "FILE")]
    vocab: Option<PathBuf>,
    /// Replace a dataset of that name that has other content
    #[arg(long)]
    replace: bool,
}

#[derive(clap::Args, Debug)]
struct CheckArgs {
    /// The name of a dataset in the data folder, or a data file
    #[arg(value_name = "NAME|FILE")]
    dataset: String,
}

/// `30x8`.
fn parse_size(text: &str) -> Result<(usize, usize), String> {
    text.split_once('x')
        .and_then(|(steps, features)| Some((steps.parse().ok()?, features.parse().ok()?)))
        .ok_or_else(|| "write steps and features with an x between them, 30x8".to_owned())
}

/// `4096`, `512MiB`, `64 GiB`.
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
        _ => return Err("write a number with B, KiB, MiB or GiB".to_owned()),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| "that is no number of bytes".to_owned())
}

/// Does what `coord data` is asked for.
///
/// # Errors
///
/// A file that is refused, a dataset that is damaged or missing, a data folder that cannot be
/// written.
pub async fn run(args: DataArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let folder = DataFolder::new(&settings.data_dir);
    match args.command {
        DataCommand::Import(args) => import_file(&args, &folder, settings)?,
        DataCommand::Synthesize(args) => make(&args, &folder, settings)?,
        DataCommand::List => list(&folder, settings)?,
        DataCommand::Check(args) => check(&args.dataset, &folder, settings)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn import_file(args: &ImportArgs, folder: &DataFolder, settings: &Settings) -> anyhow::Result<()> {
    let As {
        name: protocol,
        kind,
        reference,
    } = args.protocol.chosen()?;
    let name = match (&args.name, kind) {
        (Some(name), _) => name,
        (None, Kind::Own(_)) => bail!("a dataset with a protocol of its own needs a name: --name"),
        (None, _) => protocol,
    };
    let began = Instant::now();
    let progress = Bar::new(settings.json);
    let request = Request {
        file: &args.file,
        kind,
        nonfinite: match args.nonfinite {
            None => NonFinite::Reference,
            Some(OnNonFinite::Zero) => NonFinite::Zero,
            Some(OnNonFinite::Refuse) => NonFinite::Refuse,
        },
        reference,
        name,
        folder,
        replace: args.replace,
        max_bytes: args.max_bytes,
    };
    let imported = import::import(&request, &mut |stage, done, total| {
        progress.show(stage, done, total)
    })
    .with_context(|| {
        format!(
            "{} was not imported, and nothing was written",
            args.file.display()
        )
    })?;
    progress.clear();
    report("imported", &imported, began.elapsed(), settings)
}

fn make(args: &SynthesizeArgs, folder: &DataFolder, settings: &Settings) -> anyhow::Result<()> {
    let vocabulary = match &args.vocab {
        Some(path) => path.clone(),
        None => Programs::discover()
            .find(Part::EncoderEn)?
            .path
            .join("vocab.txt"),
    };
    let vocabulary = Vocabulary::read(&vocabulary)?;
    let began = Instant::now();
    let progress = Bar::new(settings.json);
    let what = synthesize::Settings {
        kind: args.protocol.chosen()?.kind,
        samples: [args.train, args.valid, args.test],
        shapes: Shapes {
            text_len: args.text,
            audio_len: args.audio.0,
            audio_dim: args.audio.1,
            vision_len: args.vision.0,
            vision_dim: args.vision.1,
        },
        seed: args.seed,
    };
    let made = synthesize::synthesize(
        &what,
        &vocabulary,
        &args.name,
        folder,
        args.replace,
        &mut |stage, done, total| {
            progress.show(stage, done, total);
        },
    )?;
    progress.clear();
    report("made", &made, began.elapsed(), settings)
}

fn report(
    verb: &str,
    imported: &Imported,
    took: Duration,
    settings: &Settings,
) -> anyhow::Result<()> {
    let Imported { path, manifest } = imported;
    if settings.json {
        let seconds = took.as_secs_f64();
        println!(
            "{}",
            json!({ "path": path, "seconds": seconds, "manifest": manifest })
        );
        return Ok(());
    }
    println!("{verb} `{}` in {:.1} s", manifest.name, took.as_secs_f64());
    print!("{}", described(path, manifest));
    if let Kind::Own(_) = manifest.kind {
        println!("  in a spec: benchmark = {}", in_spec(manifest.kind));
    }
    Ok(())
}

/// A manifest for a person.
fn described(path: &Path, manifest: &Manifest) -> String {
    let shapes = manifest.shapes;
    let source = match &manifest.source {
        Source::Import { file, bytes, .. } => format!("{file} ({})", HumanBytes(*bytes)),
        Source::Synthesize { seed, .. } => format!("synthetic, seed {seed}"),
    };
    let mut out = format!(
        "  file     {} ({})\n  blake3   {}\n  from     {source}\n  follows  {}\n  shapes   text {}, audio {}x{}, vision {}x{}\n",
        path.display(),
        HumanBytes(manifest.bytes),
        manifest.blake3,
        manifest.kind,
        shapes.text_len,
        shapes.audio_len,
        shapes.audio_dim,
        shapes.vision_len,
        shapes.vision_dim,
    );
    if let Source::Import {
        sha256: Some(sha256),
        official,
        ..
    } = &manifest.source
    {
        let known = match official {
            Some(name) => format!("{name} (by its SHA-256)"),
            None => format!(
                "no published file is known by this SHA-256 ({} are)",
                official::all().count()
            ),
        };
        out.push_str(&format!("  sha256   {sha256}\n  official {known}\n"));
    }
    out.push('\n');
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["", "train", "valid", "test"]);
    let mut row =
        |name: &str, value: &dyn Fn(&halfheard_shared::dataset::SplitManifest) -> String| {
            let values =
                Split::ALL.map(|split| manifest.splits.get(&split).map_or_else(String::new, value));
            table.add_row(std::iter::once(format!("  {name}")).chain(values));
        };
    row("samples", &|split| {
        HumanCount(split.samples as u64).to_string()
    });
    row("mean label", &|split| format!("{:.3}", split.label_mean));
    for (index, class) in manifest.classes.iter().enumerate() {
        row(&format!("class {class}"), &|split| {
            let count = split.label_counts.get(index).copied().unwrap_or(0);
            format!(
                "{} ({:.1}%)",
                HumanCount(count),
                100.0 * count as f64 / split.samples.max(1) as f64
            )
        });
    }
    row("text length", &|split| lengths(split.text_lengths));
    row("audio length", &|split| lengths(split.audio_lengths));
    row("vision length", &|split| lengths(split.vision_lengths));
    row("audio", &|split| features(split.audio));
    row("vision", &|split| features(split.vision));
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    out.push_str(&table.trim_fmt());
    out.push('\n');
    for note in &manifest.notes {
        out.push_str(&format!("  note: {note}\n"));
    }
    out
}

fn lengths(stats: halfheard_shared::dataset::LengthStats) -> String {
    format!("{} to {}, mean {:.1}", stats.min, stats.max, stats.mean)
}

fn features(stats: halfheard_shared::dataset::FeatureStats) -> String {
    format!(
        "{:.2} ± {:.2}, {:.0}% zeros",
        stats.mean,
        stats.std,
        100.0 * stats.zeros
    )
}

fn list(folder: &DataFolder, settings: &Settings) -> anyhow::Result<()> {
    let names = folder.names()?;
    let manifests: Vec<(String, Result<Manifest, DatasetError>)> = names
        .into_iter()
        .map(|name| (name.clone(), folder.manifest(&name)))
        .collect();
    if settings.json {
        let all: Vec<_> = manifests
            .iter()
            .map(|(name, manifest)| match manifest {
                Ok(manifest) => {
                    json!({ "name": name, "path": folder.data_file(name), "manifest": manifest })
                }
                Err(error) => json!({ "name": name, "error": error.to_string() }),
            })
            .collect();
        println!("{}", serde_json::to_string_pretty(&all)?);
        return Ok(());
    }
    if manifests.is_empty() {
        println!(
            "no datasets in {}: `coord data import` or `coord data synthesize` makes one",
            folder.root().display()
        );
        return Ok(());
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "name",
        "follows",
        "train/valid/test",
        "text",
        "audio",
        "vision",
        "set to 0",
        "size",
        "blake3",
    ]);
    for (name, manifest) in manifests {
        match manifest {
            Ok(m) => {
                let sizes = Split::ALL.map(|split| {
                    m.splits
                        .get(&split)
                        .map_or_else(String::new, |s| s.samples.to_string())
                });
                table.add_row([
                    name,
                    m.kind.as_str().to_owned(),
                    sizes.join("/"),
                    m.shapes.text_len.to_string(),
                    format!("{}x{}", m.shapes.audio_len, m.shapes.audio_dim),
                    format!("{}x{}", m.shapes.vision_len, m.shapes.vision_dim),
                    HumanCount(m.source.zeroed()).to_string(),
                    HumanBytes(m.bytes).to_string(),
                    m.blake3.chars().take(16).collect(),
                ]);
            }
            Err(error) => {
                table.add_row([name, format!("unreadable: {error}")]);
            }
        }
    }
    println!("{}", table.trim_fmt());
    Ok(())
}

fn check(dataset: &str, folder: &DataFolder, settings: &Settings) -> anyhow::Result<()> {
    let by_name = folder.data_file(dataset);
    let named = !dataset.contains(['/', '\\']) && by_name.exists();
    let path = if named {
        by_name
    } else if Path::new(dataset).is_file() {
        PathBuf::from(dataset)
    } else {
        // Says which names there are.
        folder.manifest(dataset).map(drop)?;
        bail!("dataset `{dataset}` has a manifest but no data file: import it again");
    };
    let data = Dataset::open(&path)?;
    data.check_features()?;
    let hash = data.blake3();
    let beside = path.with_file_name(MANIFEST_FILE);
    let known = beside
        .exists()
        .then(|| Manifest::read(&beside))
        .transpose()?;
    let (name, source, notes) = match &known {
        Some(manifest) => {
            if manifest.blake3 != hash.to_hex().as_str() {
                return Err(DatasetError::Hash {
                    path,
                    found: hash.to_hex().to_string(),
                    expected: manifest.blake3.clone(),
                }
                .into());
            }
            (
                manifest.name.clone(),
                manifest.source.clone(),
                manifest.notes.clone(),
            )
        }
        None => {
            let file = path
                .file_name()
                .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
            let bytes = data.bytes().len() as u64;
            let source = Source::file(file, hash.to_hex().to_string(), bytes);
            (
                dataset.to_owned(),
                source,
                vec!["no manifest beside the file".to_owned()],
            )
        }
    };
    // Computed anew from the data; a manifest that was edited does not pass.
    let manifest = Manifest::of(&data, &name, hash, source, notes);
    if let Some(known) = known
        && known != manifest
    {
        bail!(
            "{} does not describe the data beside it, though the hash is right: import it again",
            beside.display()
        );
    }
    if named && !folder.blob(&manifest.blake3).exists() {
        bail!(
            "{} is missing, by which workers find the dataset: import it again",
            folder.blob(&manifest.blake3).display()
        );
    }
    if settings.json {
        println!(
            "{}",
            json!({ "path": path, "ok": true, "manifest": manifest })
        );
    } else {
        println!("`{name}` is sound");
        print!("{}", described(&path, &manifest));
    }
    Ok(())
}

/// A progress bar on standard error; nothing where that is no terminal.
struct Bar {
    bar: ProgressBar,
}

impl Bar {
    fn new(quiet: bool) -> Self {
        let bar = if quiet {
            ProgressBar::hidden()
        } else {
            ProgressBar::new(0)
        };
        if let Ok(style) =
            ProgressStyle::with_template("{msg:9} [{wide_bar}] {percent:>3}%  {elapsed}")
        {
            bar.set_style(style.progress_chars("=> "));
        }
        Self { bar }
    }

    fn show(&self, stage: Stage, done: u64, total: u64) {
        let message = match stage {
            Stage::Read => "reading",
            Stage::Check => "checking",
            Stage::Write => "writing",
            Stage::Describe => "counting",
        };
        if self.bar.message() != message {
            self.bar.set_message(message);
        }
        if self.bar.length() != Some(total) {
            self.bar.set_length(total);
        }
        self.bar.set_position(done);
    }

    fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_on_the_command_line() {
        assert_eq!(parse_size("30x8"), Ok((30, 8)));
        assert!(parse_size("30").is_err() && parse_size("ax8").is_err());
        assert_eq!(parse_bytes("4096"), Ok(4096));
        assert_eq!(parse_bytes("64 GiB"), Ok(64 << 30));
        assert!(parse_bytes("12 parsecs").is_err() && parse_bytes("99999999999999GiB").is_err());
    }
}
