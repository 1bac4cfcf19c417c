//! What a method sees of a dataset.

use tch::Tensor;

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
}

/// One value per modality.
#[derive(Clone, Copy, Debug, Default)]
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
}

impl Batch {
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
