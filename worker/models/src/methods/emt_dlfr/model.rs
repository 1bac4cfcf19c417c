//! The model: encoders, the transformer, prediction, and what training compares between two views.

use super::{
    config::Config,
    standardize::Moments,
    transformer::{Transformer, before},
};
use crate::{
    context::{EncoderCache, ForwardContext, Optimizations},
    layers::{
        bert::Bert,
        dropout::dropout,
        linear, linear_no_bias,
        rnn::{Cell, Packed, Rnn, RnnConfig},
    },
    lengths::Lengths,
    methods::{Batch, Build, Inputs, MethodError, PerModality, common::Loss},
};
use tch::{
    Kind, Reduction, Tensor,
    nn::{self, Module, ModuleT},
};

/// A linear layer, or none between equal widths.
fn unless_equal(
    new: impl Fn(nn::Path<'_>, i64, i64) -> nn::Linear,
    path: nn::Path<'_>,
    from: i64,
    to: i64,
) -> Option<nn::Linear> {
    (from != to).then(|| new(path, from, to))
}

fn through(layer: &Option<nn::Linear>, x: Tensor) -> Tensor {
    layer
        .as_ref()
        .map_or_else(|| x.shallow_clone(), |layer| layer.forward(&x))
}

/// An LSTM with a linear layer over its steps and its last state.
#[derive(Debug)]
struct Recurrent {
    rnn: Rnn,
    linear: Option<nn::Linear>,
    dropout: f64,
}

impl Recurrent {
    fn new(path: &nn::Path<'_>, input: i64, hidden: i64, output: i64, dropout: f64) -> Self {
        let config = RnnConfig {
            cell: Cell::Lstm,
            input,
            hidden,
            layers: 1,
            bidirectional: false,
            dropout: 0.0,
        };
        Self {
            rnn: Rnn::new(&(path / "rnn"), config),
            linear: unless_equal(linear, path / "linear_1", hidden, output),
            dropout,
        }
    }

    /// `[B, T, D]` of `lengths` `[B]` to steps `[B, longest, output]` and the vector `[B, output]`.
    fn forward(&self, x: &Tensor, lengths: &Lengths, train: bool) -> (Tensor, Tensor) {
        let (steps, last) = self.rnn.forward(Packed::new(x, lengths), train);
        let last = dropout(&last.squeeze_dim(0), self.dropout, train);
        (
            through(&self.linear, steps.unpack()),
            through(&self.linear, last),
        )
    }
}

/// A batch norm that normalizes a batch of one sample, which has no variance, as in evaluation. The
/// reference fails there.
#[derive(Debug)]
struct Norm {
    norm: nn::BatchNorm,
    /// Training batches seen; part of PyTorch's state, otherwise unused.
    batches: Tensor,
}

impl Norm {
    fn new(path: &nn::Path<'_>, width: i64, affine: bool) -> Self {
        let config = nn::BatchNormConfig {
            affine,
            ws_init: nn::Init::Const(1.0),
            ..Default::default()
        };
        let batches = Tensor::zeros([], (Kind::Int64, path.device()));
        Self {
            norm: nn::batch_norm1d(path, width, config),
            batches: path.add("num_batches_tracked", batches, false),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let batch = x.size()[0] > 1;
        if batch {
            let _ = self.batches.shallow_clone().g_add_scalar_(1);
        }
        self.norm.forward_t(x, batch)
    }
}

/// The projector and the predictor of one vector (SimSiam, Chen & He, CVPR 2021), used in training
/// alone.
#[derive(Debug)]
struct Attraction {
    project: nn::Linear,
    project_norm: Norm,
    predict: nn::Linear,
    predict_norm: Norm,
    out: nn::Linear,
}

impl Attraction {
    fn new(path: &nn::Path<'_>, name: &str, width: i64, hidden: i64) -> Self {
        let projector = path / format!("{name}_projector") / "net";
        let predictor = path / format!("{name}_predictor") / "net";
        Self {
            project: linear(&projector / 0, width, width),
            project_norm: Norm::new(&(&projector / 1), width, false),
            predict: linear_no_bias(&predictor / 0, width, hidden),
            predict_norm: Norm::new(&(&predictor / 1), hidden, true),
            out: linear(&predictor / 3, hidden, width),
        }
    }

    /// The projection of `x` `[B, width]`, detached, and the prediction from it.
    fn forward(&self, x: &Tensor) -> (Tensor, Tensor) {
        let projected = self.project_norm.forward(&self.project.forward(x));
        let hidden = self.predict_norm.forward(&self.predict.forward(&projected));
        (projected.detach(), self.out.forward(&hidden.relu()))
    }

    /// How far apart the views are: the mean of both predictions' negative cosine to the other
    /// view's projection.
    fn loss(&self, complete: &Tensor, erased: &Tensor) -> Tensor {
        // The complete view comes first, which the running statistics depend on.
        let (target, prediction) = self.forward(complete);
        let (erased_target, erased_prediction) = self.forward(erased);
        let cosine =
            |a: &Tensor, b: &Tensor| Tensor::cosine_similarity(a, b, 1, 1e-8).mean(Kind::Float);
        (cosine(&erased_prediction, &target) + cosine(&prediction, &erased_target)) * -0.5
    }
}

/// What the model makes of one view of a batch.
struct View {
    /// `[B]`.
    prediction: Tensor,
    /// The global context, the vectors of text, audio and vision, `[B, width]` of their own widths.
    vectors: [Tensor; 4],
    /// The sequences of text, audio and vision after the transformer, `[B, T, d_model]`.
    sequences: [Tensor; 3],
}

/// The losses of a batch.
pub(super) struct Losses {
    /// The prediction of the erased view.
    pub(super) task: Tensor,
    /// The attraction of both views and the prediction of the complete one.
    pub(super) attraction: Tensor,
    /// The reconstruction of what was erased.
    pub(super) reconstruction: Tensor,
}

#[derive(Debug)]
pub(super) struct Model {
    bert: Bert,
    /// The moments of audio and vision, if they are standardized.
    moments: Option<[Moments; 2]>,
    audio: Recurrent,
    vision: Recurrent,
    /// Text, audio, vision.
    projections: [Option<nn::Linear>; 3],
    transformer: Transformer,
    /// As the vectors of a [`View`].
    attractions: [Attraction; 4],
    /// Text, audio, vision.
    generators: [nn::Linear; 3],
    prediction: [nn::Linear; 3],
    dropout: f64,
    optimizations: Optimizations,
}

impl Model {
    pub(super) fn new(
        path: &nn::Path<'_>,
        config: &Config,
        build: &Build<'_>,
    ) -> Result<Self, MethodError> {
        let bert = Bert::load(
            &(path / "text_model" / "model"),
            build.encoder,
            build.optimizations,
            build.precision,
        )?;
        let data = build.data;
        let widths = [bert.width(), config.audio_out, config.video_out];
        let inputs = [bert.width(), data.audio_dim, data.vision_dim];
        let names = ["text", "audio", "video"];
        let width = config.d_model;
        let context = 3 * width;
        let attraction = |name, width, hidden| Attraction::new(path, name, width, hidden);
        let post = |i: usize, from, to| linear(path / format!("post_fusion_layer_{i}"), from, to);
        let hidden = config.post_fusion_dim;
        let moments = |name, dim| Moments::new(&(path / "standardize" / name), dim);
        let longest = data
            .text_length
            .max(data.audio_length)
            .max(data.vision_length);
        Ok(Self {
            moments: config.standardize.then(|| {
                [
                    moments("audio", data.audio_dim),
                    moments("video", data.vision_dim),
                ]
            }),
            audio: Recurrent::new(
                &(path / "audio_model"),
                data.audio_dim,
                config.a_lstm_hidden_size,
                config.audio_out,
                config.a_lstm_dropout,
            ),
            vision: Recurrent::new(
                &(path / "video_model"),
                data.vision_dim,
                config.v_lstm_hidden_size,
                config.video_out,
                config.v_lstm_dropout,
            ),
            projections: [0, 1, 2].map(|i: usize| {
                let path = path / format!("proj_{}", names[i]);
                unless_equal(linear_no_bias, path, widths[i], width)
            }),
            transformer: Transformer::new(&(path / "fusion"), config, longest, build.precision),
            attractions: [
                attraction("gmc_tokens", context, config.gmc_tokens_pred_dim),
                attraction("text", widths[0], config.text_pred_dim),
                attraction("audio", widths[1], config.audio_pred_dim),
                attraction("video", widths[2], config.video_pred_dim),
            ],
            generators: [0, 1, 2]
                .map(|i: usize| linear(path / format!("recon_{}", names[i]), width, inputs[i])),
            prediction: [
                post(1, widths.iter().sum::<i64>() + context, hidden),
                post(2, hidden, hidden),
                post(3, hidden, 1),
            ],
            dropout: config.post_fusion_dropout,
            optimizations: build.optimizations,
            bert,
        })
    }

    /// Learns the moments of a training batch's complete features.
    pub(super) fn prepare(&mut self, complete: &Inputs, present: &PerModality<Tensor>) {
        if let Some([audio, vision]) = &mut self.moments {
            audio.add(&complete.audio, &present.audio);
            vision.add(&complete.vision, &present.vision);
        }
    }

    /// Audio and vision as the model sees them, of which `kept` is neither padding nor erased.
    fn features(&self, inputs: &Inputs, kept: &PerModality<Tensor>) -> [Tensor; 2] {
        match &self.moments {
            Some([audio, vision]) => [
                audio.apply(&inputs.audio, &kept.audio),
                vision.apply(&inputs.vision, &kept.vision),
            ],
            None => [inputs.audio.shallow_clone(), inputs.vision.shallow_clone()],
        }
    }

    /// One view: `words` `[B, L, H]` of `inputs` and its `features`, audio and vision.
    fn view(
        &self,
        words: &Tensor,
        features: &[Tensor; 2],
        inputs: &Inputs,
        restored: bool,
        train: bool,
    ) -> View {
        // The first token's state stands for the text; the last token is padding to its sequence.
        let sequence = words.narrow(1, 1, words.size()[1] - 1);
        // An empty sequence is one step long: attention needs a step.
        let lengths = [
            inputs.tokens().less(2),
            inputs.audio_steps(),
            inputs.vision_steps(),
        ]
        .map(|lengths| lengths.clamp_min(1));
        let (audio_steps, audio) = self.audio.forward(&features[0], &lengths[1], train);
        let (vision_steps, vision) = self.vision.forward(&features[1], &lengths[2], train);
        let vectors = [words.select(1, 0), audio, vision];
        let project = |i: usize, x: &Tensor| through(&self.projections[i], x.shallow_clone());
        let context = [0, 1, 2].map(|i: usize| project(i, &vectors[i]));
        let steps = [sequence, audio_steps, vision_steps];
        let steps = [0, 1, 2].map(|i: usize| project(i, &steps[i]));
        let masks = [0, 1, 2].map(|i: usize| before(lengths[i].device(), steps[i].size()[1]));
        let (context, sequences) =
            self.transformer
                .forward(Tensor::stack(&context, 1), steps, &masks, restored, train);
        let context = context.flatten(1, 2);
        let [text, audio, vision] = vectors;
        let fused = Tensor::cat(&[&text, &audio, &vision, &context], 1);
        let [first, second, out] = &self.prediction;
        let hidden = first.forward(&dropout(&fused, self.dropout, train)).relu();
        let hidden = second.forward(&hidden).relu();
        View {
            prediction: out.forward(&hidden).squeeze_dim(1),
            vectors: [context, text, audio, vision],
            sequences,
        }
    }

    /// Predictions `[B]` of the erased view.
    pub(super) fn predict(&self, batch: &Batch, cache: Option<&EncoderCache>) -> Tensor {
        let inputs = &batch.input;
        let context = ForwardContext::evaluation(cache).padded(inputs.padding());
        let words = self.bert.forward(&inputs.text, context);
        let features = self.features(inputs, &batch.kept);
        self.view(&words, &features, inputs, false, false)
            .prediction
    }

    /// Predictions `[B]` of the erased view, and the losses.
    pub(super) fn forward_training(&self, batch: &Batch, complete: &Inputs) -> (Tensor, Losses) {
        let erased = &batch.input;
        // Erased and complete texts go through BERT in one batch.
        let together = match self.optimizations.encode_jointly {
            true => erased.padding().zip(complete.padding()),
            false => None,
        };
        let context = ForwardContext::TRAIN.padded(together.map(|(a, b)| a.with(b)));
        let (words, complete_words) =
            self.optimizations
                .encode_both(&erased.text, &complete.text, |text| {
                    self.bert.forward(text, context)
                });
        let truth = self.features(complete, &batch.present);
        let whole = self.view(&complete_words, &truth, complete, false, true);
        let features = self.features(erased, &batch.kept);
        let view = self.view(&words, &features, erased, true, true);

        let attraction = (0..4)
            .map(|i| self.attractions[i].loss(&whole.vectors[i], &view.vectors[i]))
            .sum::<Tensor>()
            + Loss::L1.of(&whole.prediction, &batch.labels);
        // The text's sequence starts after the first token.
        let from_second = |x: &Tensor| x.narrow(1, 1, x.size()[1] - 1);
        let [audio, vision] = truth;
        let truth = [from_second(&complete_words.detach()), audio, vision];
        let missing = [
            from_second(&(&batch.present.text - &batch.kept.text)),
            &batch.present.audio - &batch.kept.audio,
            &batch.present.vision - &batch.kept.vision,
        ];
        let reconstruction = (0..3)
            .map(|i| {
                let generated = self.generators[i].forward(&view.sequences[i]);
                reconstruction(&generated, &truth[i], &missing[i])
            })
            .sum();
        let losses = Losses {
            task: Loss::L1.of(&view.prediction, &batch.labels),
            attraction,
            reconstruction,
        };
        (view.prediction, losses)
    }
}

/// How far `generated` `[B, S, D]` is from the first steps of `truth` `[B, T, D]` where `missing`
/// `[B, T]` is 1: the mean smooth L1.
fn reconstruction(generated: &Tensor, truth: &Tensor, missing: &Tensor) -> Tensor {
    let size = generated.size();
    let mask = missing.narrow(1, 0, size[1]).unsqueeze(2);
    let truth = truth.narrow(1, 0, size[1]) * &mask;
    let count = mask.sum(Kind::Float) * size[2] as f64 + 1e-6;
    (generated * mask).smooth_l1_loss(&truth, Reduction::Sum, 1.0) / count
}
