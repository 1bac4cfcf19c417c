//! Hyper-parameters.

use serde::Deserialize;

/// Hyper-parameters (the authors' `config/config_regression.py`).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Samples per batch.
    pub(super) batch_size: usize,
    /// Epochs without a better validation loss before training stops; 0 disables early stopping.
    pub(super) early_stop: u32,
    /// Batches per update, whose gradients accumulate.
    pub(super) update_epochs: u32,
    /// Learning rate of the text encoder.
    pub(super) learning_rate_bert: f64,
    /// Learning rate of the audio network.
    pub(super) learning_rate_audio: f64,
    /// Learning rate of the vision network.
    pub(super) learning_rate_video: f64,
    /// Learning rate of everything else.
    pub(super) learning_rate_other: f64,
    /// Weight decay of the text encoder.
    pub(super) weight_decay_bert: f64,
    /// Weight decay of the audio network.
    pub(super) weight_decay_audio: f64,
    /// Weight decay of the vision network.
    pub(super) weight_decay_video: f64,
    /// Weight decay of everything else.
    pub(super) weight_decay_other: f64,
    /// Whether audio and vision are standardized by the training split.
    pub(super) standardize: bool,
    /// Hidden state of the audio LSTM.
    pub(super) a_lstm_hidden_size: i64,
    /// Hidden state of the vision LSTM.
    pub(super) v_lstm_hidden_size: i64,
    /// Width of the audio's steps and vector. As wide as the hidden state, they have no layer.
    pub(super) audio_out: i64,
    /// Width of the vision's steps and vector, likewise.
    pub(super) video_out: i64,
    /// Dropout of the audio LSTM's last state.
    pub(super) a_lstm_dropout: f64,
    /// Dropout of the vision LSTM's last state.
    pub(super) v_lstm_dropout: f64,
    /// Features per step in the transformer. A modality as wide has no projection.
    pub(super) d_model: i64,
    /// Layers of the transformer, which share their weights.
    pub(super) fusion_layers: i64,
    /// Heads of the transformer.
    pub(super) heads: i64,
    /// Dropout of the sequences that enter the transformer.
    pub(super) emb_dropout: f64,
    /// Dropout of attention.
    pub(super) attn_dropout: f64,
    /// Dropout after the feed-forward layers.
    pub(super) ff_dropout: f64,
    /// Width of the feed-forward layers, in multiples of `d_model`.
    pub(super) ff_expansion: i64,
    /// Hidden width of the global context's predictor.
    pub(super) gmc_tokens_pred_dim: i64,
    /// Hidden width of the text's predictor.
    pub(super) text_pred_dim: i64,
    /// Hidden width of the audio's predictor.
    pub(super) audio_pred_dim: i64,
    /// Hidden width of the vision's predictor.
    pub(super) video_pred_dim: i64,
    /// Weight of the attraction of both views, and of the complete view's prediction loss.
    pub(super) loss_attra_weight: f64,
    /// Weight of the reconstruction.
    pub(super) loss_recon_weight: f64,
    /// Width of the prediction's layers.
    pub(super) post_fusion_dim: i64,
    /// Dropout of the vectors that the prediction is made from.
    pub(super) post_fusion_dropout: f64,
}
