//! How much memory a training takes, from the sizes of method, dataset and encoder: what a step keeps
//! for its slopes, the weights with their gradients and Adam's two moments, checkpoints and a state on
//! their way out, and the dataset's masks.
//!
//! Counted is what libtorch keeps in 32-bit numbers on a CPU, layer by layer; a slot keeps what it
//! needed once. On the CPU the counts are within a third of what a process was seen to take
//! (`worker/models/tests/memory_needed.rs`). A GPU's fused attention keeps less.

use super::{DataFacts, EncoderShape, Setup, faults::Fault, fit::Fit};
use crate::wire::Selection;

/// Bytes of a 32-bit number.
const FLOAT: f64 = 4.0;

/// Bytes of a process that has libtorch and has computed nothing.
const PROGRAM: f64 = 200e6;

/// What of a step is taken and given back while slopes are computed, and what the C library cannot
/// use again, as a share of what is kept.
const SLACK: f64 = 0.15;

/// Checkpoints that differ, of those that the selection criteria of a split keep.
const CHECKPOINTS: f64 = 3.0;

/// Checkpoints that differ, of those that a training keeps.
pub fn checkpoints(selection: Selection) -> f64 {
    CHECKPOINTS * selection.splits().len() as f64
}

/// The memory that a slot needs while it trains and one split selects, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Memory {
    /// The program and its libraries.
    pub program: u64,
    /// Weights, gradients and Adam's moments.
    pub weights: u64,
    /// What a step keeps for its slopes.
    pub step: u64,
    /// The best checkpoints so far, and a state that is being saved, beyond what a step leaves.
    pub kept: u64,
    /// Of one checkpoint, in the artifact store; not part of the total.
    pub checkpoint: u64,
    /// Of one saved state, in the artifact store; not part of the total.
    pub state: u64,
    /// Texts and masks of the splits. Features lie in the mapped file, which all slots share.
    pub data: u64,
}

impl Memory {
    /// With the checkpoints of every split that selects.
    #[must_use]
    pub fn selecting(self, selection: Selection) -> Self {
        let more = (checkpoints(selection) - CHECKPOINTS) * self.checkpoint as f64;
        Self {
            kept: self.kept.saturating_add(more as u64),
            ..self
        }
    }

    /// All that a process takes.
    pub fn total(&self) -> u64 {
        [self.program, self.weights, self.step, self.kept, self.data]
            .into_iter()
            .fold(0, u64::saturating_add)
    }
}

/// What a model is made of, in 32-bit numbers.
#[derive(Clone, Copy, Debug, Default)]
struct Model {
    /// Weights beside the encoder's.
    weights: f64,
    /// Kept for the slopes in a step.
    kept: f64,
    /// Whether the encoder is trained.
    encoder: bool,
}

/// Sizes as numbers with fractions: products of hostile ones do not overflow.
pub(super) struct Sizes<'a> {
    pub(super) fit: &'a Fit<'a>,
    pub(super) batch: f64,
    pub(super) text: f64,
    /// Tokens of a text that are not padding, in the mean.
    pub(super) tokens: f64,
    pub(super) audio: f64,
    pub(super) audio_dim: f64,
    pub(super) vision: f64,
    pub(super) vision_dim: f64,
    samples: f64,
    pub(super) encoder: EncoderShape,
}

impl<'a> Sizes<'a> {
    /// Those of a set-up; nothing, where dataset or encoder are not known.
    pub(super) fn of(fit: &'a Fit<'a>) -> Option<Self> {
        let setup = fit.setup();
        let (data, encoder): (&DataFacts, &EncoderShape) = (setup.data?, setup.encoder?);
        let samples = data.samples[0] as f64;
        let shapes = &data.shapes;
        Some(Self {
            batch: (fit.whole("batch_size") as f64).min(samples),
            text: shapes.text_len as f64,
            tokens: data.tokens.unwrap_or(shapes.text_len) as f64,
            audio: shapes.audio_len as f64,
            audio_dim: shapes.audio_dim as f64,
            vision: shapes.vision_len as f64,
            vision_dim: shapes.vision_dim as f64,
            samples,
            encoder: *encoder,
            fit,
        })
    }

    pub(super) fn hyper(&self, key: &str) -> f64 {
        self.fit.whole(key) as f64
    }

    /// The first, second or third number of a list.
    pub(super) fn listed(&self, key: &str, i: usize) -> f64 {
        let list = self.fit.setup().hyper.get(key);
        let number = list.and_then(|list| list.get(i)?.as_f64());
        number.unwrap_or(0.0)
    }

