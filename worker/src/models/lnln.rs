//! LNLN: the language-dominated noise-resistant learning network (Zhang et al., NeurIPS 2024), as
//! its authors' code computes it (`models/lnln.py`, `core/losses.py`, `train.py`).
//!
//! Language dominates, so its quality decides: the dominant modality correction (DMC) estimates
//! how complete the language is and mixes in a proxy made from audio and vision, adversarially kept
//! like real language; dominant-modality based multimodal learning (DMML) fuses; a reconstructor
//! makes the erased features recall the complete ones.

use super::{
    Batch, Build, Inputs, Method, MethodError, MethodState, Needs, Position, StepOutcome, common,
};
use crate::{
    nn::{
        bert::Bert,
        reverse_gradient,
        token_transformer::{CrossTransformer, HyperModality, Transformer, TransformerShape},
    },
    optim::{Adam, AdamConfig, Group, WarmupCosine},
};
use serde::Deserialize;
use tch::{Kind, Reduction, Tensor, nn, nn::Module};

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
    /// Weight of the completeness loss.
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
    /// Layers of hyper-modality learning.
    pub hyper_depth: i64,
    /// Layers of the fusion.
    pub fusion_depth: i64,
    /// Ablation: with the dominant modality correction.
    pub dmc: bool,
    /// Ablation: with the reconstructor.
    pub reconstructor: bool,
    /// Ablation: with dominant-modality based learning, rather than concatenation.
    pub dmml: bool,
    /// Ablation: trained on missing data.
    pub train_missing: bool,
    /// Ablation: with language.
    pub language: bool,
    /// Ablation: with audio.
    pub audio: bool,
    /// Ablation: with vision.
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
}

/// A linear map and a transformer whose extra tokens gather the sequence (equation 1).
#[derive(Debug)]
struct Embedding {
    linear: nn::Linear,
    transformer: Transformer,
    tokens: i64,
}

impl Embedding {
    fn new(path: &nn::Path<'_>, input: i64, length: i64, config: &Config) -> Self {
        let shape = config.shape(config.embedding_depth);
        Self {
            linear: nn::linear(path / 0, input, config.width, Default::default()),
            transformer: Transformer::new(&(path / 1), length, config.tokens, shape),
            tokens: config.tokens,
        }
    }

    /// `[B, T, input]` to `[B, tokens, D]`.
    fn forward(&self, x: &Tensor) -> Tensor {
        self.transformer
            .forward(&self.linear.forward(x))
            .narrow(1, 0, self.tokens)
    }
}

/// Two linear layers with a leaky ReLU between, under the names `0` and `2`.
#[derive(Debug)]
struct Perceptron(nn::Linear, nn::Linear);

impl Perceptron {
    fn new(path: &nn::Path<'_>, input: i64, hidden: i64, output: i64) -> Self {
        Self(
            nn::linear(path / 0, input, hidden, Default::default()),
            nn::linear(path / 2, hidden, output, Default::default()),
        )
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let hidden = self.0.forward(x);
        self.1.forward(&hidden.maximum(&(&hidden * LEAK)))
    }
}

/// Dominant modality correction.
#[derive(Debug)]
struct Correction {
    completeness_encoder: Transformer,
    completeness: Perceptron,
    proxy: Tensor,
    proxy_generator: Transformer,
    discriminator: Perceptron,
}

impl Correction {
    fn new(path: &nn::Path<'_>, config: &Config) -> Self {
        let (width, tokens) = (config.width, config.tokens);
        let check = path / "completeness_check";
        Self {
            completeness_encoder: Transformer::new(
                &(&check / 0),
                tokens,
                1,
                config.shape(config.completeness_depth),
            ),
            completeness: Perceptron::new(&(&check / 1), width, width / 2, 1),
            proxy: path.ones("h_p", &[1, tokens, width]),
            proxy_generator: Transformer::new(
                &(path / "proxy_dominate_modality_generator"),
                3 * tokens,
                tokens,
                config.shape(config.proxy_depth),
            ),
            discriminator: Perceptron::new(
                &(path / "effective_discriminator"),
                width,
                config.discriminator_hidden,
                2,
            ),
        }
    }

