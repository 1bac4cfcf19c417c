//! TFR-Net: the transformer-based feature reconstruction network (Yuan et al., ACM MM 2021), as
//! MMSA trains it (`models/missingTask/TFR_NET`, `trains/missingTask/TFR_NET.py`).
//!
//! Erased sequences attend to themselves and to each other. Generators reconstruct what was erased,
//! with a loss against the complete inputs at missing steps. Gated recurrent networks fuse.

use super::{
    Batch, Build, Inputs, Losses, Method, MethodError, MethodState, Needs, Position,
    ReferenceErasure, ReferenceValidation, StepOutcome,
    common::{self, Loss},
};
use crate::{
    context::{EncoderCache, ForwardContext, Optimizations},
    layers::{
        self,
        bert::Bert,
        cross_modal::{Encoder, EncoderConfig, Scaled},
        dropout::dropout,
        rnn::{Cell, Packed, Rnn, RnnConfig},
        similarity::cmd_smooth,
    },
    lengths::Lengths,
    optim::{Adam, AdamConfig, Group, ReduceOnPlateau, clip_grad_value},
    precision::Precision,
};
use halfheard_shared::{
    case::Rate,
    methods::faults::{Fault, Faults},
};
use serde::Deserialize;
use tch::{Kind, Reduction, Tensor, nn, nn::Module};

const METHOD: &str = "tfr-net";

/// Hyper-parameters (MMSA `config_regression.json`).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Samples per batch.
    batch_size: usize,
    /// Epochs without a better validation loss before training stops; 0 disables early stopping.
    early_stop: u32,
    /// Batches per group, whose gradients accumulate.
    update_epochs: u32,
    /// Learning rate of the text encoder.
    learning_rate_bert: f64,
    /// Learning rate of everything else.
    learning_rate_other: f64,
    /// Weight decay of the text encoder.
    weight_decay_bert: f64,
    /// Weight decay of everything else.
    weight_decay_other: f64,
    /// Bound of each gradient entry; -1 disables clipping.
    grad_clip: f64,
    /// Epochs without improvement before the learning rate falls to a tenth.
    patience: u32,
    /// Features per step in the transformers.
    dst_feature_dims: i64,
    /// Heads of the transformers.
    nheads: i64,
    /// Layers of the transformers between modalities.
    nlevels: i64,
    /// Heads of the transformers whose features are time steps.
    num_temporal_head: i64,
    /// Kernel of the text's convolution.
    conv1d_kernel_size_l: i64,
    /// Kernel of the audio's convolution.
    conv1d_kernel_size_a: i64,
    /// Kernel of the vision's convolution.
    conv1d_kernel_size_v: i64,
    /// Dropout of the text's features.
    text_dropout: f64,
    /// Dropout of attention to and within text.
    attn_dropout: f64,
    /// Dropout of attention to audio.
    attn_dropout_a: f64,
    /// Dropout of attention to vision.
    attn_dropout_v: f64,
    /// Dropout after the transformers' ReLU.
    relu_dropout: f64,
    /// Dropout of the transformers' inputs.
    embed_dropout: f64,
    /// Dropout of the transformers' residuals.
    res_dropout: f64,
    /// Width of the text's fusion vector.
    fusion_t_hid: i64,
    /// Width of the audio's fusion vector.
    fusion_a_hid: i64,
    /// Width of the vision's fusion vector.
    fusion_v_hid: i64,
    /// Layers of the fusion's recurrent networks.
    fusion_gru_layers: i64,
    /// Dropout of the fusion vectors.
    fusion_drop: f64,
    /// Width of the classifier's hidden layer.
    cls_hidden_dim: i64,
    /// Dropout of the classifier.
    cls_dropout: f64,
    /// Weights of the reconstruction of text, audio and vision.
    weight_gen_loss: [f64; 3],
    /// Weight of the distribution distance in the reconstruction.
    weight_sim_loss: f64,
}

/// The alignment of one modality.
#[derive(Debug)]
struct Alignment {
    project: nn::Conv1D,
    own: Encoder,
    /// Attention to the other two modalities.
    others: [Encoder; 2],
    last: Encoder,
}

