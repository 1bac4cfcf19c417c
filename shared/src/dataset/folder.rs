//! Where datasets lie in a data folder:
//!
//! ```text
//! <data folder>/datasets/<name>/data.safetensors
//! <data folder>/datasets/<name>/manifest.json
//! <data folder>/blobs/<blake3>                     a hard link by which workers find it
//! ```
//!
//! Content that is there already is not stored again: a further name for it is a further link to
//! the same file. The file stays as long as one of its links does, so replacing or removing a name
//! never takes another's data.

use super::{
    DatasetError, Manifest,
    layout::{DATA_FILE, MANIFEST_FILE},
    valid_name,
};
use crate::hash::hash_file;
use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// A data folder; it need not exist yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataFolder {
    root: PathBuf,
}

/// A dataset being made in a temporary folder beside its final place. Dropping it removes what was
/// written.
#[derive(Debug)]
pub struct Prepared {
    folder: DataFolder,
    name: String,
    dir: PathBuf,
}

impl DataFolder {
    /// The data folder at `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Its path.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of dataset `name`.
    pub fn dataset_dir(&self, name: &str) -> PathBuf {
        self.root.join("datasets").join(name)
    }

    /// The data file of dataset `name`.
    pub fn data_file(&self, name: &str) -> PathBuf {
        self.dataset_dir(name).join(DATA_FILE)
    }

    /// Where the content with this BLAKE3 (64 hexadecimal digits) lies if it is here.
    pub fn blob(&self, blake3: &str) -> PathBuf {
        self.root.join("blobs").join(blake3)
    }

