//! Self-MM: self-supervised multi-task multimodal sentiment analysis (Yu et al., AAAI 2021), as
//! MMSA trains it (`models/multiTask/SELF_MM.py`, `trains/multiTask/SELF_MM.py`).
//!
//! BERT's first output and two LSTMs give one vector per modality. A fused head and one head per
//! modality predict; training generates the labels of the latter.

use super::{
    Build, Inputs, Method, MethodError, common,
    multi_task::{Head, Model, MultiTask, Outputs, Rate, Training},
};
use crate::{
    context::ForwardContext,
    layers::{
        self,
        bert::Bert,
        dropout::dropout,
        rnn::{Cell, Packed, Rnn, RnnConfig},
        unimodal_labels::UnimodalLabels,
    },
    lengths::Lengths,
};
use serde::Deserialize;
use tch::{Tensor, nn, nn::Module};

const METHOD: &str = "self-mm";

/// Hyper-parameters (MMSA `config_regression.json`).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Samples per batch.
    batch_size: usize,
    /// Epochs without a better validation loss before training stops; 0 disables early stopping.
    early_stop: u32,
    /// Batches per update, whose gradients accumulate.
    update_epochs: u32,
    /// Learning rate of the text encoder.
    learning_rate_bert: f64,
    /// Learning rate of the audio network.
    learning_rate_audio: f64,
    /// Learning rate of the vision network.
    learning_rate_video: f64,
    /// Learning rate of everything else.
    learning_rate_other: f64,
    /// Weight decay of the text encoder.
    weight_decay_bert: f64,
    /// Weight decay of the audio network.
    weight_decay_audio: f64,
    /// Weight decay of the vision network.
    weight_decay_video: f64,
    /// Weight decay of everything else.
    weight_decay_other: f64,
    /// Hidden state of the audio LSTM.
    a_lstm_hidden_size: i64,
    /// Hidden state of the vision LSTM.
    v_lstm_hidden_size: i64,
    /// Dropout after the audio LSTM.
    a_lstm_dropout: f64,
    /// Dropout after the vision LSTM.
    v_lstm_dropout: f64,
    /// Width of the audio vector.
    audio_out: i64,
    /// Width of the vision vector.
    video_out: i64,
    /// Width of the fused representation.
    post_fusion_dim: i64,
    /// Width of the text representation.
    post_text_dim: i64,
    /// Width of the audio representation.
    post_audio_dim: i64,
    /// Width of the vision representation.
    post_video_dim: i64,
    /// Dropout before the fused head.
    post_fusion_dropout: f64,
    /// Dropout before the text head.
    post_text_dropout: f64,
    /// Dropout before the audio head.
    post_audio_dropout: f64,
    /// Dropout before the vision head.
    post_video_dropout: f64,
    /// Bound of the absolute generated labels (`H` in the reference).
    label_bound: f64,
    /// Whether samples with label 0 belong to neither center (`excludeZero`).
    exclude_zero: bool,
}

/// An LSTM's last state, with dropout and a linear layer.
#[derive(Debug)]
struct Recurrent {
    rnn: Rnn,
    linear: nn::Linear,
    dropout: f64,
}

impl Recurrent {
    fn new(path: &nn::Path<'_>, input: i64, hidden: i64, output: i64, dropout: f64) -> Self {
        let config = RnnConfig {
            cell: Cell::Lstm,
            input,
            hidden,
            layers: 1,
            bidirectional: false,
            dropout: 0.0,
        };
        Self {
            rnn: Rnn::new(&(path / "rnn"), config),
            linear: layers::linear(path / "linear_1", hidden, output),
            dropout,
        }
    }

    /// `[B, T, D]` to `[B, output]`.
    fn forward(&self, x: &Tensor, lengths: &Lengths, train: bool) -> Tensor {
        let (_, last) = self
            .rnn
            .forward(Packed::new(x, &lengths.clamp_min(1)), train);
        let last = dropout(&last.squeeze_dim(0), self.dropout, train);
        self.linear.forward(&last)
    }
}

#[derive(Debug)]
struct SelfMm {
    bert: Bert,
    audio: Recurrent,
    vision: Recurrent,
    /// Fused, text, audio, vision.
    heads: [Head; 4],
}

impl SelfMm {
    fn new(path: &nn::Path<'_>, config: &Config, build: &Build<'_>) -> Result<Self, MethodError> {
        let bert = Bert::load(
            &(path / "text_model" / "model"),
            build.encoder,
            build.optimizations,
            build.precision,
        )?;
        let fused = bert.width() + config.audio_out + config.video_out;
        let recurrent = |name: &str, input, hidden, output, dropout| {
            Recurrent::new(&(path / name), input, hidden, output, dropout)
        };
        let head = |name: &str, input, width, dropout| Head::new(path, name, input, width, dropout);
        let data = build.data;
        Ok(Self {
            audio: recurrent(
                "audio_model",
                data.audio_dim,
                config.a_lstm_hidden_size,
                config.audio_out,
                config.a_lstm_dropout,
            ),
            vision: recurrent(
                "video_model",
                data.vision_dim,
                config.v_lstm_hidden_size,
                config.video_out,
                config.v_lstm_dropout,
            ),
            heads: [
                head(
                    "fusion",
                    fused,
                    config.post_fusion_dim,
                    config.post_fusion_dropout,
                ),
                head(
                    "text",
                    bert.width(),
                    config.post_text_dim,
                    config.post_text_dropout,
                ),
                head(
                    "audio",
                    config.audio_out,
                    config.post_audio_dim,
                    config.post_audio_dropout,
                ),
                head(
                    "video",
                    config.video_out,
                    config.post_video_dim,
                    config.post_video_dropout,
                ),
            ],
            bert,
        })
    }
}

impl Model for SelfMm {
    fn forward(&self, input: &Inputs, context: ForwardContext<'_>) -> Outputs {
        let train = context.train;
        let context = context.padded(input.padding());
        let text = self.bert.forward(&input.text, context).select(1, 0);
        let audio = self
            .audio
            .forward(&input.audio, &input.audio_steps(), train);
        let vision = self
            .vision
            .forward(&input.vision, &input.vision_steps(), train);
        let fused = Tensor::cat(&[&text, &audio, &vision], 1);
        Outputs::of(&self.heads, [&fused, &text, &audio, &vision], train)
    }
}

/// Builds Self-MM.
pub(super) fn build(build: &Build<'_>) -> Result<Box<dyn Method>, MethodError> {
    let config: Config = common::config(METHOD, build)?;
    let vs = nn::VarStore::new(build.device);
    let model = SelfMm::new(&(vs.root() / "Model"), &config, build)?;
    let labels = UnimodalLabels::new(
        build.data.train_samples,
        [
            config.post_fusion_dim,
            config.post_text_dim,
            config.post_audio_dim,
            config.post_video_dim,
        ],
        config.label_bound,
        config.exclude_zero,
        build.device,
    );
    let rate = |lr, weight_decay| Rate { lr, weight_decay };
    let training = Training {
        batch_size: config.batch_size,
        early_stop: config.early_stop,
        update_epochs: config.update_epochs,
        faults: build.faults,
        rates: [
            rate(config.learning_rate_bert, config.weight_decay_bert),
            rate(config.learning_rate_audio, config.weight_decay_audio),
            rate(config.learning_rate_video, config.weight_decay_video),
            rate(config.learning_rate_other, config.weight_decay_other),
        ],
    };
    Ok(Box::new(MultiTask::new(vs, model, labels, training)))
}
