//! The training procedure of Self-MM and TETFN: four predictions (fused, text, audio, vision), with
//! unimodal labels generated in training (MMSA `trains/multiTask/SELF_MM.py` and `TETFN.py`, which
//! are the same).

use super::{
    Batch, Inputs, Losses, Method, MethodError, MethodState, Position, StepOutcome,
    common::{self, Loss},
};
use crate::{
    context::{EncoderCache, ForwardContext},
    layers::{
        dropout::dropout,
        linear,
        unimodal_labels::{Task, UnimodalLabels},
    },
    optim::{Adam, AdamConfig, Group},
};
use halfheard_shared::methods::faults::Faults;
use tch::{Tensor, nn, nn::Module};

/// Learning rate and weight decay of one group of parameters.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    /// Learning rate.
    pub lr: f64,
    /// Weight decay.
    pub weight_decay: f64,
}

/// The training procedure's hyper-parameters.
#[derive(Clone, Copy, Debug)]
pub(super) struct Training {
    /// Samples per batch.
    pub batch_size: usize,
    /// Epochs without a better validation loss before training stops; 0 disables early stopping.
    pub early_stop: u32,
    /// Batches per update, whose gradients accumulate.
    pub update_epochs: u32,
    /// The faults of the reference that it keeps.
    pub faults: Faults,
    /// For the text encoder, the audio and the vision network, and everything else.
    pub rates: [Rate; 4],
}

/// A model's outputs for each task.
#[derive(Debug)]
pub(super) struct Outputs {
    /// Predictions `[B]`, in the order of [`Task::ALL`].
    pub predictions: [Tensor; 4],
    /// Representations `[B, width]`, in the same order.
    pub features: [Tensor; 4],
}

impl Outputs {
    /// Applies the four heads to their inputs, `[B, input]` each.
    pub(super) fn of(heads: &[Head; 4], inputs: [&Tensor; 4], train: bool) -> Self {
        let [fusion, text, audio, vision] = heads;
        let (p0, f0) = fusion.forward(inputs[0], train);
        let (p1, f1) = text.forward(inputs[1], train);
        let (p2, f2) = audio.forward(inputs[2], train);
        let (p3, f3) = vision.forward(inputs[3], train);
        Self {
            predictions: [p0, p1, p2, p3],
            features: [f0, f1, f2, f3],
        }
    }
}

/// A model with four tasks.
pub(super) trait Model: std::fmt::Debug {
    /// The four tasks' outputs.
    fn forward(&self, input: &Inputs, context: ForwardContext<'_>) -> Outputs;
}

/// Three linear layers, the first to the task's representation.
#[derive(Debug)]
pub(super) struct Head {
    layers: [nn::Linear; 3],
    dropout: f64,
}

impl Head {
    /// Layers `post_<name>_layer_1` to `3` under `path`.
    pub(super) fn new(
        path: &nn::Path<'_>,
        name: &str,
        input: i64,
        width: i64,
        dropout: f64,
    ) -> Self {
        let layer = |i: usize, from, to| linear(path / format!("post_{name}_layer_{i}"), from, to);
        Self {
            layers: [
                layer(1, input, width),
                layer(2, width, width),
                layer(3, width, 1),
            ],
            dropout,
        }
    }

