//! LF-DNN: late fusion by a deep neural network (Cambria et al., CICLing 2017; Williams et al.,
//! Challenge-HML 2018), as MMSA trains it (`models/singleTask/LF_DNN.py`,
//! `models/subNets/FeatureNets.py`, `trains/singleTask/LF_DNN.py`).
//!
//! The baseline without a treatment of missing data: each modality becomes one vector, and the
//! concatenated vectors are regressed. Text features are fixed: the encoder is not trained.

use super::{
    Build, Inputs, Method, MethodError,
    common::{self, Loss},
    single_loss::{Model, SingleLoss, Training},
};
use crate::{
    context::ForwardContext,
    layers::{
        bert::Bert,
        dropout::dropout,
        linear,
        rnn::{Cell, Packed, Rnn, RnnConfig},
    },
    lengths::Lengths,
    optim::{Adam, AdamConfig, Group},
};
use halfheard_shared::methods::faults::{Fault, Faults};
use serde::Deserialize;
use tch::{
    Kind, Tensor,
    nn::{self, Module, ModuleT},
};

const METHOD: &str = "lf-dnn";

/// Hyper-parameters (MMSA `config_regression.json`).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Samples per batch.
    batch_size: usize,
    /// Epochs without a better validation loss before training stops; 0 disables early stopping.
    early_stop: u32,
    /// Learning rate of Adam.
    learning_rate: f64,
    /// Weight decay of Adam.
    weight_decay: f64,
    /// Hidden features of the text's recurrent network.
    text_hidden: i64,
    /// Width of the text's vector.
    text_out: i64,
    /// Width of the audio's layers and of its vector.
    audio_hidden: i64,
    /// Width of the vision's layers and of its vector.
    vision_hidden: i64,
    /// Width of the fusion's layers.
    post_fusion_dim: i64,
    /// Dropout of the text's last state, unless `lf-no-text-dropout` is kept.
    text_dropout: f64,
    /// Dropout of the audio's means.
    audio_dropout: f64,
    /// Dropout of the vision's means.
    vision_dropout: f64,
    /// Dropout of the concatenated vectors.
    post_fusion_dropout: f64,
}

/// Text: a recurrent network over the encoder's outputs, and a linear layer of its last state.
#[derive(Debug)]
struct TextNet {
    rnn: Rnn,
    linear: nn::Linear,
    dropout: f64,
}

impl TextNet {
    fn new(path: &nn::Path<'_>, input: i64, config: &Config) -> Self {
        let hidden = config.text_hidden;
        Self {
            rnn: Rnn::new(
                &(path / "rnn"),
                RnnConfig {
                    cell: Cell::Lstm,
                    input,
                    hidden,
                    layers: 1,
                    bidirectional: false,
                    dropout: 0.0,
                },
            ),
            linear: linear(path / "linear_1", hidden, config.text_out),
            dropout: config.text_dropout,
        }
    }

    /// `words` `[B, L, H]` of `tokens` `[B]` each to `[B, text_out]`.
    fn forward(&self, words: &Tensor, tokens: &Lengths, faults: Faults, train: bool) -> Tensor {
        let last = match faults.keeps(Fault::LfPaddedText) {
            // The reference reads the padding too.
            true => self.rnn.forward_padded(words, train).select(1, -1),
            false => {
                let lengths = tokens.clamp_min(1);
                let (_, last) = self.rnn.forward(Packed::new(words, &lengths), train);
                last.squeeze_dim(0)
            }
        };
        // The reference has no dropout in a network of one layer.
        let last = match faults.keeps(Fault::LfNoTextDropout) {
            true => last,
            false => dropout(&last, self.dropout, train),
        };
        self.linear.forward(&last)
    }
}

/// Audio and vision: the mean over time, batch norm, three layers.
#[derive(Debug)]
struct FrameNet {
    norm: nn::BatchNorm,
    layers: [nn::Linear; 3],
    dropout: f64,
}

impl FrameNet {
    fn new(path: &nn::Path<'_>, input: i64, hidden: i64, dropout: f64) -> Self {
        let ones = nn::BatchNormConfig {
            ws_init: nn::Init::Const(1.0),
            ..Default::default()
        };
        Self {
            norm: nn::batch_norm1d(path / "norm", input, ones),
            layers: [
                linear(path / "linear_1", input, hidden),
                linear(path / "linear_2", hidden, hidden),
                linear(path / "linear_3", hidden, hidden),
            ],
            dropout,
        }
    }

