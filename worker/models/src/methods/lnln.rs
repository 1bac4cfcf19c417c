//! LNLN: the language-dominated noise-resistant learning network (Zhang et al., NeurIPS 2024), as
//! its authors' code computes it (`models/lnln.py`, `core/losses.py`, `train.py`).
//!
//! Language dominates, so its quality decides. Dominant modality correction (DMC) estimates how
//! complete the language is and mixes in a proxy made from audio and vision, which a discriminator
//! holds against real, complete language. Dominant-modality based multimodal learning (DMML) fuses.
//! A reconstructor makes the features of erased inputs recall those of the complete ones.
//!
//! The ablations of the paper's Tables 4 to 6 are switches of [`Config`]; what each leaves out is
//! not built.

use super::{
    Batch, Build, Features, Inputs, Method, MethodError, MethodState, Needs, Position, StepOutcome,
    common,
};
use crate::{
    layers::{
        bert::Bert,
        linear, reverse_gradient,
        savings::together,
        token_transformer::{
            CrossTransformer, Gather, HyperModality, Transformer, TransformerShape,
        },
    },
    optim::{Adam, AdamConfig, Group, WarmupCosine},
};
use halfheard_shared::wire::Fidelity;
use serde::Deserialize;
use tch::{Device, Kind, Reduction, Tensor, nn, nn::Module};

const METHOD: &str = "lnln";

/// Slope of the leaky ReLUs.
const LEAK: f64 = 0.1;

/// Hyper-parameters (the authors' `configs/train_*.yaml`).
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
    /// Weight of the completeness loss; a loss of weight 0 is not computed.
    pub alpha: f64,
    /// Weight of the adversarial loss.
    pub beta: f64,
    /// Weight of the reconstruction loss.
    pub gamma: f64,
    /// Weight of the sentiment loss (δ in the paper's Table 7).
    pub sigma: f64,
    /// Features a token.
    pub width: i64,
    /// Tokens that a modality is gathered into.
    pub tokens: i64,
    /// Heads everywhere.
    pub heads: i64,
    /// Layers of each modality's embedding.
    pub embedding_depth: i64,
    /// Layers of the proxy generator.
    pub proxy_depth: i64,
    /// Width of the effectiveness discriminator's hidden layer.
    pub discriminator_hidden: i64,
    /// Layers of the completeness check.
    pub completeness_depth: i64,
    /// Layers of each reconstructor.
    pub reconstructor_depth: i64,
    /// Layers of the language encoder.
    pub language_depth: i64,
    /// Layers of hyper-modality learning: at most one more than the language encoder has.
    pub hyper_depth: i64,
    /// Layers of the fusion.
    pub fusion_depth: i64,
    /// With the dominant modality correction; without it the dominant feature is the language's.
    pub dmc: bool,
    /// With the reconstructor.
    pub reconstructor: bool,
    /// With dominant-modality based learning; without it the features are concatenated.
    pub dmml: bool,
    /// Trained on erased inputs; without it on complete ones.
    pub train_missing: bool,
    /// With language; without it the dominant feature is the proxy alone.
    pub language: bool,
    /// With audio; without it its features are zero.
    pub audio: bool,
    /// With vision; without it its features are zero.
    pub vision: bool,
}

impl Config {
    fn shape(&self, depth: i64) -> TransformerShape {
        TransformerShape {
            width: self.width,
            depth,
            heads: self.heads,
            hidden: self.width,
        }
    }

    /// Whether the discriminator compares corrected features with complete language.
    fn adversarial(&self) -> bool {
        self.dmc && self.language && self.beta != 0.0
    }

    /// Whether features are compared with those of the complete inputs.
    fn reconstructs(&self) -> bool {
        self.reconstructor && self.gamma != 0.0
    }
}

/// Two linear layers with a leaky ReLU between, under the names `0` and `2`.
#[derive(Debug)]
struct Perceptron(nn::Linear, nn::Linear);

impl Perceptron {
    fn new(path: &nn::Path<'_>, input: i64, hidden: i64, output: i64) -> Self {
        Self(
            linear(path / 0, input, hidden),
            linear(path / 2, hidden, output),
        )
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let hidden = self.0.forward(x);
        self.1.forward(&hidden.maximum(&(&hidden * LEAK)))
    }
}

/// How complete the language is, from its own features.
#[derive(Debug)]
struct CompletenessCheck {
    encoder: Transformer,
    score: Perceptron,
}

