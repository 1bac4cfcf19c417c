//! ALMT: the adaptive language-guided multimodal transformer (Zhang et al., EMNLP 2023), as MMSA
//! trains it (`models/singleTask/ALMT.py`, `trains/singleTask/ALMT.py`).
//!
//! Each modality is gathered into a few tokens; language, at several scales, guides the learning
//! of a hyper-modality from audio and vision; a cross transformer fuses the two.

use super::{
    Batch, Build, Inputs, Method, MethodError, MethodState, Position, StepOutcome, common,
};
use crate::{
    layers::{
        bert::Bert,
        linear,
        token_transformer::{
            CrossTransformer, Gather, HyperModality, Transformer, TransformerShape,
        },
    },
    optim::{Adam, AdamConfig, Group, WarmupCosine},
};
use serde::Deserialize;
use tch::{Reduction, Tensor, nn, nn::Module};

const METHOD: &str = "almt";

/// Hyper-parameters (MMSA `config_regression.json`).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Samples in a batch.
    pub batch_size: usize,
    /// The most epochs; the schedule spans them.
    pub max_epochs: u32,
    /// Epochs without a better validation loss before training stops; 0: never.
    pub early_stop: u32,
    /// Learning rate of AdamW.
    pub learning_rate: f64,
    /// Weight decay of AdamW.
    pub weight_decay: f64,
    /// Features a token.
    pub width: i64,
    /// Width of the embeddings' feed-forward layers.
    pub embedding_hidden: i64,
    /// Tokens that a modality is gathered into.
    pub tokens: i64,
    /// Layers of the embedding of language, audio and vision.
    pub embedding_depth: [i64; 3],
    /// Heads of the embedding of language, audio and vision.
    pub embedding_heads: [i64; 3],
    /// Heads of the language encoder.
    pub language_heads: i64,
    /// Layers of hyper-modality learning; the language encoder has one less.
    pub hyper_depth: i64,
    /// Heads of hyper-modality learning.
    pub hyper_heads: i64,
    /// Layers of the fusion.
    pub fusion_depth: i64,
    /// Heads of the fusion.
    pub fusion_heads: i64,
    /// Width of the fusion's feed-forward layers.
    pub fusion_hidden: i64,
}

impl Config {
    /// The embedding of language (0), audio (1) or vision (2).
    fn embedding(&self, modality: usize) -> TransformerShape {
        TransformerShape {
            width: self.width,
            depth: self.embedding_depth[modality],
            heads: self.embedding_heads[modality],
            hidden: self.embedding_hidden,
        }
    }
}

#[derive(Debug)]
struct Model {
    bert: Bert,
    language: Gather,
    audio: Gather,
    vision: Gather,
    language_encoder: Transformer,
    hyper: Tensor,
    hyper_learning: HyperModality,
    fusion: CrossTransformer,
    regression: nn::Linear,
}

impl Model {
    fn new(path: &nn::Path<'_>, config: &Config, build: &Build<'_>) -> Result<Self, MethodError> {
        let bert = Bert::load(&(path / "bertmodel" / "model"), build.encoder)?;
        let data = build.data;
        let (width, tokens) = (config.width, config.tokens);
        let gather = |name: &str, modality, input, length| {
            let shape = config.embedding(modality);
            Gather::new(&(path / name), input, length, tokens, shape)
        };
        Ok(Self {
            language: gather("embedding_l", 0, bert.width(), data.text_length),
            audio: gather("embedding_a", 1, data.audio_dim, data.audio_length),
            vision: gather("embedding_v", 2, data.vision_dim, data.vision_length),
            language_encoder: Transformer::new(
                &(path / "l_encoder"),
                tokens,
                0,
                TransformerShape {
                    width,
                    depth: config.hyper_depth - 1,
                    heads: config.language_heads,
                    hidden: width,
                },
            ),
            hyper: path.ones("h_hyper", &[1, tokens, width]),
            hyper_learning: HyperModality::new(
                &(path / "h_hyper_layer"),
                width,
                config.hyper_depth,
                config.hyper_heads,
                build.fidelity.into(),
            ),
            fusion: CrossTransformer::new(
                &(path / "fusion_layer"),
                tokens,
                tokens,
                TransformerShape {
                    width,
                    depth: config.fusion_depth,
                    heads: config.fusion_heads,
                    hidden: config.fusion_hidden,
                },
            ),
            regression: linear(path / "regression_head", width, 1),
            bert,
        })
    }

    /// Predictions `[B]`.
    fn forward(&self, input: &Inputs, train: bool) -> Tensor {
        // The embedding attends to padded positions too, so BERT's outputs there matter.
        let words = self.bert.forward_untrimmed(&input.text, train);
        let language = self.language.forward(&words);
        let audio = self.audio.forward(&input.audio);
        let vision = self.vision.forward(&input.vision);
        let scales = self.language_encoder.hidden_states(&language);
        let hyper = self.hyper.expand([language.size()[0], -1, -1], false);
        let hyper = self.hyper_learning.forward(&scales, &audio, &vision, hyper);
        let fused = self.fusion.forward(&hyper, &scales[scales.len() - 1]);
        self.regression.forward(&fused.select(1, 0)).squeeze_dim(1)
    }
}

/// The method.
#[derive(Debug)]
pub struct Almt {
    vs: nn::VarStore,
    model: Model,
    optimizer: Adam,
    schedule: WarmupCosine,
    config: Config,
}

/// Builds ALMT.
pub fn build(build: &Build<'_>) -> Result<Box<dyn Method>, MethodError> {
    let config: Config = common::config(METHOD, build)?;
    let vs = nn::VarStore::new(build.device);
    let model = Model::new(&(vs.root() / "Model"), &config, build)?;
    let mut optimizer = Adam::new(
        "adamw",
        vec![Group {
            params: common::parameters(&vs),
            lr: config.learning_rate,
            weight_decay: config.weight_decay,
        }],
        AdamConfig::ADAMW,
    );
    let schedule = WarmupCosine::new(build.max_epochs, build.fidelity, &mut optimizer);
    Ok(Box::new(Almt {
        vs,
        model,
        optimizer,
        schedule,
        config,
    }))
}

impl Method for Almt {
    fn vars(&self) -> &nn::VarStore {
        &self.vs
    }

    fn batch_size(&self) -> usize {
        self.config.batch_size
    }

    fn train_step(&mut self, at: Position, batch: &Batch) -> Result<StepOutcome, MethodError> {
        self.optimizer.zero_grad();
        let prediction = self.model.forward(&batch.input, true);
        let loss = prediction.mse_loss(&batch.labels, Reduction::Mean);
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
        prediction
            .mse_loss(labels, Reduction::Mean)
            .double_value(&[])
    }

    fn end_epoch(&mut self, _epoch: u32, _validation_loss: f64) -> Result<(), MethodError> {
        self.schedule.step(&mut self.optimizer);
        Ok(())
    }

    fn patience(&self) -> Option<u32> {
        common::patience(self.config.early_stop)
    }

    fn state(&self) -> Result<MethodState, MethodError> {
        let mut state = common::save(&self.vs, &[&self.optimizer]);
        self.schedule.save(&mut state);
        Ok(state)
    }

    fn restore(&mut self, state: &MethodState) -> Result<(), MethodError> {
        common::restore(&self.vs, &mut [&mut self.optimizer], state)?;
        self.schedule.load(state)
    }
}
