//! The network: embeddings of the modalities, correction, learning and reconstruction.

use super::{
    blocks::{Corrected, Correction, Head},
    config::Config,
};
use crate::{
    context::{EncoderCache, ForwardContext, Optimizations},
    layers::{
        bert::Bert,
        token_transformer::{Condense, Transformer},
    },
    methods::{Build, Features, Inputs, MethodError},
};
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
    reconstructors: Option<[Option<Transformer>; 3]>,
    head: Head,
    /// A feature's tokens and width.
    feature: [i64; 2],
    adversarial: bool,
    reconstructs: bool,
    optimizations: Optimizations,
}

/// The inputs of the losses besides the prediction.
#[derive(Debug)]
pub(super) struct Comparison {
    /// `[B, 1]`.
    pub(super) completeness: Option<Tensor>,
    /// Logits of corrected features, then of complete language: `[2 B tokens, 2]`.
    pub(super) effectiveness: Option<Tensor>,
    /// Reconstructed and complete features, `[B, 3 tokens, D]` each.
    pub(super) reconstruction: Option<(Tensor, Tensor)>,
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
            )?;
            let condense = condense("proj_l", bert.width(), data.text_length);
            Some(Language { bert, condense })
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
                .then(|| condense("proj_a", data.audio_dim, data.audio_length)),
            vision: config
                .vision
                .then(|| condense("proj_v", data.vision_dim, data.vision_length)),
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
            self.language.is_some() && (self.adversarial || self.reconstructs),
            &erased.text,
            &complete.text,
            &|text| self.language(text, ForwardContext::TRAIN),
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
            let (mut reconstructed, mut truth) = (Vec::new(), Vec::new());
            for ((reconstructor, feature), complete) in
                reconstructors.iter().zip(&features).zip(complete)
            {
                if let (Some(reconstructor), Some(complete)) = (reconstructor, complete) {
                    reconstructed.push(reconstructor.forward(feature, self.feature[0]));
                    // Not detached: in the reference, the truth is trained toward the reconstruction, too.
                    truth.push(complete);
                }
            }
            (Tensor::cat(&reconstructed, 1), Tensor::cat(&truth, 1))
        });
        let comparison = Comparison {
            completeness,
            effectiveness,
            reconstruction,
        };
        (prediction, comparison)
    }
}
