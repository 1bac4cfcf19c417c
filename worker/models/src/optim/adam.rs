//! Adam and AdamW as PyTorch computes them, with a state that can be saved, which libtorch's own
//! optimizers lack.

use crate::{error::MethodError, numerics::threads, state::MethodState};
use halfheard_torch_shim::{AdamStep, AdamWeights};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

/// Parameters that share a learning rate and a weight decay.
#[derive(Debug)]
pub(crate) struct Group {
    /// The parameters with their names; the names key the saved state.
    pub params: Vec<(String, Tensor)>,
    /// Learning rate.
    pub lr: f64,
    /// Weight decay.
    pub weight_decay: f64,
}

/// How weight decay is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decay {
    /// Added to the gradient (Adam).
    Coupled,
    /// Subtracted from the weights (AdamW, Loshchilov & Hutter 2019).
    Decoupled,
}

/// The configuration of all groups.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct AdamConfig {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// How weight decay is applied.
    pub decay: Decay,
}

impl AdamConfig {
    /// PyTorch's defaults for `Adam`.
    pub(crate) const ADAM: Self = Self {
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        decay: Decay::Coupled,
    };
    /// PyTorch's defaults for `AdamW`.
    pub(crate) const ADAMW: Self = Self {
        decay: Decay::Decoupled,
        ..Self::ADAM
    };

    /// At the given step, from 1: the learning rate divided by the first bias correction, and the root of the second.
    fn corrected(&self, lr: f64, steps: i64) -> (f64, f64) {
        let steps = steps as i32;
        let rate = lr / (1.0 - self.beta1.powi(steps));
        (rate, (1.0 - self.beta2.powi(steps)).sqrt())
    }

    /// What the weights times which are added to the gradients, and what they are multiplied with.
    fn decays(&self, lr: f64, weight_decay: f64) -> (f64, f64) {
        match self.decay {
            Decay::Coupled => (weight_decay, 1.0),
            Decay::Decoupled => (0.0, 1.0 - lr * weight_decay),
        }
    }
}

#[derive(Debug)]
struct Parameter {
    name: String,
    tensor: Tensor,
    /// Set once the parameter has had a gradient.
    moments: Option<Moments>,
}

#[derive(Debug)]
struct Moments {
    steps: i64,
    first: Tensor,
    second: Tensor,
}

#[derive(Debug)]
struct GroupState {
    parameters: Vec<Parameter>,
    lr: f64,
    initial_lr: f64,
    weight_decay: f64,
}

/// Adam (Kingma & Ba 2015). As in PyTorch, a parameter without a gradient is skipped: it is not
/// decayed, and its steps are not counted.
#[derive(Debug)]
pub(crate) struct Adam {
    groups: Vec<GroupState>,
    config: AdamConfig,
    /// Prefix of the keys in a saved state, since a method may have several optimizers.
    prefix: &'static str,
}

impl Adam {
    /// An optimizer over `groups`; its saved state is kept under `prefix`.
    pub(crate) fn new(prefix: &'static str, groups: Vec<Group>, config: AdamConfig) -> Self {
        let groups = groups
            .into_iter()
            .map(|group| GroupState {
                parameters: group
                    .params
                    .into_iter()
                    .map(|(name, tensor)| Parameter {
                        name,
                        tensor,
                        moments: None,
                    })
                    .collect(),
                lr: group.lr,
                initial_lr: group.lr,
                weight_decay: group.weight_decay,
            })
            .collect();
        Self {
            groups,
            config,
            prefix,
        }
    }

    /// Zeroes all gradients.
    pub(crate) fn zero_grad(&mut self) {
        for parameter in self.groups.iter_mut().flat_map(|g| &mut g.parameters) {
            parameter.tensor.zero_grad();
        }
    }

