//! A whole split with steps missing, as plain arrays and as a file: what a model that is trained or run
//! outside of the worker is given.

mod tensors;

use crate::{
    case::Case,
    dataset::{Dataset, Shapes, Split},
    encoder::TokenIds,
    erasure::{self, Rates},
    hash::Hash,
};
use std::{io, path::Path};

/// A split with steps missing. Erased audio and vision steps are zeros, erased tokens the encoder's
/// unknown token.
#[derive(Clone, Debug)]
pub struct ErasedSplit {
    /// Which.
    pub split: Split,
    /// The sizes of its tensors.
    pub shapes: Shapes,
    /// The samples' ids, in the dataset's order.
    pub ids: Vec<String>,
    /// The texts as they were said, complete.
    pub raw_text: Vec<String>,
    /// Token ids, mask and segments, `[samples, 3, text_len]`.
    pub text: Vec<i32>,
    /// `[samples, audio_len, audio_dim]`.
    pub audio: Vec<f32>,
    /// `[samples, vision_len, vision_dim]`.
    pub vision: Vec<f32>,
    /// Which tokens are kept: 1, or 0 where one is missing or padding, `[samples, text_len]`.
    pub text_kept: Vec<u8>,
    /// As `text_kept`, `[samples, audio_len]`.
    pub audio_kept: Vec<u8>,
    /// As `text_kept`, `[samples, vision_len]`.
    pub vision_kept: Vec<u8>,
    /// Steps of each sample's audio.
    pub audio_lengths: Vec<i64>,
    /// Steps of each sample's vision.
    pub vision_lengths: Vec<i64>,
    /// Labels, `[samples]`.
    pub labels: Vec<f32>,
}

impl ErasedSplit {
    /// Erases a split as workers do: `seed` is the protocol's erasure seed, `tokens` are those of the
    /// encoder that will read the text.
    pub fn new(dataset: &Dataset, split: Split, case: &Case, seed: u32, tokens: TokenIds) -> Self {
        let (view, shapes) = (dataset.split(split), dataset.shapes());
        let samples = view.len();
        let rates = Rates::of_case(case, samples);
        let length = shapes.text_len;
        let mut ids = Vec::with_capacity(samples * length);
        let mut present = Vec::with_capacity(samples * length);
        for sample in view.text().chunks_exact(3 * length) {
            ids.extend(sample[..length].iter().map(|&id| i64::from(id)));
            present.extend(sample[length..2 * length].iter().map(|&m| m as u8));
        }
        let erased = erasure::erase_text(&ids, &present, &rates.text, seed, tokens);
        let mut text = view.text().to_vec();
        for (sample, ids) in text
            .chunks_exact_mut(3 * length)
            .zip(erased.ids.chunks(length))
        {
            for (token, &id) in sample.iter_mut().zip(ids) {
                // They came from 32-bit ids, or are an encoder's special tokens.
                *token = id as i32;
            }
        }
        let kept = |lengths: &[i64], steps: usize, rates: &[f64]| {
            erasure::kept(&erasure::present(lengths, steps), rates, seed)
        };
        let audio_kept = kept(view.audio_lengths(), shapes.audio_len, &rates.audio);
        let vision_kept = kept(view.vision_lengths(), shapes.vision_len, &rates.vision);
        let all = |of: &dyn Fn(usize) -> String| (0..samples).map(of).collect();
        Self {
            split,
            shapes,
            ids: all(&|sample| view.id(sample).to_owned()),
            raw_text: all(&|sample| view.raw_text(sample).to_owned()),
            text,
            audio: masked(view.audio(), &audio_kept, shapes.audio_dim),
            vision: masked(view.vision(), &vision_kept, shapes.vision_dim),
            text_kept: erased.kept,
            audio_kept,
            vision_kept,
            audio_lengths: view.audio_lengths().to_vec(),
            vision_lengths: view.vision_lengths().to_vec(),
            labels: view.labels().to_vec(),
        }
    }

    /// The number of samples.
    pub fn samples(&self) -> usize {
        self.labels.len()
    }

    /// The hash of all three masks, text, audio and vision: who erases the same has the same.
    pub fn masks_digest(&self) -> Hash {
        let mut hasher = blake3::Hasher::new();
        for mask in [&self.text_kept, &self.audio_kept, &self.vision_kept] {
            hasher.update(mask);
        }
        hasher.finalize().into()
    }

    /// Writes it as safetensors, one tensor a field and the samples' ids in the header; the file appears
    /// complete or not at all. Who is not to see the labels is given them left out.
    ///
    /// # Errors
    ///
    /// The folder cannot be written to, or the disk is full.
    pub fn write_tensors(&self, path: &Path, labels: bool) -> io::Result<()> {
        tensors::write(self, path, labels)
    }
}

/// Steps of `dim` features, zeros where they are not kept.
fn masked(steps: &[f32], kept: &[u8], dim: usize) -> Vec<f32> {
    let mut masked = steps.to_vec();
    for (step, kept) in masked.chunks_exact_mut(dim.max(1)).zip(kept) {
        if *kept == 0 {
            step.fill(0.0);
        }
    }
    masked
}
