//! `coord data check`.

use super::describe::describe;
use halfheard_shared::{
    dataset::{DataFolder, Dataset, DatasetError, Manifest, Source, layout::MANIFEST_FILE},
    error::hinted,
};
use serde::Serialize;
use std::{
    fmt,
    path::{Path, PathBuf},
};

const IMPORT_AGAIN: &str = "import it again";

/// A dataset that passed the check.
#[derive(Serialize)]
pub(super) struct Checked {
    path: PathBuf,
    ok: bool,
    manifest: Manifest,
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "`{}` is valid", self.manifest.name)?;
        f.write_str(&describe(&self.path, &self.manifest))
    }
}

/// Checks a dataset, given by its name in the data folder or by its file.
pub(super) fn check(dataset: &str, folder: &DataFolder) -> anyhow::Result<Checked> {
    let by_name = folder.data_file(dataset);
    let named = !dataset.contains(['/', '\\']) && by_name.exists();
    let path = if named {
        by_name
    } else if Path::new(dataset).is_file() {
        PathBuf::from(dataset)
    } else {
        // This error lists the existing names.
        folder.manifest(dataset)?;
        let message = format!("dataset `{dataset}` has a manifest but no data file");
        return Err(hinted(message, IMPORT_AGAIN).into());
    };
    let data = Dataset::open(&path)?;
    data.check_features()?;
    let hash = data.blake3();
    let manifest_path = path.with_file_name(MANIFEST_FILE);
    let known = manifest_path
        .exists()
        .then(|| Manifest::read(&manifest_path))
        .transpose()?;
    let (name, source, notes) = match &known {
        Some(manifest) if manifest.blake3 != hash.to_hex().as_str() => {
            return Err(DatasetError::Hash {
                path,
                found: hash.to_hex().to_string(),
                expected: manifest.blake3.clone(),
            }
            .into());
        }
        Some(manifest) => (
            manifest.name.clone(),
            manifest.source.clone(),
            manifest.notes.clone(),
        ),
        None => {
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            let bytes = data.bytes().len() as u64;
            let source = Source::file(file.into_owned(), hash.to_hex().to_string(), bytes);
            let notes = vec!["no manifest beside the file".to_owned()];
            (dataset.to_owned(), source, notes)
        }
    };
    // Computed from the data: an edited manifest does not pass.
    let manifest = Manifest::of(&data, &name, hash, source, notes);
    if known.is_some_and(|known| known != manifest) {
        let message = format!(
            "{} does not describe the data beside it, although the hash is right",
            manifest_path.display()
        );
        return Err(hinted(message, IMPORT_AGAIN).into());
    }
    let blob = folder.blob(&manifest.blake3);
    if named && !blob.exists() {
        let message = format!(
            "{}, by which workers find the dataset, is missing",
            blob.display()
        );
        return Err(hinted(message, IMPORT_AGAIN).into());
    }
    Ok(Checked {
        path,
        ok: true,
        manifest,
    })
}
