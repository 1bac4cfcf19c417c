//! MISA: modality-invariant and -specific representations (Hazarika et al., ACM MM 2020), as MMSA
//! trains it (`models/singleTask/MISA.py`, `trains/singleTask/MISA.py`).
//!
//! Each utterance becomes one vector per modality, and each vector is split into a part shared by
//! all modalities and a private part. The six parts go through one transformer layer and a
//! regression. A similarity loss (CMD), a difference loss and a reconstruction shape the split.

use super::{
    Batch, Build, Inputs, Losses, Method, MethodError, MethodState, Position, StepOutcome,
    common::{self, Loss},
};
use crate::{
    context::{EncoderCache, ForwardContext},
    layers::{
        bert::Bert,
        dropout::dropout,
        layer_norm, linear,
        rnn::{Cell, Packed, Rnn, RnnConfig},
        similarity::{cmd, difference},
        transformer::{EncoderLayer, EncoderLayerConfig},
    },
    lengths::Lengths,
    optim::{Adam, AdamConfig, Group, clip_grad_value},
};
use halfheard_shared::methods::faults::{Fault, Faults};
use serde::Deserialize;
use tch::{Kind, Tensor, nn, nn::Module};

const METHOD: &str = "misa";

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
    /// Learning rate of Adam, for all weights.
    learning_rate: f64,
    /// Weight decay of Adam, for all weights: none in the reference.
    weight_decay: f64,
    /// Width of the shared and private representations.
    hidden_size: i64,
    /// Dropout of the fusion.
    dropout: f64,
    /// Dropout of the transformer layer; PyTorch's default in the reference.
    transformer_dropout: f64,
    /// Width of the transformer's feed-forward layer; PyTorch's default in the reference.
    transformer_feedforward: i64,
    /// Weight of the difference loss.
    diff_weight: f64,
    /// Weight of the similarity loss.
    sim_weight: f64,
    /// Weight of the reconstruction loss.
    recon_weight: f64,
    /// Bound of each gradient entry; -1 disables clipping.
    grad_clip: f64,
}

/// Projects one modality to the common width: linear, ReLU, layer norm.
#[derive(Debug)]
struct Projection {
    linear: nn::Linear,
    norm: nn::LayerNorm,
}

impl Projection {
    fn new(path: &nn::Path<'_>, name: &str, input: i64, hidden: i64) -> Self {
        Self {
            linear: linear(path / name, input, hidden),
            norm: layer_norm(path / format!("{name}_layer_norm"), hidden),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        self.norm.forward(&self.linear.forward(x).relu())
    }
}

/// Two stacked bidirectional LSTMs with a layer norm between them. Their final states in both
/// directions form the utterance vector, four times as wide as the input.
#[derive(Debug)]
struct Recurrent {
    first: Rnn,
    norm: nn::LayerNorm,
    second: Rnn,
}

impl Recurrent {
    fn new(path: &nn::Path<'_>, letter: &str, width: i64) -> Self {
        let lstm = |name: String, input| {
            Rnn::new(
                &(path / name),
                RnnConfig {
                    cell: Cell::Lstm,
                    input,
                    hidden: width,
                    layers: 1,
                    bidirectional: true,
                    dropout: 0.0,
                },
            )
        };
        Self {
            first: lstm(format!("{letter}rnn1"), width),
            norm: layer_norm(path / format!("{letter}layer_norm"), 2 * width),
            second: lstm(format!("{letter}rnn2"), 2 * width),
        }
    }

