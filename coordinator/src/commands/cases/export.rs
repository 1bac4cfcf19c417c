//! `coord cases export`.

use super::args::ExportArgs;
use crate::{
    config::Settings,
    housekeeping::size::Bytes,
    output::Output,
    submission::{self, Loaded, Synthesize},
};
use anyhow::Context as _;
use halfheard_import::cases;
use halfheard_shared::{
    atomic_file::{AtomicFile, DEFAULT_MODE},
    case::{Case, Rate},
    dataset::{DataFolder, Dataset, Split},
    erased_split::ErasedSplit,
    erasure::ConfusionTable,
    error::hinted,
    hash::{Hash, hash_file},
    spec::{ResolvedDataset, ResolvedSpec},
    text::count,
};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::{
    fmt,
    io::Write as _,
    path::{Path, PathBuf},
};

/// The name of the list of files.
const MANIFEST: &str = "manifest.json";

#[derive(Serialize)]
struct ExportedFile {
    dataset: String,
    split: Split,
    case: String,
    /// Within the folder.
    path: String,
    bytes: u64,
    blake3: String,
    /// Of the masks of text, audio and vision, one byte a step: 1 where it is kept.
    masks_blake3: String,
}

#[derive(Serialize)]
struct ExportedDataset {
    name: String,
    /// Of the dataset file.
    blake3: String,
    test_samples: usize,
    valid_samples: usize,
    /// The token that stands for missing ones.
    unknown_token: i64,
}

#[derive(Serialize)]
pub(super) struct Exported {
    spec: String,
    folder: PathBuf,
    erasure_seed: u32,
    datasets: Vec<ExportedDataset>,
    files: Vec<ExportedFile>,
}

impl fmt::Display for Exported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.files.iter().map(|file| file.bytes).sum();
        writeln!(
            f,
            "{} with {} in {}",
            count(self.files.len(), "file"),
            Bytes(bytes),
            self.folder.display()
        )?;
        writeln!(
            f,
            "import what a model predicts with `coord predictions import`"
        )
    }
}

