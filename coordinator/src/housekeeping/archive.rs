//! The form of a backup: a folder with one compressed file per table, the checkpoints if they were
//! asked for, and a manifest, which is written last: a folder without one is no backup.

use halfheard_shared::{
    atomic_file::{self, AtomicFile, DEFAULT_MODE},
    error::{WithHint as _, hinted},
    hash::{Hash, hash_file},
};
use serde::{Deserialize, Serialize};
use std::{
    io::Read as _,
    path::{Path, PathBuf},
};
use uuid::Uuid;

/// The version of this form.
pub(super) const FORMAT: u32 = 1;
/// Maximum size of a manifest in bytes.
const MAX_MANIFEST: u64 = 1 << 20;

/// What a backup holds.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Manifest {
    /// The version of the form.
    pub(super) format: u32,
    /// The program that wrote it.
    pub(super) program: String,
    /// When, as `2026-01-31T12:00:00Z`.
    pub(super) created: String,
    /// Which installation.
    pub(super) installation: Owner,
    /// The migrations of its database.
    pub(super) migrations: Vec<Migration>,
    /// The tables, in the order in which they are restored.
    pub(super) tables: Vec<Table>,
    /// Number of checkpoints that its results refer to.
    pub(super) checkpoints: u64,
    /// Whether they are in the backup.
    pub(super) with_checkpoints: bool,
}

/// An installation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Owner {
    pub(super) id: Uuid,
    pub(super) name: String,
}

/// A migration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Migration {
    pub(super) version: i64,
    pub(super) checksum: String,
}

/// A table's file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Table {
    pub(super) name: String,
    pub(super) columns: Vec<String>,
    pub(super) rows: u64,
    /// Of the compressed file.
    pub(super) bytes: u64,
    /// Of the compressed file.
    pub(super) blake3: Hash,
}

/// The folder of a backup.
#[derive(Clone, Debug)]
pub(super) struct Archive {
    folder: PathBuf,
}

impl Archive {
    /// A folder to write a backup into: an empty or new one, or one in which a backup was not finished.
    ///
    /// # Errors
    ///
    /// It holds a backup or something else, or cannot be made.
    pub(super) fn create(folder: &Path) -> anyhow::Result<Self> {
        let archive = Self::at(folder);
        std::fs::create_dir_all(archive.tables())?;
        for file in std::fs::read_dir(folder)? {
            let name = file?.file_name();
            let name = name.to_string_lossy();
            if !["tables", "artifacts"].contains(&&*name) && !atomic_file::is_temporary(&name) {
                let message = format!("{} is not empty: it has {name}", folder.display());
                return Err(hinted(message, "name a new folder").into());
            }
        }
        Ok(archive)
    }

    /// An existing backup.
    pub(super) fn at(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
        }
    }

    fn tables(&self) -> PathBuf {
        self.folder.join("tables")
    }

    /// The file of a table.
    pub(super) fn table(&self, name: &str) -> PathBuf {
        self.tables().join(format!("{name}.copy.gz"))
    }

    /// The folder of checkpoints, laid out like an artifact store.
    pub(super) fn artifacts(&self) -> PathBuf {
        self.folder.join("artifacts")
    }

    fn manifest(&self) -> PathBuf {
        self.folder.join("manifest.json")
    }

    /// Writes the manifest, which makes the folder a backup.
    ///
    /// # Errors
    ///
    /// The disk's.
    pub(super) fn seal(&self, manifest: &Manifest) -> anyhow::Result<()> {
        let mut text = serde_json::to_string_pretty(manifest)?;
        text.push('\n');
        let mut file = AtomicFile::create(&self.manifest(), DEFAULT_MODE)?;
        std::io::Write::write_all(&mut file, text.as_bytes())?;
        Ok(file.persist()?)
    }

    /// Reads the manifest and checks the files against it.
    ///
    /// # Errors
    ///
    /// No backup, one of another form, or a damaged one.
    pub(super) fn open(folder: &Path) -> anyhow::Result<(Self, Manifest)> {
        let archive = Self::at(folder);
        let path = archive.manifest();
        let file = std::fs::File::open(&path).map_err(|error| {
            anyhow::Error::from(error)
                .context(format!("{} is not a finished backup", folder.display()))
        })?;
        let mut text = String::new();
        file.take(MAX_MANIFEST + 1).read_to_string(&mut text)?;
        anyhow::ensure!(
            text.len() as u64 <= MAX_MANIFEST,
            "{} is too large for a manifest",
            path.display()
        );
        let manifest: Manifest = serde_json::from_str(&text)
            .hint("it was written by another release, or is damaged")
            .map_err(|error| {
                anyhow::Error::from(error).context(format!("cannot read {}", path.display()))
            })?;
        anyhow::ensure!(
            manifest.format == FORMAT,
            "{} has format {}, and this program reads {FORMAT}",
            folder.display(),
            manifest.format
        );
        for table in &manifest.tables {
            archive.check(table)?;
        }
        Ok((archive, manifest))
    }

    fn check(&self, table: &Table) -> anyhow::Result<()> {
        // A name becomes part of a path.
        anyhow::ensure!(
            halfheard_store::backup::TABLES.contains(&table.name.as_str()),
            "the backup has an unknown table `{}`",
            table.name.escape_default()
        );
        let path = self.table(&table.name);
        let found = hash_file(&path).map_err(|error| {
            anyhow::Error::from(error).context(format!("cannot read {}", path.display()))
        })?;
        anyhow::ensure!(
            found == table.blake3,
            "{} is damaged: its hash is {found}, not {}",
            path.display(),
            table.blake3
        );
        Ok(())
    }
}
