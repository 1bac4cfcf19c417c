//! CENET: the cross-modal enhancement network (Wang et al., IEEE TMM 2022), as MMSA trains it
//! (`models/singleTask/CENET.py`, `trains/singleTask/CENET.py`).
//!
//! Between BERT's first and second layer every token is shifted by what it finds in audio and
//! vision; the first output is regressed.

use super::{
    Build, Inputs, Method, MethodError,
    common::{self, Loss},
    single_loss::{Model, SingleLoss, Training},
};
use crate::{
    context::ForwardContext,
    layers::{bert::Bert, dropout::dropout},
    optim::{Adam, AdamConfig, Group},
    precision::Precision,
};
use halfheard_shared::methods::faults::Fault;
use serde::Deserialize;
use tch::{Kind, Tensor, nn, nn::Module};

const METHOD: &str = "cenet";

/// The index of the layer that follows the shift.
const INJECTION: usize = 1;

/// The factor of attention scores in the reference, where others divide by the square root of the
/// width.
const SHARPNESS: f64 = 8.0;

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
    /// Weight decay of Adam, except on biases and layer norms outside the enhancement.
    weight_decay: f64,
    /// Adam's epsilon.
    adam_epsilon: f64,
    /// Maximum of the gradients' common norm; -1 disables clipping.
    max_grad_norm: f64,
}

/// Single-head attention of tokens to another modality's steps.
#[derive(Debug)]
struct Attention {
    query: nn::Linear,
    key: nn::Linear,
    value: nn::Linear,
}

impl Attention {
    /// `tokens` `[B, L, H]` attend to `last` of `steps` `[B, T, H]`, to `[B, L, H]`; scores are multiplied by `sharpness`.
    ///
    /// There are many times as many steps as tokens, so the maps of steps, keys and values are applied on the tokens'
    /// side: of `s = W h + c`, `q · (K s + b)` is `(Wᵀ Kᵀ q) · h` plus what is the same for all steps, and weights, whose
    /// sum is 1, commute with the maps of steps and values.
    fn forward(
        &self,
        tokens: &Tensor,
        steps: &Tensor,
        last: &nn::Linear,
        sharpness: f64,
    ) -> Tensor {
        let query = self.query.forward(tokens);
        let mapped = query.matmul(&self.key.ws).matmul(&last.ws);
        let mut scores = mapped.matmul(&steps.transpose(1, 2));
        if let Some(bias) = &self.key.bs {
            // The same for all steps: weights do not depend on it, but the bias gets its gradient, which rounding makes
            // other than zero.
            scores += query.matmul(&bias.unsqueeze(1));
        }
        let weights = (scores * sharpness).softmax(-1, Kind::Float);
        self.value.forward(&last.forward(&weights.matmul(steps)))
    }
}

/// The cross-modal enhancement.
#[derive(Debug)]
struct Enhancement {
    vision: [nn::Linear; 2],
    audio: [nn::Linear; 2],
    attend_vision: Attention,
    attend_audio: Attention,
    connect: nn::Linear,
    sharpness: f64,
    precision: Precision,
}

impl Enhancement {
    fn new(path: &nn::Path<'_>, bert: &Bert, build: &Build<'_>) -> Self {
        let (vision_dim, audio_dim) = (build.data.vision_dim, build.data.audio_dim);
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
            attend_vision: attention("hv"),
            attend_audio: attention("ha"),
            connect: linear(path / "cat_connect", 2 * width, width),
            sharpness: match build.faults.keeps(Fault::CenetScaledScores) {
                true => SHARPNESS,
                false => (width as f64).sqrt().recip(),
            },
            precision: build.precision,
        }
    }

    /// Tokens `[B, L, H]`, vision `[B, Tv, Dv]`, audio `[B, Ta, Da]` to shifted tokens.
    fn forward(&self, tokens: &Tensor, vision: &Tensor, audio: &Tensor) -> Tensor {
        let attend = |attention: &Attention, [into, out]: &[nn::Linear; 2], steps: &Tensor| {
            let steps = into.forward(steps).relu();
            attention.forward(tokens, &steps, out, self.sharpness)
        };
        self.precision.within(tokens.device(), || {
            let from_vision = attend(&self.attend_vision, &self.vision, vision);
            let from_audio = attend(&self.attend_audio, &self.audio, audio);
            self.connect
                .forward(&Tensor::cat(&[from_vision, from_audio], -1))
                + tokens
        })
    }
}

#[derive(Debug)]
struct Cenet {
    bert: Bert,
    enhancement: Enhancement,
    frozen_embeddings: bool,
    dense: nn::Linear,
    out: nn::Linear,
}

impl Cenet {
    fn new(path: &nn::Path<'_>, build: &Build<'_>) -> Result<Self, MethodError> {
        let encoder = path / "bert";
        let bert = Bert::load(
            &encoder,
            build.encoder,
            build.optimizations,
            build.precision,
        )?;
        let classifier = path / "classifier";
        let width = bert.width();
        // Embeddings of sentiment words, parts of speech and polarity, which the reference has and
        // never uses; present because weights load by name.
        for (name, rows) in [
            ("senti_embeddings", 3),
            ("pos_tag_embeddings", 5),
            ("polarity_embeddings", 6),
        ] {
            let table = &encoder / "embeddings" / name;
            let _unused = table.randn("weight", &[rows, width], 0.0, 0.02);
        }
        Ok(Self {
            enhancement: Enhancement::new(&(&encoder / "encoder" / "CE"), &bert, build),
            frozen_embeddings: build.faults.keeps(Fault::CenetFrozenEmbeddings),
            dense: nn::linear(&classifier / "dense", width, width, bert.linear_init()),
            out: nn::linear(&classifier / "out_proj", width, 1, bert.linear_init()),
            bert,
        })
    }
}

impl Model for Cenet {
    fn forward(&self, input: &Inputs, context: ForwardContext<'_>) -> Tensor {
        let train = context.train;
        // Only the first output is read and padding is masked, so padding can go.
        let context = context.padded(input.padding());
        let text = self.bert.trim(&input.text, context.padding);
        // The reference does not train the embeddings.
        let embedded = match self.frozen_embeddings {
            true => tch::no_grad(|| self.bert.embed(&text, train)),
            false => self.bert.embed(&text, train),
        };
        let enhance = |x: Tensor| self.enhancement.forward(&x, &input.vision, &input.audio);
        let injection = (INJECTION, &enhance as &dyn Fn(Tensor) -> Tensor);
        let states = self.bert.encode(embedded, &text, context, Some(injection));
        let p = self.bert.dropout();
        let first = dropout(&states.select(1, 0), p, train);
        let hidden = dropout(&self.dense.forward(&first).tanh(), p, train);
        self.out.forward(&hidden).squeeze_dim(1)
    }
}

/// Builds CENET.
pub(super) fn build(build: &Build<'_>) -> Result<Box<dyn Method>, MethodError> {
    let config: Config = common::config(METHOD, build)?;
    let vs = nn::VarStore::new(build.device);
    let model = Cenet::new(&(vs.root() / "Model"), build)?;
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
    let training = Training {
        batch_size: config.batch_size,
        early_stop: config.early_stop,
        loss: Loss::L1,
        max_grad_norm: (config.max_grad_norm >= 0.0).then_some(config.max_grad_norm),
    };
    Ok(Box::new(SingleLoss::new(vs, model, optimizer, training)))
}
