//! What a method sees of a dataset.

use crate::{context::Padding, lengths::Lengths};
use tch::{Device, Kind, TchError, Tensor};

/// A batch on the method's device: B samples, texts of L tokens, audio and vision of Ta and Tv steps
/// with Da and Dv features.
#[derive(Debug)]
pub struct Batch {
    /// Positions in the split, `[B]` int64.
    pub index: Tensor,
    /// The inputs after erasure, which every method predicts from.
    pub input: Inputs,
    /// The inputs before erasure, if [`Method::needs`](super::Method::needs) asks for them.
    pub complete: Option<Inputs>,
    /// 1 where a step is neither padding nor erased, 0 elsewhere: text `[B, L]`, audio `[B, Ta]`,
    /// vision `[B, Tv]`, float.
    pub kept: PerModality<Tensor>,
    /// 1 where a step is not padding, 0 elsewhere; shapes as `kept`.
    pub present: PerModality<Tensor>,
    /// Missing rate of each modality of each sample, `[B]` float.
    pub missing_rate: PerModality<Tensor>,
    /// Sentiment, `[B]` float.
    pub labels: Tensor,
    /// Sentiment per modality, `[B]` float each, if the dataset has it (SIMS).
    pub unimodal_labels: Option<PerModality<Tensor>>,
    /// `labels` on the host, if they are known there: a method that needs them reads them from the device
    /// otherwise.
    pub host_labels: Option<Vec<f32>>,
}

/// One value per modality.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PerModality<T> {
    /// Text.
    pub text: T,
    /// Audio.
    pub audio: T,
    /// Vision.
    pub vision: T,
}

/// The inputs of a batch.
#[derive(Debug)]
pub struct Inputs {
    /// `[B, 3, L]` int64: token ids, attention mask, segments.
    pub text: Tensor,
    /// `[B, Ta, Da]` float.
    pub audio: Tensor,
    /// `[B, Tv, Dv]` float.
    pub vision: Tensor,
    /// Number of steps before padding, `[B]` int64.
    pub audio_lengths: Tensor,
    /// Number of steps before padding, `[B]` int64.
    pub vision_lengths: Tensor,
    /// Tokens, audio and vision steps before padding, on the host, if they are known there: a method that
    /// needs them reads them from the device otherwise.
    pub host_lengths: Option<PerModality<Vec<i64>>>,
}

impl Inputs {
    /// Tokens before padding.
    pub(crate) fn tokens(&self) -> Lengths {
        let mask = self.text.select(1, 1);
        let tokens = mask.sum_dim_intlist(1i64, false, Kind::Int64);
        Lengths::new(tokens, self.known().map(|known| known.text.clone()))
    }

    /// Audio steps before padding.
    pub(crate) fn audio_steps(&self) -> Lengths {
        let known = self.known().map(|known| known.audio.clone());
        Lengths::new(self.audio_lengths.shallow_clone(), known)
    }

    /// Vision steps before padding.
    pub(crate) fn vision_steps(&self) -> Lengths {
        let known = self.known().map(|known| known.vision.clone());
        Lengths::new(self.vision_lengths.shallow_clone(), known)
    }

    /// What the host knows of the texts' padding.
    pub(crate) fn padding(&self) -> Option<Padding> {
        self.known().map(|known| Padding::of(&known.text))
    }

    fn known(&self) -> Option<&PerModality<Vec<i64>>> {
        self.host_lengths.as_ref()
    }
}

impl Batch {
    /// The same, with lengths and labels read from the device to the host: for who makes batches on the
    /// device, before any is trained on.
    ///
    /// # Errors
    ///
    /// Those of the copies.
    pub fn known_on_host(mut self) -> Result<Self, TchError> {
        for inputs in std::iter::once(&mut self.input).chain(&mut self.complete) {
            inputs.host_lengths = Some(PerModality {
                text: Vec::try_from(inputs.tokens().device())?,
                audio: Vec::try_from(&inputs.audio_lengths)?,
                vision: Vec::try_from(&inputs.vision_lengths)?,
            });
        }
        self.host_labels = Some(Vec::try_from(&self.labels)?);
        Ok(self)
    }

