//! Safetensors: one tensor a field, the samples' ids in the header.

use super::ErasedSplit;
use crate::atomic_file::{AtomicFile, DEFAULT_MODE};
use safetensors::{Dtype, View, tensor::SafeTensorError};
use std::{
    borrow::Cow,
    collections::HashMap,
    io::{self, Write as _},
    path::Path,
};

pub(super) fn write(split: &ErasedSplit, path: &Path, labels: bool) -> io::Result<()> {
    let shapes = split.shapes;
    let n = split.samples();
    let mut tensors = vec![
        tensor(
            "text",
            vec![n, 3, shapes.text_len],
            Values::I32(&split.text),
        ),
        tensor(
            "audio",
            vec![n, shapes.audio_len, shapes.audio_dim],
            Values::F32(&split.audio),
        ),
        tensor(
            "vision",
            vec![n, shapes.vision_len, shapes.vision_dim],
            Values::F32(&split.vision),
        ),
        tensor("audio_lengths", vec![n], Values::I64(&split.audio_lengths)),
        tensor(
            "vision_lengths",
            vec![n],
            Values::I64(&split.vision_lengths),
        ),
        tensor(
            "text_kept",
            vec![n, shapes.text_len],
            Values::U8(&split.text_kept),
        ),
        tensor(
            "audio_kept",
            vec![n, shapes.audio_len],
            Values::U8(&split.audio_kept),
        ),
        tensor(
            "vision_kept",
            vec![n, shapes.vision_len],
            Values::U8(&split.vision_kept),
        ),
    ];
    if labels {
        tensors.push(tensor("labels", vec![n], Values::F32(&split.labels)));
    }
    let ids = serde_json::to_string(&split.ids)?;
    let metadata = HashMap::from([
        ("format".to_owned(), "halfheard-case".to_owned()),
        ("split".to_owned(), split.split.as_str().to_owned()),
        ("erasure_seed".to_owned(), split.erasure_seed.to_string()),
        ("ids".to_owned(), ids),
    ]);
    let bytes = safetensors::serialize(tensors, Some(metadata))
        .map_err(|error: SafeTensorError| io::Error::other(error))?;
    let mut file = AtomicFile::create(path, DEFAULT_MODE)?;
    file.write_all(&bytes)?;
    file.persist()
}

enum Values<'a> {
    U8(&'a [u8]),
    I32(&'a [i32]),
    I64(&'a [i64]),
    F32(&'a [f32]),
}

struct Tensor<'a> {
    shape: Vec<usize>,
    values: Values<'a>,
}

impl View for Tensor<'_> {
    fn dtype(&self) -> Dtype {
        match self.values {
            Values::U8(_) => Dtype::U8,
            Values::I32(_) => Dtype::I32,
            Values::I64(_) => Dtype::I64,
            Values::F32(_) => Dtype::F32,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match self.values {
            Values::U8(values) => values.into(),
            Values::I32(values) => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Values::I64(values) => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Values::F32(values) => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        }
    }

    fn data_len(&self) -> usize {
        match self.values {
            Values::U8(values) => values.len(),
            Values::I32(values) => values.len() * 4,
            Values::I64(values) => values.len() * 8,
            Values::F32(values) => values.len() * 4,
        }
    }
}

fn tensor<'a>(
    name: &'static str,
    shape: Vec<usize>,
    values: Values<'a>,
) -> (&'static str, Tensor<'a>) {
    (name, Tensor { shape, values })
}