/// The fusion of one modality: a bidirectional recurrent network, a gate over its steps, the maximum
/// over time.
#[derive(Debug)]
struct Gate {
    rnn: Rnn,
    conv: nn::Conv1D,
    linear: nn::Linear,
    dropout: f64,
}

impl Gate {
    fn new(path: &nn::Path<'_>, input: i64, hidden: i64, config: &Config) -> Self {
        let padded = nn::ConvConfig {
            padding: 1,
            ..Default::default()
        };
        Self {
            rnn: Rnn::new(
                &(path / "gru" / "gru"),
                RnnConfig {
                    cell: Cell::Gru,
                    input,
                    hidden,
                    layers: config.fusion_gru_layers,
                    bidirectional: true,
                    dropout: 0.0,
                },
            ),
            conv: layers::conv1d(path / "cnn", 2 * hidden, 1, 3, padded),
            linear: layers::linear(path / "fc", 2 * hidden + input, hidden),
            dropout: config.fusion_drop,
        }
    }

    /// `[B, T, D]` of `lengths` `[B]`, each at least 1, to `[B, hidden]`.
    fn forward(&self, x: &Tensor, lengths: &Lengths, train: bool) -> Tensor {
        let (steps, _) = self.rnn.forward(Packed::new(x, lengths), train);
        let steps = steps.unpack_to(x.size()[1]);
        let gate = self
            .conv
            .forward(&steps.transpose(1, 2))
            .transpose(1, 2)
            .sigmoid();
        let gated = steps.tanh() * gate;
        let mapped = self.linear.forward(&Tensor::cat(&[x, &gated], -1)).tanh();
        // Among steps with the same maximum, one gets the whole gradient.
        dropout(&mapped.max_dim(1, false).0, self.dropout, train)
    }
}

/// Of each modality, `[B, T, 3 D]`: what is fused.
type Joint = [Tensor; 3];

#[derive(Debug)]
struct Model {
    bert: Bert,
    /// Text, audio, vision.
    alignments: [Alignment; 3],
    generators: [nn::Linear; 3],
    gates: [Gate; 3],
    norm: nn::BatchNorm,
    /// Training batches that the norm has seen; part of PyTorch's state, otherwise unused.
    batches: Tensor,
    hidden: nn::Linear,
    out: nn::Linear,
    config: Config,
    faults: Faults,
    optimizations: Optimizations,
}

impl Model {
    fn new(path: &nn::Path<'_>, config: &Config, build: &Build<'_>) -> Result<Self, MethodError> {
        let bert = Bert::load(
            &(path / "text_model" / "model"),
            build.encoder,
            build.optimizations,
            build.precision,
        )?;
        let data = build.data;
        let dims = [bert.width(), data.audio_dim, data.vision_dim];
        let lengths = [data.text_length, data.audio_length, data.vision_length];
        let width = config.dst_feature_dims;
        let alignments = Self::alignments(
            &(path / "align_subnet" / "Model"),
            config,
            dims,
            lengths,
            build.precision,
        );
        let fusion = path / "fusion_subnet" / "Model";
        let classifier = &fusion / "classifier";
        let hidden = [
            config.fusion_t_hid,
            config.fusion_a_hid,
            config.fusion_v_hid,
        ];
        let total = hidden.iter().sum();
        let names = ["text", "audio", "vision"];
        let gate = |i: usize| {
            let path = &fusion / format!("{}_encoder", names[i]);
            Gate::new(&path, 3 * width, hidden[i], config)
        };
        let generator = |i: usize| {
            let name = format!("generator_{}", ["t", "a", "v"][i]);
            layers::linear(path / name / "Model" / "linear", 3 * width, dims[i])
        };
        Ok(Self {
            alignments,
            generators: [0, 1, 2].map(generator),
            gates: [0, 1, 2].map(gate),
            norm: nn::batch_norm1d(
                &classifier / "linear_trans_norm",
                total,
                nn::BatchNormConfig {
                    ws_init: nn::Init::Const(1.0),
                    ..Default::default()
                },
            ),
            batches: (&classifier / "linear_trans_norm").add(
                "num_batches_tracked",
                Tensor::zeros([], (Kind::Int64, build.device)),
                false,
            ),
            hidden: layers::linear(
                &classifier / "linear_trans_hidden",
                total,
                config.cls_hidden_dim,
            ),
            out: layers::linear(&classifier / "linear_trans_final", config.cls_hidden_dim, 1),
            bert,
            config: config.clone(),
            faults: build.faults,
            optimizations: build.optimizations,
        })
    }

