//! Hyper-parameters and ablations.

use crate::{layers::token_transformer::TransformerShape, precision::Precision};
use serde::Deserialize;

/// Hyper-parameters (the authors' `configs/train_*.yaml`).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Samples per batch.
    pub(super) batch_size: usize,
    /// Epochs without a better validation loss before training stops; 0 disables early stopping.
    pub(super) early_stop: u32,
    /// Learning rate of AdamW.
    pub(super) learning_rate: f64,
    /// Weight decay of AdamW.
    pub(super) weight_decay: f64,
    /// Weight of the completeness loss. A loss of weight 0 is not computed.
    pub(super) alpha: f64,
    /// Weight of the adversarial loss.
    pub(super) beta: f64,
    /// Weight of the reconstruction loss.
    pub(super) gamma: f64,
    /// Weight of the sentiment loss (δ in the paper's Table 7).
    pub(super) sigma: f64,
    /// Features per token.
    pub(super) width: i64,
    /// Tokens that each modality is condensed into.
    pub(super) tokens: i64,
    /// Attention heads.
    pub(super) heads: i64,
    /// Layers of each modality's embedding.
    pub(super) embedding_depth: i64,
    /// Layers of the proxy generator.
    pub(super) proxy_depth: i64,
    /// Width of the effectiveness discriminator's hidden layer.
    pub(super) discriminator_hidden: i64,
    /// Layers of the completeness check.
    pub(super) completeness_depth: i64,
    /// Layers of each reconstructor.
    pub(super) reconstructor_depth: i64,
    /// Layers of the language encoder.
    pub(super) language_depth: i64,
    /// Layers of hyper-modality learning, at most one more than the language encoder has.
    pub(super) hyper_depth: i64,
    /// Layers of the fusion.
    pub(super) fusion_depth: i64,
    /// Dominant modality correction; without it, the dominant feature is the language's.
    pub(super) dmc: bool,
    /// The reconstructor.
    pub(super) reconstructor: bool,
    /// Dominant-modality based learning; without it, the features are concatenated.
    pub(super) dmml: bool,
    /// Training on erased inputs; without it, on complete ones.
    pub(super) train_missing: bool,
    /// Language; without it, the dominant feature is the proxy alone.
    pub(super) language: bool,
    /// Audio; without it, its features are zero.
    pub(super) audio: bool,
    /// Vision; without it, its features are zero.
    pub(super) vision: bool,
    /// In what transformers multiply matrices: no hyper-parameter.
    #[serde(skip)]
    pub(super) precision: Precision,
}

impl Config {
    pub(super) fn shape(&self, depth: i64) -> TransformerShape {
        TransformerShape {
            width: self.width,
            depth,
            heads: self.heads,
            hidden: self.width,
            precision: self.precision,
        }
    }

    /// Whether the discriminator compares corrected features with complete language.
    pub(super) fn adversarial(&self) -> bool {
        self.dmc && self.language && self.beta != 0.0
    }

    /// Whether features are compared with those of the complete inputs.
    pub(super) fn reconstructs(&self) -> bool {
        self.reconstructor && self.gamma != 0.0
    }
}
