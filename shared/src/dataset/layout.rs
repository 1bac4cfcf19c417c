//! What a dataset file holds: names, types and shapes of its tensors.
//!
//! For each split `S` in `train`, `valid`, `test` with N samples:
//!
//! | tensor | type | shape | |
//! |---|---|---|---|
//! | `S.audio_lengths`, `S.vision_lengths` | I64 | `[N]` | steps that are not padding |
//! | `S.ids_offsets`, `S.raw_text_offsets` | I64 | `[N + 1]` | where each text begins in the blob |
//! | `S.text` | I32 | `[N, 3, L]` | token ids, mask (1 = not padding), segments |
//! | `S.audio` | F32 | `[N, Ta, Da]` | |
//! | `S.vision` | F32 | `[N, Tv, Dv]` | |
//! | `S.labels` | F32 | `[N]` | |
//! | `S.labels_text`, `S.labels_audio`, `S.labels_vision` | F32 | `[N]` | only SIMS |
//! | `S.ids`, `S.raw_text` | U8 | `[bytes]` | UTF-8, one sample after the other |
//!
//! Eight-byte types come first, then four-byte ones, then bytes, so that every tensor is aligned for
//! its type in a mapped file. All is little-endian. The header's metadata says `format`
//! ([`FORMAT`]), `version` ([`VERSION`]) and `kind`.

use super::{Kind, Shapes, Split};

/// The `format` entry of the header's metadata.
pub const FORMAT: &str = "halfheard-dataset";

/// The version of this layout; a reader refuses any other.
pub const VERSION: u32 = 1;

/// The most bytes a header may have. Ours have about 4 KiB.
pub const MAX_HEADER: usize = 1 << 20;

/// The name of the data file in a dataset's folder.
pub const DATA_FILE: &str = "data.safetensors";

/// The name of the manifest in a dataset's folder.
pub const MANIFEST_FILE: &str = "manifest.json";

#[cfg(target_endian = "big")]
compile_error!("dataset files are mapped as little-endian numbers; this target is big-endian");

/// A tensor's element type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// 64-bit signed integers.
    I64,
    /// 32-bit signed integers.
    I32,
    /// 32-bit floating point.
    F32,
    /// Bytes.
    U8,
}

impl Element {
    /// Its size in bytes.
    pub fn size(self) -> usize {
        match self {
            Element::I64 => 8,
            Element::I32 | Element::F32 => 4,
            Element::U8 => 1,
        }
    }

    /// Its name in a safetensors header.
    pub fn as_str(self) -> &'static str {
        match self {
            Element::I64 => "I64",
            Element::I32 => "I32",
            Element::F32 => "F32",
            Element::U8 => "U8",
        }
    }
}

/// One tensor of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Its name, `train.audio`.
    pub name: String,
    /// Its type.
    pub element: Element,
    /// Its shape.
    pub shape: Vec<usize>,
}

/// The sizes of one split, all that is needed to lay out its tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SplitSizes {
    /// Samples.
    pub samples: usize,
    /// Bytes of all ids together.
    pub id_bytes: usize,
    /// Bytes of all raw texts together.
    pub raw_text_bytes: usize,
}

/// The tensors of a file in the order that they are written in.
pub fn tensors(kind: Kind, shapes: Shapes, splits: [SplitSizes; 3]) -> Vec<TensorSpec> {
    let mut all = Vec::new();
    for (split, sizes) in Split::ALL.into_iter().zip(splits) {
        let n = sizes.samples;
        let mut add = |name: &str, element, shape: &[usize]| {
            all.push(TensorSpec {
                name: format!("{split}.{name}"),
                element,
                shape: shape.to_vec(),
            });
        };
        add("audio_lengths", Element::I64, &[n]);
        add("vision_lengths", Element::I64, &[n]);
        add("ids_offsets", Element::I64, &[n + 1]);
        add("raw_text_offsets", Element::I64, &[n + 1]);
        add("text", Element::I32, &[n, 3, shapes.text_len]);
        add(
            "audio",
            Element::F32,
            &[n, shapes.audio_len, shapes.audio_dim],
        );
        add(
            "vision",
            Element::F32,
            &[n, shapes.vision_len, shapes.vision_dim],
        );
        add("labels", Element::F32, &[n]);
        if kind.has_unimodal_labels() {
            add("labels_text", Element::F32, &[n]);
            add("labels_audio", Element::F32, &[n]);
            add("labels_vision", Element::F32, &[n]);
        }
        add("ids", Element::U8, &[sizes.id_bytes]);
        add("raw_text", Element::U8, &[sizes.raw_text_bytes]);
    }
    // Stable: within a size the order above stays.
    all.sort_by_key(|tensor| std::cmp::Reverse(tensor.element.size()));
    all
}
