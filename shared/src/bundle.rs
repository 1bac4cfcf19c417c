//! Small folders as one file: the files of a program, the state that it saves.
//!
//! A bundle is a safetensors file with one tensor of bytes for each file, by its path. The same files make
//! the same bytes, so that a bundle can be named by its hash. Nothing in a bundle is trusted: paths that
//! lead out of the folder are refused.

use nix::{errno::Errno, fcntl::OFlag};
use safetensors::{Dtype, SafeTensors, View, tensor::SafeTensorError};
use serde::{Deserialize, Serialize};
use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Component, Path, PathBuf},
};

/// The most files of a bundle.
pub const MAX_FILES: usize = 10_000;
/// The name of the only entry in the header's metadata: with several, their order would not be fixed.
const METADATA: &str = "halfheard_bundle";

/// Why a folder cannot be bundled, or a bundle not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// A file cannot be read or written.
    #[error("cannot use {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something that is neither a file nor a folder: a link could lead anywhere.
    #[error("{path} is neither a file nor a folder; links and devices are not taken")]
    NotAFile {
        /// Its path.
        path: PathBuf,
    },
    /// Too much.
    #[error("{what} has {bytes} bytes, over the limit of {limit}")]
    TooLarge {
        /// What.
        what: String,
        /// Bytes so far.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// Too many files.
    #[error("{what} has more than {MAX_FILES} files")]
    TooMany {
        /// What.
        what: String,
    },
    /// Not a bundle, or a damaged one.
    #[error("the bundle is damaged: {0}")]
    Damaged(String),
}

/// The files of a bundle in memory, by their paths with `/`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bundle {
    /// Contents by path.
    pub files: BTreeMap<String, Vec<u8>>,
    /// The paths of those that can be executed.
    pub executable: BTreeSet<String>,
    /// What its writer adds: any JSON.
    pub about: serde_json::Value,
}

#[derive(Serialize, Deserialize)]
struct Header {
    version: u32,
    executable: BTreeSet<String>,
    about: serde_json::Value,
}

struct Content<'a> {
    shape: [usize; 1],
    bytes: &'a [u8],
}

impl View for Content<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::U8
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        self.bytes.into()
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// Whether a path stays within its folder: names only, none hidden behind `..` or a root.
pub fn is_inside(path: &Path) -> bool {
    let mut parts = path.components().peekable();
    parts.peek().is_some() && parts.all(|part| matches!(part, Component::Normal(_)))
}

impl Bundle {
    /// The bytes of the contents.
    pub fn bytes(&self) -> u64 {
        self.files.values().map(|file| file.len() as u64).sum()
    }

    /// Reads a folder, or one file under its own name. `what` is for messages.
    ///
    /// # Errors
    ///
    /// It holds a link or a device, is too large, or cannot be read.
    pub fn read(path: &Path, limit: u64, what: &str) -> Result<Self, BundleError> {
        let mut bundle = Self::default();
        let about = fs::symlink_metadata(path).map_err(|source| io_error(path, source))?;
        if about.is_dir() {
            bundle.add_folder(path, path, limit, what)?;
        } else {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            bundle.add(path, &name, limit, what)?;
        }
        Ok(bundle)
    }

    fn add_folder(
        &mut self,
        root: &Path,
        folder: &Path,
        limit: u64,
        what: &str,
    ) -> Result<(), BundleError> {
        for entry in fs::read_dir(folder).map_err(|source| io_error(folder, source))? {
            let path = entry.map_err(|source| io_error(folder, source))?.path();
            let about = fs::symlink_metadata(&path).map_err(|source| io_error(&path, source))?;
            if about.is_dir() {
                self.add_folder(root, &path, limit, what)?;
                continue;
            }
            let name = path.strip_prefix(root).unwrap_or(&path);
            let Some(name) = name.to_str().map(str::to_owned) else {
                return Err(BundleError::Damaged(format!(
                    "{} is not a name in UTF-8",
                    path.display()
                )));
            };
            self.add(&path, &name, limit, what)?;
        }
        Ok(())
    }

