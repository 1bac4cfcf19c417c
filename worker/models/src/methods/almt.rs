//! ALMT: the adaptive language-guided multimodal transformer (Zhang et al., EMNLP 2023), as MMSA
//! trains it (`models/singleTask/ALMT.py`, `trains/singleTask/ALMT.py`).
//!
//! Each modality is condensed into a few tokens; language, at several scales, guides the learning
//! of a hyper-modality from audio and vision; a cross transformer fuses the two.

use super::{
    Build, Inputs, Method, MethodError,
    common::{self, Loss},
    single_loss::{Model, SingleLoss, Training},
};
use crate::{
    context::ForwardContext,
    layers::{
        bert::Bert,
        linear,
        token_transformer::{
            Condense, CrossTransformer, HyperModality, Transformer, TransformerShape,
        },
    },
};
use serde::Deserialize;
use tch::{Tensor, nn, nn::Module};

const METHOD: &str = "almt";

/// Hyper-parameters (MMSA `config_regression.json`).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Samples per batch.
    batch_size: usize,
    /// Epochs without a better validation loss before training stops; 0 disables early stopping.
    early_stop: u32,
    /// Learning rate of AdamW.
    learning_rate: f64,
    /// Weight decay of AdamW.
    weight_decay: f64,
    /// Features per token.
    width: i64,
    /// Width of the embeddings' feed-forward layers.
    embedding_hidden: i64,
    /// Tokens that each modality is condensed into.
    tokens: i64,
    /// Layers of the embedding of language, audio and vision.
    embedding_depth: [i64; 3],
    /// Heads of the embedding of language, audio and vision.
    embedding_heads: [i64; 3],
    /// Heads of the language encoder.
    language_heads: i64,
    /// Layers of hyper-modality learning; the language encoder has one layer less.
    hyper_depth: i64,
    /// Heads of hyper-modality learning.
    hyper_heads: i64,
    /// Layers of the fusion.
    fusion_depth: i64,
    /// Heads of the fusion.
    fusion_heads: i64,
    /// Width of the fusion's feed-forward layers.
    fusion_hidden: i64,
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
struct Almt {
    bert: Bert,
    language: Condense,
    audio: Condense,
    vision: Condense,
    language_encoder: Transformer,
    hyper: Tensor,
    hyper_learning: HyperModality,
    fusion: CrossTransformer,
    regression: nn::Linear,
}

impl Almt {
    fn new(path: &nn::Path<'_>, config: &Config, build: &Build<'_>) -> Result<Self, MethodError> {
        let bert = Bert::load(
            &(path / "bertmodel" / "model"),
            build.encoder,
            build.optimizations,
        )?;
        let data = build.data;
        let (width, tokens) = (config.width, config.tokens);
        let condense = |name: &str, modality, input, length| {
            let shape = config.embedding(modality);
            Condense::new(&(path / name), input, length, tokens, shape)
        };
        Ok(Self {
            language: condense("embedding_l", 0, bert.width(), data.text_length),
            audio: condense("embedding_a", 1, data.audio_dim, data.audio_length),
            vision: condense("embedding_v", 2, data.vision_dim, data.vision_length),
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
}

impl Model for Almt {
    fn forward(&self, input: &Inputs, context: ForwardContext<'_>) -> Tensor {
        // The embedding attends to padded positions too, so BERT's outputs there matter.
        let words = self.bert.forward_untrimmed(&input.text, context);
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

/// Builds ALMT.
pub(super) fn build(build: &Build<'_>) -> Result<Box<dyn Method>, MethodError> {
    let config: Config = common::config(METHOD, build)?;
    let vs = nn::VarStore::new(build.device);
    let model = Almt::new(&(vs.root() / "Model"), &config, build)?;
    let rates = [config.learning_rate, config.weight_decay];
    let training = Training {
        batch_size: config.batch_size,
        early_stop: config.early_stop,
        loss: Loss::Mse,
        max_grad_norm: None,
    };
    Ok(Box::new(SingleLoss::annealed(
        vs, model, rates, build, training,
    )))
}
