//! Dominant modality correction and dominant-modality based multimodal learning.

use super::config::Config;
use crate::layers::{
    linear, reverse_gradient,
    token_transformer::{CrossTransformer, HyperModality, Transformer},
};
use halfheard_shared::methods::faults::{Fault, Faults};
use tch::{Kind, Tensor, nn, nn::Module};

/// Slope of the leaky ReLUs.
const LEAK: f64 = 0.1;

/// Two linear layers with a leaky ReLU between them, named `0` and `2`.
#[derive(Debug)]
pub(super) struct Perceptron(nn::Linear, nn::Linear);

impl Perceptron {
    pub(super) fn new(path: &nn::Path<'_>, input: i64, hidden: i64, output: i64) -> Self {
        Self(
            linear(path / 0, input, hidden),
            linear(path / 2, hidden, output),
        )
    }

    pub(super) fn forward(&self, x: &Tensor) -> Tensor {
        let hidden = self.0.forward(x);
        self.1.forward(&hidden.maximum(&(&hidden * LEAK)))
    }
}

/// Estimates the completeness of the language from its features.
#[derive(Debug)]
struct CompletenessCheck {
    encoder: Transformer,
    score: Perceptron,
}

/// Dominant modality correction.
#[derive(Debug)]
pub(super) struct Correction {
    /// `None` without language, whose completeness is then 0.
    check: Option<CompletenessCheck>,
    proxy: Tensor,
    proxy_generator: Transformer,
    /// Distinguishes what stands in for language from language; `None` without language.
    pub(super) discriminator: Option<Perceptron>,
    faults: Faults,
}

/// The outputs of the correction.
#[derive(Debug)]
pub(super) struct Corrected {
    /// `[B, tokens, D]`.
    pub(super) dominant: Tensor,
    /// What the discriminator judges, whose gradient is reversed on its way to the proxy generator:
    /// the same value or, as equation 9 has it, the proxy alone.
    pub(super) judged: Tensor,
    /// Completeness of the language, `[B, 1]`.
    pub(super) completeness: Option<Tensor>,
}

impl Correction {
    pub(super) fn new(path: &nn::Path<'_>, config: &Config, faults: Faults) -> Self {
        let (width, tokens) = (config.width, config.tokens);
        let check = path / "completeness_check";
        Self {
            check: config.language.then(|| CompletenessCheck {
                encoder: Transformer::new(
                    &(&check / 0),
                    tokens,
                    1,
                    config.shape(config.completeness_depth),
                ),
                score: Perceptron::new(&(&check / 1), width, width / 2, 1),
            }),
            proxy: path.ones("h_p", &[1, tokens, width]),
            proxy_generator: Transformer::new(
                &(path / "proxy_dominate_modality_generator"),
                3 * tokens,
                tokens,
                config.shape(config.proxy_depth),
            ),
            discriminator: config.language.then(|| {
                let path = path / "effective_discriminator";
                Perceptron::new(&path, width, config.discriminator_hidden, 2)
            }),
            faults,
        }
    }

    /// Features `[B, tokens, D]` each.
    pub(super) fn forward(&self, [language, audio, vision]: &[Tensor; 3]) -> Corrected {
        let size = language.size();
        let completeness = self.check.as_ref().map(|check| {
            let summary = check.encoder.forward(language, 1).squeeze_dim(1);
            check.score.forward(&summary).sigmoid()
        });
        let start = self.proxy.expand([size[0], -1, -1], false);
        let proxy = self
            .proxy_generator
            .forward(&Tensor::cat(&[&start, audio, vision], 1), size[1]);
        let mix = |proxy: &Tensor| match &completeness {
            Some(completeness) => {
                let weight = completeness.unsqueeze(-1);
                proxy * (1.0 - &weight) + language * &weight
            }
            None => proxy.shallow_clone(),
        };
        let reversed = reverse_gradient(&proxy, 1.0);
        let mixed = mix(&reversed);
        let dominant = match self.faults.keeps(Fault::GrlOnProxy) {
            // The reference reverses every gradient that reaches the proxy, the sentiment loss's
            // too.
            true => mixed.shallow_clone(),
            false => mix(&proxy),
        };
        let judged = match self.faults.keeps(Fault::MixedDiscriminator) {
            true => mixed,
            false => reversed,
        };
        Corrected {
            dominant,
            judged,
            completeness,
        }
    }
}

