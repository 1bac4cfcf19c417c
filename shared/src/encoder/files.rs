//! Which files of a folder hold an encoder's weights.

use super::error::{AGAIN, ANOTHER, EncoderError, Result, convert};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
};

/// Maximum size of an index in bytes.
const MAX_INDEX: u64 = 16 << 20;
/// Maximum number of files that weights are spread over.
const MAX_SHARDS: usize = 1000;

/// How weights are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Safetensors,
    /// What `torch.save` writes.
    Torch,
}

/// The files of an encoder's weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightFiles {
    pub(super) format: Format,
    /// Which tensor is in which of the files, where they are more than one.
    pub(super) index: Option<BTreeMap<String, String>>,
    names: Vec<String>,
    folder: PathBuf,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl WeightFiles {
    /// Finds them: `model.safetensors`, one or in several files with an index, before
    /// `pytorch_model.bin`, one or several. Their content is not looked at.
    ///
    /// # Errors
    ///
    /// There are none, or an index is damaged or names files that are not there.
    pub fn find(folder: &Path) -> std::result::Result<Self, Box<EncoderError>> {
        for (format, single) in [
            (Format::Safetensors, "model.safetensors"),
            (Format::Torch, "pytorch_model.bin"),
        ] {
            if folder.join(single).is_file() {
                return Ok(Self {
                    format,
                    index: None,
                    names: vec![single.to_owned()],
                    folder: folder.to_owned(),
                });
            }
            let index = format!("{single}.index.json");
            if folder.join(&index).is_file() {
                return Self::sharded(folder, format, index);
            }
        }
        Err(none(folder))
    }

    fn sharded(folder: &Path, format: Format, name: String) -> Result<Self> {
        let wrong = |found: String| EncoderError::new(folder, found, AGAIN);
        let path = folder.join(&name);
        let mut text = Vec::new();
        File::open(&path)
            .and_then(|file| file.take(MAX_INDEX + 1).read_to_end(&mut text))
            .map_err(|e| wrong(format!("its {name} cannot be read: {e}")))?;
        if text.len() as u64 > MAX_INDEX {
            return Err(wrong(format!("its {name} has more than {MAX_INDEX} bytes")));
        }
        if let Some(kind) = recognize(&text) {
            let found = format!("its {name} is {}", kind.what);
            return Err(EncoderError::new(folder, found, kind.remedy));
        }
        let index: Index = serde_json::from_slice(&text)
            .map_err(|e| wrong(format!("its {name} is not a weight index: {e}")))?;
        let files: BTreeSet<&String> = index.weight_map.values().collect();
        if files.is_empty() || files.len() > MAX_SHARDS {
            return Err(wrong(format!(
                "its {name} names {} files, 1 to {MAX_SHARDS} are expected",
                files.len()
            )));
        }
        let ending = match format {
            Format::Safetensors => ".safetensors",
            Format::Torch => ".bin",
        };
        for file in &files {
            if !is_plain(file) || !file.ends_with(ending) {
                let shown: String = file.chars().take(80).collect();
                return Err(wrong(format!(
                    "its {name} names the file {shown:?}; the name of a *{ending} file in the same \
                     folder is expected"
                )));
            }
            if !folder.join(file).is_file() {
                return Err(wrong(format!(
                    "its {name} names {file}, which is not there"
                )));
            }
        }
        // The index first, then the weights in the order of their names.
        let names = std::iter::once(name.clone())
            .chain(files.into_iter().cloned())
            .collect();
        Ok(Self {
            format,
            index: Some(index.weight_map),
            names,
            folder: folder.to_owned(),
        })
    }

    /// Names within the folder of all files, an index first: what an encoder is known by.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Paths of all files, as [`names`](Self::names).
    pub fn paths(&self) -> impl Iterator<Item = PathBuf> + '_ {
        self.names.iter().map(|name| self.folder.join(name))
    }

    /// Names of the files that hold weights.
    pub(super) fn weights(&self) -> &[String] {
        match self.index {
            Some(_) => &self.names[1..],
            None => &self.names,
        }
    }
}

/// Whether `name` can name a file of an encoder in its folder, and nothing outside.
pub fn is_plain(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !name.is_empty() && name.len() <= 200 && !name.starts_with('.') && name.chars().all(allowed)
}

/// What a folder without weights has instead.
fn none(folder: &Path) -> Box<EncoderError> {
    let names: Vec<String> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .take(10_000)
        .collect();
    let has = |end: &str| names.iter().find(|name| name.ends_with(end));
    let dangling = ["model.safetensors", "pytorch_model.bin"]
        .into_iter()
        .find(|name| folder.join(name).is_symlink());
    if let Some(name) = dangling {
        return EncoderError::new(
            folder,
            format!("its {name} is a link to a file that is not there"),
            "download the model again, or copy the folder with `cp -rL`: links of a hub's cache \
             point outside it",
        );
    }
    let expected = "no model.safetensors and no pytorch_model.bin";
    for (end, what, how) in [
        (".h5", "TensorFlow", ", from_tf=True"),
        (".msgpack", "Flax", ", from_flax=True"),
    ] {
        if let Some(name) = has(end) {
            let found = format!("it has {expected}, only {name} ({what})");
            return EncoderError::new(folder, found, convert(folder, how));
        }
    }
    if let Some(name) = has(".ckpt.index").or_else(|| has(".ckpt.meta")) {
        return EncoderError::new(
            folder,
            format!("it has {expected}, only a checkpoint of TensorFlow 1 ({name})"),
            "convert it with transformers' `convert_bert_original_tf_checkpoint_to_pytorch.py`, or \
             take the model from the hub",
        );
    }
    match names
        .iter()
        .find(|n| n.ends_with(".safetensors") || n.ends_with(".bin"))
    {
        Some(name) => EncoderError::new(
            folder,
            format!("it has {expected}, but {name}"),
            format!("if these are its weights, rename them as expected; otherwise {ANOTHER}"),
        ),
        None => EncoderError::new(folder, format!("it has {expected}"), ANOTHER),
    }
}

/// What is often found instead of a file.
pub(super) struct Recognized {
    pub what: &'static str,
    pub remedy: &'static str,
}

/// Recognizes by its first bytes content that no encoder file has.
pub(super) fn recognize(content: &[u8]) -> Option<Recognized> {
    let start = content.trim_ascii_start();
    let known = |what, remedy| Some(Recognized { what, remedy });
    if content.is_empty() {
        return known("empty", AGAIN);
    }
    if start.starts_with(b"version https://git-lfs.github.com/spec") {
        return known(
            "a git-LFS pointer, not the file itself",
            "fetch the file with `git lfs pull` in the clone that it comes from, or download it \
             again",
        );
    }
    let lower: Vec<u8> = start.iter().take(16).map(u8::to_ascii_lowercase).collect();
    if [&b"<!doctype"[..], b"<html", b"<?xml"]
        .iter()
        .any(|tag| lower.starts_with(tag))
    {
        return known(
            "a page of HTML: an error of the server, saved as a file",
            "download it again: models that ask for consent or a login need `hf auth login` first",
        );
    }
    None
}
