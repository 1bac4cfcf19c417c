//! Synthetic samples of MOSI's sizes, and a training run on them that measures without a dataset.
//!
//! Times depend on the sizes and lengths of samples, hardly on their values.

use crate::{
    context::Optimizations,
    error::MethodError,
    methods::{Batch, Build, DataShape, Inputs, Method, PerModality, builder},
    precision::Precision,
    state::Position,
};
use halfheard_shared::{
    dataset::Shapes,
    encoder::Config,
    methods::{
        DataFacts, EncoderShape, HyperError, MAX_EPOCHS_KEY, Setup, faults::Faults, find, flops,
    },
};
use serde_json::{Map, Value};
use std::{ops::Range, path::Path, time::Instant};
use tch::{Cuda, Device, Kind, Tensor};

/// The dataset whose sizes and hyper-parameters are used.
pub const DATASET: &str = "mosi";

/// The sizes of MOSI, unaligned.
pub const SHAPE: DataShape = DataShape {
    text_length: 50,
    audio_length: 375,
    audio_dim: 5,
    vision_length: 500,
    vision_dim: 20,
    train_samples: 1284,
    unimodal_labels: false,
};

/// Token ids of words in the vocabulary of BERT, leaving out the rarest.
pub const WORDS: Range<i64> = 1_000..20_000;

