//! Synthesizes small datasets that a model can learn, for demos and tests.
//!
//! Every sample has a sentiment s. Its sentence is built from clauses whose words carry levels of
//! sentiment near s. Its audio and vision express their own noisy view of s by how they change over the
//! steps (rise, fall and level along fixed directions), under noise that is correlated in time. The
//! label mixes the three, so no modality alone suffices.
//!
//! The same settings and vocabulary give the same bytes everywhere: the generator is integer
//! arithmetic, and floats are only added, multiplied, divided and rounded, never passed to a
//! platform's `sin` or `exp`.

mod lexicon;
mod random;
mod signal;

use crate::{
    ImportError,
    assemble::{self, Samples},
    import::{self, Imported, Progress, Stage},
};
use halfheard_shared::benchmark::definition::Rule;
use halfheard_shared::dataset::{DataFolder, Kind, Shapes, Source, Split};
use halfheard_shared::error::Hint;
use lexicon::Lexicon;
pub use lexicon::{Vocabulary, VocabularyError};
use random::Random;
use signal::Signal;

/// What to synthesize.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Settings {
    /// The protocol of the dataset.
    pub kind: Kind,
    /// Samples of train, valid and test.
    pub samples: [usize; 3],
    /// Text, audio and vision sizes.
    pub shapes: Shapes,
    /// Determines all values.
    pub seed: u64,
}

impl Settings {
    /// The demo's sizes: 256, 64 and 128 samples, text 20, audio 30 steps of 8, vision 24 of 12.
    pub fn small(kind: Kind, seed: u64) -> Self {
        Self {
            kind,
            samples: [256, 64, 128],
            shapes: Shapes {
                text_len: 20,
                audio_len: 30,
                audio_dim: 8,
                vision_len: 24,
                vision_dim: 12,
            },
            seed,
        }
    }
}

/// Why nothing was synthesized.
#[derive(Debug, thiserror::Error)]
pub enum SynthesizeError {
    /// A size out of range.
    #[error("{what} is {value}, expected {min} to {max}")]
    Size {
        /// The size.
        what: &'static str,
        /// The requested value.
        value: usize,
        /// Minimum.
        min: usize,
        /// Maximum.
        max: usize,
    },
    /// The vocabulary cannot be used.
    #[error(transparent)]
    Vocabulary(#[from] VocabularyError),
    /// Writing failed.
    #[error(transparent)]
    Import(#[from] ImportError),
}

impl Hint for SynthesizeError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Import(error) => error.hint(),
            Self::Vocabulary(error) => error.hint(),
            Self::Size { .. } => None,
        }
    }
}

fn check(settings: &Settings) -> Result<(), SynthesizeError> {
    let shapes = settings.shapes;
    for (what, value, min, max) in [
        (
            "the number of training samples",
            settings.samples[0],
            1,
            1_000_000,
        ),
        (
            "the number of validation samples",
            settings.samples[1],
            1,
            1_000_000,
        ),
        (
            "the number of test samples",
            settings.samples[2],
            1,
            1_000_000,
        ),
        (
            "the text length",
            shapes.text_len,
            lexicon::LONGEST_CLAUSE + 2,
            512,
        ),
        ("the number of audio steps", shapes.audio_len, 2, 10_000),
        ("the number of audio features", shapes.audio_dim, 1, 10_000),
        ("the number of vision steps", shapes.vision_len, 2, 10_000),
        (
            "the number of vision features",
            shapes.vision_dim,
            1,
            10_000,
        ),
    ] {
        if !(min..=max).contains(&value) {
            return Err(SynthesizeError::Size {
                what,
                value,
                min,
                max,
            });
        }
    }
    Ok(())
}

/// Synthesizes a dataset and stores it in the data folder as `name`.
///
/// # Errors
/// Sizes out of range, a vocabulary that lacks the words, a data folder that cannot be written, or a
/// name with other content while `replace` is false.
pub fn synthesize(
    settings: &Settings,
    vocabulary: &Vocabulary,
    name: &str,
    folder: &DataFolder,
    replace: bool,
    progress: Progress<'_>,
) -> Result<Imported, SynthesizeError> {
    check(settings)?;
    let lexicon = Lexicon::new(vocabulary)?;
    let split = |split| Synthetic::new(settings, &lexicon, split);
    let splits = [split(Split::Train), split(Split::Valid), split(Split::Test)];
    let total = settings.samples.iter().sum::<usize>() as u64 * 3;
    let prepared = folder.prepare(name).map_err(ImportError::from)?;
    let (hash, _) = assemble::write(
        &prepared.data_file(),
        settings.kind,
        settings.shapes,
        &splits,
        |done| {
            progress(Stage::Write, done, total);
        },
    )
    .map_err(ImportError::from)?;
    let mut record = serde_json::to_value(settings).unwrap_or_default();
    record["vocabulary"] = vocabulary.blake3().to_hex().to_string().into();
    let source = Source::Synthesize {
        seed: settings.seed,
        settings: record,
    };
    let notes = vec!["synthetic: for trials; its results mean nothing".to_owned()];
    Ok(import::finish(
        prepared, name, hash, source, notes, replace, progress,
    )?)
}

/// One split. Features are generated on demand, each sample from its own seed.
struct Synthetic {
    split: Split,
    seed: u64,
    shapes: Shapes,
    audio: Signal,
    vision: Signal,
    sentences: Vec<lexicon::Sentence>,
    /// The sentiment that audio and vision express, [-1, 1].
    expressed: [Vec<f32>; 2],
    labels: Vec<f32>,
    unimodal: Option<[Vec<f32>; 3]>,
    lengths: [Vec<i64>; 2],
    ids: Vec<String>,
    raw_texts: Vec<String>,
}

