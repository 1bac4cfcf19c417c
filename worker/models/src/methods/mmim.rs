//! MMIM: hierarchical mutual information maximization (Han et al., EMNLP 2021), as MMSA trains it
//! (`models/singleTask/MMIM.py`, `trains/singleTask/MMIM.py`).
//!
//! Each epoch has two passes over the data: the first fits the lower bounds of the mutual information
//! between text and the other modalities, the second trains everything else with these fixed.

use super::{
    Batch, Build, Inputs, Losses, Method, MethodError, MethodState, Position, StepOutcome,
    common::{self, Loss},
};
use crate::{
    context::{EncoderCache, ForwardContext},
    layers::{
        self,
        bert::Bert,
        dropout::dropout,
        rnn::{Cell, Packed, Rnn, RnnConfig},
    },
    lengths::Lengths,
    optim::{Adam, AdamConfig, Group, ReduceOnPlateau, clip_grad_norm},
};
use halfheard_shared::methods::faults::Fault;
use serde::Deserialize;
use serde_json::json;
use tch::{Kind, Tensor, nn, nn::Module};

const METHOD: &str = "mmim";

/// Hyper-parameters (MMSA `config_regression.json`).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Samples per batch.
    batch_size: usize,
    /// Epochs without a better validation loss before training stops; 0 disables early stopping.
    early_stop: u32,
    /// Whether mutual information is used; if not, each epoch has one pass.
    contrast: bool,
    /// Whether the bound between vision and audio is used as well.
    add_va: bool,
    /// Batches whose positive and negative samples are kept for the entropy.
    mem_size: usize,
    /// Dropout of the vision LSTM's output, if it has more than one layer.
    dropout_v: f64,
    /// Dropout of the audio LSTM's output, if it has more than one layer.
    dropout_a: f64,
    /// Dropout of the fusion's input.
    dropout_prj: f64,
    /// Layers of the LSTMs.
    n_layer: i64,
    /// Whether the LSTMs are bidirectional.
    bidirectional: bool,
    /// Hidden state of the vision LSTM.
    d_vh: i64,
    /// Hidden state of the audio LSTM.
    d_ah: i64,
    /// Width of the vision vector.
    d_vout: i64,
    /// Width of the audio vector.
    d_aout: i64,
    /// Width of the fusion.
    d_prjh: i64,
    /// Maximum of the gradients' common norm.
    grad_clip: f64,
    /// Learning rate of everything except encoder and bounds.
    lr_main: f64,
    /// Weight decay of the same.
    weight_decay_main: f64,
    /// Learning rate of the text encoder.
    lr_bert: f64,
    /// Weight decay of the text encoder.
    weight_decay_bert: f64,
    /// Learning rate of the bounds.
    lr_mmilb: f64,
    /// Weight decay of the bounds.
    weight_decay_mmilb: f64,
    /// Epochs without improvement before the learning rate is halved.
    when: u32,
    /// Weight of the contrastive loss.
    alpha: f64,
    /// Weight of the bounds.
    beta: f64,
    /// Fraction of an epoch's batches that the bounds are fitted on: a half on MOSEI.
    bound_share: f64,
}

/// The final states of an LSTM through a linear layer.
#[derive(Debug)]
struct Recurrent {
    rnn: Rnn,
    linear: nn::Linear,
    dropout: f64,
    bidirectional: bool,
}

impl Recurrent {
    fn new(
        path: &nn::Path<'_>,
        input: i64,
        [hidden, output]: [i64; 2],
        dropout: f64,
        config: &Config,
    ) -> Self {
        let dropout = if config.n_layer > 1 { dropout } else { 0.0 };
        let directions = if config.bidirectional { 2 } else { 1 };
        let rnn = RnnConfig {
            cell: Cell::Lstm,
            input,
            hidden,
            layers: config.n_layer,
            bidirectional: config.bidirectional,
            dropout,
        };
        Self {
            rnn: Rnn::new(&(path / "rnn"), rnn),
            linear: layers::linear(path / "linear_1", directions * hidden, output),
            dropout,
            bidirectional: config.bidirectional,
        }
    }