/// Dominant modality correction.
#[derive(Debug)]
struct Correction {
    /// `None` without language: its completeness is 0 then.
    check: Option<CompletenessCheck>,
    proxy: Tensor,
    proxy_generator: Transformer,
    /// Tells corrected features from complete language; `None` without language.
    discriminator: Option<Perceptron>,
    fidelity: Fidelity,
}

/// What the correction gives.
#[derive(Debug)]
struct Corrected {
    /// `[B, tokens, D]`.
    dominant: Tensor,
    /// The same value with the gradient that the discriminator sends: turned round on its way to
    /// the proxy generator.
    judged: Tensor,
    /// Completeness of the language, `[B, 1]`.
    completeness: Option<Tensor>,
}

impl Correction {
    fn new(path: &nn::Path<'_>, config: &Config, fidelity: Fidelity) -> Self {
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
            fidelity,
        }
    }

    /// Features `[B, tokens, D]` each.
    fn forward(&self, [language, audio, vision]: &[Tensor; 3]) -> Corrected {
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
        let judged = mix(&reverse_gradient(&proxy, 1.0));
        let dominant = match self.fidelity {
            // The reference turns round every gradient that reaches the proxy: that of the
            // sentiment loss too.
            Fidelity::Reference => judged.shallow_clone(),
            Fidelity::Corrected => mix(&proxy),
        };
        Corrected {
            dominant,
            judged,
            completeness,
        }
    }
}

/// Dominant-modality based multimodal learning.
#[derive(Debug)]
struct Learning {
    language_encoder: Transformer,
    hyper: Tensor,
    hyper_learning: HyperModality,
    fusion: CrossTransformer,
    regression: nn::Linear,
}

/// How the features become a prediction.
#[derive(Debug)]
enum Head {
    Learning(Box<Learning>),
    /// The ablation: the means of the three features side by side.
    Concatenation(nn::Linear),
}