    /// All existing gradients, of all groups.
    pub(crate) fn gradients(&self) -> Vec<Tensor> {
        self.groups
            .iter()
            .flat_map(|g| &g.parameters)
            .map(|parameter| parameter.tensor.grad())
            .filter(Tensor::defined)
            .collect()
    }

    /// Updates the parameters: on the CPU in one pass over each, elsewhere many at once with libtorch's operators.
    pub(crate) fn step(&mut self) {
        let _guard = tch::no_grad_guard();
        for group in &mut self.groups {
            let (lr, weight_decay) = (group.lr, group.weight_decay);
            let mut elsewhere = Elsewhere::new(&self.config, lr, weight_decay);
            for parameter in &mut group.parameters {
                let grad = parameter.tensor.grad();
                if !grad.defined() {
                    continue;
                }
                let param = &parameter.tensor;
                let moments = parameter.moments.get_or_insert_with(|| Moments {
                    steps: 0,
                    first: param.zeros_like(),
                    second: param.zeros_like(),
                });
                moments.steps += 1;
                match on_host(param, &grad, moments) {
                    true => step_on_host(&self.config, (lr, weight_decay), param, &grad, moments),
                    false => elsewhere.add(param, grad, moments),
                }
            }
            elsewhere.finish();
        }
    }

    /// The learning rates of the groups.
    pub(crate) fn learning_rates(&self) -> Vec<f64> {
        self.groups.iter().map(|g| g.lr).collect()
    }

    /// Sets each group's learning rate to `factor` times its initial one.
    pub(crate) fn scale_initial(&mut self, factor: f64) {
        for group in &mut self.groups {
            group.lr = group.initial_lr * factor;
        }
    }

    /// Multiplies each group's learning rate by `factor`.
    pub(crate) fn scale(&mut self, factor: f64) {
        for group in &mut self.groups {
            group.lr *= factor;
        }
    }

    /// Saves moments, step counts and learning rates.
    pub(crate) fn save(&self, state: &mut MethodState) {
        let prefix = self.prefix;
        for parameter in self.groups.iter().flat_map(|g| &g.parameters) {
            if let Some(moments) = &parameter.moments {
                let mut put = |part: &str, tensor: &Tensor| {
                    state.tensors.insert(
                        format!("{prefix}.{part}.{}", parameter.name),
                        tensor.detach().to_device(tch::Device::Cpu).copy(),
                    );
                };
                put("first", &moments.first);
                put("second", &moments.second);
                state.scalars.insert(
                    format!("{prefix}.steps.{}", parameter.name),
                    json!(moments.steps),
                );
            }
        }
        state
            .scalars
            .insert(format!("{prefix}.lr"), json!(self.learning_rates()));
    }

    /// Restores what [`save`](Self::save) wrote.
    pub(crate) fn load(&mut self, state: &MethodState) -> Result<(), MethodError> {
        let prefix = self.prefix;
        let missing = |name: &str| MethodError::State(format!("`{name}` is missing"));
        let name = format!("{prefix}.lr");
        let rates: Vec<f64> = state
            .scalars
            .get(&name)
            .and_then(|v| serde_json::from_value(v.clone()).ok())
            .ok_or_else(|| missing(&name))?;
        if rates.len() != self.groups.len() {
            return Err(MethodError::State(format!(
                "{} learning rates for {} groups",
                rates.len(),
                self.groups.len()
            )));
        }
        for (group, lr) in self.groups.iter_mut().zip(rates) {
            group.lr = lr;
            for parameter in &mut group.parameters {
                let steps = format!("{prefix}.steps.{}", parameter.name);
                let Some(steps) = state.scalars.get(&steps).and_then(Value::as_i64) else {
                    parameter.moments = None;
                    continue;
                };
                let get = |part: &str| {
                    let name = format!("{prefix}.{part}.{}", parameter.name);
                    let tensor = state.tensors.get(&name).ok_or_else(|| missing(&name))?;
                    if tensor.size() != parameter.tensor.size() {
                        return Err(MethodError::State(format!("`{name}` has another shape")));
                    }
                    Ok(tensor.to_device(parameter.tensor.device()).copy())
                };
                parameter.moments = Some(Moments {
                    steps,
                    first: get("first")?,
                    second: get("second")?,
                });
            }
        }
        Ok(())
    }
}

