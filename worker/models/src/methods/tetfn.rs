//! TETFN: the text enhanced transformer fusion network (Wang et al., Pattern Recognition 2023), as
//! MMSA trains it (`models/multiTask/TETFN.py`, `trains/multiTask/TETFN.py`).
//!
//! Audio and vision are averaged to the text's length. Each modality attends to the others, audio
//! and vision to each other through the text. Unimodal labels are generated as in Self-MM.

use super::{
    Build, Inputs, Method, MethodError, common,
    multi_task::{Head, Model, MultiTask, Outputs, Rate, Training},
};
use crate::{
    context::ForwardContext,
    layers::{
        self,
        bert::Bert,
        cross_modal::{Encoder, EncoderConfig, Scaled},
        rnn::{Cell, Rnn, RnnConfig},
        unimodal_labels::UnimodalLabels,
    },
};
use halfheard_shared::methods::faults::{Fault, Faults};
use serde::Deserialize;
use tch::{Kind, Tensor, nn, nn::Module};

const METHOD: &str = "tetfn";

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
    /// Kernel of the text's convolution.
    conv1d_kernel_size_l: i64,
    /// Kernel of the audio's convolution (and, in the reference, of the vision's).
    conv1d_kernel_size_a: i64,
    /// Kernel of the vision's convolution, unused in the reference.
    conv1d_kernel_size_v: i64,
    /// Features per step in the transformers.
    dst_feature_dims: i64,
    /// Heads of the transformers.
    nheads: i64,
    /// Dropout of attention within and to text.
    attn_dropout: f64,
    /// Dropout of the text's attention to audio.
    attn_dropout_a: f64,
    /// Dropout of the text's attention to vision.
    attn_dropout_v: f64,
    /// Dropout after the transformers' ReLU.
    relu_dropout: f64,
    /// Dropout of the transformers' inputs.
    embed_dropout: f64,
    /// Dropout of the transformers' residuals.
    res_dropout: f64,
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

impl Config {
    /// The kernel of the vision's convolution, for which the reference uses the audio's.
    fn vision_kernel(&self, faults: Faults) -> i64 {
        match faults.keeps(Fault::TetfnAudioKernel) {
            true => self.conv1d_kernel_size_a,
            false => self.conv1d_kernel_size_v,
        }
    }
}

/// Averages `x`, `[B, T, D]`, to `length` steps. The last step is repeated if T is not a multiple of
/// `length`.
fn average(x: &Tensor, length: i64) -> Tensor {
    let size = x.size();
    let (batch, steps, width) = (size[0], size[1], size[2]);
    if steps == length {
        return x.shallow_clone();
    }
    let pool = (steps + length - 1) / length;
    let padding = pool * length - steps;
    let last = x
        .narrow(1, steps - 1, 1)
        .expand([batch, padding, width], false);
    Tensor::cat(&[x, &last], 1)
        .view([batch, length, pool, width])
        .mean_dim(2i64, false, Kind::Float)
}

/// A convolution without bias or padding.
fn conv(path: nn::Path<'_>, from: i64, to: i64, kernel: i64) -> nn::Conv1D {
    let config = nn::ConvConfig {
        bias: false,
        ..Default::default()
    };
    layers::conv1d(path, from, to, kernel, config)
}

/// An LSTM over all steps and a convolution.
#[derive(Debug)]
struct Recurrent {
    rnn: Rnn,
    conv: nn::Conv1D,
}

impl Recurrent {
    fn new(path: &nn::Path<'_>, input: i64, hidden: i64, kernel: i64, output: i64) -> Self {
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
            conv: conv(path / "conv", hidden, output, kernel),
        }
    }

    /// `[B, T, D]` to `[T', B, output]`.
    fn forward(&self, x: &Tensor, train: bool) -> Tensor {
        let steps = self.rnn.forward_padded(x, train);
        self.conv.forward(&steps.transpose(1, 2)).permute([2, 0, 1])
    }
}

/// Attention of one modality to another through the text.
#[derive(Debug)]
struct TextEnhanced {
    lower: Encoder,
    upper: Encoder,
}

impl TextEnhanced {
    fn new(path: &nn::Path<'_>, config: EncoderConfig) -> Self {
        let with = |layers| EncoderConfig { layers, ..config };
        Self {
            lower: Encoder::new(&(path / "lower_mha"), with(1)),
            upper: Encoder::new(&(path / "upper_mha"), with(2)),
        }
    }

    /// `query`, `key` and `text` have positions.
    fn forward(&self, query: &Scaled, key: &Scaled, text: &Scaled, train: bool) -> Tensor {
        let enhanced = self.lower.forward_to(query, text, train);
        self.upper
            .forward_to(key, &Scaled::positioned(&enhanced), train)
    }
}

#[derive(Debug)]
struct Tetfn {
    bert: Bert,
    audio: Recurrent,
    vision: Recurrent,
    text: nn::Conv1D,
    text_with_audio: Encoder,
    text_with_vision: Encoder,
    audio_with_text: Encoder,
    audio_with_vision: TextEnhanced,
    vision_with_text: Encoder,
    vision_with_audio: TextEnhanced,
    /// Text, audio, vision.
    memories: [Encoder; 3],
    /// Fused, text, audio, vision.
    heads: [Head; 4],
}

