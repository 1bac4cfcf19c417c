//! LF-DNN: late fusion by a deep neural network (Cambria et al., CICLing 2017; Williams et al.,
//! Challenge-HML 2018), as MMSA trains it (`models/singleTask/LF_DNN.py`,
//! `models/subNets/FeatureNets.py`, `trains/singleTask/LF_DNN.py`).
//!
//! The baseline that knows nothing of missing data: each modality becomes one vector by itself, the
//! three vectors side by side are regressed. Text features are fixed: the encoder is not trained.

use super::{
    Batch, Build, Inputs, Method, MethodError, MethodState, Position, StepOutcome, common,
};
use crate::{
    layers::{
        bert::Bert,
        linear,
        rnn::{Cell, Packed, Rnn, RnnConfig},
    },
    optim::{Adam, AdamConfig, Group},
};
use halfheard_shared::wire::Fidelity;
use serde::Deserialize;
use tch::{
    Kind, Tensor,
    nn::{self, Module, ModuleT},
};

const METHOD: &str = "lf-dnn";

/// Hyper-parameters (MMSA `config_regression.json`).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Samples in a batch.
    pub batch_size: usize,
    /// The most epochs.
    pub max_epochs: u32,
    /// Epochs without a better validation loss before training stops; 0: never.
    pub early_stop: u32,
    /// Learning rate of Adam.
    pub learning_rate: f64,
    /// Weight decay of Adam.
    pub weight_decay: f64,
    /// Features of the text's recurrent network.
    pub text_hidden: i64,
    /// Width of the text's vector.
    pub text_out: i64,
    /// Width of the audio's layers and of its vector.
    pub audio_hidden: i64,
    /// Width of the vision's layers and of its vector.
    pub vision_hidden: i64,
    /// Width of the fusion's layers.
    pub post_fusion_dim: i64,
    /// Dropout of the text's last state: only where `fidelity` is `corrected`.
    pub text_dropout: f64,
    /// Dropout of the audio's means.
    pub audio_dropout: f64,
    /// Dropout of the vision's means.
    pub vision_dropout: f64,
    /// Dropout of the three vectors side by side.
    pub post_fusion_dropout: f64,
}

/// Text: a recurrent network over the encoder's outputs; its last state through a linear layer.
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

    /// `words` `[B, L, H]` with attention `mask` `[B, L]` to `[B, text_out]`.
    fn forward(&self, words: &Tensor, mask: &Tensor, fidelity: Fidelity, train: bool) -> Tensor {
        let last = match fidelity {
            // The reference reads on over the padding, and its dropout is 0 where the network has
            // one layer.
            Fidelity::Reference => self.rnn.forward_padded(words, train).select(1, -1),
            Fidelity::Corrected => {
                let lengths = mask.sum_dim_intlist(1i64, false, Kind::Int64).clamp_min(1);
                let (_, last) = self.rnn.forward(Packed::new(words, &lengths), train);
                last.squeeze_dim(0).dropout(self.dropout, train)
            }
        };
        self.linear.forward(&last)
    }
}

/// Audio and vision: the mean over time, normed over the batch, through three layers.
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

    /// `frames` `[B, T, D]`, of which `lengths` `[B]` are no padding, to `[B, hidden]`.
    fn forward(
        &self,
        frames: &Tensor,
        lengths: &Tensor,
        fidelity: Fidelity,
        train: bool,
    ) -> Tensor {
        let mean = match fidelity {
            // The reference's mean counts the padding, which is zero.
            Fidelity::Reference => frames.mean_dim(1i64, false, Kind::Float),
            Fidelity::Corrected => {
                let sum = frames.sum_dim_intlist(1i64, false, Kind::Float);
                sum / lengths.clamp_min(1).unsqueeze(1)
            }
        };
        // A single sample has no variance: it is normed as in evaluation.
        let batch = train && mean.size()[0] > 1;
        let normed = self.norm.forward_t(&mean, batch);
        let dropped = normed.dropout(self.dropout, train);
        self.layers
            .iter()
            .fold(dropped, |x, layer| layer.forward(&x).relu())
    }
}