    pub(super) fn on(&self, key: &str) -> f64 {
        if self.fit.on(key) { 1.0 } else { 0.0 }
    }

    pub(super) fn width(&self) -> f64 {
        self.encoder.width as f64
    }

    /// The encoder over texts of which `tokens` go through its layers, each with attention over the
    /// whole length.
    fn encode(&self, texts: f64, tokens: f64) -> f64 {
        let e = &self.encoder;
        let (width, inner) = (e.width as f64, e.intermediate as f64);
        // Inputs, queries, keys and values, normed sums; both sides of the activation.
        let each = 9.0 * width + 2.0 * inner;
        // Weights of attention as they are, and what dropout leaves of them.
        let attention = 2.0 * e.heads as f64 * self.text * self.text;
        e.layers as f64 * (texts * tokens * each + texts * attention) + 4.0 * texts * tokens * width
    }
}

fn encoder_weights(e: &EncoderShape) -> f64 {
    let (width, inner) = (e.width as f64, e.intermediate as f64);
    let layer = 4.0 * (width + 1.0) * width + 2.0 * width * inner + inner + 5.0 * width;
    (e.vocabulary + e.positions + 2) as f64 * width
        + e.layers as f64 * layer
        + width * (width + 3.0)
}

/// A layer of ALMT's and LNLN's transformers: `queries` steps ask `keys` steps, all of `width`.
fn token_layer(queries: f64, keys: f64, width: f64, heads: f64, hidden: f64) -> f64 {
    let inner = 64.0 * heads;
    queries * (5.0 * width + 3.0 * inner + 2.0 * hidden) + keys * (2.0 * width + 2.0 * inner)
}

fn token_weights(width: f64, heads: f64, hidden: f64) -> f64 {
    4.0 * 64.0 * heads * width + 2.0 * width * hidden
}

/// `steps` gathered into `tokens`: kept numbers of a sample.
fn gather(steps: f64, tokens: f64, width: f64, depth: f64, heads: f64, hidden: f64) -> f64 {
    let all = steps + tokens;
    let full = (depth - 1.0).max(0.0) * token_layer(all, all, width, heads, hidden);
    3.0 * all * width + full + token_layer(tokens, all, width, heads, hidden)
}

/// The widest head that the worker's own attention computes (`halfheard_kernels::attention::WIDEST_HEAD`).
const NARROW_HEAD: f64 = 32.0;

/// A layer of MulT's encoder, of a sample: `steps` ask `memory` steps.
fn crossed_layer(steps: f64, memory: f64, width: f64, heads: f64) -> f64 {
    // Of narrow heads the largest score and the sum of a row, from which the weights come back; else the weights as
    // they are and as dropout leaves them.
    let weights = match width / heads <= NARROW_HEAD {
        true => 2.0,
        false => 2.0 * memory,
    };
    17.0 * steps * width + 4.0 * memory * width + weights * heads * steps
}

/// An LSTM over a sequence, of a sample: oneDNN keeps gates and states of all steps, and libtorch a copy.
fn recurrent(steps: f64, hidden: f64, directions: f64) -> f64 {
    28.0 * steps * hidden * directions
}

/// A GRU over a sequence, of a sample: the gates' shares of the inputs, the states of each direction and of both together.
fn gru(steps: f64, hidden: f64, directions: f64) -> f64 {
    5.0 * steps * hidden * directions
}

fn recurrent_weights(input: f64, hidden: f64) -> f64 {
    4.0 * hidden * (input + hidden + 2.0)
}

