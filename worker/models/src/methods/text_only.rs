//! Text only: the fine-tuned encoder with a linear head, a control without audio and vision.
//!
//! It is the text branch of Self-MM as MMSA trains it (`models/multiTask/SELF_MM.py`,
//! `trains/multiTask/SELF_MM.py`) alone, with one linear layer for a head: what a multimodal method
//! scores beyond it is what audio and vision, or the method's capacity, contribute.

use super::{
    Build, Inputs, Method, MethodError,
    common::{self, Loss},
    single_loss::{Model, SingleLoss, Training},
};
use crate::{
    context::ForwardContext,
    layers::{bert::Bert, dropout::dropout, linear},
    optim::{Adam, AdamConfig, Group},
};
use serde::Deserialize;
use tch::{
    Tensor,
    nn::{self, Module},
};

const METHOD: &str = "text-only";

/// Hyper-parameters (those of Self-MM's text branch in MMSA `config_regression.json`).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Samples per batch.
    batch_size: usize,
    /// Epochs without a better validation loss before training stops; 0 disables early stopping.
    early_stop: u32,
    /// Learning rate of the encoder.
    learning_rate_bert: f64,
    /// Learning rate of the head.
    learning_rate_other: f64,
    /// Weight decay of the encoder, except on its biases and layer norms.
    weight_decay_bert: f64,
    /// Weight decay of the head.
    weight_decay_other: f64,
    /// Dropout before the head.
    dropout: f64,
}

#[derive(Debug)]
struct TextOnly {
    bert: Bert,
    head: nn::Linear,
    dropout: f64,
}

impl Model for TextOnly {
    fn forward(&self, input: &Inputs, context: ForwardContext<'_>) -> Tensor {
        // The output at [CLS]. The pooler is left out, as in MMSA: not every encoder has one.
        let padded = context.padded(input.padding());
        let text = self.bert.forward(&input.text, padded).select(1, 0);
        let dropped = dropout(&text, self.dropout, context.train);
        self.head.forward(&dropped).squeeze_dim(1)
    }
}

/// Builds the text-only control.
pub(super) fn build(build: &Build<'_>) -> Result<Box<dyn Method>, MethodError> {
    let config: Config = common::config(METHOD, build)?;
    let vs = nn::VarStore::new(build.device);
    let path = vs.root() / "Model";
    let bert = Bert::load(
        &(&path / "text_model" / "model"),
        build.encoder,
        build.optimizations,
        build.precision,
    )?;
    let model = TextOnly {
        head: linear(path / "head", bert.width(), 1),
        dropout: config.dropout,
        bert,
    };
    let [decayed, undecayed, others] = common::encoder_groups(&vs, "text_model");
    let group = |params, lr, weight_decay| Group {
        params,
        lr,
        weight_decay,
    };
    let (bert, other) = (config.learning_rate_bert, config.learning_rate_other);
    let optimizer = Adam::new(
        "adam",
        vec![
            group(decayed, bert, config.weight_decay_bert),
            group(undecayed, bert, 0.0),
            group(others, other, config.weight_decay_other),
        ],
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
