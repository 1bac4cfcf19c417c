//! What the crates of the workspace depend on, as their manifests say.

use crate::files;
use std::{collections::BTreeMap, fs};

/// A crate of the workspace.
#[derive(Debug)]
pub struct Manifest {
    /// The folder, from the root.
    pub folder: String,
    /// Names in `[dependencies]` and `[build-dependencies]`.
    pub dependencies: Vec<String>,
    /// Names in `[dev-dependencies]`.
    pub dev_dependencies: Vec<String>,
}

/// The crates by name.
pub fn crates() -> BTreeMap<String, Manifest> {
    let mut crates = BTreeMap::new();
    for file in files::with_extension(&files::root(), "toml") {
        if file.file_name().is_none_or(|name| name != "Cargo.toml") {
            continue;
        }
        let manifest: toml::Table = fs::read_to_string(&file)
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or_default();
        let Some(name) = manifest
            .get("package")
            .and_then(|package| package.get("name")?.as_str())
        else {
            continue;
        };
        let names = |sections: &[&str]| {
            let tables = sections
                .iter()
                .filter_map(|&section| manifest.get(section)?.as_table());
            tables.flat_map(|table| table.keys().cloned()).collect()
        };
        let folder = file.parent().map(files::from_root).unwrap_or_default();
        crates.insert(
            name.to_owned(),
            Manifest {
                folder,
                dependencies: names(&["dependencies", "build-dependencies"]),
                dev_dependencies: names(&["dev-dependencies"]),
            },
        );
    }
    crates
}
