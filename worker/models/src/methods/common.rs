//! What the methods' files share: reading hyper-parameters, checking losses, saving weights.

use super::{Batch, Build, Inputs, MethodError, MethodState, Position};
use crate::{layers::bert::BertConfig, optim::Adam};
use halfheard_shared::{
    dataset::Shapes,
    encoder::EncoderError,
    methods::{self, About, DataFacts, EncoderShape, HyperError, Misfit, Setup},
};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use tch::{Device, Tensor, nn};

/// A method's configuration from its hyper-parameters, after everything that `coord plan` asks: what
/// has been planned can be built, and what has not is refused in the same words.
pub fn config<C: DeserializeOwned>(
    method: &'static str,
    build: &Build<'_>,
) -> Result<C, MethodError> {
    let refuse = |what: String| MethodError::Hyper { method, what };
    let info = methods::find(method).ok_or_else(|| refuse("it has no file".to_owned()))?;
    let hyper = build.hyper.as_object().cloned().unwrap_or_default();
    for (key, value) in &hyper {
        let out = |e: HyperError| refuse(e.to_string());
        info.check(key, value).map_err(out)?;
    }
    let config = serde_json::from_value(build.hyper.clone()).map_err(|e| refuse(e.to_string()))?;
    fits(info, &hyper, build)?;
    Ok(config)
}

/// Asks whether the method fits the dataset and the encoder.
fn fits(
    info: &'static methods::MethodInfo,
    hyper: &Map<String, Value>,
    build: &Build<'_>,
) -> Result<(), MethodError> {
    let size = |n: i64| usize::try_from(n).unwrap_or(0);
    let data = DataFacts {
        shapes: Shapes {
            text_len: size(build.data.text_length),
            audio_len: size(build.data.audio_length),
            audio_dim: size(build.data.audio_dim),
            vision_len: size(build.data.vision_length),
            vision_dim: size(build.data.vision_dim),
        },
        // No method asks for the other splits.
        samples: [size(build.data.train_samples), 0, 0],
        tokens: None,
    };
    let encoder = BertConfig::read(build.encoder)?;
    let encoder = EncoderShape::of(&encoder);
    let fit = info.fit(Setup {
        hyper,
        fidelity: build.fidelity,
        data: Some(&data),
        encoder: Some(&encoder),
    });
    match fit.misfits().first() {
        None => Ok(()),
        Some(misfit) => Err(misfit_error(info.id, misfit, build)),
    }
}

fn misfit_error(method: &'static str, misfit: &Misfit, build: &Build<'_>) -> MethodError {
    let what = misfit.to_string();
    match misfit.about {
        About::Settings => MethodError::Hyper { method, what },
        About::Dataset => MethodError::Dataset { method, what },
        About::Encoder => MethodError::Encoder(Box::new(EncoderError {
            folder: build.encoder.to_owned(),
            found: misfit.what.clone(),
            remedy: misfit.help.clone(),
        })),
    }
}

/// The complete inputs of a training batch. The driver brings them where
/// [`Method::needs`](super::Method::needs) asks for them.
pub fn complete<'a>(method: &'static str, batch: &'a Batch) -> Result<&'a Inputs, MethodError> {
    batch.complete.as_ref().ok_or(MethodError::Dataset {
        method,
        what: "training needs the complete inputs beside the erased ones".to_owned(),
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
