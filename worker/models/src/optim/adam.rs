//! Adam and AdamW as PyTorch computes them, with a state that can be saved, which libtorch's own
//! optimizers lack.

use crate::{error::MethodError, state::MethodState};
use serde_json::{Value, json};
use tch::Tensor;

/// Parameters that share a learning rate and a weight decay.
#[derive(Debug)]
pub struct Group {
    /// The parameters with their names; the names key the saved state.
    pub params: Vec<(String, Tensor)>,
    /// Learning rate.
    pub lr: f64,
    /// Weight decay.
    pub weight_decay: f64,
}

/// How weight decay enters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decay {
    /// Added to the gradient (Adam).
    Coupled,
    /// Taken off the weights (AdamW, Loshchilov & Hutter 2019).
    Decoupled,
}

/// What all groups share.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamConfig {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// How weight decay enters.
    pub decay: Decay,
}

impl AdamConfig {
    /// PyTorch's defaults of `Adam`.
    pub const ADAM: Self = Self {
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        decay: Decay::Coupled,
    };
    /// PyTorch's defaults of `AdamW`.
    pub const ADAMW: Self = Self {
        decay: Decay::Decoupled,
        ..Self::ADAM
    };
}

#[derive(Debug)]
struct Slot {
    name: String,
    param: Tensor,
    /// There once the parameter has had a gradient.
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
    slots: Vec<Slot>,
    lr: f64,
    initial_lr: f64,
    weight_decay: f64,
}

/// Adam (Kingma & Ba 2015). A parameter without a gradient is left alone, as PyTorch does: it is
/// not decayed, and its steps do not count.
#[derive(Debug)]
pub struct Adam {
    groups: Vec<GroupState>,
    config: AdamConfig,
    /// Keys of the saved state begin with it: a method may have several optimizers.
    prefix: &'static str,
}