    /// The same on `device`. What the host knows, it still does.
    ///
    /// # Errors
    ///
    /// Those of the copies.
    pub fn to_device(&self, device: Device) -> Result<Self, TchError> {
        let to = |tensor: &Tensor| tensor.f_to_device(device);
        let each = |of: &PerModality<Tensor>| -> Result<PerModality<Tensor>, TchError> {
            Ok(PerModality {
                text: to(&of.text)?,
                audio: to(&of.audio)?,
                vision: to(&of.vision)?,
            })
        };
        let inputs = |inputs: &Inputs| -> Result<Inputs, TchError> {
            Ok(Inputs {
                text: to(&inputs.text)?,
                audio: to(&inputs.audio)?,
                vision: to(&inputs.vision)?,
                audio_lengths: to(&inputs.audio_lengths)?,
                vision_lengths: to(&inputs.vision_lengths)?,
                host_lengths: inputs.host_lengths.clone(),
            })
        };
        Ok(Self {
            index: to(&self.index)?,
            input: inputs(&self.input)?,
            complete: self.complete.as_ref().map(inputs).transpose()?,
            kept: each(&self.kept)?,
            present: each(&self.present)?,
            missing_rate: each(&self.missing_rate)?,
            labels: to(&self.labels)?,
            unimodal_labels: self.unimodal_labels.as_ref().map(each).transpose()?,
            host_labels: self.host_labels.clone(),
        })
    }

    /// The steps of text, audio and vision before the first padding.
    pub(crate) fn steps(&self) -> [Lengths; 3] {
        let known = self.input.known();
        let lengths = |present: &Tensor, known: Option<&Vec<i64>>| {
            let steps = present.cumprod(1, Kind::Float);
            let steps = steps.sum_dim_intlist(1i64, false, Kind::Int64);
            Lengths::new(steps, known.cloned()).clamp_max(present.size()[1])
        };
        [
            lengths(&self.present.text, known.map(|known| &known.text)),
            lengths(&self.present.audio, known.map(|known| &known.audio)),
            lengths(&self.present.vision, known.map(|known| &known.vision)),
        ]
    }

    /// The samples with positive labels, `[n]` int64. Reads from the device how many there are, if the host
    /// does not know it.
    pub(crate) fn positive(&self) -> Tensor {
        self.chosen(&self.labels.gt(0.0), |label| **label > 0.0)
    }

    /// As [`positive`](Self::positive), with negative labels.
    pub(crate) fn negative(&self) -> Tensor {
        self.chosen(&self.labels.lt(0.0), |label| **label < 0.0)
    }

    fn chosen(&self, mask: &Tensor, is_chosen: fn(&&f32) -> bool) -> Tensor {
        let rows = match &self.host_labels {
            Some(labels) => {
                let count = labels.iter().filter(is_chosen).count();
                mask.nonzero_static(count as i64, 0)
            }
            None => mask.nonzero(),
        };
        rows.squeeze_dim(1)
    }

    /// The number of samples.
    pub fn len(&self) -> i64 {
        self.labels.size()[0]
    }

    /// Whether the batch has no samples.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The sizes of a dataset, which a model is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataShape {
    /// Tokens per sample, L.
    pub text_length: i64,
    /// Audio steps per sample, Ta.
    pub audio_length: i64,
    /// Audio features per step, Da.
    pub audio_dim: i64,
    /// Vision steps per sample, Tv.
    pub vision_length: i64,
    /// Vision features per step, Dv.
    pub vision_dim: i64,
    /// Samples in the training split.
    pub train_samples: i64,
    /// Whether the dataset has a label per modality.
    pub unimodal_labels: bool,
}