    /// The corrected dominant feature `[B, tokens, D]` (equations 2 to 5) and the completeness
    /// `[B, 1]` of the language.
    fn forward(&self, language: &Tensor, audio: &Tensor, vision: &Tensor) -> (Tensor, Tensor) {
        let summary = self.completeness_encoder.forward(language).select(1, 0);
        let completeness = self.completeness.forward(&summary).sigmoid();
        let proxy = self.proxy.expand([language.size()[0], -1, -1], false);
        let proxy = self
            .proxy_generator
            .forward(&Tensor::cat(&[&proxy, audio, vision], 1))
            .narrow(1, 0, language.size()[1]);
        // The reference turns round every gradient that reaches the proxy, not only the
        // discriminator's.
        let proxy = reverse_gradient(&proxy, 1.0);
        let weight = completeness.unsqueeze(-1);
        let corrected = proxy * (1.0 - &weight) + language * &weight;
        (corrected, completeness)
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
    fn new(path: &nn::Path<'_>, config: &Config) -> Self {
        let (width, tokens) = (config.width, config.tokens);
        let dmml = path / "dmml";
        if !config.dmml {
            let regression = nn::linear(path / "concatenation", 3 * width, 1, Default::default());
            return Self::Concatenation(regression);
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
            ),
            fusion: CrossTransformer::new(
                &(&dmml / 2),
                tokens,
                tokens,
                config.shape(config.fusion_depth),
            ),
            regression: nn::linear(&dmml / 3, width, 1, Default::default()),
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

#[derive(Debug)]
struct Model {
    bert: Bert,
    language: Embedding,
    audio: Embedding,
    vision: Embedding,
    correction: Option<Correction>,
    /// For audio, vision and language.
    reconstructors: Option<[Transformer; 3]>,
    head: Head,
    used: [bool; 3],
}

/// What training compares besides the prediction.
#[derive(Debug)]
struct Comparison {
    /// `[B, 1]`.
    completeness: Option<Tensor>,
    /// Corrected features first, complete language behind: `[2 B tokens, 2]`.
    effectiveness: Option<Tensor>,
    /// Reconstructed and complete features, `[B, 3 tokens, D]` both.
    reconstruction: Option<(Tensor, Tensor)>,
}

impl Model {
    fn new(path: &nn::Path<'_>, config: &Config, build: &Build<'_>) -> Result<Self, MethodError> {
        let bert = Bert::load(&(path / "bertmodel" / "model"), build.encoder)?;
        let data = build.data;
        let embedding =
            |name: &str, input, length| Embedding::new(&(path / name), input, length, config);
        Ok(Self {
            language: embedding("proj_l", bert.width(), data.text_length),
            audio: embedding("proj_a", data.audio_dim, data.audio_length),
            vision: embedding("proj_v", data.vision_dim, data.vision_length),
            correction: config.dmc.then(|| Correction::new(path, config)),
            reconstructors: config.reconstructor.then(|| {
                [0, 1, 2].map(|i| {
                    Transformer::new(
                        &(path / "reconstructor" / i),
                        config.tokens,
                        0,
                        config.shape(config.reconstructor_depth),
                    )
                })
            }),
            head: Head::new(path, config),
            used: [config.language, config.audio, config.vision],
            bert,
        })
    }

    /// The features of language, audio and vision, `[B, tokens, D]` each. A modality that an
    /// ablation leaves out is zero.
    fn embed(&self, input: &Inputs, train: bool) -> [Tensor; 3] {
        // The embedding attends to padded positions too, so BERT's outputs there matter.
        let words = self.bert.forward_untrimmed(&input.text, train);
        let features = [
            self.language.forward(&words),
            self.audio.forward(&input.audio),
            self.vision.forward(&input.vision),
        ];
        let mut used = self.used.iter();
        features.map(|feature| match used.next() {
            Some(false) => feature.zeros_like(),
            _ => feature,
        })
    }

    /// Predictions `[B]` and the completeness, from the features of the erased inputs.
    fn predict(&self, [language, audio, vision]: &[Tensor; 3]) -> (Tensor, Tensor, Option<Tensor>) {
        let (dominant, completeness) = match &self.correction {
            Some(correction) => {
                let (dominant, completeness) = correction.forward(language, audio, vision);
                (dominant, Some(completeness))
            }
            None => (language.shallow_clone(), None),
        };
        let prediction = self.head.forward(&dominant, audio, vision);
        (prediction, dominant, completeness)
    }

    /// Predictions `[B]` from the erased inputs, and what training compares.
    fn forward_training(&self, erased: &Inputs, complete: &Inputs) -> (Tensor, Comparison) {
        // Erased and complete inputs go through the encoders in one batch.
        let both = |a: &Tensor, b: &Tensor| Tensor::cat(&[a, b], 0);
        let inputs = Inputs {
            text: both(&erased.text, &complete.text),
            audio: both(&erased.audio, &complete.audio),
            vision: both(&erased.vision, &complete.vision),
            audio_lengths: both(&erased.audio_lengths, &complete.audio_lengths),
            vision_lengths: both(&erased.vision_lengths, &complete.vision_lengths),
        };
        let features = self.embed(&inputs, true);
        let batch = erased.text.size()[0];
        let half = |i: i64| features.each_ref().map(|f| f.narrow(0, i * batch, batch));
        let (erased, complete) = (half(0), half(1));

        let (prediction, dominant, completeness) = self.predict(&erased);
        let [language, audio, vision] = &erased;
        let [complete_language, complete_audio, complete_vision] = &complete;
        let effectiveness = self.correction.as_ref().map(|correction| {
            let tokens = Tensor::cat(&[&dominant, complete_language], 0).flatten(0, 1);
            correction.discriminator.forward(&tokens)
        });
        let reconstruction = self.reconstructors.as_ref().map(|[a, v, l]| {
            let recalled = Tensor::cat(
                &[a.forward(audio), v.forward(vision), l.forward(language)],
                1,
            );
            let truth = Tensor::cat(&[complete_audio, complete_vision, complete_language], 1);
            (recalled, truth)
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
    let config: Config = common::config(METHOD, build.hyper)?;
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
    let schedule = WarmupCosine::new(build.max_epochs, &mut optimizer);
    Ok(Box::new(Lnln {
        vs,
        model,
        optimizer,
        schedule,
        config,
    }))
}

impl Lnln {
    /// Equation 11: the weighted sum, and its parts that there are.
    fn losses(
        &self,
        prediction: &Tensor,
        comparison: &Comparison,
        batch: &Batch,
    ) -> Vec<(&'static str, Tensor)> {
        let mse = |a: &Tensor, b: &Tensor| a.mse_loss(b, Reduction::Mean);
        let sentiment = mse(prediction, &batch.labels);
        let mut loss = &sentiment * self.config.sigma;
        let mut parts = vec![("l_sp", sentiment)];
        if let Some(completeness) = &comparison.completeness {
            let target = 1.0 - batch.missing_rate.text.unsqueeze(1);
            let part = mse(completeness, &target);
            loss += &part * self.config.alpha;
            parts.push(("l_cc", part));
        }
        if let Some(logits) = &comparison.effectiveness {
            // Corrected features are to be told from complete language: 1 and 0.
            let rows = logits.size()[0];
            let target = Tensor::zeros([rows], (Kind::Int64, logits.device()));
            let _ = target.narrow(0, 0, rows / 2).fill_(1);
            let part = logits.cross_entropy_for_logits(&target);
            loss += &part * self.config.beta;
            parts.push(("l_adv", part));
        }
        if let Some((recalled, truth)) = &comparison.reconstruction {
            let part = mse(recalled, truth);
            loss += &part * self.config.gamma;
            parts.push(("l_rec", part));
        }
        parts.insert(0, ("loss", loss));
        parts
    }
}

impl Method for Lnln {
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

    fn train_step(&mut self, at: Position, batch: &Batch) -> Result<StepOutcome, MethodError> {
        let complete = batch.complete.as_ref().ok_or(MethodError::Dataset {
            method: METHOD,
            what: "training needs the complete inputs beside the erased ones".to_owned(),
        })?;
        self.optimizer.zero_grad();
        let (prediction, comparison) = self.model.forward_training(&batch.input, complete);
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
        Ok(tch::no_grad(|| {
            let features = self.model.embed(&batch.input, false);
            self.model.predict(&features).0
        }))
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