    /// `[B, T, D]` to `[B, output]`. With several layers, the reference uses the first one's states.
    fn forward(&self, x: &Tensor, lengths: &Lengths, train: bool) -> Tensor {
        let (_, states) = self
            .rnn
            .forward(Packed::new(x, &lengths.clamp_min(1)), train);
        let state = if self.bidirectional {
            Tensor::cat(&[states.get(0), states.get(1)], 1)
        } else {
            states.get(0)
        };
        self.linear.forward(&dropout(&state, self.dropout, train))
    }
}

/// Two linear layers with a ReLU between them, named `0` and `2`.
#[derive(Debug)]
struct Perceptron(nn::Linear, nn::Linear);

impl Perceptron {
    fn new(path: &nn::Path<'_>, input: i64, width: i64) -> Self {
        Self(
            layers::linear(path / 0, input, width),
            layers::linear(path / 2, width, width),
        )
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        self.1.forward(&self.0.forward(x).relu())
    }
}

/// The projections of samples with positive and with negative labels, `[n, width / 4]` each.
#[derive(Debug)]
struct Sides {
    positive: Tensor,
    negative: Tensor,
}

impl Sides {
    fn detach(&self) -> Self {
        Self {
            positive: self.positive.detach(),
            negative: self.negative.detach(),
        }
    }
}

/// The lower bound of the mutual information between two representations (equations 4 to 8).
#[derive(Debug)]
struct Bound {
    mean: Perceptron,
    log_variance: Perceptron,
    entropy: nn::Linear,
}

impl Bound {
    fn new(path: &nn::Path<'_>, input: i64, width: i64) -> Self {
        Self {
            mean: Perceptron::new(&(path / "mlp_mu"), input, width),
            log_variance: Perceptron::new(&(path / "mlp_logvar"), input, width),
            entropy: layers::linear(path / "entropy_prj" / 0, width, width / 4),
        }
    }

    /// The mean log-likelihood of `y` `[B, width]` given `x` `[B, input]`, up to a constant.
    fn likelihood(&self, x: &Tensor, y: &Tensor) -> Tensor {
        let error = (self.mean.forward(x) - y).square() / 2.0;
        let scaled = -error / self.log_variance.forward(x).exp();
        scaled
            .sum_dim_intlist(-1i64, false, Kind::Float)
            .mean(Kind::Float)
    }

    fn sides(&self, y: &Tensor, batch: &Batch) -> Sides {
        let projected = self.entropy.forward(y).tanh();
        let choose = |rows: Tensor| projected.index_select(0, &rows);
        Sides {
            positive: choose(batch.positive()),
            negative: choose(batch.negative()),
        }
    }
}

/// The Gaussian entropy of both sides, over the memory and the current batch.
fn entropy(memory: &[Sides], now: &Sides) -> Tensor {
    let log_determinant = |of: fn(&Sides) -> &Tensor| {
        let all: Vec<&Tensor> = memory.iter().map(of).chain([of(now)]).collect();
        let all = Tensor::cat(&all, 0);
        let centered = &all - all.mean_dim(0i64, true, Kind::Float);
        (centered.tr().matmul(&centered) / all.size()[0] as f64).logdet()
    };
    (log_determinant(|s| &s.positive) + log_determinant(|s| &s.negative)) * 0.25
}

/// Contrastive predictive coding: how well the fusion identifies its own `x` in the batch.
fn contrast(net: &nn::Linear, x: &Tensor, fusion: &Tensor) -> Tensor {
    let unit = |t: &Tensor| t / t.norm_scalaropt_dim(2.0, [1i64], true);
    let (predicted, x) = (unit(&net.forward(fusion)), unit(x));
    let own = (&x * &predicted).sum_dim_intlist(-1i64, false, Kind::Float);
    let all = x.matmul(&predicted.tr()).logsumexp(-1i64, false);
    -(own - all).mean(Kind::Float)
}

#[derive(Debug)]
struct Model {
    bert: Bert,
    audio: Recurrent,
    vision: Recurrent,
    /// Text and vision, text and audio, and optionally vision and audio.
    bounds: Vec<Bound>,
    /// Text, vision, audio.
    contrasts: [nn::Linear; 3],
    fusion: [nn::Linear; 3],
    dropout: f64,
}

/// The vectors of a batch.
#[derive(Debug)]
struct Encoded {
    text: Tensor,
    audio: Tensor,
    vision: Tensor,
}

