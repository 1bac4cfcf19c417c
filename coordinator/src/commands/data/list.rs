//! `coord data list`.

use comfy_table::{Table, presets};
use halfheard_shared::{
    dataset::{DataFolder, DatasetError, Manifest, Split},
    error::chain,
};
use indicatif::{HumanBytes, HumanCount};
use serde::Serialize;
use std::{fmt, path::PathBuf};

#[derive(Serialize)]
#[serde(untagged)]
enum Entry {
    Readable {
        name: String,
        path: PathBuf,
        manifest: Box<Manifest>,
    },
    Unreadable {
        name: String,
        error: String,
    },
}

/// The datasets of the data folder.
#[derive(Serialize)]
#[serde(transparent)]
pub(super) struct Datasets {
    entries: Vec<Entry>,
    #[serde(skip)]
    folder: PathBuf,
}

impl Datasets {
    pub(super) fn load(folder: &DataFolder) -> Result<Self, DatasetError> {
        let entry = |name: String| match folder.manifest(&name) {
            Ok(manifest) => Entry::Readable {
                path: folder.data_file(&name),
                manifest: Box::new(manifest),
                name,
            },
            Err(error) => Entry::Unreadable {
                name,
                error: chain(&error),
            },
        };
        Ok(Self {
            entries: folder.names()?.into_iter().map(entry).collect(),
            folder: folder.root().to_owned(),
        })
    }
}

impl fmt::Display for Datasets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.entries.is_empty() {
            return writeln!(
                f,
                "no datasets in {}; create one with `coord data import` or `coord data synthesize`",
                self.folder.display()
            );
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
        for entry in &self.entries {
            match entry {
                Entry::Readable { name, manifest, .. } => table.add_row(row(name, manifest)),
                Entry::Unreadable { name, error } => {
                    table.add_row([name.clone(), format!("unreadable: {error}")])
                }
            };
        }
        writeln!(f, "{}", table.trim_fmt())
    }
}

fn row(name: &str, manifest: &Manifest) -> [String; 9] {
    let samples = Split::ALL.map(|split| {
        let split = manifest.splits.get(&split);
        split.map_or_else(String::new, |s| s.samples.to_string())
    });
    let shapes = manifest.shapes;
    [
        name.to_owned(),
        manifest.kind.as_str().to_owned(),
        samples.join("/"),
        shapes.text_len.to_string(),
        format!("{}x{}", shapes.audio_len, shapes.audio_dim),
        format!("{}x{}", shapes.vision_len, shapes.vision_dim),
        HumanCount(manifest.source.zeroed()).to_string(),
        HumanBytes(manifest.bytes).to_string(),
        manifest.blake3.chars().take(16).collect(),
    ]
}