    /// The alignments of text, audio and vision, with the given features per step and lengths.
    fn alignments(
        path: &nn::Path<'_>,
        config: &Config,
        dims: [i64; 3],
        lengths: [i64; 3],
        precision: Precision,
    ) -> [Alignment; 3] {
        let width = config.dst_feature_dims;
        let kernels = [
            config.conv1d_kernel_size_l,
            config.conv1d_kernel_size_a,
            config.conv1d_kernel_size_v,
        ];
        // Attention's dropout depends on the modality attended to.
        let dropouts = [
            config.attn_dropout,
            config.attn_dropout_a,
            config.attn_dropout_v,
        ];
        let letters = ["l", "a", "v"];
        let encoder = |name: String, width, heads, layers: i64, attention_dropout| {
            Encoder::new(
                &(path / name),
                EncoderConfig {
                    width,
                    heads,
                    layers: layers.max(config.nlevels),
                    attention_dropout,
                    relu_dropout: config.relu_dropout,
                    residual_dropout: config.res_dropout,
                    embedding_dropout: config.embed_dropout,
                    precision,
                },
            )
        };
        [[1, 2], [0, 2], [0, 1]].map(|others: [usize; 2]| {
            let own = 3 - others[0] - others[1];
            let letter = letters[own];
            let conv = nn::ConvConfig {
                padding: (kernels[own] - 1) / 2,
                bias: false,
                ..Default::default()
            };
            let heads = config.nheads;
            Alignment {
                project: layers::conv1d(
                    path / format!("proj_{letter}"),
                    dims[own],
                    width,
                    kernels[own],
                    conv,
                ),
                own: encoder(
                    format!("trans_{letter}_mem"),
                    width,
                    heads,
                    3,
                    config.attn_dropout,
                ),
                others: others.map(|other| {
                    let name = format!("trans_{letter}_with_{}", letters[other]);
                    encoder(name, width, heads, 0, dropouts[other])
                }),
                last: encoder(
                    format!("trans_{letter}_final"),
                    lengths[own],
                    config.num_temporal_head,
                    3,
                    config.attn_dropout,
                ),
            }
        })
    }

    /// Aligns text, audio and vision features, `[B, T, D]` each of its own.
    fn align(&self, inputs: [&Tensor; 3], train: bool) -> Joint {
        let dropouts = [self.config.text_dropout, 0.0, 0.0];
        let project = |i: usize| {
            let x = dropout(&inputs[i].transpose(1, 2), dropouts[i], train);
            let x = if x.size()[1] == self.config.dst_feature_dims {
                x
            } else {
                self.alignments[i].project.forward(&x)
            };
            Scaled::positioned(&x.permute([2, 0, 1]))
        };
        let projected = [project(0), project(1), project(2)];
        let others = [[1, 2], [0, 2], [0, 1]];
        // One modality after the other, because gradients add up in the order of the reference.
        [0, 1, 2].map(|i: usize| {
            let alignment = &self.alignments[i];
            let x = &projected[i];
            let attended = |j: usize| {
                let other = &projected[others[i][j]];
                alignment.others[j].forward_to(x, other, train)
            };
            let own = alignment.own.forward(x, train);
            Tensor::cat(&[own, attended(0), attended(1)], 2).transpose(0, 1)
        })
    }

    /// Of each modality, what the generator reconstructs features from, `[B, T, 3 D]`. Predictions do not depend on it.
    fn reconstruct(&self, joint: &Joint, train: bool) -> [Tensor; 3] {
        [0, 1, 2].map(|i: usize| {
            let last = &self.alignments[i].last;
            match self.faults.keeps(Fault::TfrSamplesAsSteps) {
                // The reference passes samples as steps, so a sample's reconstruction depends on the
                // samples before it in the batch.
                true => last
                    .forward(&Scaled::new(&joint[i].permute([0, 2, 1])), train)
                    .permute([0, 2, 1]),
                false => last
                    .forward(&Scaled::new(&joint[i].permute([2, 0, 1])), train)
                    .permute([1, 2, 0]),
            }
        })
    }

