//! The bytes of a feature file: mapped, or expanded when the file is compressed.

use halfheard_shared::mapping;
use memmap2::Mmap;
use sha2::{Digest as _, Sha256};
use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom, Write},
    ops::Deref,
    path::{Path, PathBuf},
};

/// The most bytes that a compressed file may expand to unless the caller says otherwise, for each
/// byte it has itself. Feature files stay under 100; a bomb has 1,000.
const MAX_RATIO: u64 = 250;
/// What any compressed file may expand to, whatever its size.
const ALWAYS_ALLOWED: u64 = 1 << 30;
/// Over this, expanded bytes go to a temporary file that is mapped, instead of to memory.
const IN_MEMORY: u64 = 256 << 20;

/// Why a feature file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// The file or the temporary one cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The compressed data is damaged.
    #[error("{}: the gzip data is damaged ({source}): copy the file again", path.display())]
    Gzip {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The compressed data ends too early.
    #[error("{} is cut off at byte {bytes}, inside its gzip data: copy or download it again", path.display())]
    GzipCutOff {
        /// Which file.
        path: PathBuf,
        /// How many bytes it has.
        bytes: u64,
    },
    /// The bound on expansion was reached.
    #[error("{}: {bytes} bytes expand to more than {limit}: if that is right, allow more with --max-bytes", path.display())]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// Nothing in it.
    #[error("{}: the file is empty: download or copy it again", path.display())]
    Empty {
        /// Which file.
        path: PathBuf,
    },
    /// A pipe or a device.
    #[error("{} is no regular file: features are mapped, so save what comes out of a pipe to a file first", path.display())]
    NoRegularFile {
        /// Which.
        path: PathBuf,
    },
    /// A folder.
    #[error("{} is a folder: give the feature file itself{}", path.display(), in_it(pickles))]
    Folder {
        /// Which folder.
        path: PathBuf,
        /// The names of pickles in it.
        pickles: Vec<String>,
    },
}

fn in_it(pickles: &[String]) -> String {
    match pickles {
        [] => String::new(),
        names => format!("; in it are {}", names.join(", ")),
    }
}

/// The names of the pickles in a folder, some of them.
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

/// A file's bytes and how the file itself looked.
#[derive(Debug)]
pub struct Input {
    content: Content,
    /// BLAKE3 of the file as it is on the disk.
    pub blake3: blake3::Hash,
    /// Its bytes on the disk.
    pub file_bytes: u64,
    /// SHA-256 of the content (expanded where the file is compressed), in hexadecimal digits.
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
    /// Opens `path`; a gzip file (told by its first bytes, not its name) is expanded to memory or,
    /// if large, to an unnamed temporary file in `scratch`. `progress` is told the bytes of the
    /// file done so far.
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
            return Err(InputError::NoRegularFile {
                path: path.to_owned(),
            });
        }
        // An empty file cannot be mapped everywhere.
        if about.len() == 0 {
            return Err(InputError::Empty {
                path: path.to_owned(),
            });
        }
        // SAFETY: the file is read while it is mapped and must not be changed meanwhile, as for
        // any reader; its bytes are checked before use.
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
                // Both hashes read the same chunk at the same time: a file larger than the memory
                // comes off the disk once.
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

/// Counts what is read through it.
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
                io::ErrorKind::UnexpectedEof => InputError::GzipCutOff {
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
            // SAFETY: the file has no name; nobody else can change it.
            Ok(Content::Mapped(unsafe { Mmap::map(&file) }.map_err(
                |error| scratch_error(mapping::explain(error, expanded)),
            )?))
        }
    }
}
