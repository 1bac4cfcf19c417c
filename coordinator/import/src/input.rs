//! The bytes of a feature file: mapped, or decompressed.

use halfheard_shared::{error::Hint, mapping};
use memmap2::Mmap;
use sha2::{Digest as _, Sha256};
use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom, Write},
    ops::Deref,
    path::{Path, PathBuf},
};

/// Default limit of the compression ratio. Feature files stay under 100; a bomb has 1,000.
const MAX_RATIO: u64 = 250;
/// Size to which any file may expand, whatever its ratio.
const ALWAYS_ALLOWED: u64 = 1 << 30;
/// Above this size, decompressed bytes go to a mapped temporary file instead of memory.
const IN_MEMORY: u64 = 256 << 20;

/// Why a feature file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// The file or the temporary one cannot be read or written.
    #[error("cannot read {}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The compressed data is damaged.
    #[error("the gzip data of {} is damaged", path.display())]
    Gzip {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The compressed data ends too early.
    #[error("{} is truncated at byte {bytes}, inside its gzip data", path.display())]
    GzipTruncated {
        /// Which file.
        path: PathBuf,
        /// How many bytes it has.
        bytes: u64,
    },
    /// The bound on expansion was reached.
    #[error("the {bytes} bytes of {} expand to more than {limit}", path.display())]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// It has no content.
    #[error("{} is empty", path.display())]
    Empty {
        /// Which file.
        path: PathBuf,
    },
    /// A pipe or a device.
    #[error("{} is not a regular file", path.display())]
    NotRegular {
        /// Which.
        path: PathBuf,
    },
    /// A folder.
    #[error("{} is a folder", path.display())]
    Folder {
        /// Which folder.
        path: PathBuf,
        /// The names of pickles in it.
        pickles: Vec<String>,
    },
}

impl Hint for InputError {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Io { .. } => return None,
            Self::Gzip { .. } | Self::GzipTruncated { .. } | Self::Empty { .. } => {
                "copy or download it again"
            }
            Self::TooLarge { .. } => "if that is expected, allow more with --max-bytes",
            Self::NotRegular { .. } => {
                "features are mapped, so save the output of a pipe to a file first"
            }
            Self::Folder { pickles, .. } if pickles.is_empty() => "name the feature file itself",
            Self::Folder { pickles, .. } => {
                return Some(format!(
                    "name the feature file itself; it contains {}",
                    pickles.join(", ")
                ));
            }
        };
        Some(hint.to_owned())
    }
}

/// The names of up to eight pickles in a folder.
fn pickles_in(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.ends_with(".pkl") || name.ends_with(".pkl.gz"))
        .collect();
    names.sort();
    names.truncate(8);
    names
}

/// A file's bytes, its size and its hashes.
#[derive(Debug)]
pub struct Input {
    content: Content,
    /// BLAKE3 of the file on disk.
    pub blake3: blake3::Hash,
    /// Its size on disk in bytes.
    pub file_bytes: u64,
    /// SHA-256 of the content (decompressed), in hexadecimal digits.
    pub sha256: String,
}

#[derive(Debug)]
enum Content {
    Mapped(Mmap),
    Memory(Vec<u8>),
}

impl Deref for Input {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.content {
            Content::Mapped(map) => map,
            Content::Memory(bytes) => bytes,
        }
    }
}

