//! What the methods' files share: reading hyper-parameters, checking losses, saving weights.

use super::{MethodError, MethodState, Position};
use crate::optim::Adam;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;
use tch::{Device, Tensor, nn};

/// A method's configuration from its hyper-parameters.
pub fn config<C: DeserializeOwned>(method: &'static str, hyper: &Value) -> Result<C, MethodError> {
    serde_json::from_value(hyper.clone()).map_err(|e| MethodError::Hyper {
        method,
        what: e.to_string(),
    })
}

/// Reads the losses back and refuses those that are not finite: the first is the whole.
pub fn losses(
    at: Position,
    parts: &[(&'static str, &Tensor)],
) -> Result<BTreeMap<&'static str, f64>, MethodError> {
    let losses: BTreeMap<&'static str, f64> = parts
        .iter()
        .map(|(name, value)| (*name, value.double_value(&[])))
        .collect();
    if losses.values().all(|value| value.is_finite()) {
        Ok(losses)
    } else {
        Err(MethodError::NonFinite { at, losses })
    }
}

/// The trainable variables of `vs` by name, sorted, so that groups are the same in every run.
pub fn parameters(vs: &nn::VarStore) -> Vec<(String, Tensor)> {
    let mut named: Vec<(String, Tensor)> = vs
        .variables()
        .into_iter()
        .filter(|(_, tensor)| tensor.requires_grad())
        .collect();
    named.sort_by(|a, b| a.0.cmp(&b.0));
    named
}

/// Weights and optimizers into a state.
pub fn save(vs: &nn::VarStore, optimizers: &[&Adam]) -> MethodState {
    let mut state = MethodState::default();
    for (name, tensor) in vs.variables() {
        state.tensors.insert(
            format!("weights.{name}"),
            tensor.detach().to_device(Device::Cpu).copy(),
        );
    }
    for optimizer in optimizers {
        optimizer.save(&mut state);
    }
    let with_gradient: Vec<String> = parameters(vs)
        .into_iter()
        .filter(|(_, tensor)| tensor.grad().defined())
        .map(|(name, _)| name)
        .collect();
    state
        .scalars
        .insert(GRADIENTS.to_owned(), with_gradient.into());
    state
}

/// Where a state says which parameters have had a gradient.
///
/// A gradient that was there once stays, as zeros, in steps that do not reach its parameter; before
/// that there is none. The two are not the same to the last bit: zeros take a place in the sum
/// under a common norm, which so adds up in another order, and an optimizer lets the moments of a
/// parameter whose gradient is zero decay, but passes over one without. So it belongs to the state.
const GRADIENTS: &str = "gradients";

/// Gives the parameters that a state names their gradient, of zeros.
fn restore_gradients(vs: &nn::VarStore, state: &MethodState) -> Result<(), MethodError> {
    let names: Vec<String> = state
        .scalars
        .get(GRADIENTS)
        .and_then(|names| serde_json::from_value(names.clone()).ok())
        .ok_or_else(|| MethodError::State(format!("`{GRADIENTS}` is missing")))?;
    let variables = vs.variables();
    for name in names {
        let variable = variables
            .get(&name)
            .filter(|variable| variable.requires_grad())
            .ok_or_else(|| MethodError::State(format!("`{name}` has no gradient here")))?;
        if variable.grad().defined() {
            let _ = variable.grad().detach_().zero_();
        } else {
            // libtorch lets a gradient be made by a backward pass alone.
            tch::with_grad(|| (variable * variable.zeros_like()).sum(None).backward());
        }
    }
    Ok(())
}

/// Weights and optimizers back from a state.
pub fn restore(
    vs: &nn::VarStore,
    optimizers: &mut [&mut Adam],
    state: &MethodState,
) -> Result<(), MethodError> {
    let _guard = tch::no_grad_guard();
    for (name, mut variable) in vs.variables() {
        let saved = state
            .tensors
            .get(&format!("weights.{name}"))
            .ok_or_else(|| MethodError::State(format!("weight `{name}` is missing")))?;
        if saved.size() != variable.size() {
            return Err(MethodError::State(format!(
                "weight `{name}` has shape {:?}, not {:?}",
                saved.size(),
                variable.size()
            )));
        }
        variable.copy_(saved);
    }
    for optimizer in optimizers {
        optimizer.load(state)?;
    }
    restore_gradients(vs, state)
}

/// What `early_stop` means: 0 is never.
pub fn patience(early_stop: u32) -> Option<u32> {
    (early_stop > 0).then_some(early_stop)
}

/// Gradients added up over several batches before an update. What is left of an incomplete group at
/// the end of an epoch is dropped, as in the reference.
#[derive(Clone, Copy, Debug)]
pub struct Accumulation {
    every: u32,
    left: u32,
}

impl Accumulation {
    /// An update every `every` batches.
    pub fn new(every: u32) -> Self {
        Self {
            every: every.max(1),
            left: every.max(1),
        }
    }

    /// Starts anew.
    pub fn reset(&mut self) {
        self.left = self.every;
    }

    /// Whether no gradient waits for its update.
    pub fn at_rest(&self) -> bool {
        self.left == self.every
    }

    /// A batch begins; true when it is the first of its group, so that old gradients go.
    pub fn begin(&mut self) -> bool {
        let first = self.at_rest();
        self.left -= 1;
        first
    }

    /// A batch ended; true when its group is complete.
    pub fn end(&mut self) -> bool {
        let complete = self.left == 0;
        if complete {
            self.reset();
        }
        complete
    }
}

/// Splits the parameters into those of the text encoder with weight decay, those without (biases
/// and layer norms), and the rest, by whether the name contains `encoder`.
pub fn encoder_groups(vs: &nn::VarStore, encoder: &str) -> [Vec<(String, Tensor)>; 3] {
    let mut groups = [Vec::new(), Vec::new(), Vec::new()];
    for (name, tensor) in parameters(vs) {
        let group = if !name.contains(encoder) {
            2
        } else if name.contains("bias") || name.contains("LayerNorm.weight") {
            1
        } else {
            0
        };
        groups[group].push((name, tensor));
    }
    groups
}
