//! CENET: the cross-modal enhancement network (Wang et al., IEEE TMM 2022), as MMSA trains it
//! (`models/singleTask/CENET.py`, `trains/singleTask/CENET.py`).
//!
//! Between BERT's first and second layer every token is shifted by what it finds in audio and
//! vision; the first output is regressed.

use super::{
    Batch, Build, Inputs, Method, MethodError, MethodState, Position, StepOutcome, common,
};
use crate::{
    layers::bert::Bert,
    optim::{Adam, AdamConfig, Group, clip_grad_norm},
};
use serde::Deserialize;
use tch::{Kind, Tensor, nn, nn::Module};

const METHOD: &str = "cenet";

/// The layer that the shift comes before, from 0.
const INJECTION: usize = 1;

/// What attention scores are multiplied by: the reference's constant.
const SHARPNESS: f64 = 8.0;

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
    /// Weight decay of Adam, but for biases and layer norms outside the enhancement.
    pub weight_decay: f64,
    /// Adam's epsilon.
    pub adam_epsilon: f64,
    /// The gradients' common norm is clipped to this; -1 leaves it.
    pub max_grad_norm: f64,
}

/// Tokens ask another modality's steps, one head.
#[derive(Debug)]
struct Attention {
    query: nn::Linear,
    key: nn::Linear,
    value: nn::Linear,
}

/// The cross-modal enhancement.
#[derive(Debug)]
struct Enhancement {
    vision: [nn::Linear; 2],
    audio: [nn::Linear; 2],
    ask_vision: Attention,
    ask_audio: Attention,
    connect: nn::Linear,
}

impl Enhancement {
    fn new(path: &nn::Path<'_>, bert: &Bert, vision_dim: i64, audio_dim: i64) -> Self {
        let width = bert.width();
        let linear = |path: nn::Path<'_>, from, to| nn::linear(path, from, to, bert.linear_init());
        let transform = |name: &str, input| {
            let part = path / name;
            [
                linear(&part / 0, input, width),
                linear(&part / 2, width, width),
            ]
        };
        let attention = |name: &str| {
            let part = path / name;
            Attention {
                query: linear(&part / "Wq", width, width),
                key: linear(&part / "Wk", width, width),
                value: linear(&part / "Wv", width, width),
            }
        };
        Self {
            vision: transform("visual_transform", vision_dim),
            audio: transform("acoustic_transform", audio_dim),
            ask_vision: attention("hv"),
            ask_audio: attention("ha"),
            connect: linear(path / "cat_connect", 2 * width, width),
        }
    }

    /// Tokens `[B, L, H]`, vision `[B, Tv, Dv]`, audio `[B, Ta, Da]` to shifted tokens.
    fn forward(&self, tokens: &Tensor, vision: &Tensor, audio: &Tensor) -> Tensor {
        let ask = |attention: &Attention, [into, out]: &[nn::Linear; 2], steps: &Tensor| {
            let steps = out.forward(&into.forward(steps).relu());
            let query = attention.query.forward(tokens);
            let scores = query.matmul(&attention.key.forward(&steps).transpose(1, 2));
            (scores * SHARPNESS)
                .softmax(-1, Kind::Float)
                .matmul(&attention.value.forward(&steps))
        };
        let seen = ask(&self.ask_vision, &self.vision, vision);
        let heard = ask(&self.ask_audio, &self.audio, audio);
        self.connect.forward(&Tensor::cat(&[seen, heard], -1)) + tokens
    }
}

#[derive(Debug)]
struct Model {
    bert: Bert,
    enhancement: Enhancement,
    dense: nn::Linear,
    out: nn::Linear,
}

impl Model {
    fn new(path: &nn::Path<'_>, build: &Build<'_>) -> Result<Self, MethodError> {
        let encoder = path / "bert";
        let bert = Bert::load(&encoder, build.encoder)?;
        let classifier = path / "classifier";
        let width = bert.width();
        // Embeddings of sentiment words, parts of speech and polarity: the reference has them and
        // feeds them nothing. Here so that weights load by name.
        for (name, rows) in [
            ("senti_embeddings", 3),
            ("pos_tag_embeddings", 5),
            ("polarity_embeddings", 6),
        ] {
            let table = &encoder / "embeddings" / name;
            let _unused = table.randn("weight", &[rows, width], 0.0, 0.02);
        }
        Ok(Self {
            enhancement: Enhancement::new(
                &(&encoder / "encoder" / "CE"),
                &bert,
                build.data.vision_dim,
                build.data.audio_dim,
            ),
            dense: nn::linear(&classifier / "dense", width, width, bert.linear_init()),
            out: nn::linear(&classifier / "out_proj", width, 1, bert.linear_init()),
            bert,
        })
    }

    /// Predictions `[B]`.
    fn forward(&self, input: &Inputs, train: bool) -> Tensor {
        // Only the first output is read and padding is masked, so padding can go.
        let text = Bert::trim(&input.text);
        // The reference leaves the embeddings as they were pretrained.
        let embedded = tch::no_grad(|| self.bert.embed(&text, train));
        let enhance = |x: Tensor| self.enhancement.forward(&x, &input.vision, &input.audio);
        let injection = (INJECTION, &enhance as &dyn Fn(Tensor) -> Tensor);
        let states = self.bert.encode(embedded, &text, train, Some(injection));
        let dropout = self.bert.dropout();
        let first = states.select(1, 0).dropout(dropout, train);
        let hidden = self.dense.forward(&first).tanh().dropout(dropout, train);
        self.out.forward(&hidden).squeeze_dim(1)
    }
}

/// The method.
#[derive(Debug)]
pub struct Cenet {
    vs: nn::VarStore,
    model: Model,
    optimizer: Adam,
    config: Config,
}

/// Builds CENET.
pub fn build(build: &Build<'_>) -> Result<Box<dyn Method>, MethodError> {
    let config: Config = common::config(METHOD, build)?;
    let vs = nn::VarStore::new(build.device);
    let model = Model::new(&(vs.root() / "Model"), build)?;
    let [mut decayed, mut undecayed] = [Vec::new(), Vec::new()];
    for (name, tensor) in common::parameters(&vs) {
        let plain = name.contains("bias") || name.contains("LayerNorm.weight");
        if plain && !name.contains("CE") {
            undecayed.push((name, tensor));
        } else {
            decayed.push((name, tensor));
        }
    }
    let group = |params, weight_decay| Group {
        params,
        lr: config.learning_rate,
        weight_decay,
    };
    let optimizer = Adam::new(
        "adam",
        vec![group(decayed, config.weight_decay), group(undecayed, 0.0)],
        AdamConfig {
            eps: config.adam_epsilon,
            ..AdamConfig::ADAM
        },
    );
    Ok(Box::new(Cenet {
        vs,
        model,
        optimizer,
        config,
    }))
}

impl Method for Cenet {
    fn vars(&self) -> &nn::VarStore {
        &self.vs
    }

    fn batch_size(&self) -> usize {
        self.config.batch_size
    }

    fn train_step(&mut self, at: Position, batch: &Batch) -> Result<StepOutcome, MethodError> {
        self.optimizer.zero_grad();
        let prediction = self.model.forward(&batch.input, true);
        let loss = (&prediction - &batch.labels).abs().mean(Kind::Float);
        let losses = common::losses(at, &[("loss", &loss)])?;
        loss.backward();
        if self.config.max_grad_norm >= 0.0 {
            clip_grad_norm(&self.optimizer.gradients(), self.config.max_grad_norm);
        }
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
        (prediction - labels)
            .abs()
            .mean(Kind::Float)
            .double_value(&[])
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
