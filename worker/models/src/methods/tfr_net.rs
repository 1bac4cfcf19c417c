//! TFR-Net: the transformer-based feature reconstruction network (Yuan et al., ACM MM 2021), as
//! MMSA trains it (`models/missingTask/TFR_NET`, `trains/missingTask/TFR_NET.py`).
//!
//! Erased sequences attend to themselves and to each other; generators recall what was erased and
//! are held to the complete inputs where steps are missing; gated recurrent networks fuse.

use super::{
    Batch, Build, Inputs, Method, MethodError, MethodState, Needs, PerModality, Position,
    StepOutcome, common,
};
use crate::{
    layers::{
        bert::Bert,
        cross_modal::{Encoder, EncoderConfig},
        rnn::{Cell, Packed, Rnn, RnnConfig},
        savings::together,
        similarity::cmd_smooth,
    },
    optim::{Adam, AdamConfig, Group, ReduceOnPlateau, clip_grad_value},
};
use halfheard_shared::wire::Fidelity;
use serde::Deserialize;
use tch::{Kind, Reduction, Tensor, nn, nn::Module};

const METHOD: &str = "tfr-net";

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
    /// Batches whose gradients are added up.
    pub update_epochs: u32,
    /// Learning rate of the text encoder.
    pub learning_rate_bert: f64,
    /// Learning rate of everything else.
    pub learning_rate_other: f64,
    /// Weight decay of the text encoder.
    pub weight_decay_bert: f64,
    /// Weight decay of everything else.
    pub weight_decay_other: f64,
    /// Gradients are clipped to ± this value; -1 leaves them.
    pub grad_clip: f64,
    /// Epochs without progress before the learning rate falls to a tenth.
    pub patience: u32,
    /// Features a step in the transformers.
    pub dst_feature_dims: i64,
    /// Heads of the transformers.
    pub nheads: i64,
    /// Layers of the transformers between modalities.
    pub nlevels: i64,
    /// Heads of the transformers whose features are time steps.
    pub num_temporal_head: i64,
    /// Kernel of the text's convolution.
    pub conv1d_kernel_size_l: i64,
    /// Kernel of the audio's convolution.
    pub conv1d_kernel_size_a: i64,
    /// Kernel of the vision's convolution.
    pub conv1d_kernel_size_v: i64,
    /// Dropout of the text's features.
    pub text_dropout: f64,
    /// Dropout of attention to and within text.
    pub attn_dropout: f64,
    /// Dropout of attention to audio.
    pub attn_dropout_a: f64,
    /// Dropout of attention to vision.
    pub attn_dropout_v: f64,
    /// Dropout behind the transformers' ReLU.
    pub relu_dropout: f64,
    /// Dropout of the transformers' inputs.
    pub embed_dropout: f64,
    /// Dropout of the transformers' residuals.
    pub res_dropout: f64,
    /// Width of the text's fusion vector.
    pub fusion_t_hid: i64,
    /// Width of the audio's fusion vector.
    pub fusion_a_hid: i64,
    /// Width of the vision's fusion vector.
    pub fusion_v_hid: i64,
    /// Layers of the fusion's recurrent networks.
    pub fusion_gru_layers: i64,
    /// Dropout of the fusion vectors.
    pub fusion_drop: f64,
    /// Width of the classifier's hidden layer.
    pub cls_hidden_dim: i64,
    /// Dropout of the classifier.
    pub cls_dropout: f64,
    /// Weights of the reconstruction of text, audio and vision.
    pub weight_gen_loss: [f64; 3],
    /// Weight of the distribution's part in the reconstruction.
    pub weight_sim_loss: f64,
}

/// One modality's way through the alignment.
#[derive(Debug)]
struct Alignment {
    project: nn::Conv1D,
    own: Encoder,
    /// What the other two modalities tell it.
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
            conv: crate::layers::conv1d(path / "cnn", 2 * hidden, 1, 3, padded),
            linear: crate::layers::linear(path / "fc", 2 * hidden + input, hidden),
            dropout: config.fusion_drop,
        }
    }

    /// `[B, T, D]` with `present` `[B, T]` to `[B, hidden]`.
    fn forward(&self, x: &Tensor, present: &Tensor, train: bool) -> Tensor {
        // Steps before the first padding.
        let lengths = present
            .cumprod(1, Kind::Float)
            .sum_dim_intlist(1i64, false, Kind::Int64)
            .clamp_min(1);
        let (steps, _) = self.rnn.forward(Packed::new(x, &lengths), train);
        let steps = steps.unpack_to(x.size()[1]);
        let gate = self
            .conv
            .forward(&steps.transpose(1, 2))
            .transpose(1, 2)
            .sigmoid();
        let gated = steps.tanh() * gate;
        let mapped = self.linear.forward(&Tensor::cat(&[x, &gated], -1)).tanh();
        // Of several steps with the same largest value one takes the gradient, not each a share.
        mapped.max_dim(1, false).0.dropout(self.dropout, train)
    }
}