/// Rebuilds what is missing of one modality from its feature.
#[derive(Debug)]
pub(super) enum Reconstructor {
    /// The feature of the complete inputs, as the reference does.
    Feature(Transformer),
    /// The complete inputs themselves (equation 11): one learned token for each step attends to the
    /// feature, and a linear layer leads to the modality's width. The paper gives no architecture.
    Inputs {
        steps: i64,
        transformer: Transformer,
        out: nn::Linear,
    },
}

impl Reconstructor {
    /// For a modality of `steps` and `width` numbers each, whose reference numbers it `i`.
    pub(super) fn new(
        path: &nn::Path<'_>,
        i: i64,
        config: &Config,
        [steps, width]: [i64; 2],
        faults: Faults,
    ) -> Self {
        let path = path / "reconstructor" / i;
        let shape = config.shape(config.reconstructor_depth);
        match faults.keeps(Fault::RebuiltFeatures) {
            true => Self::Feature(Transformer::new(&path, config.tokens, 0, shape)),
            false => Self::Inputs {
                steps,
                transformer: Transformer::new(&path, config.tokens, steps, shape),
                out: linear(&path / "out", config.width, width),
            },
        }
    }

    /// From a feature `[B, tokens, D]` to a feature of the same size or to inputs
    /// `[B, steps, width]`.
    pub(super) fn forward(&self, feature: &Tensor) -> Tensor {
        match self {
            Self::Feature(transformer) => transformer.forward(feature, feature.size()[1]),
            Self::Inputs {
                steps,
                transformer,
                out,
            } => out.forward(&transformer.forward(feature, *steps)),
        }
    }
}

/// Dominant-modality based multimodal learning.
#[derive(Debug)]
pub(super) struct Learning {
    language_encoder: Transformer,
    hyper: Tensor,
    hyper_learning: HyperModality,
    fusion: CrossTransformer,
    regression: nn::Linear,
}

/// The prediction from the features.
#[derive(Debug)]
pub(super) enum Head {
    Learning(Box<Learning>),
    /// The ablation: a regression of the concatenated means of the features.
    Concatenation(nn::Linear),
}

impl Head {
    pub(super) fn new(path: &nn::Path<'_>, config: &Config, faults: Faults) -> Self {
        let (width, tokens) = (config.width, config.tokens);
        let dmml = path / "dmml";
        if !config.dmml {
            return Self::Concatenation(linear(path / "concatenation", 3 * width, 1));
        }
        Self::Learning(Box::new(Learning {
            language_encoder: Transformer::new(
                &(&dmml / 0),
                tokens,
                0,
                config.shape(config.language_depth),
            ),
            hyper: path.ones("h_hyper", &[1, tokens, width]),
            hyper_learning: HyperModality::new(
                &(&dmml / 1),
                width,
                config.hyper_depth,
                config.heads,
                (faults.into(), config.precision),
            ),
            fusion: CrossTransformer::new(
                &(&dmml / 2),
                tokens,
                tokens,
                config.shape(config.fusion_depth),
            ),
            regression: linear(&dmml / 3, width, 1),
        }))
    }

    /// `[B, tokens, D]` each to predictions `[B]`.
    pub(super) fn forward(&self, dominant: &Tensor, audio: &Tensor, vision: &Tensor) -> Tensor {
        let mean = |x: &Tensor| x.mean_dim(1i64, false, Kind::Float);
        let output = match self {
            Self::Learning(parts) => {
                let scales = parts.language_encoder.hidden_states(dominant);
                let hyper = parts.hyper.expand([dominant.size()[0], -1, -1], false);
                let hyper = parts.hyper_learning.forward(&scales, audio, vision, hyper);
                let fused = parts.fusion.forward(&hyper, &scales[scales.len() - 1]);
                let tokens = fused.narrow(1, 1, fused.size()[1] - 1);
                parts.regression.forward(&mean(&tokens))
            }
            Self::Concatenation(regression) => {
                let all = Tensor::cat(&[mean(dominant), mean(audio), mean(vision)], 1);
                regression.forward(&all)
            }
        };
        output.squeeze_dim(1)
    }
}
