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
    precision::Precision,
};
use serde::Deserialize;
use tch::{Kind, Tensor, nn, nn::Module};

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
    /// Maximum of the gradients' common norm; -1 disables clipping, as in the reference.
    max_grad_norm: f64,
    /// Frames of audio and vision that are read, from the first that is not zero; 0: all.
    frames: i64,
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
    fn embedding(&self, modality: usize, precision: Precision) -> TransformerShape {
        TransformerShape {
            width: self.width,
            depth: self.embedding_depth[modality],
            heads: self.embedding_heads[modality],
            hidden: self.embedding_hidden,
            precision,
        }
    }
}

/// `features` `[B, T, D]` cut to `frames` `[B, frames, D]`, from each sample's first frame that is not
/// zero, or so late that as many are left (`Haoyu-ha/ALMT` 242261e, `core/dataset.py`); unchanged if
/// there are no more. There, features are cut before anything is missing; here erased frames at the
/// beginning are zeros like others.
fn cut(features: &Tensor, frames: i64) -> Tensor {
    let [_, steps, width] = features.size()[..] else {
        return features.shallow_clone();
    };
    if frames == 0 || steps <= frames {
        return features.shallow_clone();
    }
    let nonzero = features.ne(0.0).any_dim(2, false).to_kind(Kind::Int64);
    let before = nonzero.cumsum(1, Kind::Int64).eq(0);
    let first = before.sum_dim_intlist(1_i64, true, Kind::Int64);
    let first = first.clamp_max(steps - frames);
    let places = first + Tensor::arange(frames, (Kind::Int64, features.device()));
    let places = places.unsqueeze(2).expand([-1, -1, width], false);
    features.gather(1, &places, false)
}

#[derive(Debug)]
struct Almt {
    /// Frames of audio and vision that are read; 0: all.
    frames: i64,
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
            build.precision,
        )?;
        let data = build.data;
        let (width, tokens) = (config.width, config.tokens);
        let condense = |name: &str, modality, input, length| {
            let shape = config.embedding(modality, build.precision);
            Condense::new(&(path / name), input, length, tokens, shape)
        };
        let read = |length: i64| match config.frames {
            0 => length,
            frames => length.min(frames),
        };
        Ok(Self {
            frames: config.frames,
            language: condense("embedding_l", 0, bert.width(), data.text_length),
            audio: condense("embedding_a", 1, data.audio_dim, read(data.audio_length)),
            vision: condense("embedding_v", 2, data.vision_dim, read(data.vision_length)),
            language_encoder: Transformer::new(
                &(path / "l_encoder"),
                tokens,
                0,
                TransformerShape {
                    width,
                    depth: config.hyper_depth - 1,
                    heads: config.language_heads,
                    hidden: width,
                    precision: build.precision,
                },
            ),
            hyper: path.ones("h_hyper", &[1, tokens, width]),
            hyper_learning: HyperModality::new(
                &(path / "h_hyper_layer"),
                width,
                config.hyper_depth,
                config.hyper_heads,
                (build.faults.into(), build.precision),
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
                    precision: build.precision,
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
        let audio = self.audio.forward(&cut(&input.audio, self.frames));
        let vision = self.vision.forward(&cut(&input.vision, self.frames));
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
        max_grad_norm: (config.max_grad_norm >= 0.0).then_some(config.max_grad_norm),
    };
    Ok(Box::new(SingleLoss::annealed(
        vs, model, rates, build, training,
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Samples with the frames 1, 2, …, of which the first `zeros` are 0.
    fn samples(steps: i64, zeros: &[i64]) -> Tensor {
        let frames = Tensor::arange_start(1, steps + 1, (Kind::Float, tch::Device::Cpu));
        let rows: Vec<Tensor> = zeros
            .iter()
            .map(|zeros| {
                let row = frames.copy();
                let _ = row.narrow(0, 0, *zeros).fill_(0.0);
                Tensor::stack(&[&row, &(&row * 0.0)], 1)
            })
            .collect();
        Tensor::stack(&rows, 0)
    }

    fn first_feature(cut: &Tensor, sample: i64) -> Vec<f32> {
        Vec::try_from(cut.get(sample).select(1, 0)).unwrap()
    }

    #[test]
    fn features_are_cut_from_the_first_frame_that_is_not_zero() {
        let features = samples(7, &[0, 2, 5, 7]);
        let three = cut(&features, 3);
        assert_eq!(three.size(), [4, 3, 2]);
        assert_eq!(first_feature(&three, 0), [1.0, 2.0, 3.0]);
        assert_eq!(first_feature(&three, 1), [3.0, 4.0, 5.0]);
        // Too late for three, and nothing at all: the last three.
        assert_eq!(first_feature(&three, 2), [0.0, 6.0, 7.0]);
        assert_eq!(first_feature(&three, 3), [0.0, 0.0, 0.0]);
        // A frame with one feature is not zero.
        let late = samples(7, &[7]);
        let _ = late.get(0).get(3).get(1).fill_(-1.0);
        let second = cut(&late, 3).get(0).select(1, 1);
        assert_eq!(Vec::<f32>::try_from(second).unwrap(), [-1.0, 0.0, 0.0]);
        for all in [0, 7, 9] {
            assert_eq!(cut(&features, all), features, "{all}");
        }
    }
}