impl Head {
    fn new(path: &nn::Path<'_>, config: &Config, fidelity: Fidelity) -> Self {
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
                fidelity.into(),
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
    fn forward(&self, dominant: &Tensor, audio: &Tensor, vision: &Tensor) -> Tensor {
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

/// BERT and what gathers its outputs.
#[derive(Debug)]
struct Language {
    bert: Bert,
    gather: Gather,
}

#[derive(Debug)]
struct Model {
    language: Option<Language>,
    audio: Option<Gather>,
    vision: Option<Gather>,
    correction: Option<Correction>,
    /// For language, audio and vision.
    reconstructors: Option<[Option<Transformer>; 3]>,
    head: Head,
    /// Of a feature: tokens, width.
    feature: [i64; 2],
    adversarial: bool,
    reconstructs: bool,
}

/// What training compares besides the prediction.
#[derive(Debug)]
struct Comparison {
    /// `[B, 1]`.
    completeness: Option<Tensor>,
    /// Of corrected features first, of complete language behind: `[2 B tokens, 2]`.
    effectiveness: Option<Tensor>,
    /// Recalled and complete features, `[B, 3 tokens, D]` both.
    reconstruction: Option<(Tensor, Tensor)>,
}

impl Model {
    fn new(path: &nn::Path<'_>, config: &Config, build: &Build<'_>) -> Result<Self, MethodError> {
        let data = build.data;
        let gather = |name: &str, input, length| {
            let shape = config.shape(config.embedding_depth);
            Gather::new(&(path / name), input, length, config.tokens, shape)
        };
        let language = if config.language {
            let bert = Bert::load(&(path / "bertmodel" / "model"), build.encoder)?;
            let gather = gather("proj_l", bert.width(), data.text_length);
            Some(Language { bert, gather })
        } else {
            None
        };
        let reconstructor = |used: bool, i: i64| {
            used.then(|| {
                Transformer::new(
                    &(path / "reconstructor" / i),
                    config.tokens,
                    0,
                    config.shape(config.reconstructor_depth),
                )
            })
        };
        Ok(Self {
            language,
            audio: config
                .audio
                .then(|| gather("proj_a", data.audio_dim, data.audio_length)),
            vision: config
                .vision
                .then(|| gather("proj_v", data.vision_dim, data.vision_length)),
            correction: config
                .dmc
                .then(|| Correction::new(path, config, build.fidelity)),
            // The reference numbers them audio, vision, language.
            reconstructors: config.reconstructor.then(|| {
                [
                    reconstructor(config.language, 2),
                    reconstructor(config.audio, 0),
                    reconstructor(config.vision, 1),
                ]
            }),
            head: Head::new(path, config, build.fidelity),
            feature: [config.tokens, config.width],
            adversarial: config.adversarial(),
            reconstructs: config.reconstructs(),
        })
    }

    /// The feature of a modality that an ablation leaves out.
    fn nothing(&self, samples: i64, device: Device) -> Tensor {
        let [tokens, width] = self.feature;
        Tensor::zeros([samples, tokens, width], (Kind::Float, device))
    }

    fn language(&self, text: &Tensor, train: bool) -> Tensor {
        match &self.language {
            // The transformer behind attends to padded positions, so BERT's outputs there matter.
            Some(Language { bert, gather }) => gather.forward(&bert.forward_untrimmed(text, train)),
            None => self.nothing(text.size()[0], text.device()),
        }
    }

    fn frames(&self, gather: &Option<Gather>, x: &Tensor) -> Tensor {
        match gather {
            Some(gather) => gather.forward(x),
            None => self.nothing(x.size()[0], x.device()),
        }
    }

    /// The features of language, audio and vision, `[B, tokens, D]` each.
    fn embed(&self, input: &Inputs, train: bool) -> [Tensor; 3] {
        [
            self.language(&input.text, train),
            self.frames(&self.audio, &input.audio),
            self.frames(&self.vision, &input.vision),
        ]
    }

    /// The features of the erased and of the complete inputs, encoded in one batch. Complete ones
    /// that nothing is compared with are not computed.
    fn embed_both(&self, erased: &Inputs, complete: &Inputs) -> ([Tensor; 3], [Option<Tensor>; 3]) {
        let pair = |needed: bool, a: &Tensor, b: &Tensor, f: &dyn Fn(&Tensor) -> Tensor| {
            if !needed {
                return (f(a), None);
            }
            let (a, b) = together(a, b, f);
            (a, Some(b))
        };
        let (language, complete_language) = pair(
            self.language.is_some() && (self.adversarial || self.reconstructs),
            &erased.text,
            &complete.text,
            &|text| self.language(text, true),
        );
        let (audio, complete_audio) = pair(
            self.audio.is_some() && self.reconstructs,
            &erased.audio,
            &complete.audio,
            &|x| self.frames(&self.audio, x),
        );
        let (vision, complete_vision) = pair(
            self.vision.is_some() && self.reconstructs,
            &erased.vision,
            &complete.vision,
            &|x| self.frames(&self.vision, x),
        );
        (
            [language, audio, vision],
            [complete_language, complete_audio, complete_vision],
        )
    }

    fn correct(&self, features: &[Tensor; 3]) -> Corrected {
        match &self.correction {
            Some(correction) => correction.forward(features),
            None => Corrected {
                dominant: features[0].shallow_clone(),
                judged: features[0].shallow_clone(),
                completeness: None,
            },
        }
    }

    /// Predictions `[B]` in evaluation, and the language's feature before and behind the correction
    /// (Figure 8), means over tokens. Without language or correction there is nothing to compare.
    fn forward_evaluation(&self, input: &Inputs) -> (Tensor, Option<Features>) {
        let features = self.embed(input, false);
        let dominant = self.correct(&features).dominant;
        let prediction = self.head.forward(&dominant, &features[1], &features[2]);
        let mean = |x: &Tensor| x.mean_dim(1i64, false, Kind::Float);
        let compared = self.language.is_some() && self.correction.is_some();
        let shown = compared.then(|| Features {
            language: mean(&features[0]),
            dominant: mean(&dominant),
        });
        (prediction, shown)
    }

    /// Predictions `[B]` from the erased inputs, and what training compares.
    fn forward_training(&self, erased: &Inputs, complete: &Inputs) -> (Tensor, Comparison) {
        let (features, complete) = self.embed_both(erased, complete);
        let Corrected {
            dominant,
            judged,
            completeness,
        } = self.correct(&features);
        let prediction = self.head.forward(&dominant, &features[1], &features[2]);

        let discriminator = self
            .correction
            .as_ref()
            .and_then(|correction| correction.discriminator.as_ref());
        let effectiveness = match (discriminator, &complete[0]) {
            (Some(discriminator), Some(language)) if self.adversarial => {
                let tokens = Tensor::cat(&[&judged, language], 0).flatten(0, 1);
                Some(discriminator.forward(&tokens))
            }
            _ => None,
        };
        let reconstructors = self.reconstructors.as_ref().filter(|_| self.reconstructs);
        let reconstruction = reconstructors.map(|reconstructors| {
            let (mut recalled, mut truth) = (Vec::new(), Vec::new());
            for ((reconstructor, feature), complete) in
                reconstructors.iter().zip(&features).zip(complete)
            {
                if let (Some(reconstructor), Some(complete)) = (reconstructor, complete) {
                    recalled.push(reconstructor.forward(feature, self.feature[0]));
                    // Not detached: in the reference the truth is pulled to the recalled, too.
                    truth.push(complete);
                }
            }
            (Tensor::cat(&recalled, 1), Tensor::cat(&truth, 1))
        });
        let comparison = Comparison {
            completeness,
            effectiveness,
            reconstruction,
        };
        (prediction, comparison)
    }
}

/// The method.
#[derive(Debug)]
pub struct Lnln {
    vs: nn::VarStore,
    model: Model,
    optimizer: Adam,
    schedule: WarmupCosine,
    config: Config,
}

/// Builds LNLN.
pub fn build(build: &Build<'_>) -> Result<Box<dyn Method>, MethodError> {
    let config: Config = common::config(METHOD, build)?;
    let vs = nn::VarStore::new(build.device);
    let model = Model::new(&vs.root(), &config, build)?;
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
    Ok(Box::new(Lnln {
        vs,
        model,
        optimizer,
        schedule,
        config,
    }))
}

impl Lnln {
    /// The weighted sum of the losses first, then those of its parts that there are.
    fn losses(
        &self,
        prediction: &Tensor,
        comparison: &Comparison,
        batch: &Batch,
    ) -> Vec<(&'static str, Tensor)> {
        let mse = |a: &Tensor, b: &Tensor| a.mse_loss(b, Reduction::Mean);
        let mut parts = vec![("l_sp", self.config.sigma, mse(prediction, &batch.labels))];
        if let Some(completeness) = &comparison.completeness
            && self.config.alpha != 0.0
        {
            let target = if self.config.train_missing {
                1.0 - batch.missing_rate.text.unsqueeze(1)
            } else {
                completeness.ones_like()
            };
            parts.push(("l_cc", self.config.alpha, mse(completeness, &target)));
        }
        if let Some(logits) = &comparison.effectiveness {
            // The discriminator is to call corrected features 1 and complete language 0.
            let rows = logits.size()[0];
            let target = Tensor::zeros([rows], (Kind::Int64, logits.device()));
            let _ = target.narrow(0, 0, rows / 2).fill_(1);
            let part = logits.cross_entropy_for_logits(&target);
            parts.push(("l_adv", self.config.beta, part));
        }
        if let Some((recalled, truth)) = &comparison.reconstruction {
            parts.push(("l_rec", self.config.gamma, mse(recalled, truth)));
        }
        let loss = parts.iter().map(|(_, weight, part)| part * *weight).sum();
        std::iter::once(("loss", loss))
            .chain(parts.into_iter().map(|(name, _, part)| (name, part)))
            .collect()
    }
}

impl Method for Lnln {
    fn vars(&self) -> &nn::VarStore {
        &self.vs
    }

    fn needs(&self) -> Needs {
        Needs {
            complete_in_training: self.config.adversarial()
                || self.config.reconstructs()
                || !self.config.train_missing,
            complete_in_evaluation: false,
        }
    }

    fn batch_size(&self) -> usize {
        self.config.batch_size
    }

    fn train_step(&mut self, at: Position, batch: &Batch) -> Result<StepOutcome, MethodError> {
        let complete = if self.needs().complete_in_training {
            common::complete(METHOD, batch)?
        } else {
            &batch.input
        };
        let input = if self.config.train_missing {
            &batch.input
        } else {
            complete
        };
        self.optimizer.zero_grad();
        let (prediction, comparison) = self.model.forward_training(input, complete);
        let parts = self.losses(&prediction, &comparison, batch);
        let named: Vec<(&'static str, &Tensor)> = parts.iter().map(|(n, t)| (*n, t)).collect();
        let losses = common::losses(at, &named)?;
        parts[0].1.backward();
        self.optimizer.step();
        Ok(StepOutcome {
            prediction: prediction.detach(),
            losses,
        })
    }

    fn predict(&self, batch: &Batch) -> Result<Tensor, MethodError> {
        Ok(self.predict_with_features(batch)?.0)
    }

    fn predict_with_features(
        &self,
        batch: &Batch,
    ) -> Result<(Tensor, Option<Features>), MethodError> {
        Ok(tch::no_grad(|| self.model.forward_evaluation(&batch.input)))
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