/// Writes the files, then the manifest.
///
/// # Errors
///
/// See [`super::run`].
pub(super) fn export(
    args: &ExportArgs,
    settings: &Settings,
    output: Output,
) -> anyhow::Result<Exported> {
    let loaded = submission::load(&args.spec, &settings.data_dir, Synthesize::Create)?;
    let spec = &loaded.resolved;
    let datasets = chosen_datasets(spec, args.dataset.as_deref())?;
    let cases = chosen_cases(spec, &args.cases)?;
    prepare(&args.out)?;
    let selected = Case::at_rate(Rate::from_thousandths(spec.protocol.selection_rate));
    let mut exported = Exported {
        spec: spec.name.clone(),
        folder: args.out.clone(),
        erasure_seed: spec.protocol.erasure_seed,
        datasets: Vec::new(),
        files: Vec::new(),
    };
    let bar = bar(output, datasets.len() * (cases.len() + 1));
    for dataset in datasets {
        let file = open(dataset, settings)?;
        let name = dataset.benchmark.id();
        exported.datasets.push(ExportedDataset {
            name: name.to_owned(),
            blake3: dataset.data.blake3.clone(),
            test_samples: file.split(Split::Test).len(),
            valid_samples: file.split(Split::Valid).len(),
            unknown_token: dataset.tokens.unknown,
        });
        let confusions = confusions(&loaded, dataset)?;
        let test = cases.iter().map(|case| (Split::Test, case));
        for (split, case) in test.chain([(Split::Valid, &selected)]) {
            bar.set_message(format!("{name} {split} {case}"));
            let seed = spec.protocol.erasure_seed;
            let (tokens, table) = (dataset.tokens, confusions.as_ref());
            let erased = ErasedSplit::new(&file, split, case, seed, tokens, table)?;
            let folder = Path::new(name).join(split.as_str());
            std::fs::create_dir_all(args.out.join(&folder))
                .with_context(|| format!("cannot create {}", args.out.join(&folder).display()))?;
            for format in args.format.all() {
                let path = folder.join(format!("{case}.{}", format.extension()));
                let whole = args.out.join(&path);
                cases::write(&erased, &whole, *format)
                    .with_context(|| format!("cannot write {}", whole.display()))?;
                exported.files.push(ExportedFile {
                    dataset: name.to_owned(),
                    split,
                    case: case.to_string(),
                    path: path.display().to_string(),
                    bytes: std::fs::metadata(&whole)?.len(),
                    blake3: hash_file(&whole)?.as_str().to_owned(),
                    masks_blake3: erased.masks_digest().as_str().to_owned(),
                });
            }
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    let mut manifest = AtomicFile::create(&args.out.join(MANIFEST), DEFAULT_MODE)?;
    manifest.write_all(&serde_json::to_vec_pretty(&exported)?)?;
    manifest.persist()?;
    Ok(exported)
}

/// What words of a dataset's texts are heard as, where a case needs it.
fn confusions(
    loaded: &Loaded,
    dataset: &ResolvedDataset,
) -> anyhow::Result<Option<ConfusionTable>> {
    let Some(hash) = &dataset.confusions else {
        return Ok(None);
    };
    // It was made when the spec was loaded.
    let bytes = loaded.bundles.get(&hash.parse::<Hash>()?);
    let bytes = bytes.context("the spec has no such table of confusions")?;
    Ok(Some(ConfusionTable::from_bytes(bytes)?))
}

fn bar(output: Output, steps: usize) -> ProgressBar {
    let bar = if output.is_json() {
        ProgressBar::hidden()
    } else {
        ProgressBar::new(steps as u64)
    };
    if let Ok(style) = ProgressStyle::with_template("{msg:24} [{wide_bar}] {pos}/{len}  {elapsed}")
    {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

fn chosen_datasets<'a>(
    spec: &'a ResolvedSpec,
    only: Option<&str>,
) -> anyhow::Result<Vec<&'a ResolvedDataset>> {
    let all = || spec.datasets.iter();
    let Some(name) = only else {
        return Ok(all().collect());
    };
    let chosen: Vec<_> = all()
        .filter(|dataset| dataset.benchmark.id() == name)
        .collect();
    if chosen.is_empty() {
        let have: Vec<&str> = all().map(|dataset| dataset.benchmark.id()).collect();
        let have = have.join(", ");
        return Err(hinted(
            format!("the spec has no dataset `{name}`"),
            format!("it has {have}"),
        )
        .into());
    }
    Ok(chosen)
}

/// These cases, or all of the spec.
fn chosen_cases(spec: &ResolvedSpec, only: &[Case]) -> anyhow::Result<Vec<Case>> {
    let all: Vec<Case> = spec
        .cases
        .iter()
        .filter_map(|case| case.parse().ok())
        .collect();
    if let Some(unknown) = only.iter().find(|case| !all.contains(case)) {
        return Err(hinted(
            format!("the spec has no case {unknown}"),
            format!("its cases are {}", spec.cases.join(", ")),
        )
        .into());
    }
    Ok(match only.is_empty() {
        true => all,
        false => all.into_iter().filter(|case| only.contains(case)).collect(),
    })
}

/// Makes the folder, which must be empty: files of another spec among ours would be taken for ours.
fn prepare(folder: &Path) -> anyhow::Result<()> {
    let exists = || format!("cannot use {}", folder.display());
    match std::fs::read_dir(folder) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(hinted(
                format!("{} is not empty", folder.display()),
                "name a folder that does not exist, or delete this one",
            )
            .into()),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            std::fs::create_dir_all(folder).with_context(exists)
        }
        Err(error) => Err(error).with_context(exists),
    }
}

/// The dataset's file, wherever it is.
fn open(dataset: &ResolvedDataset, settings: &Settings) -> anyhow::Result<Dataset> {
    let path = PathBuf::from(&dataset.data.path);
    let blob = DataFolder::new(&settings.data_dir).blob(&dataset.data.blake3);
    let path = if path.exists() { path } else { blob };
    Dataset::open(&path).with_context(|| format!("cannot open {}", path.display()))
}
