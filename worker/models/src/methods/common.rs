//! Shared by all methods: reading hyper-parameters, saving weights.

use super::{Batch, Build, Inputs, MethodError, MethodState};
use crate::{layers::bert::BertConfig, optim::Adam};
use halfheard_shared::{
    dataset::Shapes,
    encoder::EncoderError,
    methods::{
        self, About, DataFacts, EncoderShape, HyperError, Misfit, Setup,
        faults::{Fault, Faults},
    },
};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tch::{Device, Kind, Reduction, Tensor, nn};

/// Reads a method's configuration after the checks of `coord plan`, so a planned job can be built
/// and an invalid one fails with the same message.
pub(super) fn config<C: DeserializeOwned>(
    method: &'static str,
    build: &Build<'_>,
) -> Result<C, MethodError> {
    let invalid = |what: String| MethodError::Hyper { method, what };
    let info = methods::find(method).ok_or_else(|| invalid("no method file".to_owned()))?;
    let hyper = build.hyper.as_object().cloned().unwrap_or_default();
    for (key, value) in &hyper {
        let out = |e: HyperError| invalid(e.to_string());
        info.check(key, value).map_err(out)?;
    }
    let mut fields = hyper.clone();
    // Every method has it, and `Build` passes it on.
    if fields.remove("max_epochs").is_none() {
        return Err(invalid("missing field `max_epochs`".to_owned()));
    }
    let config = serde_json::from_value(fields.into()).map_err(|e| invalid(e.to_string()))?;
    check_fit(info, &hyper, build)?;
    Ok(config)
}

/// Checks that the method fits the dataset and the encoder.
fn check_fit(
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
        // No method depends on the other splits.
        samples: [size(build.data.train_samples), 0, 0],
        tokens: None,
    };
    let encoder = BertConfig::read(build.encoder)?;
    let encoder = EncoderShape::of(&encoder);
    let fit = info.fit(Setup {
        hyper,
        faults: build.faults,
        data: Some(&data),
        encoder: Some(&encoder),
    });
    match fit.misfits().first() {
        None => Ok(()),
        Some(misfit) => Err(misfit_error(&info.id, misfit, build)),
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

/// The complete inputs of a training batch, which the trainer provides if
/// [`Method::needs`](super::Method::needs) asks for them.
pub(super) fn complete<'a>(
    method: &'static str,
    batch: &'a Batch,
) -> Result<&'a Inputs, MethodError> {
    batch.complete.as_ref().ok_or(MethodError::Dataset {
        method,
        what: "training needs complete inputs besides the erased ones".to_owned(),
    })
}

/// The trainable variables of `vs`, sorted by name, so groups are the same in every run.
pub(super) fn parameters(vs: &nn::VarStore) -> Vec<(String, Tensor)> {
    let mut named: Vec<(String, Tensor)> = vs
        .variables()
        .into_iter()
        .filter(|(_, tensor)| tensor.requires_grad())
        .collect();
    named.sort_by(|a, b| a.0.cmp(&b.0));
    named
}

/// Saves weights and optimizers.
pub(super) fn save(vs: &nn::VarStore, optimizers: &[&Adam]) -> MethodState {
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

/// The key of the parameters that have had a gradient.
///
/// A gradient that existed once stays, as zeros, in steps that do not reach its parameter. That
/// differs in the last bits from no gradient: zeros change the summation order of a common norm, and
/// an optimizer decays the moments of a parameter with a zero gradient but skips one without. So it
/// is part of the state.
const GRADIENTS: &str = "gradients";

/// Gives the parameters listed in a state a gradient of zeros.
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
            .ok_or_else(|| MethodError::State(format!("`{name}` has no gradient in this model")))?;
        if variable.grad().defined() {
            let _ = variable.grad().detach_().zero_();
        } else {
            // Only a backward pass can create a gradient.
            tch::with_grad(|| (variable * variable.zeros_like()).sum(None).backward());
        }
    }
    Ok(())
}

/// Restores weights and optimizers.
pub(super) fn restore(
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

/// A loss between predictions and labels.
#[derive(Clone, Copy, Debug)]
pub(super) enum Loss {
    /// The mean absolute error.
    L1,
    /// The mean squared error.
    Mse,
}

impl Loss {
    /// The loss of `prediction` against `labels`, both `[B]`: a scalar with a gradient.
    pub(super) fn of(self, prediction: &Tensor, labels: &Tensor) -> Tensor {
        match self {
            Self::L1 => (prediction - labels).abs().mean(Kind::Float),
            Self::Mse => prediction.mse_loss(labels, Reduction::Mean),
        }
    }

    /// Its value.
    pub(super) fn value(self, prediction: &Tensor, labels: &Tensor) -> f64 {
        self.of(prediction, labels).double_value(&[])
    }
}

/// The patience of `early_stop`, where 0 disables early stopping.
pub(super) fn patience(early_stop: u32) -> Option<u32> {
    (early_stop > 0).then_some(early_stop)
}

/// Gradient accumulation over several batches. An incomplete group at the end of an epoch is
/// dropped, as in the references, or corrected, updates like a complete one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Accumulation {
    every: u32,
    left: u32,
    drops: bool,
}

impl Accumulation {
    /// One update per `every` batches.
    pub(super) fn new(every: u32, faults: Faults) -> Self {
        Self {
            every: every.max(1),
            left: every.max(1),
            drops: faults.keeps(Fault::DroppedGroups),
        }
    }

    /// Ends a pass. Returns whether gradients wait for their update, which they get now.
    pub(super) fn end_pass(&mut self) -> bool {
        let waiting = !self.drops && !self.is_empty();
        self.reset();
        waiting
    }

    /// Starts over.
    pub(super) fn reset(&mut self) {
        self.left = self.every;
    }

    /// Whether no gradient waits for its update.
    pub(super) fn is_empty(&self) -> bool {
        self.left == self.every
    }

    /// Begins a batch. Returns whether it is the first of its group, before which gradients are
    /// zeroed.
    pub(super) fn begin(&mut self) -> bool {
        let first = self.is_empty();
        self.left -= 1;
        first
    }

    /// Ends a batch. Returns whether its group is complete.
    pub(super) fn end(&mut self) -> bool {
        let complete = self.left == 0;
        if complete {
            self.reset();
        }
        complete
    }
}

/// Splits the parameters into those of the text encoder with weight decay, those without it (biases
/// and layer norms), and the rest. Names of the text encoder contain `encoder`.
pub(super) fn encoder_groups(vs: &nn::VarStore, encoder: &str) -> [Vec<(String, Tensor)>; 3] {
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