/// Why a method cannot be trained on synthetic samples.
#[derive(Debug, thiserror::Error)]
pub enum SyntheticError {
    /// The method does not exist.
    #[error("unknown method `{0}`")]
    Unknown(String),
    /// The hyper-parameters cannot be resolved.
    #[error(transparent)]
    Hyper(#[from] HyperError),
    /// The method fails.
    #[error(transparent)]
    Method(#[from] MethodError),
}

/// The hyper-parameters of a method for [`DATASET`].
///
/// # Errors
///
/// The method does not exist.
pub fn hyper(method: &str) -> Result<Map<String, Value>, SyntheticError> {
    let info = find(method).ok_or_else(|| SyntheticError::Unknown(method.to_owned()))?;
    Ok(info.resolve(DATASET, &[])?)
}

/// Floating-point operations of a training step of a method on [`samples`] of MOSI's sizes; `None` for an
/// unknown method.
pub fn operations(method: &str, hyper: &Map<String, Value>, encoder: &Config) -> Option<f64> {
    let size = |n: i64| usize::try_from(n).unwrap_or(0);
    let data = DataFacts {
        shapes: Shapes {
            text_len: size(SHAPE.text_length),
            audio_len: size(SHAPE.audio_length),
            audio_dim: size(SHAPE.audio_dim),
            vision_len: size(SHAPE.vision_length),
            vision_dim: size(SHAPE.vision_dim),
        },
        samples: [size(SHAPE.train_samples); 3],
        tokens: Some(MEAN_TOKENS),
    };
    let setup = Setup {
        hyper,
        faults: Faults::REFERENCE,
        data: Some(&data),
        encoder: Some(&EncoderShape::of(encoder)),
    };
    Some(flops::counted(find(method)?, setup)?.step)
}

/// Tokens of a text of [`samples`], in the mean.
const MEAN_TOKENS: usize = 23;

/// `count` random samples of random lengths: texts of 6 to 40 `words`, audio and vision of at least 40
/// steps, 30 % of it erased.
pub fn samples(count: i64, shape: DataShape, words: &Range<i64>, device: Device) -> Batch {
    let random = |dims: &[i64]| Tensor::rand(dims, (Kind::Float, device));
    let lengths =
        |min: i64, max: i64| Tensor::randint_low(min, max + 1, [count], (Kind::Int64, device));
    let present = |lengths: &Tensor, steps: i64| {
        let steps = Tensor::arange(steps, (Kind::Int64, device)).unsqueeze(0);
        steps.lt_tensor(&lengths.unsqueeze(1)).to_kind(Kind::Float)
    };
    let (text, audio, vision) = (
        lengths(6, shape.text_length.min(40)),
        lengths(40.min(shape.audio_length), shape.audio_length),
        lengths(40.min(shape.vision_length), shape.vision_length),
    );
    let present = PerModality {
        text: present(&text, shape.text_length),
        audio: present(&audio, shape.audio_length),
        vision: present(&vision, shape.vision_length),
    };
    let keep = |present: &Tensor| random(&present.size()).gt(0.3).to_kind(Kind::Float) * present;
    let kept = PerModality {
        text: keep(&present.text),
        audio: keep(&present.audio),
        vision: keep(&present.vision),
    };
    let mask = present.text.to_kind(Kind::Int64);
    let ids =
        Tensor::randint_low(words.start, words.end, mask.size(), (Kind::Int64, device)) * &mask;
    let text = Tensor::stack(&[&ids, &mask, &mask.zeros_like()], 1);
    let complete = Inputs {
        text: text.shallow_clone(),
        audio: random(&[count, shape.audio_length, shape.audio_dim]) * present.audio.unsqueeze(2),
        vision: random(&[count, shape.vision_length, shape.vision_dim])
            * present.vision.unsqueeze(2),
        audio_lengths: audio.shallow_clone(),
        vision_lengths: vision.shallow_clone(),
        host_lengths: None,
    };
    let rate = || Tensor::full([count], 0.3, (Kind::Float, device));
    Batch {
        index: Tensor::arange(count, (Kind::Int64, device)),
        input: Inputs {
            text,
            audio: &complete.audio * kept.audio.unsqueeze(2),
            vision: &complete.vision * kept.vision.unsqueeze(2),
            audio_lengths: audio,
            vision_lengths: vision,
            host_lengths: None,
        },
        complete: Some(complete),
        kept,
        present,
        missing_rate: PerModality {
            text: rate(),
            audio: rate(),
            vision: rate(),
        },
        labels: random(&[count]) * 6.0 - 3.0,
        unimodal_labels: None,
        host_labels: None,
    }
}

/// MOSI's sizes and the words of its texts, as far as an encoder takes them.
pub fn fitting(encoder: &Config) -> (DataShape, Range<i64>) {
    let data = DataShape {
        text_length: SHAPE.text_length.min(encoder.longest()),
        ..SHAPE
    };
    // Those of a small vocabulary, without its marks in the front.
    let words = WORDS.start.min(encoder.vocab_size / 2)..WORDS.end.min(encoder.vocab_size);
    (data, words)
}

/// Builds a method, always with the same weights, for samples of the sizes `data`.
///
/// # Errors
///
/// The method does not exist, or cannot be built.
pub fn build(
    method: &str,
    hyper: &Value,
    data: DataShape,
    encoder: &Path,
    (device, optimizations, precision): (Device, Optimizations, Precision),
) -> Result<Box<dyn Method>, SyntheticError> {
    let build = builder(method).ok_or_else(|| SyntheticError::Unknown(method.to_owned()))?;
    let max_epochs = hyper[MAX_EPOCHS_KEY].as_u64().unwrap_or(1);
    tch::manual_seed(1);
    Ok(build(&Build {
        hyper,
        dataset: DATASET,
        data,
        encoder,
        device,
        faults: Faults::REFERENCE,
        max_epochs: u32::try_from(max_epochs).unwrap_or(u32::MAX),
        optimizations,
        precision,
    })?)
}

/// Steps that [`seconds_per_step`] times together, since gradients of up to four batches accumulate before an update.
pub const ROUND: usize = 4;

/// Begins the pass of `at` and times `rounds` of [`ROUND`] steps on one batch, after one that is not counted, since it
/// allocates. Returns the seconds of a step in each.
///
/// # Errors
///
/// The method fails.
pub fn seconds_per_step(
    method: &mut dyn Method,
    batch: &Batch,
    at: Position,
    rounds: usize,
    device: Device,
) -> Result<Vec<f64>, MethodError> {
    method.begin_pass(at)?;
    let mut seconds = Vec::new();
    for round in 0..=rounds {
        let start = Instant::now();
        for step in 0..ROUND {
            let step = round * ROUND + step;
            method.train_step(Position { step, ..at }, batch)?;
        }
        synchronize(device);
        if round > 0 {
            seconds.push(start.elapsed().as_secs_f64() / ROUND as f64);
        }
    }
    Ok(seconds)
}

/// Waits until the device has computed what it was told to.
pub fn synchronize(device: Device) {
    if let Device::Cuda(index) = device {
        Cuda::synchronize(index as i64);
    }
}

/// A training run of a method with its hyper-parameters for MOSI, which sees one batch of synthetic
/// samples again and again.
pub struct SyntheticRun {
    method: Box<dyn Method>,
    batch: Batch,
    device: Device,
    at: Position,
}

impl SyntheticRun {
    /// Builds a method with the text encoder in the folder `encoder`. Texts are as short as the encoder
    /// needs them.
    ///
    /// # Errors
    ///
    /// The method does not exist, or cannot be built.
    pub fn new(method: &str, encoder: &Path, device: Device) -> Result<Self, SyntheticError> {
        let hyper = Value::Object(hyper(method)?);
        let config = Config::read(encoder).map_err(MethodError::from)?;
        let (data, words) = fitting(&config);
        let computes = (device, Optimizations::ALL, Precision::Float32);
        let mut method = build(method, &hyper, data, encoder, computes)?;
        let size = method.batch_size().max(1);
        let count = i64::try_from(size).unwrap_or(i64::MAX);
        // As with a dataset, whose lengths and labels the host knows.
        let batch = samples(count, data, &words, device).known_on_host();
        let batch = batch.map_err(MethodError::from)?;
        method.prepare(&batch)?;
        let train = usize::try_from(SHAPE.train_samples).unwrap_or(size);
        let at = Position {
            // TFR-Net trains its generators from the second epoch on.
            epoch: 2,
            pass: 0,
            step: 0,
            steps: train.div_ceil(size),
        };
        Ok(Self {
            method,
            batch,
            device,
            at,
        })
    }

    /// Samples per training batch.
    pub fn batch_size(&self) -> usize {
        self.method.batch_size()
    }

    /// Runs the next step of the run, pass after pass.
    ///
    /// # Errors
    ///
    /// The method fails.
    pub fn step(&mut self) -> Result<(), SyntheticError> {
        let at = self.at;
        if at.step == 0 {
            self.method.begin_pass(at)?;
        }
        self.method.train_step(at, &self.batch)?;
        self.at.step += 1;
        if self.at.step >= self.method.steps_of_pass(at.pass, at.steps) {
            self.method.end_pass(at)?;
            self.at.step = 0;
            self.at.pass = (at.pass + 1) % self.method.passes().max(1);
            self.at.epoch += u32::from(self.at.pass == 0);
        }
        Ok(())
    }

    /// Waits until all steps so far are computed.
    pub fn synchronize(&self) {
        synchronize(self.device);
    }

    /// Predicts the batch, `[B]`.
    ///
    /// # Errors
    ///
    /// The method fails.
    pub fn predict(&self) -> Result<Tensor, SyntheticError> {
        Ok(self.method.predict(&self.batch, None)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_have_the_sizes_and_lengths_of_mosi() {
        let batch = samples(3, SHAPE, &WORDS, Device::Cpu);
        assert_eq!(batch.len(), 3);
        assert_eq!(batch.input.text.size(), [3, 3, SHAPE.text_length]);
        let vision = [3, SHAPE.vision_length, SHAPE.vision_dim];
        assert_eq!(batch.input.vision.size(), vision);
        let steps = batch.present.audio.sum_dim_intlist(1, false, Kind::Int64);
        assert!(steps.equal(&batch.input.audio_lengths));
        // What is erased is present, and zero in the input.
        let erased = &batch.present.vision - &batch.kept.vision;
        assert!(erased.min().double_value(&[]) >= 0.0);
        let left = (batch.input.vision.abs() * erased.unsqueeze(2)).sum(Kind::Float);
        assert!(left.double_value(&[]) == 0.0);
    }

    #[test]
    fn run_needs_a_method_that_exists_and_an_encoder() {
        let folder = tempfile::tempdir().unwrap();
        let built = |method| SyntheticRun::new(method, folder.path(), Device::Cpu).map(drop);
        let unknown = built("lnlm").unwrap_err();
        assert!(matches!(unknown, SyntheticError::Unknown(id) if id == "lnlm"));
        let error = built("misa").unwrap_err();
        assert!(
            matches!(&error, SyntheticError::Method(MethodError::Encoder(_))),
            "{error}"
        );
    }

    #[test]
    fn run_goes_through_all_passes_of_an_epoch() {
        // With at most sixteen tokens.
        let encoder =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/tests/data/encoders/bert");
        let mut run = SyntheticRun::new("mmim", &encoder, Device::Cpu).unwrap();
        // One step a pass is enough to see the passes.
        run.at.steps = 1;
        let passes = run.method.passes();
        assert!(passes > 1);
        for _ in 0..passes {
            assert_eq!(run.at.epoch, 2);
            run.step().unwrap();
        }
        assert_eq!((run.at.epoch, run.at.pass, run.at.step), (3, 0, 0));
        assert_eq!(run.predict().unwrap().size()[0], run.batch.len());
    }
}
