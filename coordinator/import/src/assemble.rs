//! Writes a dataset file from any source of samples, one sample at a time.

use halfheard_shared::dataset::{
    Kind, Shapes, Split, TensorFile, WriteError,
    layout::{self, SplitSizes},
};
use std::path::Path;

/// The checked samples of one split.
pub(crate) trait Samples {
    /// The number of samples.
    fn count(&self) -> usize;
    /// Token ids, mask and segments of one sample, `[3, L]`, into `out` (cleared first).
    fn text(&self, sample: usize, out: &mut Vec<i32>);
    /// Audio features of one sample, `[Ta, Da]`, into `out` (cleared first).
    fn audio(&self, sample: usize, out: &mut Vec<f32>);
    /// Vision features of one sample, `[Tv, Dv]`, into `out` (cleared first).
    fn vision(&self, sample: usize, out: &mut Vec<f32>);
    /// Labels, `[N]`.
    fn labels(&self) -> &[f32];
    /// Labels of text, audio and vision alone, if the protocol has them.
    fn unimodal(&self) -> Option<&[Vec<f32>; 3]>;
    /// Audio steps that are not padding, `[N]`.
    fn audio_lengths(&self) -> &[i64];
    /// Vision steps that are not padding, `[N]`.
    fn vision_lengths(&self) -> &[i64];
    /// Ids, `[N]`.
    fn ids(&self) -> &[String];
    /// Raw texts, `[N]`.
    fn raw_texts(&self) -> &[String];
}

/// Writes train, valid and test to `path`, which must not exist. `progress` receives the number of samples
/// written, where each counts once per modality.
///
/// Returns the file's BLAKE3 hash and its size. The file is durable when this returns.
pub(crate) fn write<S: Samples>(
    path: &Path,
    kind: Kind,
    shapes: Shapes,
    splits: &[S; 3],
    mut progress: impl FnMut(u64),
) -> Result<(blake3::Hash, u64), WriteError> {
    let bytes = |texts: &[String]| texts.iter().map(String::len).sum();
    let sizes = [0, 1, 2].map(|i: usize| SplitSizes {
        samples: splits[i].count(),
        id_bytes: bytes(splits[i].ids()),
        raw_text_bytes: bytes(splits[i].raw_texts()),
    });
    let specs = layout::tensors(kind, shapes, sizes);
    let mut file = TensorFile::create(path, kind, specs.clone())?;
    let (mut floats, mut ints) = (Vec::new(), Vec::new());
    let mut done = 0;
    for spec in &specs {
        let name = spec.name.as_str();
        let (split, field) = name.split_once('.').unwrap_or((name, ""));
        let Some((_, samples)) = Split::ALL
            .iter()
            .zip(splits)
            .find(|(s, _)| s.as_str() == split)
        else {
            continue;
        };
        match field {
            "text" | "audio" | "vision" => {
                for sample in 0..samples.count() {
                    match field {
                        "text" => {
                            samples.text(sample, &mut ints);
                            file.write_i32(name, &ints)?;
                        }
                        "audio" => {
                            samples.audio(sample, &mut floats);
                            file.write_f32(name, &floats)?;
                        }
                        _ => {
                            samples.vision(sample, &mut floats);
                            file.write_f32(name, &floats)?;
                        }
                    }
                    done += 1;
                    progress(done);
                }
            }
            "audio_lengths" => file.write_i64(name, samples.audio_lengths())?,
            "vision_lengths" => file.write_i64(name, samples.vision_lengths())?,
            "labels" => file.write_f32(name, samples.labels())?,
            "ids_offsets" => file.write_i64(name, &offsets(samples.ids()))?,
            "raw_text_offsets" => file.write_i64(name, &offsets(samples.raw_texts()))?,
            "ids" => samples
                .ids()
                .iter()
                .try_for_each(|text| file.write(name, text.as_bytes()))?,
            "raw_text" => samples
                .raw_texts()
                .iter()
                .try_for_each(|text| file.write(name, text.as_bytes()))?,
            _ => {
                let index = ["labels_text", "labels_audio", "labels_vision"]
                    .iter()
                    .position(|f| *f == field);
                if let (Some(index), Some(labels)) = (index, samples.unimodal()) {
                    file.write_f32(name, &labels[index])?;
                }
            }
        }
    }
    file.finish()
}

fn offsets(texts: &[String]) -> Vec<i64> {
    let mut at = 0i64;
    std::iter::once(0)
        .chain(texts.iter().map(|text| {
            at += text.len() as i64;
            at
        }))
        .collect()
}