    /// Predictions `[B]`.
    fn fuse(&self, joint: &Joint, batch: &Batch, train: bool) -> Tensor {
        let lengths = batch.steps().map(|lengths| lengths.clamp_min(1));
        let vectors =
            [0, 1, 2].map(|i: usize| self.gates[i].forward(&joint[i], &lengths[i], train));
        let joined = Tensor::cat(&vectors, 1);
        // A single sample has no variance, which the running statistics would take over, so it is
        // normed as in evaluation. The reference fails there.
        let batch = train && joined.size()[0] > 1;
        let normed = nn::ModuleT::forward_t(&self.norm, &joined, batch);
        let hidden = self.hidden.forward(&normed);
        // PyTorch's slope, 0.01.
        let hidden = dropout(&hidden.leaky_relu(), self.config.cls_dropout, train);
        self.out.forward(&hidden).squeeze_dim(1)
    }

    fn predict(&self, batch: &Batch, cache: Option<&EncoderCache>) -> Tensor {
        let context = ForwardContext::evaluation(cache);
        let words = self.bert.forward_untrimmed(&batch.input.text, context);
        let inputs = [&words, &batch.input.audio, &batch.input.vision];
        let joint = self.align(inputs, false);
        self.fuse(&joint, batch, false)
    }

    /// Predictions `[B]` and the reconstruction's loss.
    fn forward_training(&self, batch: &Batch, complete: &Inputs) -> (Tensor, Tensor) {
        if batch.len() > 1 {
            let _ = self.batches.shallow_clone().g_add_scalar_(1);
        }
        // Erased and complete texts go through BERT in one batch.
        let (words, complete_words) =
            self.optimizations
                .encode_both(&batch.input.text, &complete.text, |text| {
                    self.bert.forward_untrimmed(text, ForwardContext::TRAIN)
                });
        let inputs = [&words, &batch.input.audio, &batch.input.vision];
        let joint = self.align(inputs, true);
        let reconstructed = self.reconstruct(&joint, true);
        let truth = [&complete_words, &complete.audio, &complete.vision];
        let missing = [
            &batch.present.text - &batch.kept.text,
            &batch.present.audio - &batch.kept.audio,
            &batch.present.vision - &batch.kept.vision,
        ];
        let reconstruction: Tensor = (0..3)
            .map(|i| {
                let generated = self.generators[i].forward(&reconstructed[i]);
                self.reconstruction(&generated, truth[i], &missing[i])
                    * self.config.weight_gen_loss[i]
            })
            .sum();
        (self.fuse(&joint, batch, true), reconstruction)
    }

    /// How far `generated` is from `truth`, `[B, T, D]` both, where `missing`, `[B, T]`, is 1.
    fn reconstruction(&self, generated: &Tensor, truth: &Tensor, missing: &Tensor) -> Tensor {
        let mask = missing.unsqueeze(-1);
        let count = missing.sum(Kind::Float) * generated.size()[2] as f64 + 1e-4;
        let (generated, truth) = (generated * &mask, truth * &mask);
        let mut loss = generated.smooth_l1_loss(&truth, Reduction::Sum, 1.0) / &count;
        if self.config.weight_sim_loss != 0.0 {
            let rows = |t: &Tensor| t.reshape([-1, t.size()[2]]);
            let distance = cmd_smooth(&rows(&generated), &rows(&truth), 3);
            loss += distance * self.config.weight_sim_loss / count;
        }
        loss
    }
}

/// The method.
#[derive(Debug)]
struct TfrNet {
    vs: nn::VarStore,
    model: Model,
    optimizer: Adam,
    schedule: ReduceOnPlateau,
    accumulation: common::Accumulation,
    config: Config,
    faults: Faults,
}