    /// `[B, T, D]` and lengths `[B]` to `[B, 4 D]`.
    fn forward(&self, x: &Tensor, lengths: &Lengths, train: bool) -> Tensor {
        let (steps, h1) = self.first.forward(Packed::new(x, lengths), train);
        let normed = self.norm.forward(&steps.unpack());
        let (_, h2) = self.second.forward(steps.repack(&normed), train);
        // [2, B, 2 D] → [B, 4 D]: for each direction, the first and the second LSTM's state.
        Tensor::cat(&[h1, h2], 2)
            .permute([1, 0, 2])
            .contiguous()
            .view([x.size()[0], -1])
    }
}

/// The parts of a representation, `[B, hidden]` each.
#[derive(Debug)]
struct Split {
    original: Tensor,
    private: Tensor,
    shared: Tensor,
    reconstructed: Tensor,
}

#[derive(Debug)]
struct Model {
    bert: Bert,
    vision: Recurrent,
    audio: Recurrent,
    project: [Projection; 3],
    private: [nn::Linear; 3],
    shared: nn::Linear,
    reconstruct: [nn::Linear; 3],
    transformer: EncoderLayer,
    fusion_1: nn::Linear,
    fusion_3: nn::Linear,
    dropout: f64,
    faults: Faults,
}

impl Model {
    fn new(path: &nn::Path<'_>, config: &Config, build: &Build<'_>) -> Result<Self, MethodError> {
        let hidden = config.hidden_size;
        let bert = Bert::load(
            &(path / "bertmodel" / "model"),
            build.encoder,
            build.optimizations,
            build.precision,
        )?;
        let (audio_dim, vision_dim) = (build.data.audio_dim, build.data.vision_dim);
        let square = |name: &str, layer: &str| linear(path / name / layer, hidden, hidden);
        // In the reference's model but in no loss; present because weights load by name.
        linear(
            path / "sp_discriminator" / "sp_discriminator_layer_1",
            hidden,
            4,
        );
        layer_norm(path / "tlayer_norm", 2 * bert.width());
        Ok(Self {
            vision: Recurrent::new(path, "v", vision_dim),
            audio: Recurrent::new(path, "a", audio_dim),
            project: [
                Projection::new(&(path / "project_t"), "project_t", bert.width(), hidden),
                Projection::new(&(path / "project_v"), "project_v", 4 * vision_dim, hidden),
                Projection::new(&(path / "project_a"), "project_a", 4 * audio_dim, hidden),
            ],
            private: [
                square("private_t", "private_t_1"),
                square("private_v", "private_v_1"),
                square("private_a", "private_a_3"),
            ],
            shared: square("shared", "shared_1"),
            reconstruct: [
                square("recon_t", "recon_t_1"),
                square("recon_v", "recon_v_1"),
                square("recon_a", "recon_a_1"),
            ],
            transformer: EncoderLayer::new(
                &(path / "transformer_encoder" / "layers" / "0"),
                EncoderLayerConfig {
                    width: hidden,
                    heads: 2,
                    feedforward: config.transformer_feedforward,
                    dropout: config.transformer_dropout,
                    precision: build.precision,
                },
            ),
            fusion_1: linear(path / "fusion" / "fusion_layer_1", 6 * hidden, 3 * hidden),
            fusion_3: linear(path / "fusion" / "fusion_layer_3", 3 * hidden, 1),
            bert,
            dropout: config.dropout,
            faults: build.faults,
        })
    }

    /// Predictions `[B]` and the split of text, vision and audio.
    fn forward(&self, input: &Inputs, context: ForwardContext<'_>) -> (Tensor, [Split; 3]) {
        let train = context.train;
        // Text: the mean of BERT's outputs over the real tokens.
        let mask = input.text.select(1, 1).to_kind(Kind::Float);
        let tokens = mask.sum_dim_intlist(1i64, true, Kind::Float);
        let words = self
            .bert
            .forward(&input.text, context.padded(input.padding()));
        let text = (words * mask.unsqueeze(2)).sum_dim_intlist(1i64, false, Kind::Float) / &tokens;

        // The reference packs audio and vision by the text's length; the paper does not cut them.
        // The reference fails if the text has more tokens than there are frames; here all frames
        // are used.
        let text_lengths = input.tokens();
        let lengths =
            |frames: &Tensor, own: &Lengths| match self.faults.keeps(Fault::MisaTextLengths) {
                true => text_lengths.clamp_max(frames.size()[1]),
                false => own.clamp_min(1),
            };
        let (vision, audio) = (&input.vision, &input.audio);
        let vision_lengths = lengths(vision, &input.vision_steps());
        let vision = self.vision.forward(vision, &vision_lengths, train);
        let audio_lengths = lengths(audio, &input.audio_steps());
        let audio = self.audio.forward(audio, &audio_lengths, train);

        let split = |modality: usize, x: &Tensor| {
            let original = self.project[modality].forward(x);
            let private = self.private[modality].forward(&original).sigmoid();
            let shared = self.shared.forward(&original).sigmoid();
            let reconstructed = self.reconstruct[modality].forward(&(&private + &shared));
            Split {
                original,
                private,
                shared,
                reconstructed,
            }
        };
        let parts = [split(0, &text), split(1, &vision), split(2, &audio)];

        // Six "words" through one transformer layer: [6, B, hidden].
        let six = Tensor::stack(
            &[
                &parts[0].private,
                &parts[1].private,
                &parts[2].private,
                &parts[0].shared,
                &parts[1].shared,
                &parts[2].shared,
            ],
            0,
        );
        let six = self.transformer.forward(&six, train);
        let joint = Tensor::cat(&six.unbind(0), 1);
        let fused = dropout(&self.fusion_1.forward(&joint), self.dropout, train).relu();
        (self.fusion_3.forward(&fused).squeeze_dim(1), parts)
    }
}

/// The method.
#[derive(Debug)]
struct Misa {
    vs: nn::VarStore,
    model: Model,
    optimizer: Adam,
    config: Config,
    accumulation: common::Accumulation,
}

/// Builds MISA.
pub(super) fn build(build: &Build<'_>) -> Result<Box<dyn Method>, MethodError> {
    let config: Config = common::config(METHOD, build)?;
    let vs = nn::VarStore::new(build.device);
    let model = Model::new(&(vs.root() / "Model"), &config, build)?;
    let optimizer = Adam::new(
        "adam",
        vec![Group {
            params: common::parameters(&vs),
            lr: config.learning_rate,
            weight_decay: config.weight_decay,
        }],
        AdamConfig::ADAM,
    );
    Ok(Box::new(Misa {
        accumulation: common::Accumulation::new(config.update_epochs, build.faults),
        vs,
        model,
        optimizer,
        config,
    }))
}

impl Misa {
    /// Equation 14: the regression loss and the weighted parts.
    fn losses(&self, prediction: &Tensor, parts: &[Split; 3], labels: &Tensor) -> [Tensor; 4] {
        let [text, vision, audio] = parts;
        let task = Loss::Mse.of(prediction, labels);
        // Equation 10: each private part with its shared one, and the private ones in pairs.
        let difference = difference(&text.private, &text.shared)
            + difference(&vision.private, &vision.shared)
            + difference(&audio.private, &audio.shared)
            + difference(&audio.private, &text.private)
            + difference(&audio.private, &vision.private)
            + difference(&text.private, &vision.private);
        // Equation 11.
        let square = |p: &Split| {
            let error = &p.original - &p.reconstructed;
            error.square().sum(Kind::Float) / error.numel() as f64
        };
        let reconstruction = parts.iter().map(square).sum::<Tensor>() / 3.0;
        // Equation 8, over the three pairs of shared representations.
        let similarity = (cmd(&text.shared, &vision.shared, 5)
            + cmd(&text.shared, &audio.shared, 5)
            + cmd(&audio.shared, &vision.shared, 5))
            / 3.0;
        [task, difference, similarity, reconstruction]
    }
}

impl Method for Misa {
    fn vars(&self) -> &nn::VarStore {
        &self.vs
    }

