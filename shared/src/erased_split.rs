//! A whole split as a case leaves it, as plain arrays and as a file: what a model that is trained or run
//! outside of the worker is given.

mod tensors;

use crate::{
    case::Case,
    dataset::{Dataset, Shapes, Split},
    encoder::TokenIds,
    erasure::{self, ConfusionTable, DamageError, FeatureStatistics, Inputs, Resources},
    hash::Hash,
};
use std::{io, path::Path};

/// A split as a case leaves it. Erased audio and vision steps are zeros, erased tokens the encoder's
/// unknown token.
#[derive(Clone, Debug)]
pub struct ErasedSplit {
    /// Which.
    pub split: Split,
    /// The seed that decided where the damage is.
    pub erasure_seed: u32,
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
    /// Damages a split as workers do: `seed` is the protocol's erasure seed, `tokens` are those of the
    /// encoder that will read the text, and `confusions` the words that it can be given in place of
    /// others.
    ///
    /// # Errors
    ///
    /// The case needs `confusions`, and there are none.
    pub fn new(
        dataset: &Dataset,
        split: Split,
        case: &Case,
        seed: u32,
        tokens: TokenIds,
        confusions: Option<&ConfusionTable>,
    ) -> Result<Self, DamageError> {
        let (view, shapes) = (dataset.split(split), dataset.shapes());
        let samples = view.len();
        let length = shapes.text_len;
        let mut ids = Vec::with_capacity(samples * length);
        let mut present = Vec::with_capacity(samples * length);
        for sample in view.text().chunks_exact(3 * length) {
            ids.extend(sample[..length].iter().map(|&id| i64::from(id)));
            present.extend(sample[length..2 * length].iter().map(|&m| m as u8));
        }
        let statistics =
            Resources::needs_statistics(&case.damage).then(|| training_statistics(dataset));
        let inputs = Inputs {
            samples,
            ids: &ids,
            text: &present,
            audio: &erasure::present(view.audio_lengths(), shapes.audio_len),
            vision: &erasure::present(view.vision_lengths(), shapes.vision_len),
        };
        let resources = Resources {
            audio: statistics.as_ref().map(|[audio, _]| audio),
            vision: statistics.as_ref().map(|[_, vision]| vision),
            confusions,
        };
        let seed = case.seed(seed);
        let damaged = erasure::damage(&case.damage, &inputs, &resources, seed, tokens)?;
        let mut text = view.text().to_vec();
        if let Some(rows) = &damaged.text_rows {
            let whole = view.text().chunks_exact(3 * length);
            let whole: Vec<&[i32]> = whole.collect();
            for (sample, row) in text.chunks_exact_mut(3 * length).zip(rows) {
                sample.copy_from_slice(whole[*row as usize]);
            }
        }
        for (sample, ids) in text
            .chunks_exact_mut(3 * length)
            .zip(damaged.text.ids.chunks(length))
        {
            for (token, &id) in sample.iter_mut().zip(ids) {
                // They came from 32-bit ids, or are an encoder's special tokens.
                *token = id as i32;
            }
        }
        let all = |of: &dyn Fn(usize) -> String| (0..samples).map(of).collect();
        Ok(Self {
            split,
            erasure_seed: seed,
            shapes,
            ids: all(&|sample| view.id(sample).to_owned()),
            raw_text: all(&|sample| view.raw_text(sample).to_owned()),
            text,
            audio: damaged.audio.features(view.audio(), samples),
            vision: damaged.vision.features(view.vision(), samples),
            audio_lengths: damaged.audio.lengths(view.audio_lengths()),
            vision_lengths: damaged.vision.lengths(view.vision_lengths()),
            text_kept: damaged.text.kept,
            audio_kept: damaged.audio.kept,
            vision_kept: damaged.vision.kept,
            labels: view.labels().to_vec(),
        })
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

/// The mean and deviation of each audio and vision feature over the training split, which noise and
/// averages are made of.
pub fn training_statistics(dataset: &Dataset) -> [FeatureStatistics; 2] {
    let (view, shapes) = (dataset.split(Split::Train), dataset.shapes());
    let of = |features: &[f32], lengths: &[i64], steps: usize, dim: usize| {
        FeatureStatistics::of(features, &erasure::present(lengths, steps), dim)
    };
    [
        of(
            view.audio(),
            view.audio_lengths(),
            shapes.audio_len,
            shapes.audio_dim,
        ),
        of(
            view.vision(),
            view.vision_lengths(),
            shapes.vision_len,
            shapes.vision_dim,
        ),
    ]
}