    /// Adds a file under a name.
    ///
    /// # Errors
    ///
    /// As those of [`Bundle::read`].
    pub fn add(
        &mut self,
        path: &Path,
        name: &str,
        limit: u64,
        what: &str,
    ) -> Result<(), BundleError> {
        let io = |source| io_error(path, source);
        // A link is not followed, a pipe does not block.
        let file = fs::OpenOptions::new()
            .read(true)
            .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
            .open(path);
        let file = match file {
            Ok(file) => file,
            Err(error) if error.raw_os_error() == Some(Errno::ELOOP as i32) => {
                return Err(BundleError::NotAFile {
                    path: path.to_owned(),
                });
            }
            Err(error) => return Err(io(error)),
        };
        let about = file.metadata().map_err(io)?;
        if !about.is_file() {
            return Err(BundleError::NotAFile {
                path: path.to_owned(),
            });
        }
        let too_large = |bytes| BundleError::TooLarge {
            what: what.to_owned(),
            bytes,
            limit,
        };
        let before = self.bytes();
        if before + about.len() > limit {
            return Err(too_large(before + about.len()));
        }
        if self.files.len() >= MAX_FILES {
            return Err(BundleError::TooMany {
                what: what.to_owned(),
            });
        }
        let mut content = Vec::new();
        let mut bounded = io::Read::take(file, limit - before + 1);
        io::Read::read_to_end(&mut bounded, &mut content).map_err(io)?;
        if before + content.len() as u64 > limit {
            return Err(too_large(before + content.len() as u64));
        }
        if about.permissions().mode() & 0o111 != 0 {
            self.executable.insert(name.to_owned());
        }
        self.files.insert(name.to_owned(), content);
        Ok(())
    }

    /// Encodes it. The same files make the same bytes.
    ///
    /// # Errors
    ///
    /// The header cannot be written.
    pub fn encode(&self) -> Result<Vec<u8>, BundleError> {
        let damaged = |error: &dyn std::fmt::Display| BundleError::Damaged(error.to_string());
        let header = Header {
            version: 1,
            executable: self.executable.clone(),
            about: self.about.clone(),
        };
        let header = serde_json::to_string(&header).map_err(|error| damaged(&error))?;
        let files = self.files.iter().map(|(name, bytes)| {
            let content = Content {
                shape: [bytes.len()],
                bytes,
            };
            (name.as_str(), content)
        });
        let metadata = HashMap::from([(METADATA.to_owned(), header)]);
        safetensors::serialize(files, Some(metadata))
            .map_err(|error: SafeTensorError| damaged(&error))
    }

    /// Decodes what [`Bundle::encode`] wrote.
    ///
    /// # Errors
    ///
    /// It is damaged, or a path leads out of its folder.
    pub fn decode(bytes: &[u8]) -> Result<Self, BundleError> {
        let damaged = |error: &dyn std::fmt::Display| BundleError::Damaged(error.to_string());
        let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|error| damaged(&error))?;
        let tensors = SafeTensors::deserialize(bytes).map_err(|error| damaged(&error))?;
        let header = metadata.metadata().as_ref();
        let header = header.and_then(|entries| entries.get(METADATA));
        let header = header.ok_or_else(|| damaged(&"it is not a bundle"))?;
        let header: Header = serde_json::from_str(header).map_err(|error| damaged(&error))?;
        if header.version != 1 {
            return Err(damaged(&format!(
                "it has version {}, this program reads 1",
                header.version
            )));
        }
        if tensors.len() > MAX_FILES {
            return Err(BundleError::TooMany {
                what: "the bundle".to_owned(),
            });
        }
        let mut files = BTreeMap::new();
        for (name, view) in tensors.iter() {
            if !is_inside(Path::new(name)) {
                return Err(damaged(&format!("`{name}` leads out of the folder")));
            }
            files.insert(name.to_owned(), view.data().to_vec());
        }
        Ok(Self {
            files,
            executable: header.executable,
            about: header.about,
        })
    }

    /// Writes the files into a folder, which is made.
    ///
    /// # Errors
    ///
    /// A path leads out of it, or a file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), BundleError> {
        let make =
            |folder: &Path| fs::create_dir_all(folder).map_err(|source| io_error(folder, source));
        make(folder)?;
        for (name, content) in &self.files {
            if !is_inside(Path::new(name)) {
                return Err(BundleError::Damaged(format!(
                    "`{name}` leads out of the folder"
                )));
            }
            let path = folder.join(name);
            make(path.parent().unwrap_or(folder))?;
            let mode = match self.executable.contains(name) {
                true => 0o700,
                false => 0o600,
            };
            let file = fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(mode)
                .open(&path);
            file.and_then(|mut file| file.write_all(content))
                .map_err(|source| io_error(&path, source))?;
        }
        Ok(())
    }
}