    fn batch_size(&self) -> usize {
        self.config.batch_size
    }

    fn begin_pass(&mut self, _at: Position) -> Result<(), MethodError> {
        self.accumulation.reset();
        Ok(())
    }

    fn train_step(&mut self, _at: Position, batch: &Batch) -> Result<StepOutcome, MethodError> {
        if self.accumulation.begin() {
            self.optimizer.zero_grad();
        }
        let (prediction, parts) = self.model.forward(&batch.input, ForwardContext::TRAIN);
        let [task, difference, similarity, reconstruction] =
            self.losses(&prediction, &parts, &batch.labels);
        let loss = &task
            + &difference * self.config.diff_weight
            + &similarity * self.config.sim_weight
            + &reconstruction * self.config.recon_weight;
        let losses = Losses::new(
            &[
                ("loss", &loss),
                ("task", &task),
                ("difference", &difference),
                ("similarity", &similarity),
                ("reconstruction", &reconstruction),
            ],
            &[],
        );
        loss.backward();
        if self.config.grad_clip >= 0.0 {
            clip_grad_value(&self.optimizer.gradients(), self.config.grad_clip);
        }
        if self.accumulation.end() {
            self.optimizer.step();
        }
        Ok(StepOutcome {
            prediction: prediction.detach(),
            losses,
        })
    }

    fn end_pass(&mut self, _at: Position) -> Result<(), MethodError> {
        if self.accumulation.end_pass() {
            self.optimizer.step();
        }
        Ok(())
    }

    fn predict(&self, batch: &Batch, cache: Option<&EncoderCache>) -> Result<Tensor, MethodError> {
        let context = ForwardContext::evaluation(cache);
        Ok(tch::no_grad(|| self.model.forward(&batch.input, context).0))
    }

    fn validation_loss(&self, prediction: &Tensor, labels: &Tensor) -> f64 {
        Loss::Mse.value(prediction, labels)
    }

    fn patience(&self) -> Option<u32> {
        common::patience(self.config.early_stop)
    }

    fn can_save(&self) -> bool {
        self.accumulation.is_empty()
    }

    fn state(&self) -> Result<MethodState, MethodError> {
        Ok(common::save(&self.vs, &[&self.optimizer]))
    }

    fn restore(&mut self, state: &MethodState) -> Result<(), MethodError> {
        self.accumulation.reset();
        common::restore(&self.vs, &mut [&mut self.optimizer], state)
    }
}