impl Encoded {
    /// The pair of vectors of each bound.
    fn pairs(&self) -> [(&Tensor, &Tensor); 3] {
        [
            (&self.text, &self.vision),
            (&self.text, &self.audio),
            (&self.vision, &self.audio),
        ]
    }
}

impl Model {
    fn new(path: &nn::Path<'_>, config: &Config, build: &Build<'_>) -> Result<Self, MethodError> {
        let model = &(path / "bertmodel" / "model");
        let bert = Bert::load(model, build.encoder, build.optimizations, build.precision)?;
        let (text, vision, audio) = (bert.width(), config.d_vout, config.d_aout);
        let bound = |name: &str, input, width| Bound::new(&(path / name), input, width);
        let mut bounds = vec![bound("mi_tv", text, vision), bound("mi_ta", text, audio)];
        if config.add_va {
            bounds.push(bound("mi_va", vision, audio));
        }
        let net = |name: &str, width| layers::linear(path / name / "net", config.d_prjh, width);
        let fusion = path / "fusion_prj";
        Ok(Self {
            vision: Recurrent::new(
                &(path / "visual_enc"),
                build.data.vision_dim,
                [config.d_vh, config.d_vout],
                config.dropout_v,
                config,
            ),
            audio: Recurrent::new(
                &(path / "acoustic_enc"),
                build.data.audio_dim,
                [config.d_ah, config.d_aout],
                config.dropout_a,
                config,
            ),
            bounds,
            contrasts: [
                net("cpc_zt", text),
                net("cpc_zv", vision),
                net("cpc_za", audio),
            ],
            fusion: [
                layers::linear(&fusion / "linear_1", text + vision + audio, config.d_prjh),
                layers::linear(&fusion / "linear_2", config.d_prjh, config.d_prjh),
                layers::linear(&fusion / "linear_3", config.d_prjh, 1),
            ],
            dropout: config.dropout_prj,
            bert,
        })
    }

    fn encode(&self, input: &Inputs, context: ForwardContext<'_>) -> Encoded {
        let (context, train) = (context.padded(input.padding()), context.train);
        Encoded {
            text: self.bert.forward(&input.text, context).select(1, 0),
            audio: self
                .audio
                .forward(&input.audio, &input.audio_steps(), train),
            vision: self
                .vision
                .forward(&input.vision, &input.vision_steps(), train),
        }
    }

    /// The fusion `[B, D]` and predictions `[B]`.
    fn fuse(&self, encoded: &Encoded, train: bool) -> (Tensor, Tensor) {
        let [first, second, third] = &self.fusion;
        let all = Tensor::cat(&[&encoded.text, &encoded.audio, &encoded.vision], 1);
        let hidden = first.forward(&dropout(&all, self.dropout, train)).tanh();
        let fusion = second.forward(&hidden).tanh();
        let prediction = third.forward(&fusion).squeeze_dim(1);
        (fusion, prediction)
    }

    /// The sum of the bounds' likelihoods.
    fn likelihood(&self, encoded: &Encoded) -> Tensor {
        self.bounds
            .iter()
            .zip(encoded.pairs())
            .map(|(bound, (x, y))| bound.likelihood(x, y))
            .sum()
    }
}

/// The method.
#[derive(Debug)]
struct Mmim {
    vs: nn::VarStore,
    model: Model,
    bound_optimizer: Adam,
    main_optimizer: Adam,
    schedule: ReduceOnPlateau,
    /// For each bound, the sides of the latest batches in this pass.
    memory: Vec<Vec<Sides>>,
    config: Config,
}