/// The purpose of a stream of random numbers, as part of its seed.
#[derive(Clone, Copy)]
enum Purpose {
    Sample = 1,
    Audio = 2,
    Vision = 3,
    AudioDirections = 4,
    VisionDirections = 5,
}

fn stream(seed: u64, purpose: Purpose, split: Split, sample: usize) -> Random {
    Random::new(&[seed, purpose as u64, split as u64, sample as u64])
}

impl Synthetic {
    fn new(settings: &Settings, lexicon: &Lexicon, split: Split) -> Self {
        let Settings {
            kind, shapes, seed, ..
        } = *settings;
        let samples = settings.samples[split as usize];
        // The directions belong to the dataset, not to a split.
        let directions = |purpose, dim| Signal::new(&mut Random::new(&[seed, purpose as u64]), dim);
        let mut this = Self {
            split,
            seed,
            shapes,
            audio: directions(Purpose::AudioDirections, shapes.audio_dim),
            vision: directions(Purpose::VisionDirections, shapes.vision_dim),
            sentences: Vec::with_capacity(samples),
            expressed: [Vec::new(), Vec::new()],
            labels: Vec::with_capacity(samples),
            unimodal: kind
                .has_unimodal_labels()
                .then(|| [Vec::new(), Vec::new(), Vec::new()]),
            lengths: [Vec::new(), Vec::new()],
            ids: (0..samples).map(|i| format!("{split}-{i}")).collect(),
            raw_texts: Vec::with_capacity(samples),
        };
        for sample in 0..samples {
            let mut random = stream(seed, Purpose::Sample, split, sample);
            // Slightly beyond the range, because the outer classes would be rare otherwise.
            let sentiment = random.between(-1.15, 1.15).clamp(-1.0, 1.0);
            let sentence = lexicon.sentence(&mut random, sentiment, shapes.text_len);
            let audio = (sentiment + 0.25 * random.normal()).clamp(-1.0, 1.0);
            let vision = (sentiment + 0.25 * random.normal()).clamp(-1.0, 1.0);
            let mixed = 0.6 * sentence.level + 0.2 * audio + 0.2 * vision + 0.03 * random.normal();
            this.labels.push(rated(mixed, kind));
            if let Some(unimodal) = &mut this.unimodal {
                for (labels, value) in unimodal.iter_mut().zip([sentence.level, audio, vision]) {
                    labels.push(rated(value, kind));
                }
            }
            let full = (shapes.text_len - 2) as f32;
            let spoken = sentence.tokens.len() as f32 / full;
            for (lengths, steps) in this
                .lengths
                .iter_mut()
                .zip([shapes.audio_len, shapes.vision_len])
            {
                let length = (spoken * steps as f32).round() as i64;
                lengths.push(length.clamp(2, steps as i64));
            }
            this.expressed[0].push(audio);
            this.expressed[1].push(vision);
            this.raw_texts.push(sentence.text.clone());
            this.sentences.push(sentence);
        }
        this
    }
}

/// Converts a value in [-1, 1] to a label: the mean of five integer ratings if labels are rounded (as in
/// MOSI), otherwise tenths of the way to either end (as in SIMS).
fn rated(value: f32, kind: Kind) -> f32 {
    let [low, high] = kind.label_range();
    let (middle, half) = (kind.neutral(), (high - low) / 2.0);
    let label = match kind.definition().rule {
        Rule::Rounded => ((middle + value * half) * 5.0).round_ties_even() / 5.0,
        Rule::Intervals => middle + half * ((value * 10.0).round_ties_even() / 10.0),
    };
    label.clamp(low, high)
}

impl Samples for Synthetic {
    fn count(&self) -> usize {
        self.labels.len()
    }

    fn text(&self, sample: usize, out: &mut Vec<i32>) {
        let length = self.shapes.text_len;
        let tokens = &self.sentences[sample].tokens;
        out.clear();
        out.push(lexicon::CLS);
        out.extend(tokens);
        out.push(lexicon::SEP);
        let used = out.len();
        out.resize(length, 0);
        out.extend((0..length).map(|i| i32::from(i < used)));
        out.resize(3 * length, 0);
    }

    fn audio(&self, sample: usize, out: &mut Vec<f32>) {
        let mut random = stream(self.seed, Purpose::Audio, self.split, sample);
        let length = self.lengths[0][sample] as usize;
        self.audio.render(
            &mut random,
            self.expressed[0][sample],
            length,
            self.shapes.audio_len,
            out,
        );
    }

    fn vision(&self, sample: usize, out: &mut Vec<f32>) {
        let mut random = stream(self.seed, Purpose::Vision, self.split, sample);
        let length = self.lengths[1][sample] as usize;
        self.vision.render(
            &mut random,
            self.expressed[1][sample],
            length,
            self.shapes.vision_len,
            out,
        );
    }

    fn labels(&self) -> &[f32] {
        &self.labels
    }

    fn unimodal(&self) -> Option<&[Vec<f32>; 3]> {
        self.unimodal.as_ref()
    }

    fn audio_lengths(&self) -> &[i64] {
        &self.lengths[0]
    }

    fn vision_lengths(&self) -> &[i64] {
        &self.lengths[1]
    }

    fn ids(&self) -> &[String] {
        &self.ids
    }

    fn raw_texts(&self) -> &[String] {
        &self.raw_texts
    }
}

#[cfg(test)]
mod tests;