    /// The names of all datasets, sorted.
    pub fn names(&self) -> Result<Vec<String>, DatasetError> {
        let dir = self.root.join("datasets");
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(DatasetError::io(dir)(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(DatasetError::io(&dir))?;
            if let Ok(name) = entry.file_name().into_string()
                && valid_name(&name)
                && entry.path().join(MANIFEST_FILE).is_file()
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// The manifest of dataset `name`.
    pub fn manifest(&self, name: &str) -> Result<Manifest, DatasetError> {
        if !valid_name(name) {
            return Err(DatasetError::Name(name.to_owned()));
        }
        let path = self.dataset_dir(name).join(MANIFEST_FILE);
        match Manifest::read(&path) {
            Err(DatasetError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Err(DatasetError::Missing {
                    name: name.to_owned(),
                    folder: self.root.clone(),
                    have: self.names()?,
                })
            }
            other => other,
        }
    }

    /// Removes what killed processes left of `name`. Only where the system tells of processes by
    /// `/proc`; what cannot be removed does no harm.
    fn remove_leftovers(&self, name: &str) {
        if !Path::new("/proc/self").exists() {
            return;
        }
        for entry in fs::read_dir(self.root.join("datasets"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let file_name = entry.file_name();
            let process = file_name
                .to_str()
                .and_then(|file| {
                    file.strip_prefix('.')?
                        .strip_prefix(name)?
                        .strip_prefix('.')
                })
                .and_then(|rest| rest.strip_suffix(".new"))
                .filter(|pid| pid.parse::<u32>().is_ok());
            if let Some(pid) = process
                && !Path::new("/proc").join(pid).exists()
            {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }

    /// Begins a dataset: an empty folder beside its final place.
    pub fn prepare(&self, name: &str) -> Result<Prepared, DatasetError> {
        if !valid_name(name) {
            return Err(DatasetError::Name(name.to_owned()));
        }
        let dir = self
            .root
            .join("datasets")
            .join(format!(".{name}.{}.new", std::process::id()));
        self.remove_leftovers(name);
        if dir.exists() {
            // Left by a killed process that had our number.
            fs::remove_dir_all(&dir).map_err(DatasetError::io(&dir))?;
        }
        fs::create_dir_all(&dir).map_err(DatasetError::io(&dir))?;
        Ok(Prepared {
            folder: self.clone(),
            name: name.to_owned(),
            dir,
        })
    }
}

impl Prepared {
    /// Where to write the data file.
    pub fn data_file(&self) -> PathBuf {
        self.dir.join(DATA_FILE)
    }

    /// A path in the temporary folder for something that does not stay.
    pub fn scratch(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Where the data folder has this content already, sound, puts a link to it in the place of the
    /// file that was just written. True if it did; a file system without hard links keeps the copy.
    fn share_content(&self, manifest: &Manifest) -> bool {
        let blob = self.folder.blob(&manifest.blake3);
        let there = fs::metadata(&blob).is_ok_and(|about| about.len() == manifest.bytes)
            && hash_file(&blob).is_ok_and(|hash| hash.as_str() == manifest.blake3);
        let twin = self.scratch("twin");
        let shared = there
            && fs::hard_link(&blob, &twin).is_ok()
            && fs::rename(&twin, self.data_file()).is_ok();
        if !shared {
            let _ = fs::remove_file(&twin);
        }
        shared
    }

    /// Writes the manifest and moves the dataset to its place, with a link to it under `blobs/`.
    /// Content that the data folder has already is not kept a second time.
    /// Nothing of it is visible under its name before all of it is durable.
    ///
    /// # Errors
    /// [`DatasetError::Taken`] if the name holds other content and `replace` is false.
    pub fn publish(self, manifest: &Manifest, replace: bool) -> Result<PathBuf, DatasetError> {
        let io_at = |path: &Path| DatasetError::io(path.to_owned());
        let target = self.folder.dataset_dir(&self.name);
        let existing = match self.folder.manifest(&self.name) {
            Ok(manifest) => Some(manifest.blake3),
            Err(DatasetError::Missing { .. }) => None,
            Err(error) if !replace => return Err(error),
            Err(_) => Some("unreadable".to_owned()),
        };
        if let Some(existing) = existing
            && !replace
            && existing != manifest.blake3
        {
            return Err(DatasetError::Taken {
                name: self.name.clone(),
                existing,
            });
        }

        let shared = self.share_content(manifest);
        let path = self.dir.join(MANIFEST_FILE);
        let mut text =
            serde_json::to_string_pretty(manifest).map_err(|error| DatasetError::Manifest {
                path: path.clone(),
                what: error.to_string(),
            })?;
        text.push('\n');
        let mut file = File::create(&path).map_err(io_at(&path))?;
        file.write_all(text.as_bytes())
            .and_then(|()| file.sync_all())
            .map_err(io_at(&path))?;
        sync_dir(&self.dir)?;

        // Nothing may change a finished file: it is known by its hash and mapped by workers.
        let data = self.data_file();
        let mut permissions = fs::metadata(&data).map_err(io_at(&data))?.permissions();
        permissions.set_readonly(true);
        fs::set_permissions(&data, permissions).map_err(io_at(&data))?;

        let blob = self.folder.blob(&manifest.blake3);
        let blobs = self.folder.root.join("blobs");
        fs::create_dir_all(&blobs).map_err(io_at(&blobs))?;
        if !shared {
            let link = blobs.join(format!(".{}.{}.new", manifest.blake3, std::process::id()));
            let _ = fs::remove_file(&link);
            // A file system without hard links gets a copy.
            if fs::hard_link(self.data_file(), &link).is_err() {
                fs::copy(self.data_file(), &link).map_err(io_at(&link))?;
            }
            fs::rename(&link, &blob).map_err(io_at(&blob))?;
            sync_dir(&blobs)?;
        }

        // A folder cannot be renamed over one with content: the old one steps aside first.
        let aside = target.with_file_name(format!(".{}.{}.old", self.name, std::process::id()));
        if target.exists() {
            fs::rename(&target, &aside).map_err(io_at(&target))?;
        }
        fs::rename(&self.dir, &target).map_err(io_at(&target))?;
        sync_dir(&self.folder.root.join("datasets"))?;
        if aside.exists() {
            fs::remove_dir_all(&aside).map_err(io_at(&aside))?;
        }
        Ok(target.join(DATA_FILE))
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        // Gone already after `publish`; otherwise nothing half-made stays.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn sync_dir(dir: &Path) -> Result<(), DatasetError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(DatasetError::io(dir))
}
