//! The field's pickle layout: `{split: {"text_bert": array, …}}`.
//!
//! Written in protocol 4, with arrays as NumPy has pickled them since its beginnings, so that each
//! version reads them.

use super::ErasedSplit;
use halfheard_shared::atomic_file::{AtomicFile, DEFAULT_MODE};
use std::{
    io::{self, BufWriter, Write},
    path::Path,
};

pub(super) fn write(split: &ErasedSplit, path: &Path) -> io::Result<()> {
    let mut file = AtomicFile::create(path, DEFAULT_MODE)?;
    let mut pickler = Pickler(BufWriter::with_capacity(1 << 20, &mut file));
    pickler.document(split)?;
    pickler.0.flush()?;
    drop(pickler);
    file.persist()
}

struct Pickler<W: Write>(W);

impl<W: Write> Pickler<W> {
    fn document(&mut self, split: &ErasedSplit) -> io::Result<()> {
        let shapes = split.shapes;
        let n = split.samples();
        let floats = |values: &[f32]| values.iter().flat_map(|x| x.to_le_bytes()).collect();
        let integers = |values: &[i64]| values.iter().flat_map(|x| x.to_le_bytes()).collect();
        // As in the field's files, token ids are floats there.
        let text: Vec<u8> = split
            .text
            .iter()
            .flat_map(|&id| (id as f32).to_le_bytes())
            .collect();
        let audio: Vec<u8> = floats(&split.audio);
        let vision: Vec<u8> = floats(&split.vision);
        let labels: Vec<u8> = floats(&split.labels);
        let audio_lengths: Vec<u8> = integers(&split.audio_lengths);
        let vision_lengths: Vec<u8> = integers(&split.vision_lengths);

        // Protocol 4; a dictionary.
        self.0.write_all(b"\x80\x04}(")?;
        self.text(split.split.as_str())?;
        self.0.write_all(b"}(")?;
        self.text("id")?;
        self.texts(&split.ids)?;
        self.text("raw_text")?;
        self.texts(&split.raw_text)?;
        self.array("text_bert", "f4", &[n, 3, shapes.text_len], &text)?;
        self.array(
            "audio",
            "f4",
            &[n, shapes.audio_len, shapes.audio_dim],
            &audio,
        )?;
        self.array(
            "vision",
            "f4",
            &[n, shapes.vision_len, shapes.vision_dim],
            &vision,
        )?;
        self.array("audio_lengths", "i8", &[n], &audio_lengths)?;
        self.array("vision_lengths", "i8", &[n], &vision_lengths)?;
        self.array("regression_labels", "f4", &[n], &labels)?;
        self.array("text_kept", "u1", &[n, shapes.text_len], &split.text_kept)?;
        self.array(
            "audio_kept",
            "u1",
            &[n, shapes.audio_len],
            &split.audio_kept,
        )?;
        self.array(
            "vision_kept",
            "u1",
            &[n, shapes.vision_len],
            &split.vision_kept,
        )?;
        // The end of both dictionaries and of the document.
        self.0.write_all(b"uu.")
    }

    fn text(&mut self, text: &str) -> io::Result<()> {
        let length = u32::try_from(text.len()).map_err(io::Error::other)?;
        self.0.write_all(b"X")?;
        self.0.write_all(&length.to_le_bytes())?;
        self.0.write_all(text.as_bytes())
    }

    fn texts(&mut self, texts: &[String]) -> io::Result<()> {
        self.0.write_all(b"](")?;
        for text in texts {
            self.text(text)?;
        }
        self.0.write_all(b"e")
    }

    fn integer(&mut self, number: usize) -> io::Result<()> {
        let number = i32::try_from(number).map_err(io::Error::other)?;
        self.0.write_all(b"J")?;
        self.0.write_all(&number.to_le_bytes())
    }

    /// A key and an array: an empty `numpy.ndarray` and the state that fills it.
    fn array(&mut self, key: &str, dtype: &str, shape: &[usize], data: &[u8]) -> io::Result<()> {
        self.text(key)?;
        self.0.write_all(
            b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tC\x01btR(K\x01(",
        )?;
        for &size in shape {
            self.integer(size)?;
        }
        self.0.write_all(b"tcnumpy\ndtype\n(")?;
        self.text(dtype)?;
        // Not aligned, copied; then its state: version 3, the byte order, and nothing else of note.
        self.0.write_all(b"\x89\x88tR(K\x03")?;
        self.text(if dtype == "u1" { "|" } else { "<" })?;
        self.0
            .write_all(b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb")?;
        // In C order; the data; the end of the state.
        self.0.write_all(b"\x89\x8e")?;
        self.0.write_all(&(data.len() as u64).to_le_bytes())?;
        self.0.write_all(data)?;
        self.0.write_all(b"tb")
    }
}
