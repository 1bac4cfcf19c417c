//! The network: embeddings of the modalities, correction, learning and reconstruction.

use super::{
    blocks::{Corrected, Correction, Head, Reconstructor},
    config::Config,
};
use crate::{
    context::{EncoderCache, ForwardContext, Optimizations},
    layers::{bert::Bert, token_transformer::Condense},
    methods::{Build, Features, Inputs, MethodError},
};
use halfheard_shared::methods::faults::{Fault, Faults};
use tch::{Device, Kind, Tensor, nn};

/// BERT and the condensation of its outputs.
#[derive(Debug)]
struct Language {
    bert: Bert,
    condense: Condense,
}

#[derive(Debug)]
pub(super) struct Model {
    language: Option<Language>,
    audio: Option<Condense>,
    vision: Option<Condense>,
    correction: Option<Correction>,
    /// For language, audio and vision.
    reconstructors: Option<[Option<Reconstructor>; 3]>,
    head: Head,
    /// A feature's tokens and width.
    feature: [i64; 2],
    /// Which features of complete inputs the losses compare with: language, and all.
    complete_features: [bool; 2],
    adversarial: bool,
    reconstructs: bool,
    faults: Faults,
    optimizations: Optimizations,
}

/// The inputs of the losses besides the prediction.
#[derive(Debug)]
pub(super) struct Comparison {
    /// `[B, 1]`.
    pub(super) completeness: Option<Tensor>,
    /// Logits of what stands in for language, then of language: `[2 B tokens, 2]`.
    pub(super) effectiveness: Option<Tensor>,
    /// What was rebuilt, and the truth: features of all modalities, `[B, 3 tokens, D]`, or the inputs
    /// of each, `[B, steps, width]`.
    pub(super) reconstruction: Vec<(Tensor, Tensor)>,
}

impl Model {
    pub(super) fn new(
        path: &nn::Path<'_>,
        config: &Config,
        build: &Build<'_>,
    ) -> Result<Self, MethodError> {
        let data = build.data;
        let condense = |name: &str, input, length| {
            let shape = config.shape(config.embedding_depth);
            Condense::new(&(path / name), input, length, config.tokens, shape)
        };
        let language = if config.language {
            let bert = Bert::load(
                &(path / "bertmodel" / "model"),
                build.encoder,
                build.optimizations,
                build.precision,
            )?;
            let condense = condense("proj_l", bert.width(), data.text_length);
            Some(Language { bert, condense })
        } else {
            None
        };
        let faults = build.faults;
        let reconstructor = |used: bool, i: i64, size| {
            used.then(|| Reconstructor::new(path, i, config, size, faults))
        };
        let text_width = language.as_ref().map_or(0, |l: &Language| l.bert.width());
        let features_rebuilt = config.reconstructs() && faults.keeps(Fault::RebuiltFeatures);
        let complete_language = config.adversarial() && faults.keeps(Fault::MixedDiscriminator);
        Ok(Self {
            language,
            audio: config
                .audio
                .then(|| condense("proj_a", data.audio_dim, data.audio_length)),
            vision: config
                .vision
                .then(|| condense("proj_v", data.vision_dim, data.vision_length)),
            correction: config
                .dmc
                .then(|| Correction::new(path, config, build.faults)),
            // The reference numbers them audio, vision, language.
            reconstructors: config.reconstructor.then(|| {
                [
                    reconstructor(config.language, 2, [data.text_length, text_width]),
                    reconstructor(config.audio, 0, [data.audio_length, data.audio_dim]),
                    reconstructor(config.vision, 1, [data.vision_length, data.vision_dim]),
                ]
            }),
            head: Head::new(path, config, build.faults),
            feature: [config.tokens, config.width],
            complete_features: [complete_language || features_rebuilt, features_rebuilt],
            adversarial: config.adversarial(),
            reconstructs: config.reconstructs(),
            faults,
            optimizations: build.optimizations,
        })
    }

    /// The feature of a modality that an ablation removes.
    fn zeros(&self, samples: i64, device: Device) -> Tensor {
        let [tokens, width] = self.feature;
        Tensor::zeros([samples, tokens, width], (Kind::Float, device))
    }

    fn language(&self, text: &Tensor, context: ForwardContext<'_>) -> Tensor {
        match &self.language {
            // The next transformer attends to padded positions, so BERT's outputs there matter.
            Some(Language { bert, condense }) => {
                condense.forward(&bert.forward_untrimmed(text, context))
            }
            None => self.zeros(text.size()[0], text.device()),
        }
    }

    fn frames(&self, condense: &Option<Condense>, x: &Tensor) -> Tensor {
        match condense {
            Some(condense) => condense.forward(x),
            None => self.zeros(x.size()[0], x.device()),
        }
    }