impl Input {
    /// Opens `path`. A gzip file (recognized by its first bytes, not its name) is decompressed to memory
    /// or, if large, to an unnamed temporary file in `scratch`. `progress` receives the bytes read so far
    /// and in total.
    ///
    /// # Errors
    ///
    /// It cannot be read, is damaged, or expands beyond the limit.
    pub fn open(
        path: &Path,
        scratch: &Path,
        max_bytes: Option<u64>,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<Self, InputError> {
        let io = |source| InputError::Io {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(io)?;
        let about = file.metadata().map_err(io)?;
        if about.is_dir() {
            return Err(InputError::Folder {
                path: path.to_owned(),
                pickles: pickles_in(path),
            });
        }
        if !about.is_file() {
            return Err(InputError::NotRegular {
                path: path.to_owned(),
            });
        }
        // An empty file cannot be mapped everywhere.
        if about.len() == 0 {
            return Err(InputError::Empty {
                path: path.to_owned(),
            });
        }
        // SAFETY: the file must not be changed while it is mapped, as for any reader; its bytes are
        // checked before use.
        let map = unsafe { Mmap::map(&file) }
            .map_err(|error| io(mapping::explain(error, about.len())))?;
        let file_bytes = map.len() as u64;
        let mut hasher = blake3::Hasher::new();
        if !map.starts_with(&[0x1f, 0x8b]) {
            if let Some(limit) = max_bytes
                && file_bytes > limit
            {
                return Err(InputError::TooLarge {
                    path: path.to_owned(),
                    bytes: file_bytes,
                    limit,
                });
            }
            let mut sha256 = Sha256::new();
            let mut done = 0;
            for chunk in map.chunks(16 << 20) {
                // Both hashes read the same chunk at the same time: a file larger than the memory is
                // read from disk only once.
                std::thread::scope(|scope| {
                    scope.spawn(|| sha256.update(chunk));
                    hasher.update(chunk);
                });
                done += chunk.len() as u64;
                progress(done, file_bytes);
            }
            return Ok(Self {
                content: Content::Mapped(map),
                blake3: hasher.finalize(),
                file_bytes,
                sha256: hex(sha256),
            });
        }
        hasher.update(&map);
        let limit =
            max_bytes.unwrap_or_else(|| ALWAYS_ALLOWED.max(file_bytes.saturating_mul(MAX_RATIO)));
        let mut sha256 = Sha256::new();
        let content = expand(path, &map, scratch, limit, &mut sha256, &mut progress)?;
        Ok(Self {
            content,
            blake3: hasher.finalize(),
            file_bytes,
            sha256: hex(sha256),
        })
    }
}

fn hex(hash: Sha256) -> String {
    hash.finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Counts the bytes read through it.
struct Counted<'a> {
    rest: &'a [u8],
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.rest.read(buffer)
    }
}

fn expand(
    path: &Path,
    compressed: &[u8],
    scratch: &Path,
    limit: u64,
    sha256: &mut Sha256,
    progress: &mut impl FnMut(u64, u64),
) -> Result<Content, InputError> {
    let total = compressed.len() as u64;
    let scratch_error = |source| InputError::Io {
        path: scratch.to_owned(),
        source,
    };
    let mut decoder = flate2::read::MultiGzDecoder::new(BufReader::with_capacity(
        1 << 18,
        Counted { rest: compressed },
    ));
    let mut memory = Vec::new();
    let mut spilled: Option<File> = None;
    let mut expanded = 0u64;
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = decoder
            .read(&mut buffer)
            .map_err(|source| match source.kind() {
                io::ErrorKind::UnexpectedEof => InputError::GzipTruncated {
                    path: path.to_owned(),
                    bytes: total,
                },
                _ => InputError::Gzip {
                    path: path.to_owned(),
                    source,
                },
            })?;
        if read == 0 {
            break;
        }
        expanded += read as u64;
        if expanded > limit {
            return Err(InputError::TooLarge {
                path: path.to_owned(),
                bytes: total,
                limit,
            });
        }
        if spilled.is_none() && expanded > IN_MEMORY {
            std::fs::create_dir_all(scratch).map_err(scratch_error)?;
            let mut file = tempfile::tempfile_in(scratch).map_err(scratch_error)?;
            file.write_all(&memory).map_err(scratch_error)?;
            memory = Vec::new();
            spilled = Some(file);
        }
        sha256.update(&buffer[..read]);
        match &mut spilled {
            Some(file) => file.write_all(&buffer[..read]).map_err(scratch_error)?,
            None => memory.extend_from_slice(&buffer[..read]),
        }
        progress(total - decoder.get_ref().get_ref().rest.len() as u64, total);
    }
    match spilled {
        None => Ok(Content::Memory(memory)),
        Some(mut file) => {
            file.seek(SeekFrom::Start(0)).map_err(scratch_error)?;
            // SAFETY: the file has no name, so nobody else can change it.
            Ok(Content::Mapped(unsafe { Mmap::map(&file) }.map_err(
                |error| scratch_error(mapping::explain(error, expanded)),
            )?))
        }
    }
}
