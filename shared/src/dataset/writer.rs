//! Writes a safetensors file sequentially: no tensor has to fit into memory.

use super::{
    Kind,
    layout::{FORMAT, TensorSpec, VERSION},
};
use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
};

/// Why a tensor file could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The disk said no.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The caller wrote another tensor than the one whose turn it was.
    #[error("tensor `{found}` was written where `{expected}` was due")]
    Order {
        /// The tensor whose turn it was.
        expected: String,
        /// The one that came.
        found: String,
    },
    /// A tensor got more or fewer bytes than its shape says.
    #[error("tensor `{tensor}` got {found} of {expected} bytes")]
    Size {
        /// Which tensor.
        tensor: String,
        /// Bytes by its shape.
        expected: u64,
        /// Bytes written.
        found: u64,
    },
}

/// A safetensors file being written: the header first, then the tensors in the order announced.
pub struct TensorFile {
    out: BufWriter<File>,
    hasher: blake3::Hasher,
    specs: Vec<TensorSpec>,
    current: usize,
    written: u64,
    total: u64,
}

impl TensorFile {
    /// Begins `path` (which must not exist) with the header for `specs`.
    pub fn create(path: &Path, kind: Kind, specs: Vec<TensorSpec>) -> Result<Self, WriteError> {
        let file = File::options().write(true).create_new(true).open(path)?;
        // Written by hand, in the order of the tensors: equal content must give equal bytes in every
        // build, and the order of a JSON object depends on how its library was built.
        let id = kind.as_str();
        let protocol = match kind {
            Kind::Own(_) => {
                // A text within a text, as the format has it.
                let definition =
                    serde_json::to_string(&kind).and_then(|d| serde_json::to_string(&d));
                format!(r#","protocol":{}"#, definition.map_err(io::Error::other)?)
            }
            _ => String::new(),
        };
        let mut text = format!(
            r#"{{"__metadata__":{{"format":"{FORMAT}","kind":"{id}"{protocol},"version":"{VERSION}"}}"#
        );
        let mut offset = 0u64;
        for spec in &specs {
            let end = offset + bytes_of(spec);
            text.push_str(&format!(
                r#","{}":{{"dtype":"{}","shape":{:?},"data_offsets":[{offset},{end}]}}"#,
                spec.name.escape_default(),
                spec.element.as_str(),
                spec.shape,
            ));
            offset = end;
        }
        text.push('}');
        // The data must begin at a multiple of eight.
        while !text.len().is_multiple_of(8) {
            text.push(' ');
        }
        let mut this = Self {
            out: BufWriter::with_capacity(1 << 20, file),
            hasher: blake3::Hasher::new(),
            specs,
            current: 0,
            written: 0,
            total: 0,
        };
        this.put(&(text.len() as u64).to_le_bytes())?;
        this.put(text.as_bytes())?;
        Ok(this)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.total += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    /// Appends `bytes` (little-endian numbers) to tensor `name`, whose turn it must be.
    pub fn write(&mut self, name: &str, bytes: &[u8]) -> Result<(), WriteError> {
        // Nothing may be written at any time: a tensor without bytes has no turn.
        if bytes.is_empty() {
            return Ok(());
        }
        self.pass_full()?;
        let due = self.specs.get(self.current);
        if due.map(|spec| spec.name.as_str()) != Some(name) {
            return Err(WriteError::Order {
                expected: due.map_or("the end", |spec| &spec.name).to_owned(),
                found: name.to_owned(),
            });
        }
        self.written += bytes.len() as u64;
        self.put(bytes)?;
        self.pass_full()
    }

    /// Appends numbers to tensor `name`.
    pub fn write_f32(&mut self, name: &str, numbers: &[f32]) -> Result<(), WriteError> {
        self.write(name, as_bytes(numbers))
    }

    /// Appends numbers to tensor `name`.
    pub fn write_i32(&mut self, name: &str, numbers: &[i32]) -> Result<(), WriteError> {
        self.write(name, as_bytes(numbers))
    }

    /// Appends numbers to tensor `name`.
    pub fn write_i64(&mut self, name: &str, numbers: &[i64]) -> Result<(), WriteError> {
        self.write(name, as_bytes(numbers))
    }

    /// Goes on to the next tensor when the current one is full.
    fn pass_full(&mut self) -> Result<(), WriteError> {
        while let Some(spec) = self.specs.get(self.current) {
            let expected = bytes_of(spec);
            if self.written > expected {
                return Err(WriteError::Size {
                    tensor: spec.name.clone(),
                    expected,
                    found: self.written,
                });
            }
            if self.written < expected {
                break;
            }
            self.current += 1;
            self.written = 0;
        }
        Ok(())
    }

    /// Ends the file and makes it durable. Returns the BLAKE3 of its content and its bytes.
    pub fn finish(mut self) -> Result<(blake3::Hash, u64), WriteError> {
        self.pass_full()?;
        if let Some(spec) = self.specs.get(self.current) {
            return Err(WriteError::Size {
                tensor: spec.name.clone(),
                expected: bytes_of(spec),
                found: self.written,
            });
        }
        let file = self
            .out
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        Ok((self.hasher.finalize(), self.total))
    }
}

fn bytes_of(spec: &TensorSpec) -> u64 {
    spec.shape.iter().map(|&d| d as u64).product::<u64>() * spec.element.size() as u64
}

/// Numbers without padding inside, whose memory is their file form on a little-endian machine.
trait Number: Copy {}
impl Number for f32 {}
impl Number for i32 {}
impl Number for i64 {}

fn as_bytes<T: Number>(numbers: &[T]) -> &[u8] {
    // SAFETY: the slice is initialized, `T` is a plain number without padding, and bytes have no
    // alignment; the target is little-endian (`layout` refuses to compile elsewhere).
    unsafe { std::slice::from_raw_parts(numbers.as_ptr().cast(), size_of_val(numbers)) }
}