    /// `frames` `[B, T, D]`, of which `lengths` `[B]` are not padding, to `[B, hidden]`.
    fn forward(&self, frames: &Tensor, lengths: &Tensor, faults: Faults, train: bool) -> Tensor {
        let mean = match faults.keeps(Fault::LfPaddedMean) {
            // The reference's mean includes the padding, which is zero.
            true => frames.mean_dim(1i64, false, Kind::Float),
            false => {
                let sum = frames.sum_dim_intlist(1i64, false, Kind::Float);
                sum / lengths.clamp_min(1).unsqueeze(1)
            }
        };
        // A single sample has no variance and is normed as in evaluation.
        let batch = train && mean.size()[0] > 1;
        let normed = self.norm.forward_t(&mean, batch);
        let dropped = dropout(&normed, self.dropout, train);
        self.layers
            .iter()
            .fold(dropped, |x, layer| layer.forward(&x).relu())
    }
}

#[derive(Debug)]
struct LfDnn {
    bert: Bert,
    text: TextNet,
    audio: FrameNet,
    vision: FrameNet,
    fusion: [nn::Linear; 3],
    dropout: f64,
    faults: Faults,
}

impl LfDnn {
    fn new(path: &nn::Path<'_>, config: &Config, build: &Build<'_>) -> Result<Self, MethodError> {
        let bert = Bert::load(
            &(path / "bertmodel" / "model"),
            build.encoder,
            build.optimizations,
            build.precision,
        )?;
        let (data, width) = (build.data, config.post_fusion_dim);
        let frames = |name: &str, input, hidden, dropout| {
            FrameNet::new(&(path / name), input, hidden, dropout)
        };
        let vectors = config.audio_hidden + config.vision_hidden + config.text_out;
        Ok(Self {
            text: TextNet::new(&(path / "text_subnet"), bert.width(), config),
            audio: frames(
                "audio_subnet",
                data.audio_dim,
                config.audio_hidden,
                config.audio_dropout,
            ),
            vision: frames(
                "video_subnet",
                data.vision_dim,
                config.vision_hidden,
                config.vision_dropout,
            ),
            fusion: [
                linear(path / "post_fusion_layer_1", vectors, width),
                linear(path / "post_fusion_layer_2", width, width),
                linear(path / "post_fusion_layer_3", width, 1),
            ],
            bert,
            dropout: config.post_fusion_dropout,
            faults: build.faults,
        })
    }
}

impl Model for LfDnn {
    fn forward(&self, input: &Inputs, context: ForwardContext<'_>) -> Tensor {
        let train = context.train;
        // Fixed features without dropout or gradient. Padding is zero, so a sample's features do
        // not depend on the lengths of others in its batch.
        let mask = input.text.select(1, 1);
        let fixed = ForwardContext::evaluation(context.cache).padded(input.padding());
        let words = tch::no_grad(|| self.bert.forward(&input.text, fixed) * mask.unsqueeze(2));
        let (faults, audio, vision) = (self.faults, &input.audio, &input.vision);
        let text = self.text.forward(&words, &input.tokens(), faults, train);
        let audio = self
            .audio
            .forward(audio, &input.audio_lengths, faults, train);
        let vision = self
            .vision
            .forward(vision, &input.vision_lengths, faults, train);
        // Late fusion: the concatenated vectors.
        let fused = dropout(&Tensor::cat(&[audio, vision, text], 1), self.dropout, train);
        let [first, second, out] = &self.fusion;
        let hidden = second.forward(&first.forward(&fused).relu()).relu();
        out.forward(&hidden).squeeze_dim(1)
    }
}

/// Builds LF-DNN.
pub(super) fn build(build: &Build<'_>) -> Result<Box<dyn Method>, MethodError> {
    let config: Config = common::config(METHOD, build)?;
    let vs = nn::VarStore::new(build.device);
    let model = LfDnn::new(&vs.root(), &config, build)?;
    let mut params = common::parameters(&vs);
    params.retain(|(name, _)| !name.starts_with("bertmodel"));
    let optimizer = Adam::new(
        "adam",
        vec![Group {
            params,
            lr: config.learning_rate,
            weight_decay: config.weight_decay,
        }],
        AdamConfig::ADAM,
    );
    let training = Training {
        batch_size: config.batch_size,
        early_stop: config.early_stop,
        loss: Loss::L1,
        max_grad_norm: None,
    };
    Ok(Box::new(SingleLoss::new(vs, model, optimizer, training)))
}