#[expect(clippy::too_many_lines, reason = "one arm per method")]
fn model(s: &Sizes<'_>) -> Option<Model> {
    let (batch, width) = (s.batch, s.width());
    Some(match s.fit.method_id() {
        "misa" => {
            let hidden = s.hyper("hidden_size");
            let lstms = [(s.vision, s.vision_dim), (s.audio, s.audio_dim)]
                .map(|(steps, dim)| recurrent(steps, dim, 2.0) * 2.0 + 6.0 * steps * dim);
            let weights = [s.vision_dim, s.audio_dim].map(|dim| {
                2.0 * recurrent_weights(dim, dim)
                    + 2.0 * recurrent_weights(2.0 * dim, dim)
                    + 4.0 * dim * hidden
            });
            Model {
                weights: weights.iter().sum::<f64>()
                    + hidden * (width + 26.0 * hidden + 2.0 * s.hyper("transformer_feedforward")),
                kept: s.encode(batch, s.tokens)
                    + batch * (lstms.iter().sum::<f64>() + 100.0 * hidden),
                encoder: true,
            }
        }
        "self-mm" => {
            let (audio, vision) = (s.hyper("a_lstm_hidden_size"), s.hyper("v_lstm_hidden_size"));
            let memory = [
                "post_fusion_dim",
                "post_text_dim",
                "post_audio_dim",
                "post_video_dim",
            ]
            .map(|key| s.hyper(key));
            Model {
                weights: recurrent_weights(s.audio_dim, audio)
                    + recurrent_weights(s.vision_dim, vision)
                    + width * memory.iter().sum::<f64>(),
                kept: s.encode(batch, s.tokens)
                    + batch * (recurrent(s.audio, audio, 1.0) + recurrent(s.vision, vision, 1.0))
                    + 3.0 * s.samples * memory.iter().sum::<f64>(),
                encoder: true,
            }
        }
        "mmim" => {
            let directions = 1.0 + s.on("bidirectional");
            let layers = s.hyper("n_layer");
            let (audio, vision) = (s.hyper("d_ah"), s.hyper("d_vh"));
            Model {
                weights: layers
                    * directions
                    * (recurrent_weights(s.audio_dim.max(2.0 * audio), audio)
                        + recurrent_weights(s.vision_dim.max(2.0 * vision), vision))
                    + s.hyper("d_prjh") * (3.0 * width + s.hyper("d_prjh")),
                kept: s.encode(batch, s.tokens)
                    + batch
                        * layers
                        * (recurrent(s.audio, audio, directions)
                            + recurrent(s.vision, vision, directions)),
                encoder: true,
            }
        }
        "cenet" => Model {
            weights: 13.0 * width * width + (s.audio_dim + s.vision_dim) * width,
            // Each token asks each frame, which is as wide as the encoder.
            kept: s.encode(batch, s.tokens)
                + batch
                    * (2.0 * (s.audio + s.vision) * width
                        + 3.0 * s.text * (s.audio + s.vision)
                        + 12.0 * s.text * width),
            encoder: true,
        },
        "tetfn" => {
            let (features, heads) = (s.hyper("dst_feature_dims"), s.hyper("nheads"));
            let t = s.text;
            // Four of two layers, two of three, and three memories of two layers and twice the width, of which the
            // last one computes the last step.
            let crossed = 14.0 * crossed_layer(t, t, features, heads)
                + 3.0 * crossed_layer(t, t, 2.0 * features, heads)
                + 3.0 * crossed_layer(1.0, t, 2.0 * features, heads);
            let lstms = [s.hyper("a_lstm_hidden_size"), s.hyper("v_lstm_hidden_size")];
            Model {
                weights: 12.0 * features * features * (14.0 + 24.0) + 4.0 * width * features,
                kept: s.encode(batch, t)
                    + batch
                        * (crossed
                            + lstms
                                .map(|hidden| recurrent(t, hidden, 1.0))
                                .iter()
                                .sum::<f64>()
                            + s.audio * s.audio_dim
                            + s.vision * s.vision_dim),
                encoder: true,
            }
        }
        "tfr-net" => {
            let (features, heads) = (s.hyper("dst_feature_dims"), s.hyper("nheads"));
            let layers = s.hyper("nlevels");
            let own = layers.max(3.0);
            let steps = [s.text, s.audio, s.vision];
            let dims = [width, s.audio_dim, s.vision_dim];
            let hidden = ["fusion_t_hid", "fusion_a_hid", "fusion_v_hid"].map(|key| s.hyper(key));
            let mut kept = 0.0;
            let mut weights = 0.0;
            for i in 0..3 {
                let t = steps[i];
                kept += own * crossed_layer(t, t, features, heads);
                for j in (0..3).filter(|&j| j != i) {
                    kept += layers * crossed_layer(t, steps[j], features, heads);
                }
                // Samples or features take the place of steps, and steps that of features.
                let temporal = s.hyper("num_temporal_head");
                kept += own * 3.0 * features * (17.0 * t + 2.0 * temporal * batch);
                kept += s.hyper("fusion_gru_layers") * gru(t, hidden[i], 2.0)
                    + 12.0 * t * (2.0 * hidden[i] + 3.0 * features)
                    + 6.0 * t * dims[i];
                weights += 12.0 * features * features * (own + 2.0 * layers)
                    + 12.0 * t * t * own
                    + 6.0 * s.hyper("fusion_gru_layers") * hidden[i] * 3.0 * hidden[i]
                    + 3.0 * features * (dims[i] + hidden[i]);
            }
            Model {
                weights,
                // Erased and complete texts.
                kept: s.encode(2.0 * batch, s.text) + batch * kept,
                encoder: true,
            }
        }
        "almt" => {
            let (w, tokens) = (s.hyper("width"), s.hyper("tokens"));
            let read = |steps: f64| match s.hyper("frames") {
                0.0 => steps,
                frames => steps.min(frames),
            };
            let steps = [
                (s.text, width),
                (read(s.audio), s.audio_dim),
                (read(s.vision), s.vision_dim),
            ];
            let (mut kept, mut weights) = (0.0, 0.0);
            for (i, (steps, dim)) in steps.into_iter().enumerate() {
                let (depth, heads) = (
                    s.listed("embedding_depth", i),
                    s.listed("embedding_heads", i),
                );
                let hidden = s.hyper("embedding_hidden");
                kept += gather(steps, tokens, w, depth, heads, hidden);
                weights += w * (dim + steps + tokens) + depth * token_weights(w, heads, hidden);
            }
            let hyper = s.hyper("hyper_depth");
            let (fusion, heads) = (s.hyper("fusion_depth"), s.hyper("fusion_heads"));
            kept += hyper * token_layer(tokens, tokens, w, s.hyper("language_heads"), w)
                + 16.0 * hyper * tokens * w
                + fusion
                    * token_layer(
                        tokens + 1.0,
                        tokens + 1.0,
                        w,
                        heads,
                        s.hyper("fusion_hidden"),
                    );
            weights += hyper * token_weights(w, s.hyper("language_heads"), w)
                + 6.0 * hyper * w * w
                + fusion * token_weights(w, heads, s.hyper("fusion_hidden"));
            Model {
                weights,
                kept: s.encode(batch, s.text) + batch * kept,
                encoder: true,
            }
        }
        "lnln" => {
            let (w, tokens, heads) = (s.hyper("width"), s.hyper("tokens"), s.hyper("heads"));
            let depth = s.hyper("embedding_depth");
            let embed = |steps: f64| gather(steps, tokens, w, depth, heads, w);
            let small = |depth: f64, tokens: f64| depth * token_layer(tokens, tokens, w, heads, w);
            let faults = s.fit.setup().faults;
            let rebuilt = s.fit.on("reconstructor");
            // Complete inputs go with erased ones where their features are compared.
            let features = rebuilt && faults.keeps(Fault::RebuiltFeatures);
            let judged = s.fit.on("dmc") && faults.keeps(Fault::MixedDiscriminator);
            let twice = |compared| if compared { 2.0 } else { 1.0 };
            let (texts, frames) = (twice(features || judged), twice(features));
            // One that rebuilds inputs has a token for each of their steps.
            let rebuild = match rebuilt {
                false => 0.0,
                true if features => 3.0 * small(s.hyper("reconstructor_depth"), tokens),
                true => [s.text, s.audio, s.vision]
                    .map(|steps| small(s.hyper("reconstructor_depth"), tokens + steps))
                    .iter()
                    .sum(),
            };
            let behind = s.on("dmc")
                * (small(s.hyper("completeness_depth"), tokens + 1.0)
                    + small(s.hyper("proxy_depth"), 4.0 * tokens))
                + rebuild
                + s.on("dmml")
                    * (small(s.hyper("language_depth"), tokens)
                        + 16.0 * s.hyper("hyper_depth") * tokens * w
                        + small(s.hyper("fusion_depth"), tokens + 1.0));
            let layers = 3.0 * depth
                + s.on("dmc") * (s.hyper("completeness_depth") + s.hyper("proxy_depth"))
                + s.on("reconstructor") * 3.0 * s.hyper("reconstructor_depth")
                + s.on("dmml")
                    * (s.hyper("language_depth")
                        + s.hyper("hyper_depth")
                        + s.hyper("fusion_depth"));
            let language = s.on("language")
                * (s.encode(texts * batch, s.text) + texts * batch * embed(s.text));
            Model {
                weights: layers * token_weights(w, heads, w)
                    + w * (width + s.text + s.audio + s.audio_dim + s.vision + s.vision_dim),
                kept: language
                    + batch
                        * frames
                        * (s.on("audio") * embed(s.audio) + s.on("vision") * embed(s.vision))
                    + batch * behind,
                encoder: s.fit.on("language"),
            }
        }
        "lf-dnn" => {
            let hidden = s.hyper("text_hidden");
            Model {
                weights: recurrent_weights(width, hidden)
                    + hidden * s.hyper("text_out")
                    + s.audio_dim * s.hyper("audio_hidden")
                    + s.vision_dim * s.hyper("vision_hidden"),
                // The encoder keeps nothing: one layer's numbers are there at a time.
                kept: batch * (s.text * (8.0 * width + 3.0 * s.encoder.intermediate as f64))
                    + batch
                        * (recurrent(s.text, hidden, 1.0)
                            + s.audio * s.audio_dim
                            + s.vision * s.vision_dim),
                encoder: false,
            }
        }
        "text-only" => Model {
            weights: width,
            kept: s.encode(batch, s.tokens),
            encoder: true,
        },
        "emt-dlfr" => {
            let (w, layers) = (s.hyper("d_model"), s.hyper("fusion_layers"));
            let (heads, expansion) = (s.hyper("heads"), s.hyper("ff_expansion"));
            let hidden = [s.hyper("a_lstm_hidden_size"), s.hyper("v_lstm_hidden_size")];
            let vectors = [width, s.hyper("audio_out"), s.hyper("video_out")];
            let context = 3.0 * w;
            // Weights of attention as they are and, with dropout, as it leaves them.
            let dropout = s.fit.setup().hyper.get("attn_dropout");
            let copies = match dropout.and_then(serde_json::Value::as_f64) {
                Some(p) if p > 0.0 => 2.0,
                _ => 1.0,
            };
            // A sequence asks the context and itself; the context's own layers are small.
            let own = |t: f64| t * w * (13.0 + 4.0 * expansion) + copies * heads * t * (t + 6.0);
            let global = |t: f64| 5.0 * t * w;
            let steps = [s.text, s.audio, s.vision];
            // Two views, of which the complete one leaves out its last sequences.
            let fused: f64 = steps
                .map(|t| (2.0 * layers - 1.0) * own(t) + 2.0 * layers * global(t) + 6.0 * t * w)
                .iter()
                .sum();
            let recurrent =
                recurrent(s.audio, hidden[0], 1.0) + recurrent(s.vision, hidden[1], 1.0);
            // What is rebuilt, with its truth and their masks.
            let rebuilt = 5.0 * (s.text * width + s.audio * s.audio_dim + s.vision * s.vision_dim);
            let predictors = [
                (context, "gmc_tokens_pred_dim"),
                (vectors[0], "text_pred_dim"),
                (vectors[1], "audio_pred_dim"),
                (vectors[2], "video_pred_dim"),
            ];
            let attraction = predictors.map(|(from, key)| from * (from + 2.0 * s.hyper(key)));
            let post = s.hyper("post_fusion_dim");
            Model {
                weights: recurrent_weights(s.audio_dim, hidden[0])
                    + recurrent_weights(s.vision_dim, hidden[1])
                    + w * w * (8.0 + 3.0 * expansion + 9.0)
                    + w * (2.0 * width + s.audio_dim + s.vision_dim)
                    + attraction.iter().sum::<f64>()
                    + post * (vectors.iter().sum::<f64>() + context + post),
                kept: s.encode(2.0 * batch, s.tokens) + batch * (fused + 2.0 * recurrent + rebuilt),
                encoder: true,
            }
        }
        _ => return None,
    })
}