    /// `[B, input]` to the prediction `[B]` and the representation `[B, width]`.
    pub(super) fn forward(&self, x: &Tensor, train: bool) -> (Tensor, Tensor) {
        let [first, second, third] = &self.layers;
        let feature = first.forward(&dropout(x, self.dropout, train)).relu();
        let prediction = third.forward(&second.forward(&feature).relu());
        (prediction.squeeze_dim(1), feature)
    }
}

/// The parameters of `text_model` with weight decay and without, of `audio_model`, of `video_model`
/// and the rest, with the rates of text, audio, vision and the rest.
pub(super) fn groups(vs: &nn::VarStore, rates: [Rate; 4]) -> Vec<Group> {
    let [decayed, undecayed, others] = common::encoder_groups(vs, "text_model");
    let [mut audio, mut vision, mut rest] = [Vec::new(), Vec::new(), Vec::new()];
    for (name, tensor) in others {
        if name.contains("audio_model") {
            audio.push((name, tensor));
        } else if name.contains("video_model") {
            vision.push((name, tensor));
        } else {
            rest.push((name, tensor));
        }
    }
    let [text_rate, audio_rate, vision_rate, other_rate] = rates;
    let group = |params, rate: Rate| Group {
        params,
        lr: rate.lr,
        weight_decay: rate.weight_decay,
    };
    let undecayed_rate = Rate {
        weight_decay: 0.0,
        ..text_rate
    };
    vec![
        group(decayed, text_rate),
        group(undecayed, undecayed_rate),
        group(audio, audio_rate),
        group(vision, vision_rate),
        group(rest, other_rate),
    ]
}

/// The method.
#[derive(Debug)]
pub(super) struct MultiTask<M> {
    vs: nn::VarStore,
    model: M,
    labels: UnimodalLabels,
    optimizer: Adam,
    training: Training,
    accumulation: common::Accumulation,
}

impl<M: Model> MultiTask<M> {
    /// A method around `model`. Parameter groups go by name: `text_model`, `audio_model`,
    /// `video_model` and the rest.
    pub(super) fn new(
        vs: nn::VarStore,
        model: M,
        labels: UnimodalLabels,
        training: Training,
    ) -> Self {
        let optimizer = Adam::new("adam", groups(&vs, training.rates), AdamConfig::ADAM);
        Self {
            vs,
            model,
            labels,
            optimizer,
            training,
            accumulation: common::Accumulation::new(training.update_epochs, training.faults),
        }
    }
}

impl<M: Model> Method for MultiTask<M> {
    fn vars(&self) -> &nn::VarStore {
        &self.vs
    }

    fn batch_size(&self) -> usize {
        self.training.batch_size
    }

    fn prepare(&mut self, batch: &Batch) -> Result<(), MethodError> {
        self.labels.begin(&batch.index, &batch.labels);
        Ok(())
    }

    fn begin_pass(&mut self, _at: Position) -> Result<(), MethodError> {
        self.accumulation.reset();
        Ok(())
    }

    fn train_step(&mut self, at: Position, batch: &Batch) -> Result<StepOutcome, MethodError> {
        if self.accumulation.begin() {
            self.optimizer.zero_grad();
        }
        let outputs = self.model.forward(&batch.input, ForwardContext::TRAIN);
        let parts = Task::ALL.map(|task| {
            let prediction = &outputs.predictions[task as usize];
            self.labels.loss(task, prediction, &batch.index)
        });
        let [fusion, text, audio, vision] = &parts;
        let loss = fusion + text + audio + vision;
        let losses = Losses::new(
            &[
                ("loss", &loss),
                ("fusion", fusion),
                ("text", text),
                ("audio", audio),
                ("vision", vision),
            ],
            &[],
        );
        loss.backward();
        let features = outputs.features.each_ref().map(Tensor::detach);
        tch::no_grad(|| {
            self.labels
                .update(at.epoch, &batch.index, features.each_ref());
        });
        if self.accumulation.end() {
            self.optimizer.step();
        }
        Ok(StepOutcome {
            prediction: outputs.predictions[0].detach(),
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
        let [fused, ..] = tch::no_grad(|| self.model.forward(&batch.input, context)).predictions;
        Ok(fused)
    }

    fn validation_loss(&self, prediction: &Tensor, labels: &Tensor) -> f64 {
        Loss::L1.value(prediction, labels)
    }

    fn patience(&self) -> Option<u32> {
        common::patience(self.training.early_stop)
    }

    fn can_save(&self) -> bool {
        self.accumulation.is_empty()
    }

    fn state(&self) -> Result<MethodState, MethodError> {
        let mut state = common::save(&self.vs, &[&self.optimizer]);
        self.labels.save(&mut state);
        Ok(state)
    }

    fn restore(&mut self, state: &MethodState) -> Result<(), MethodError> {
        self.accumulation.reset();
        common::restore(&self.vs, &mut [&mut self.optimizer], state)?;
        self.labels.load(state)
    }
}