fn io_error(path: &Path, source: io::Error) -> BundleError {
    BundleError::Io {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("lib")).unwrap();
        fs::write(folder.path().join("train.py"), "print(1)").unwrap();
        fs::write(folder.path().join("lib/empty"), "").unwrap();
        let run = folder.path().join("run.sh");
        fs::write(&run, "exit").unwrap();
        fs::set_permissions(&run, fs::Permissions::from_mode(0o755)).unwrap();
        folder
    }

    #[test]
    fn folder_comes_back_and_the_same_files_make_the_same_bytes() {
        let (one, two) = (folder(), folder());
        let read = |folder: &tempfile::TempDir| Bundle::read(folder.path(), 1000, "it").unwrap();
        let bytes = read(&one).encode().unwrap();
        assert_eq!(bytes, read(&two).encode().unwrap());
        let back = Bundle::decode(&bytes).unwrap();
        assert_eq!(back, read(&one));
        let target = tempfile::tempdir().unwrap();
        back.write(&target.path().join("new")).unwrap();
        let again = Bundle::read(&target.path().join("new"), 1000, "it").unwrap();
        assert_eq!(again, back);
        assert_eq!(again.executable, BTreeSet::from(["run.sh".to_owned()]));
    }

    #[test]
    fn links_devices_and_large_files_are_refused() {
        let folder = folder();
        let limited = Bundle::read(folder.path(), 11, "the state").unwrap_err();
        assert!(
            limited.to_string().contains("the state has 12 bytes"),
            "{limited}"
        );
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("link")).unwrap();
        let link = Bundle::read(folder.path(), 1000, "it").unwrap_err();
        assert!(matches!(link, BundleError::NotAFile { .. }), "{link}");
        fs::remove_file(folder.path().join("link")).unwrap();
        // A sparse file takes no room and has a size.
        let sparse = fs::File::create(folder.path().join("sparse")).unwrap();
        sparse.set_len(10 << 30).unwrap();
        let large = Bundle::read(folder.path(), 1 << 30, "it").unwrap_err();
        assert!(matches!(large, BundleError::TooLarge { .. }), "{large}");
    }

    #[test]
    fn paths_that_lead_out_and_damage_are_refused() {
        for name in ["../x", "/etc/x", "a/../../x", ""] {
            let bundle = Bundle {
                files: BTreeMap::from([(name.to_owned(), vec![1])]),
                ..Bundle::default()
            };
            let target = tempfile::tempdir().unwrap();
            assert!(bundle.write(target.path()).is_err(), "{name}");
            assert!(Bundle::decode(&bundle.encode().unwrap()).is_err(), "{name}");
        }
        let bytes = Bundle::read(folder().path(), 1000, "it")
            .unwrap()
            .encode()
            .unwrap();
        for end in 0..bytes.len() {
            assert!(Bundle::decode(&bytes[..end]).is_err());
        }
    }
}