/// Builds MMIM.
pub(super) fn build(build: &Build<'_>) -> Result<Box<dyn Method>, MethodError> {
    let config: Config = common::config(METHOD, build)?;
    let vs = nn::VarStore::new(build.device);
    let model = Model::new(&(vs.root() / "Model"), &config, build)?;
    let [mut bert, mut bounds, mut main] = [Vec::new(), Vec::new(), Vec::new()];
    for (name, tensor) in common::parameters(&vs) {
        if name.contains("bert") {
            bert.push((name, tensor));
        } else if name.contains("entropy_prj") {
            // In the reference's first optimizer, but without a gradient in the first pass: never
            // trained. The second pass has the entropy in its loss.
            if !build.faults.keeps(Fault::MmimUntrainedEntropy) {
                main.push((name, tensor));
            }
        } else if name.contains("mi") {
            bounds.push((name, tensor));
        } else {
            main.push((name, tensor));
        }
    }
    // The reference initializes every matrix except the encoder's from Xavier's normal distribution,
    // once per parameter; once gives the same distribution.
    tch::no_grad(|| {
        for (name, tensor) in common::parameters(&vs) {
            let size = tensor.size();
            if !name.contains("bert") && size.len() > 1 {
                let deviation = (2.0 / (size[0] + size[1]) as f64).sqrt();
                let _ = tensor.shallow_clone().normal_(0.0, deviation);
            }
        }
    });
    let group = |params, lr, weight_decay| Group {
        params,
        lr,
        weight_decay,
    };
    let bound_optimizer = Adam::new(
        "bounds",
        vec![group(bounds, config.lr_mmilb, config.weight_decay_mmilb)],
        AdamConfig::ADAM,
    );
    let main_optimizer = Adam::new(
        "main",
        vec![
            group(bert, config.lr_bert, config.weight_decay_bert),
            group(main, config.lr_main, config.weight_decay_main),
        ],
        AdamConfig::ADAM,
    );
    Ok(Box::new(Mmim {
        schedule: ReduceOnPlateau::new(0.5, config.when),
        memory: model.bounds.iter().map(|_| Vec::new()).collect(),
        vs,
        model,
        bound_optimizer,
        main_optimizer,
        config,
    }))
}

impl Mmim {
    /// The gradients of all parameters that have one.
    fn gradients(&self) -> Vec<Tensor> {
        common::parameters(&self.vs)
            .into_iter()
            .map(|(_, tensor)| tensor.grad())
            .filter(Tensor::defined)
            .collect()
    }

    fn zero_grad(&self) {
        for mut tensor in self.vs.trainable_variables() {
            tensor.zero_grad();
        }
    }

    /// First pass: the bounds alone.
    fn fit_bounds(&mut self, batch: &Batch) -> Result<StepOutcome, MethodError> {
        let encoded = self.model.encode(&batch.input, ForwardContext::TRAIN);
        let (_, prediction) = tch::no_grad(|| self.model.fuse(&encoded, true));
        let loss = -self.model.likelihood(&encoded);
        let losses = Losses::new(&[("bound", &loss)], &[]);
        loss.backward();
        clip_grad_norm(&self.gradients(), self.config.grad_clip);
        self.bound_optimizer.step();
        Ok(StepOutcome { prediction, losses })
    }

    /// Second pass: everything else.
    fn fit_main(&mut self, at: Position, batch: &Batch) -> Result<StepOutcome, MethodError> {
        let encoded = self.model.encode(&batch.input, ForwardContext::TRAIN);
        let (fusion, prediction) = self.model.fuse(&encoded, true);
        let task = Loss::L1.of(&prediction, &batch.labels);
        let mut loss = task.shallow_clone();
        let mut parts = vec![("task", task)];
        if self.config.contrast {
            let [text, vision, audio] = &self.model.contrasts;
            let nce = contrast(text, &encoded.text, &fusion)
                + contrast(vision, &encoded.vision, &fusion)
                + contrast(audio, &encoded.audio, &fusion);
            let likelihood = self.model.likelihood(&encoded);
            loss = loss + &nce * self.config.alpha - &likelihood * self.config.beta;
            parts.push(("nce", nce));
            parts.push(("likelihood", likelihood));
        }
        let sides: Vec<Sides> = self
            .model
            .bounds
            .iter()
            .zip(encoded.pairs())
            .map(|(bound, (_, y))| bound.sides(y, batch))
            .collect();
        // The reference uses the entropy from one batch after the memory is full.
        if at.step > self.config.mem_size {
            let entropies = self.memory.iter().zip(&sides);
            let entropy: Tensor = entropies.map(|(memory, now)| entropy(memory, now)).sum();
            loss -= &entropy * self.config.beta;
            parts.push(("entropy", entropy));
        }
        for (memory, now) in self.memory.iter_mut().zip(&sides) {
            if memory.len() < self.config.mem_size {
                memory.push(now.detach());
            } else if self.config.mem_size > 0 {
                memory[at.step % self.config.mem_size] = now.detach();
            }
        }
        let mut named = vec![("loss", &loss)];
        named.extend(parts.iter().map(|(name, value)| (*name, value)));
        let losses = Losses::new(&named, &[]);
        loss.backward();
        clip_grad_norm(&self.gradients(), self.config.grad_clip);
        self.main_optimizer.step();
        Ok(StepOutcome {
            prediction: prediction.detach(),
            losses,
        })
    }

