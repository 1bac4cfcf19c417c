//! The files of the repository.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Folders that hold no sources of the project.
const SKIPPED: &[&str] = &[".git", ".deps", "target", "__pycache__"];

/// The root of the repository.
pub fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize().unwrap_or(root)
}

/// All files below `folder`, sorted. Links are not followed.
pub fn below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let skipped = SKIPPED.iter().any(|name| entry.file_name() == **name);
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && !skipped => folders.push(entry.path()),
                Ok(kind) if kind.is_file() => found.push(entry.path()),
                _ => {}
            }
        }
    }
    found.sort();
    found
}

/// The files below `folder` whose name ends with `.extension`.
pub fn with_extension(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut files = below(folder);
    files.retain(|file| file.extension().is_some_and(|found| found == extension));
    files
}

/// `file` as it is named from the root.
pub fn from_root(file: &Path) -> String {
    file.strip_prefix(root())
        .unwrap_or(file)
        .display()
        .to_string()
}