/// Of each modality, `[B, T, 3 D]`: for the fusion and for the generator.
type Aligned = ([Tensor; 3], [Tensor; 3]);

#[derive(Debug)]
struct Model {
    bert: Bert,
    /// Text, audio, vision.
    alignments: [Alignment; 3],
    generators: [nn::Linear; 3],
    gates: [Gate; 3],
    norm: nn::BatchNorm,
    /// Training batches that the norm has seen: in PyTorch's state, read by nothing.
    batches: Tensor,
    hidden: nn::Linear,
    out: nn::Linear,
    config: Config,
    fidelity: Fidelity,
}

impl Model {
    fn new(path: &nn::Path<'_>, config: &Config, build: &Build<'_>) -> Result<Self, MethodError> {
        let bert = Bert::load(&(path / "text_model" / "model"), build.encoder)?;
        let align = path / "align_subnet" / "Model";
        let width = config.dst_feature_dims;
        let data = build.data;
        let lengths = [data.text_length, data.audio_length, data.vision_length];
        let dims = [bert.width(), data.audio_dim, data.vision_dim];
        let kernels = [
            config.conv1d_kernel_size_l,
            config.conv1d_kernel_size_a,
            config.conv1d_kernel_size_v,
        ];
        // Attention's dropout goes by who is asked.
        let dropouts = [
            config.attn_dropout,
            config.attn_dropout_a,
            config.attn_dropout_v,
        ];
        let letters = ["l", "a", "v"];
        let encoder = |name: String, width, heads, layers: i64, attention_dropout, positions| {
            Encoder::new(
                &(&align / name),
                EncoderConfig {
                    width,
                    heads,
                    layers: layers.max(config.nlevels),
                    attention_dropout,
                    relu_dropout: config.relu_dropout,
                    residual_dropout: config.res_dropout,
                    embedding_dropout: config.embed_dropout,
                    positions,
                },
            )
        };
        let alignments = [[1, 2], [0, 2], [0, 1]].map(|others: [usize; 2]| {
            let own = 3 - others[0] - others[1];
            let letter = letters[own];
            let conv = nn::ConvConfig {
                padding: (kernels[own] - 1) / 2,
                bias: false,
                ..Default::default()
            };
            let heads = config.nheads;
            Alignment {
                project: crate::layers::conv1d(
                    &align / format!("proj_{letter}"),
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
                    true,
                ),
                others: others.map(|other| {
                    let name = format!("trans_{letter}_with_{}", letters[other]);
                    encoder(name, width, heads, 0, dropouts[other], true)
                }),
                last: encoder(
                    format!("trans_{letter}_final"),
                    lengths[own],
                    config.num_temporal_head,
                    3,
                    config.attn_dropout,
                    false,
                ),
            }
        });
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
            crate::layers::linear(path / name / "Model" / "linear", 3 * width, dims[i])
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
            hidden: crate::layers::linear(
                &classifier / "linear_trans_hidden",
                total,
                config.cls_hidden_dim,
            ),
            out: crate::layers::linear(
                &classifier / "linear_trans_final",
                config.cls_hidden_dim,
                1,
            ),
            bert,
            config: config.clone(),
            fidelity: build.fidelity,
        })
    }

    /// Aligns text, audio and vision features, `[B, T, D]` each of its own.
    fn align(&self, inputs: [&Tensor; 3], train: bool) -> Aligned {
        let dropouts = [self.config.text_dropout, 0.0, 0.0];
        let project = |i: usize| {
            let x = inputs[i].transpose(1, 2).dropout(dropouts[i], train);
            let x = if x.size()[1] == self.config.dst_feature_dims {
                x
            } else {
                self.alignments[i].project.forward(&x)
            };
            x.permute([2, 0, 1])
        };
        let projected = [project(0), project(1), project(2)];
        let others = [[1, 2], [0, 2], [0, 1]];
        // One modality after the other: gradients add up in the order of the reference.
        let [text, audio, vision] = [0, 1, 2].map(|i: usize| {
            let alignment = &self.alignments[i];
            let x = &projected[i];
            let heard = |j: usize| {
                let other = &projected[others[i][j]];
                alignment.others[j].forward_to(x, other, train)
            };
            let joint = Tensor::cat(&[alignment.own.forward(x, train), heard(0), heard(1)], 2);
            let last = &alignment.last;
            let recalled = match self.fidelity {
                // The reference hands the samples over as if they were steps, so that a sample's
                // reconstruction sees the samples before it in the batch.
                Fidelity::Reference => last
                    .forward(&joint.permute([1, 2, 0]), train)
                    .permute([0, 2, 1]),
                Fidelity::Corrected => last
                    .forward(&joint.permute([2, 1, 0]), train)
                    .permute([1, 2, 0]),
            };
            (joint.transpose(0, 1), recalled)
        });
        ([text.0, audio.0, vision.0], [text.1, audio.1, vision.1])
    }

    /// Predictions `[B]`.
    fn fuse(&self, joint: &[Tensor; 3], present: &PerModality<Tensor>, train: bool) -> Tensor {
        let present = [&present.text, &present.audio, &present.vision];
        let vectors = [0, 1, 2].map(|i: usize| self.gates[i].forward(&joint[i], present[i], train));
        let joined = Tensor::cat(&vectors, 1);
        // A single sample has no variance, and would leave none in the running means: it is normed
        // as in evaluation. The reference stops there.
        let batch = train && joined.size()[0] > 1;
        let normed = nn::ModuleT::forward_t(&self.norm, &joined, batch);
        let hidden = self.hidden.forward(&normed);
        // PyTorch's slope, 0.01.
        let hidden = hidden.leaky_relu().dropout(self.config.cls_dropout, train);
        self.out.forward(&hidden).squeeze_dim(1)
    }

    fn predict(&self, batch: &Batch) -> Tensor {
        let words = self.bert.forward_untrimmed(&batch.input.text, false);
        let inputs = [&words, &batch.input.audio, &batch.input.vision];
        let (joint, _) = self.align(inputs, false);
        self.fuse(&joint, &batch.present, false)
    }

    /// Predictions `[B]` and the reconstruction's loss.
    fn forward_training(&self, batch: &Batch, complete: &Inputs) -> (Tensor, Tensor) {
        if batch.len() > 1 {
            let _ = self.batches.shallow_clone().g_add_scalar_(1);
        }
        // Erased and complete texts go through BERT in one batch.
        let (words, complete_words) = together(&batch.input.text, &complete.text, |text| {
            self.bert.forward_untrimmed(text, true)
        });
        let inputs = [&words, &batch.input.audio, &batch.input.vision];
        let (joint, recalled) = self.align(inputs, true);
        let truth = [&complete_words, &complete.audio, &complete.vision];
        let missing = [
            &batch.present.text - &batch.kept.text,
            &batch.present.audio - &batch.kept.audio,
            &batch.present.vision - &batch.kept.vision,
        ];
        let reconstruction: Tensor = (0..3)
            .map(|i| {
                let generated = self.generators[i].forward(&recalled[i]);
                self.reconstruction(&generated, truth[i], &missing[i])
                    * self.config.weight_gen_loss[i]
            })
            .sum();
        (self.fuse(&joint, &batch.present, true), reconstruction)
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
pub struct TfrNet {
    vs: nn::VarStore,
    model: Model,
    optimizer: Adam,
    schedule: ReduceOnPlateau,
    accumulation: common::Accumulation,
    config: Config,
    fidelity: Fidelity,
}

/// Builds TFR-Net.
pub fn build(build: &Build<'_>) -> Result<Box<dyn Method>, MethodError> {
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
        accumulation: common::Accumulation::new(config.update_epochs),
        vs,
        model,
        optimizer,
        fidelity: build.fidelity,
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
        let task = (&prediction - &batch.labels).abs().mean(Kind::Float);
        // The generators take part from the second epoch on.
        let loss = if at.epoch > 1 {
            &task + &reconstruction
        } else {
            task.shallow_clone()
        };
        let losses = common::losses(
            at,
            &[
                ("loss", &loss),
                ("task", &task),
                ("reconstruction", &reconstruction),
            ],
        )?;
        loss.backward();
        if self.config.grad_clip >= 0.0 {
            clip_grad_value(&self.optimizer.gradients(), self.config.grad_clip);
        }
        // The reference updates after every batch, while gradients add up, and once more when a
        // group is complete.
        if self.fidelity == Fidelity::Reference {
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

    fn predict(&self, batch: &Batch) -> Result<Tensor, MethodError> {
        Ok(tch::no_grad(|| self.model.predict(batch)))
    }

    fn validation_loss(&self, prediction: &Tensor, labels: &Tensor) -> f64 {
        (prediction - labels)
            .abs()
            .mean(Kind::Float)
            .double_value(&[])
    }

    fn end_epoch(&mut self, _epoch: u32, validation_loss: f64) -> Result<(), MethodError> {
        self.schedule.step(validation_loss, &mut self.optimizer);
        Ok(())
    }

    fn patience(&self) -> Option<u32> {
        common::patience(self.config.early_stop)
    }

    fn at_rest(&self) -> bool {
        self.accumulation.at_rest()
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