impl Adam {
    /// An optimizer over `groups`; its saved state is kept under `prefix`.
    pub fn new(prefix: &'static str, groups: Vec<Group>, config: AdamConfig) -> Self {
        let groups = groups
            .into_iter()
            .map(|group| GroupState {
                slots: group
                    .params
                    .into_iter()
                    .map(|(name, param)| Slot {
                        name,
                        param,
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

    /// Forgets all gradients.
    pub fn zero_grad(&mut self) {
        for slot in self.groups.iter_mut().flat_map(|g| &mut g.slots) {
            slot.param.zero_grad();
        }
    }

    /// The gradients there are, of all groups.
    pub fn gradients(&self) -> Vec<Tensor> {
        self.groups
            .iter()
            .flat_map(|g| &g.slots)
            .map(|slot| slot.param.grad())
            .filter(Tensor::defined)
            .collect()
    }

    /// One update.
    pub fn step(&mut self) {
        let _guard = tch::no_grad_guard();
        let AdamConfig {
            beta1,
            beta2,
            eps,
            decay,
        } = self.config;
        for group in &mut self.groups {
            for slot in &mut group.slots {
                let mut grad = slot.param.grad();
                if !grad.defined() {
                    continue;
                }
                let param = &mut slot.param;
                let moments = slot.moments.get_or_insert_with(|| Moments {
                    steps: 0,
                    first: param.zeros_like(),
                    second: param.zeros_like(),
                });
                moments.steps += 1;
                if group.weight_decay != 0.0 {
                    match decay {
                        // One rounding for product and sum, as PyTorch's `add` with a factor has.
                        Decay::Coupled => {
                            let factor = Tensor::full(
                                [0i64; 0],
                                group.weight_decay,
                                (param.kind(), param.device()),
                            );
                            grad = grad.addcmul(param, &factor);
                        }
                        Decay::Decoupled => {
                            let _ = param.g_mul_scalar_(1.0 - group.lr * group.weight_decay);
                        }
                    }
                }
                let steps = moments.steps as i32;
                let first_correction = 1.0 - beta1.powi(steps);
                let second_correction = 1.0 - beta2.powi(steps);
                let _ = moments.first.lerp_(&grad, 1.0 - beta1);
                let _ = moments
                    .second
                    .g_mul_scalar_(beta2)
                    .addcmul_(&grad, &(&grad * (1.0 - beta2)));
                let denominator = moments
                    .second
                    .sqrt()
                    .g_div_scalar_(second_correction.sqrt())
                    .g_add_scalar_(eps);
                let _ = param.addcdiv_(
                    &(&moments.first * (-group.lr / first_correction)),
                    &denominator,
                );
            }
        }
    }

    /// The learning rates of the groups.
    pub fn learning_rates(&self) -> Vec<f64> {
        self.groups.iter().map(|g| g.lr).collect()
    }

    /// Sets each group's learning rate to `factor` of what it was built with.
    pub fn scale_initial(&mut self, factor: f64) {
        for group in &mut self.groups {
            group.lr = group.initial_lr * factor;
        }
    }

    /// Multiplies each group's learning rate by `factor`.
    pub fn scale(&mut self, factor: f64) {
        for group in &mut self.groups {
            group.lr *= factor;
        }
    }

    /// Adds moments, step counts and learning rates to `state`.
    pub fn save(&self, state: &mut MethodState) {
        let prefix = self.prefix;
        for slot in self.groups.iter().flat_map(|g| &g.slots) {
            if let Some(moments) = &slot.moments {
                let mut put = |part: &str, tensor: &Tensor| {
                    state.tensors.insert(
                        format!("{prefix}.{part}.{}", slot.name),
                        tensor.detach().to_device(tch::Device::Cpu).copy(),
                    );
                };
                put("first", &moments.first);
                put("second", &moments.second);
                state.scalars.insert(
                    format!("{prefix}.steps.{}", slot.name),
                    json!(moments.steps),
                );
            }
        }
        state
            .scalars
            .insert(format!("{prefix}.lr"), json!(self.learning_rates()));
    }

    /// Takes back what [`save`](Self::save) wrote.
    pub fn load(&mut self, state: &MethodState) -> Result<(), MethodError> {
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
            for slot in &mut group.slots {
                let steps = format!("{prefix}.steps.{}", slot.name);
                let Some(steps) = state.scalars.get(&steps).and_then(Value::as_i64) else {
                    slot.moments = None;
                    continue;
                };
                let get = |part: &str| {
                    let name = format!("{prefix}.{part}.{}", slot.name);
                    let tensor = state.tensors.get(&name).ok_or_else(|| missing(&name))?;
                    if tensor.size() != slot.param.size() {
                        return Err(MethodError::State(format!("`{name}` has another shape")));
                    }
                    Ok(tensor.to_device(slot.param.device()).copy())
                };
                slot.moments = Some(Moments {
                    steps,
                    first: get("first")?,
                    second: get("second")?,
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind, nn};

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
    fn first_step_is_the_learning_rate_against_the_gradient() {
        let vs = nn::VarStore::new(Device::Cpu);
        let w = parameter(&vs);
        let mut adam = Adam::new("adam", group(&w, 0.1, 0.0), AdamConfig::ADAM);
        (&w * 3.0).sum(Kind::Float).backward();
        adam.step();
        let got = Vec::<f32>::try_from(&w.detach()).unwrap();
        assert!((got[0] - 0.9).abs() < 1e-6 && (got[1] + 2.1).abs() < 1e-6);
    }

    #[test]
    fn decoupled_decay_shrinks_weights_apart_from_the_gradient() {
        let vs = nn::VarStore::new(Device::Cpu);
        let w = parameter(&vs);
        let mut adam = Adam::new("adam", group(&w, 0.1, 0.5), AdamConfig::ADAMW);
        (&w * 3.0).sum(Kind::Float).backward();
        adam.step();
        let got = Vec::<f32>::try_from(&w.detach()).unwrap();
        assert!((got[0] - (0.95 - 0.1)).abs() < 1e-6, "{got:?}");
    }

    #[test]
    fn a_parameter_without_gradient_is_left_alone() {
        let vs = nn::VarStore::new(Device::Cpu);
        let w = parameter(&vs);
        let mut adam = Adam::new("adam", group(&w, 0.1, 0.5), AdamConfig::ADAM);
        adam.step();
        let got = Vec::<f32>::try_from(&w.detach()).unwrap();
        assert_eq!(got, [1.0, -2.0]);
    }

    #[test]
    fn state_goes_on_to_the_same_bits() {
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