    /// Whether a pass fits the bounds.
    fn fits_bounds(&self, pass: usize) -> bool {
        self.config.contrast && pass == 0
    }
}

impl Method for Mmim {
    fn vars(&self) -> &nn::VarStore {
        &self.vs
    }

    fn batch_size(&self) -> usize {
        self.config.batch_size
    }

    fn passes(&self) -> usize {
        if self.config.contrast { 2 } else { 1 }
    }

    fn steps_of_pass(&self, pass: usize, steps: usize) -> usize {
        if self.fits_bounds(pass) {
            ((steps as f64 * self.config.bound_share).ceil() as usize).clamp(1, steps)
        } else {
            steps
        }
    }

    fn begin_pass(&mut self, _at: Position) -> Result<(), MethodError> {
        self.memory.iter_mut().for_each(Vec::clear);
        Ok(())
    }

    fn train_step(&mut self, at: Position, batch: &Batch) -> Result<StepOutcome, MethodError> {
        self.zero_grad();
        if self.fits_bounds(at.pass) {
            self.fit_bounds(batch)
        } else {
            self.fit_main(at, batch)
        }
    }

    fn predict(&self, batch: &Batch, cache: Option<&EncoderCache>) -> Result<Tensor, MethodError> {
        Ok(tch::no_grad(|| {
            let encoded = self
                .model
                .encode(&batch.input, ForwardContext::evaluation(cache));
            self.model.fuse(&encoded, false).1
        }))
    }

    fn validation_loss(&self, prediction: &Tensor, labels: &Tensor) -> f64 {
        Loss::L1.value(prediction, labels)
    }

    fn uses_validation_loss(&self) -> bool {
        true
    }

    fn end_epoch(&mut self, _epoch: u32, validation_loss: f64) -> Result<(), MethodError> {
        self.schedule
            .step(validation_loss, &mut self.main_optimizer);
        Ok(())
    }

    fn patience(&self) -> Option<u32> {
        common::patience(self.config.early_stop)
    }

    fn state(&self) -> Result<MethodState, MethodError> {
        let mut state = common::save(&self.vs, &[&self.bound_optimizer, &self.main_optimizer]);
        self.schedule.save(&mut state);
        let counts: Vec<usize> = self.memory.iter().map(Vec::len).collect();
        state.scalars.insert("memory".to_owned(), json!(counts));
        for (b, memory) in self.memory.iter().enumerate() {
            for (i, sides) in memory.iter().enumerate() {
                let mut put = |side: &str, tensor: &Tensor| {
                    let copy = tensor.to_device(tch::Device::Cpu).copy();
                    state.tensors.insert(format!("memory.{b}.{i}.{side}"), copy);
                };
                put("positive", &sides.positive);
                put("negative", &sides.negative);
            }
        }
        Ok(state)
    }

    fn restore(&mut self, state: &MethodState) -> Result<(), MethodError> {
        let optimizers = &mut [&mut self.bound_optimizer, &mut self.main_optimizer];
        common::restore(&self.vs, optimizers, state)?;
        self.schedule.load(state)?;
        let counts: Vec<usize> = state
            .scalars
            .get("memory")
            .and_then(|v| serde_json::from_value(v.clone()).ok())
            .ok_or_else(|| MethodError::State("`memory` is missing".to_owned()))?;
        let device = self.vs.device();
        let get = |name: String| {
            let tensor = state.tensors.get(&name);
            tensor
                .map(|t| t.to_device(device).copy())
                .ok_or_else(|| MethodError::State(format!("`{name}` is missing")))
        };
        for (b, (memory, count)) in self.memory.iter_mut().zip(counts).enumerate() {
            memory.clear();
            for i in 0..count {
                memory.push(Sides {
                    positive: get(format!("memory.{b}.{i}.positive"))?,
                    negative: get(format!("memory.{b}.{i}.negative"))?,
                });
            }
        }
        Ok(())
    }
}