/// Builds TFR-Net.
pub(super) fn build(build: &Build<'_>) -> Result<Box<dyn Method>, MethodError> {
    let config: Config = common::config(METHOD, build)?;
    let vs = nn::VarStore::new(build.device);
    let model = Model::new(&(vs.root() / "Model"), &config, build)?;
    let [decayed, undecayed, others] = common::encoder_groups(&vs, "text_model");
    let group = |params, lr, weight_decay| Group {
        params,
        lr,
        weight_decay,
    };
    let optimizer = Adam::new(
        "adam",
        vec![
            group(decayed, config.learning_rate_bert, config.weight_decay_bert),
            group(undecayed, config.learning_rate_bert, 0.0),
            group(
                others,
                config.learning_rate_other,
                config.weight_decay_other,
            ),
        ],
        AdamConfig::ADAM,
    );
    Ok(Box::new(TfrNet {
        schedule: ReduceOnPlateau::new(0.1, config.patience),
        accumulation: common::Accumulation::new(config.update_epochs, build.faults),
        vs,
        model,
        optimizer,
        faults: build.faults,
        config,
    }))
}

impl Method for TfrNet {
    fn vars(&self) -> &nn::VarStore {
        &self.vs
    }

    fn needs(&self) -> Needs {
        Needs {
            complete_in_training: true,
            complete_in_evaluation: false,
        }
    }

    fn batch_size(&self) -> usize {
        self.config.batch_size
    }

    fn begin_pass(&mut self, _at: Position) -> Result<(), MethodError> {
        self.accumulation.reset();
        Ok(())
    }

    fn train_step(&mut self, at: Position, batch: &Batch) -> Result<StepOutcome, MethodError> {
        let complete = common::complete(METHOD, batch)?;
        if self.accumulation.begin() {
            self.optimizer.zero_grad();
        }
        let (prediction, reconstruction) = self.model.forward_training(batch, complete);
        let task = Loss::L1.of(&prediction, &batch.labels);
        let generation = ("reconstruction", &reconstruction);
        // The generators are trained from the second epoch on.
        let (loss, losses) = if at.epoch > 1 {
            let loss = &task + &reconstruction;
            let used = [("loss", &loss), ("task", &task), generation];
            let losses = Losses::new(&used, &[]);
            (loss, losses)
        } else {
            let used = [("loss", &task), ("task", &task)];
            let losses = Losses::new(&used, &[generation]);
            (task, losses)
        };
        loss.backward();
        if self.config.grad_clip >= 0.0 {
            clip_grad_value(&self.optimizer.gradients(), self.config.grad_clip);
        }
        // The reference updates after every batch, while gradients accumulate, and once more after a
        // complete group.
        if self.faults.keeps(Fault::TfrDoubleStep) {
            self.optimizer.step();
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
        if self.accumulation.end_pass() && !self.faults.keeps(Fault::TfrDoubleStep) {
            self.optimizer.step();
        }
        Ok(())
    }

    fn predict(&self, batch: &Batch, cache: Option<&EncoderCache>) -> Result<Tensor, MethodError> {
        Ok(tch::no_grad(|| self.model.predict(batch, cache)))
    }

    fn validation_loss(&self, prediction: &Tensor, labels: &Tensor) -> f64 {
        Loss::L1.value(prediction, labels)
    }

    fn uses_validation_loss(&self) -> bool {
        true
    }

    /// One rate for all splits, 0.2 in MMSA's configuration.
    fn reference_validation(&self) -> ReferenceValidation {
        let otherwise = Some(Rate::from_thousandths(200));
        ReferenceValidation {
            erasure: ReferenceErasure::AsTrained { otherwise },
            rounded: true,
        }
    }

    fn end_epoch(&mut self, _epoch: u32, validation_loss: f64) -> Result<(), MethodError> {
        self.schedule.step(validation_loss, &mut self.optimizer);
        Ok(())
    }

    fn patience(&self) -> Option<u32> {
        common::patience(self.config.early_stop)
    }

    fn can_save(&self) -> bool {
        self.accumulation.is_empty()
    }

    fn state(&self) -> Result<MethodState, MethodError> {
        let mut state = common::save(&self.vs, &[&self.optimizer]);
        self.schedule.save(&mut state);
        Ok(state)
    }

    fn restore(&mut self, state: &MethodState) -> Result<(), MethodError> {
        self.accumulation.reset();
        common::restore(&self.vs, &mut [&mut self.optimizer], state)?;
        self.schedule.load(state)
    }
}