#[derive(Debug)]
struct Model {
    bert: Bert,
    text: TextNet,
    audio: FrameNet,
    vision: FrameNet,
    fusion: [nn::Linear; 3],
    dropout: f64,
    fidelity: Fidelity,
}

impl Model {
    fn new(path: &nn::Path<'_>, config: &Config, build: &Build<'_>) -> Result<Self, MethodError> {
        let bert = Bert::load(&(path / "bertmodel" / "model"), build.encoder)?;
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
            fidelity: build.fidelity,
        })
    }

    /// Predictions `[B]`.
    fn forward(&self, input: &Inputs, train: bool) -> Tensor {
        // Fixed features: no dropout and no gradient; zeros where a text is padding, so that no
        // sample's features depend on how long the others of its batch are.
        let mask = input.text.select(1, 1);
        let words = tch::no_grad(|| self.bert.forward(&input.text, false) * mask.unsqueeze(2));
        let (fidelity, audio, vision) = (self.fidelity, &input.audio, &input.vision);
        let text = self.text.forward(&words, &mask, fidelity, train);
        let audio = self
            .audio
            .forward(audio, &input.audio_lengths, fidelity, train);
        let vision = self
            .vision
            .forward(vision, &input.vision_lengths, fidelity, train);
        // Late fusion: the last layers side by side.
        let fused = Tensor::cat(&[audio, vision, text], 1).dropout(self.dropout, train);
        let [first, second, out] = &self.fusion;
        let hidden = second.forward(&first.forward(&fused).relu()).relu();
        out.forward(&hidden).squeeze_dim(1)
    }
}

/// The loss: the mean absolute error.
fn loss(prediction: &Tensor, labels: &Tensor) -> Tensor {
    (prediction - labels).abs().mean(Kind::Float)
}

/// The method.
#[derive(Debug)]
pub struct LfDnn {
    vs: nn::VarStore,
    model: Model,
    optimizer: Adam,
    config: Config,
}

/// Builds LF-DNN.
pub fn build(build: &Build<'_>) -> Result<Box<dyn Method>, MethodError> {
    let config: Config = common::config(METHOD, build)?;
    let vs = nn::VarStore::new(build.device);
    let model = Model::new(&vs.root(), &config, build)?;
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
    Ok(Box::new(LfDnn {
        vs,
        model,
        optimizer,
        config,
    }))
}

impl Method for LfDnn {
    fn vars(&self) -> &nn::VarStore {
        &self.vs
    }

    fn batch_size(&self) -> usize {
        self.config.batch_size
    }

    fn train_step(&mut self, at: Position, batch: &Batch) -> Result<StepOutcome, MethodError> {
        self.optimizer.zero_grad();
        let prediction = self.model.forward(&batch.input, true);
        let loss = loss(&prediction, &batch.labels);
        let losses = common::losses(at, &[("loss", &loss)])?;
        loss.backward();
        self.optimizer.step();
        Ok(StepOutcome {
            prediction: prediction.detach(),
            losses,
        })
    }

    fn predict(&self, batch: &Batch) -> Result<Tensor, MethodError> {
        Ok(tch::no_grad(|| self.model.forward(&batch.input, false)))
    }

    fn validation_loss(&self, prediction: &Tensor, labels: &Tensor) -> f64 {
        loss(prediction, labels).double_value(&[])
    }

    fn end_epoch(&mut self, _epoch: u32, _validation_loss: f64) -> Result<(), MethodError> {
        Ok(())
    }

    fn patience(&self) -> Option<u32> {
        common::patience(self.config.early_stop)
    }

    fn state(&self) -> Result<MethodState, MethodError> {
        Ok(common::save(&self.vs, &[&self.optimizer]))
    }

    fn restore(&mut self, state: &MethodState) -> Result<(), MethodError> {
        common::restore(&self.vs, &mut [&mut self.optimizer], state)
    }
}