impl Tetfn {
    fn new(path: &nn::Path<'_>, config: &Config, build: &Build<'_>) -> Result<Self, MethodError> {
        let width = config.dst_feature_dims;
        let vision_kernel = config.vision_kernel(build.faults);
        let bert = Bert::load(
            &(path / "text_model" / "model"),
            build.encoder,
            build.optimizations,
            build.precision,
        )?;
        let encoder = |width, attention_dropout| EncoderConfig {
            width,
            heads: config.nheads,
            layers: 2,
            attention_dropout,
            relu_dropout: config.relu_dropout,
            residual_dropout: config.res_dropout,
            embedding_dropout: config.embed_dropout,
            precision: build.precision,
        };
        let cross = |name: &str, dropout| Encoder::new(&(path / name), encoder(width, dropout));
        let enhanced =
            |name: &str| TextEnhanced::new(&(path / name), encoder(width, config.attn_dropout));
        let head = |name: &str, input, width, dropout| Head::new(path, name, input, width, dropout);
        Ok(Self {
            audio: Recurrent::new(
                &(path / "audio_model"),
                build.data.audio_dim,
                config.a_lstm_hidden_size,
                config.conv1d_kernel_size_a,
                width,
            ),
            vision: Recurrent::new(
                &(path / "video_model"),
                build.data.vision_dim,
                config.v_lstm_hidden_size,
                vision_kernel,
                width,
            ),
            text: conv(
                path / "proj_l",
                bert.width(),
                width,
                config.conv1d_kernel_size_l,
            ),
            text_with_audio: cross("trans_l_with_a", config.attn_dropout_a),
            text_with_vision: cross("trans_l_with_v", config.attn_dropout_v),
            audio_with_text: cross("trans_a_with_l", config.attn_dropout),
            audio_with_vision: enhanced("trans_a_with_v"),
            vision_with_text: cross("trans_v_with_l", config.attn_dropout),
            vision_with_audio: enhanced("trans_v_with_a"),
            memories: ["trans_l_mem", "trans_a_mem", "trans_v_mem"]
                .map(|name| Encoder::new(&(path / name), encoder(2 * width, config.attn_dropout))),
            heads: [
                head(
                    "fusion",
                    6 * width,
                    config.post_fusion_dim,
                    config.post_fusion_dropout,
                ),
                head(
                    "text",
                    width,
                    config.post_text_dim,
                    config.post_text_dropout,
                ),
                head(
                    "audio",
                    width,
                    config.post_audio_dim,
                    config.post_audio_dropout,
                ),
                head(
                    "video",
                    width,
                    config.post_video_dim,
                    config.post_video_dropout,
                ),
            ],
            bert,
        })
    }
}

impl Model for Tetfn {
    fn forward(&self, input: &Inputs, context: ForwardContext<'_>) -> Outputs {
        let train = context.train;
        let length = input.text.size()[2];
        // BERT's outputs at padded positions are used, as in the reference.
        let words = self.bert.forward_untrimmed(&input.text, context);
        // [T, B, D] each. The order here and below is the reference's: gradients add up in it.
        let audio = self.audio.forward(&average(&input.audio, length), train);
        let vision = self.vision.forward(&average(&input.vision, length), train);
        let text = self.text.forward(&words.transpose(1, 2)).permute([2, 0, 1]);
        // Among steps with the same maximum, one gets the whole gradient.
        let pooled = |x: &Tensor| x.max_dim(0, false).0;
        let pooled = [pooled(&text), pooled(&audio), pooled(&vision)];
        let parts = [&text, &audio, &vision];
        let [text, audio, vision] = parts.map(Scaled::new);
        // Attention through the text has positions.
        let [text_at, audio_at, vision_at] = parts.map(Scaled::positioned);
        let last = |memory: &Encoder, parts: [Tensor; 2]| {
            memory.last(&Scaled::new(&Tensor::cat(&parts, 2)), train)
        };
        let fused_text = last(
            &self.memories[0],
            [
                self.text_with_audio.forward_to(&text, &audio, train),
                self.text_with_vision.forward_to(&text, &vision, train),
            ],
        );
        let fused_audio = last(
            &self.memories[1],
            [
                self.audio_with_text.forward_to(&audio, &text, train),
                self.audio_with_vision
                    .forward(&vision_at, &audio_at, &text_at, train),
            ],
        );
        let fused_vision = last(
            &self.memories[2],
            [
                self.vision_with_text.forward_to(&vision, &text, train),
                self.vision_with_audio
                    .forward(&audio_at, &vision_at, &text_at, train),
            ],
        );
        let fused = Tensor::cat(&[fused_text, fused_audio, fused_vision], 1);
        let [text, audio, vision] = &pooled;
        Outputs::of(&self.heads, [&fused, text, audio, vision], train)
    }
}

/// Builds TETFN.
pub(super) fn build(build: &Build<'_>) -> Result<Box<dyn Method>, MethodError> {
    let config: Config = common::config(METHOD, build)?;
    let vs = nn::VarStore::new(build.device);
    let model = Tetfn::new(&(vs.root() / "Model"), &config, build)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn average_repeats_the_last_step_if_lengths_do_not_divide() {
        let x = Tensor::from_slice(&[1.0f32, 2.0, 3.0, 4.0, 5.0]).view([1, 5, 1]);
        let averaged = average(&x, 2);
        assert_eq!(
            Vec::<f32>::try_from(averaged.flatten(0, -1)).unwrap(),
            [2.0, 14.0 / 3.0]
        );
        assert_eq!(average(&x, 5), x);
    }
}