/// Numbers that are updated at once: as many are needed beside them for a moment.
const AT_ONCE: usize = 1 << 25;

/// The parameters of a group that [`step_on_host`] is not for, as far as they are not updated yet.
struct Elsewhere<'c> {
    config: &'c AdamConfig,
    lr: f64,
    step: AdamStep,
    weights: AdamWeights,
    numbers: usize,
}

impl<'c> Elsewhere<'c> {
    fn new(config: &'c AdamConfig, lr: f64, weight_decay: f64) -> Self {
        let (coupled_decay, shrink) = config.decays(lr, weight_decay);
        let step = AdamStep {
            keep_first: config.beta1,
            keep_second: config.beta2,
            eps: config.eps,
            coupled_decay,
            shrink,
        };
        Self {
            config,
            lr,
            step,
            weights: AdamWeights::default(),
            numbers: 0,
        }
    }

    /// Adds a parameter of which `moments.steps` counts this step already.
    fn add(&mut self, param: &Tensor, grad: Tensor, moments: &Moments) {
        let (rate, correction) = self.config.corrected(self.lr, moments.steps);
        self.numbers += param.numel();
        let of = &mut self.weights;
        of.weights.push(param.shallow_clone());
        of.gradients.push(grad);
        of.first.push(moments.first.shallow_clone());
        of.second.push(moments.second.shallow_clone());
        of.rates.push(rate);
        of.corrections.push(correction);
        if self.numbers >= AT_ONCE {
            self.finish();
        }
    }

    /// Updates those that were added.
    fn finish(&mut self) {
        self.step.take(&std::mem::take(&mut self.weights));
        self.numbers = 0;
    }
}

/// Whether [`step_on_host`] applies: all in this process's memory, single precision, one number after the other.
fn on_host(param: &Tensor, grad: &Tensor, moments: &Moments) -> bool {
    let plain = |x: &Tensor| {
        (x.device(), x.kind()) == (Device::Cpu, Kind::Float) && x.is_contiguous() && !x.is_sparse()
    };
    [param, grad, &moments.first, &moments.second]
        .into_iter()
        .all(plain)
}

/// Below this many numbers, more threads cost more than they save.
const WORTH_THREADS: usize = 1 << 16;

