//! The sizes of a dataset's samples.

use serde::{Deserialize, Serialize};

/// The sizes that all samples of a dataset share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Shapes {
    /// Text length L in tokens, `[CLS]`, `[SEP]` and padding included.
    pub text_len: usize,
    /// Audio steps Ta, padding included.
    pub audio_len: usize,
    /// Features of an audio step, Da.
    pub audio_dim: usize,
    /// Vision steps Tv, padding included.
    pub vision_len: usize,
    /// Features of a vision step, Dv.
    pub vision_dim: usize,
}