    /// The features of language, audio and vision, `[B, tokens, D]` each.
    fn embed(&self, input: &Inputs, context: ForwardContext<'_>) -> [Tensor; 3] {
        [
            self.language(&input.text, context),
            self.frames(&self.audio, &input.audio),
            self.frames(&self.vision, &input.vision),
        ]
    }

    /// The features of the erased and the complete inputs, encoded in one batch. Complete features
    /// that no loss uses are not computed.
    fn embed_both(&self, erased: &Inputs, complete: &Inputs) -> ([Tensor; 3], [Option<Tensor>; 3]) {
        let pair = |needed: bool, a: &Tensor, b: &Tensor, f: &dyn Fn(&Tensor) -> Tensor| {
            if !needed {
                return (f(a), None);
            }
            let (a, b) = self.optimizations.encode_both(a, b, f);
            (a, Some(b))
        };
        let (language, complete_language) = pair(
            self.language.is_some() && self.complete_features[0],
            &erased.text,
            &complete.text,
            &|text| self.language(text, ForwardContext::TRAIN),
        );
        let (audio, complete_audio) = pair(
            self.audio.is_some() && self.complete_features[1],
            &erased.audio,
            &complete.audio,
            &|x| self.frames(&self.audio, x),
        );
        let (vision, complete_vision) = pair(
            self.vision.is_some() && self.complete_features[1],
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

    /// Predictions `[B]` in evaluation, and the language feature before and after the correction
    /// (Figure 8) as means over tokens; `None` without language or correction.
    pub(super) fn forward_evaluation(
        &self,
        input: &Inputs,
        cache: Option<&EncoderCache>,
    ) -> (Tensor, Option<Features>) {
        let features = self.embed(input, ForwardContext::evaluation(cache));
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

    /// Predictions `[B]` from the erased inputs, and the inputs of the other losses.
    pub(super) fn forward_training(
        &self,
        erased: &Inputs,
        complete: &Inputs,
    ) -> (Tensor, Comparison) {
        let (features, complete_features) = self.embed_both(erased, complete);
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
        let language = match self.faults.keeps(Fault::MixedDiscriminator) {
            true => complete_features[0].as_ref(),
            false => self.language.is_some().then_some(&features[0]),
        };
        let effectiveness = match (discriminator, language) {
            (Some(discriminator), Some(language)) if self.adversarial => {
                let tokens = Tensor::cat(&[&judged, language], 0).flatten(0, 1);
                Some(discriminator.forward(&tokens))
            }
            _ => None,
        };
        let comparison = Comparison {
            completeness,
            effectiveness,
            reconstruction: self.reconstruct(&features, complete_features, complete),
        };
        (prediction, comparison)
    }

    /// What is rebuilt from the features of the erased inputs, and the truth.
    fn reconstruct(
        &self,
        features: &[Tensor; 3],
        complete_features: [Option<Tensor>; 3],
        complete: &Inputs,
    ) -> Vec<(Tensor, Tensor)> {
        let Some(reconstructors) = self.reconstructors.as_ref().filter(|_| self.reconstructs)
        else {
            return Vec::new();
        };
        let truths = match self.faults.keeps(Fault::RebuiltFeatures) {
            true => complete_features,
            false => [
                self.words(&complete.text),
                Some(complete.audio.shallow_clone()),
                Some(complete.vision.shallow_clone()),
            ],
        };
        let mut pairs = Vec::new();
        for ((reconstructor, feature), truth) in reconstructors.iter().zip(features).zip(truths) {
            if let (Some(reconstructor), Some(truth)) = (reconstructor, truth) {
                // In the reference, the truth is trained toward the reconstruction, too.
                let truth = match self.faults.keeps(Fault::TrainedTarget) {
                    true => truth,
                    false => truth.detach(),
                };
                pairs.push((reconstructor.forward(feature), truth));
            }
        }
        if pairs.is_empty() || !self.faults.keeps(Fault::RebuiltFeatures) {
            return pairs;
        }
        let (rebuilt, truth): (Vec<Tensor>, Vec<Tensor>) = pairs.into_iter().unzip();
        vec![(Tensor::cat(&rebuilt, 1), Tensor::cat(&truth, 1))]
    }

    /// BERT's outputs for a complete text, `[B, L, H]`: the language's inputs in the paper's terms.
    fn words(&self, text: &Tensor) -> Option<Tensor> {
        let Language { bert, .. } = self.language.as_ref()?;
        let words = || bert.forward_untrimmed(text, ForwardContext::TRAIN);
        Some(match self.faults.keeps(Fault::TrainedTarget) {
            true => words(),
            false => tch::no_grad(words),
        })
    }
}
