//! The loss by which schedules and early stopping go: always of the validation split.

use super::{
    TrainError,
    data::{Data, Erased, Rows, SplitData},
    order,
};
use crate::methods::{Batch, Method, MethodError, ReferenceErasure};
use halfheard_shared::{
    case::{Case, Rate},
    dataset::Split,
    methods::faults::Fault,
    regime::Regime,
    wire::TrainSpec,
};
use std::rc::Rc;
use tch::Tensor;

/// The pass that stands for the validation split among the orders of an epoch.
const PASS: usize = u32::MAX as usize;

/// The validation loss of a reference ([`Fault::BatchMeanLoss`]): the mean of the losses of batches in a new
/// order in every epoch, whatever their sizes (MMSA, `do_test` of its trainers and `MMDataLoader`).
#[derive(Debug)]
pub(super) struct BatchMean {
    split: Rc<SplitData>,
    /// The erasure; `None` where it is that of the selection, whose predictions serve.
    erased: Option<Erased>,
    seed: u64,
}

impl BatchMean {
    /// That of a training; `None` where it goes by another loss, or by none. `selected` says whether the
    /// validation split is predicted for the selection.
    pub(super) fn new(
        spec: &TrainSpec,
        method: &dyn Method,
        data: &Data,
        selected: bool,
    ) -> Result<Option<Self>, TrainError> {
        let fault = Fault::BatchMeanLoss;
        let kept = fault.concerns(&spec.method) && spec.protocol.faults().keeps(fault);
        if !kept || !method.uses_validation_loss() {
            return Ok(None);
        }
        let selection = Rate::from_thousandths(spec.protocol.selection_rate);
        let complete = Rate::from_thousandths(0);
        let rate = match method.reference_validation().erasure {
            ReferenceErasure::Complete => complete,
            ReferenceErasure::AsTrained { otherwise } => match spec.protocol.train_missing {
                Regime::Complete => complete,
                Regime::Fixed(rate) => rate,
                _ => otherwise.unwrap_or(selection),
            },
        };
        let split = data.split(Split::Valid)?;
        let erased = match selected && rate == selection {
            true => None,
            false => {
                let case = Case::at_rate(rate);
                Some(split.erase_case(&case, spec.protocol.erasure_seed, spec.tokens)?)
            }
        };
        Ok(Some(Self {
            split,
            erased,
            seed: spec.seed,
        }))
    }

    /// The loss after an epoch. `selected` are the predictions `[N]` of the selection, if there are any.
    pub(super) fn loss(
        &self,
        method: &dyn Method,
        epoch: u32,
        selected: Option<&Tensor>,
        advanced: &mut dyn FnMut(),
    ) -> Result<f64, TrainError> {
        let order = order::permutation(self.split.samples(), self.seed, epoch, PASS);
        let device = self.split.device_labels().device();
        let (order, size) = (Rows::new(order, device)?, method.batch_size().max(1));
        let parts = (0..order.len()).step_by(size);
        let parts = parts.map(|start| order.part(start, size));
        match (&self.erased, selected) {
            (None, Some(predictions)) => {
                let mut losses = Vec::new();
                for rows in parts {
                    let rows = rows?;
                    let index = rows.device();
                    let labels = self.split.device_labels().f_index_select(0, index)?;
                    let prediction = predictions.f_index_select(0, index)?;
                    losses.push(method.validation_loss(&prediction, &labels));
                }
                Ok(mean(method, &losses))
            }
            (None, None) => Err(TrainError::Spec("no predictions to measure".to_owned())),
            (Some(erased), _) => {
                let complete = method.needs().complete_in_evaluation;
                let batches = parts.map(|rows| self.split.batch(rows?, erased, complete));
                mean_of_batches(method, batches, &mut |_| advanced())
            }
        }
    }
}

/// Predicts batches one after the other, and returns the mean of their losses as the method's reference
/// takes it; `predicted` is called with the predictions `[B]` of each.
///
/// # Errors
///
/// The method's, and those of the batches.
pub fn mean_of_batches<E: From<MethodError>>(
    method: &dyn Method,
    batches: impl Iterator<Item = Result<Batch, E>>,
    predicted: &mut dyn FnMut(&Tensor),
) -> Result<f64, E> {
    let _guard = tch::no_grad_guard();
    let mut losses = Vec::new();
    for batch in batches {
        let batch = batch?;
        let prediction = method.predict(&batch, None)?;
        predicted(&prediction);
        losses.push(method.validation_loss(&prediction, &batch.labels));
    }
    Ok(mean(method, &losses))
}

fn mean(method: &dyn Method, losses: &[f64]) -> f64 {
    let mean = losses.iter().sum::<f64>() / losses.len().max(1) as f64;
    match method.reference_validation().rounded {
        true => four_digits(mean),
        false => mean,
    }
}

/// As Python's `round(value, 4)`: correctly rounded in decimals, which a product with 10,000 is not.
fn four_digits(value: f64) -> f64 {
    format!("{value:.4}").parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_that_of_python() {
        // Each pair from Python's round(x, 4).
        for (value, rounded) in [
            (1.234_549_999, 1.2345),
            (0.000_05, 0.0001),
            (0.000_15, 0.0001),
            (2.000_05, 2.0),
            (1.000_25, 1.0003),
            (0.843_75, 0.8438),
            (0.031_25, 0.0312),
        ] {
            assert_eq!(four_digits(value), rounded, "{value}");
        }
        assert!(four_digits(f64::NAN).is_nan());
        assert_eq!(four_digits(f64::INFINITY), f64::INFINITY);
    }
}