/// The memory that a slot needs to train in this set-up; nothing, where the sizes of dataset or
/// encoder are not known.
pub fn needed(info: &super::MethodInfo, setup: Setup<'_>) -> Option<Memory> {
    let fit = Fit::new(info, setup);
    let sizes = Sizes::of(&fit)?;
    let (data, encoder) = (setup.data?, setup.encoder?);
    let samples = data.samples.map(|n| n as f64);
    let model = model(&sizes)?;
    let encoder_weights = encoder_weights(encoder);
    let all = model.weights + encoder_weights;
    let trained = model.weights + if model.encoder { encoder_weights } else { 0.0 };
    let step = model.kept * FLOAT * (1.0 + SLACK);
    // Weights and moments, as they are and as they are written; what a step took is free by then.
    let saved = 2.0 * FLOAT * (all + 2.0 * trained);
    let kept = CHECKPOINTS * FLOAT * all + (saved - step).max(0.0);
    // Ids, masks and segments as 64-bit numbers, before and after erasure; two masks a modality.
    let masks = sizes.text + sizes.audio + sizes.vision;
    let sample = 6.0 * 8.0 * sizes.text + 10.0 * masks;
    let bytes = |x: f64| x as u64;
    Some(Memory {
        program: bytes(PROGRAM),
        weights: bytes(FLOAT * (all + 3.0 * trained)),
        step: bytes(step),
        kept: bytes(kept),
        checkpoint: bytes(FLOAT * all),
        state: bytes(FLOAT * (all + 2.0 * trained)),
        data: bytes((samples[0] + samples[1] + samples[2]) * sample),
    })
}