/// Updates a parameter of which `moments.steps` counts this step already.
fn step_on_host(
    config: &AdamConfig,
    (lr, weight_decay): (f64, f64),
    param: &Tensor,
    grad: &Tensor,
    moments: &Moments,
) {
    let (rate, correction) = config.corrected(lr, moments.steps);
    let (coupled_decay, shrink) = config.decays(lr, weight_decay);
    let count = param.numel();
    let adam = halfheard_kernels::adam::Adam {
        rate: rate as f32,
        first: (1.0 - config.beta1) as f32,
        keep: config.beta2 as f32,
        second: (1.0 - config.beta2) as f32,
        correction: correction as f32,
        eps: config.eps as f32,
        coupled_decay: coupled_decay as f32,
        shrink: shrink as f32,
        threads: match count < WORTH_THREADS {
            true => 1,
            false => threads(),
        },
    };
    // SAFETY: `on_host` has checked that each tensor is so many floats in memory. They are four different tensors, and
    // nothing uses them meanwhile: all of their users are in this thread.
    let numbers =
        |x: &Tensor| unsafe { std::slice::from_raw_parts_mut(x.data_ptr().cast::<f32>(), count) };
    adam.step(halfheard_kernels::adam::Parameter {
        weight: numbers(param),
        gradient: numbers(grad),
        first: numbers(&moments.first),
        second: numbers(&moments.second),
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::nn;

    /// Steps of two optimizers over the same weights and gradients, one of them with weights that are not contiguous
    /// in memory, for which libtorch's operators serve.
    #[test]
    fn steps_on_the_host_equal_those_of_operators() {
        for config in [AdamConfig::ADAM, AdamConfig::ADAMW] {
            let run = |transposed: bool| {
                tch::manual_seed(1);
                let start = Tensor::randn([37, 11], (Kind::Float, Device::Cpu));
                let w = match transposed {
                    true => start.transpose(0, 1).contiguous().transpose(0, 1),
                    false => start.copy(),
                }
                .set_requires_grad(true);
                assert_eq!(w.is_contiguous(), !transposed);
                let mut adam = Adam::new("adam", group(&w, 0.01, 0.1), config);
                for step in 0..20 {
                    adam.zero_grad();
                    ((&w * f64::from(step)).sin() * &w)
                        .sum(Kind::Float)
                        .backward();
                    adam.step();
                }
                w.detach()
            };
            let difference = (run(false) - run(true)).abs().max().double_value(&[]);
            assert!(difference < 2e-6, "{difference}");
        }
    }

    fn parameter(vs: &nn::VarStore) -> Tensor {
        vs.root()
            .var_copy("w", &Tensor::from_slice(&[1.0f32, -2.0]))
    }

    fn group(w: &Tensor, lr: f64, weight_decay: f64) -> Vec<Group> {
        vec![Group {
            params: vec![("w".to_owned(), w.shallow_clone())],
            lr,
            weight_decay,
        }]
    }

    #[test]
    fn first_step_is_the_learning_rate_along_the_negative_gradient() {
        let vs = nn::VarStore::new(Device::Cpu);
        let w = parameter(&vs);
        let mut adam = Adam::new("adam", group(&w, 0.1, 0.0), AdamConfig::ADAM);
        (&w * 3.0).sum(Kind::Float).backward();
        adam.step();
        let got = Vec::<f32>::try_from(&w.detach()).unwrap();
        assert!((got[0] - 0.9).abs() < 1e-6 && (got[1] + 2.1).abs() < 1e-6);
    }

    #[test]
    fn decoupled_decay_is_independent_of_the_gradient() {
        let vs = nn::VarStore::new(Device::Cpu);
        let w = parameter(&vs);
        let mut adam = Adam::new("adam", group(&w, 0.1, 0.5), AdamConfig::ADAMW);
        (&w * 3.0).sum(Kind::Float).backward();
        adam.step();
        let got = Vec::<f32>::try_from(&w.detach()).unwrap();
        assert!((got[0] - (0.95 - 0.1)).abs() < 1e-6, "{got:?}");
    }

    #[test]
    fn parameter_without_gradient_is_skipped() {
        let vs = nn::VarStore::new(Device::Cpu);
        let w = parameter(&vs);
        let mut adam = Adam::new("adam", group(&w, 0.1, 0.5), AdamConfig::ADAM);
        adam.step();
        let got = Vec::<f32>::try_from(&w.detach()).unwrap();
        assert_eq!(got, [1.0, -2.0]);
    }

    #[test]
    fn restored_state_resumes_bit_exactly() {
        let run = |interrupt: bool| {
            let vs = nn::VarStore::new(Device::Cpu);
            let w = parameter(&vs);
            let mut adam = Adam::new("adam", group(&w, 0.1, 0.01), AdamConfig::ADAM);
            for step in 0..6 {
                if interrupt && step == 3 {
                    let mut state = MethodState::default();
                    adam.save(&mut state);
                    adam = Adam::new("adam", group(&w, 7.0, 0.01), AdamConfig::ADAM);
                    adam.load(&state).unwrap();
                }
                adam.zero_grad();
                w.square().sum(Kind::Float).backward();
                adam.step();
            }
            Vec::<f32>::try_from(&w.detach()).unwrap()
        };
        assert_eq!(run(false), run(true));
    }
}
