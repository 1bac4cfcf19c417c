//! The losses of training steps, which stay on the device until somebody reads them: a read waits until
//! the device has computed everything before it.

use crate::{error::MethodError, state::Position};
use std::collections::BTreeMap;
use tch::{Kind, Tensor};

/// The losses of one step by name: `loss` is the total, the others are its parts.
#[derive(Debug)]
pub struct Losses {
    /// Those that the step uses, then the others.
    names: Vec<&'static str>,
    /// How many of them the step uses.
    used: usize,
    /// `[names]` double, on the device, without a gradient.
    values: Tensor,
}

impl Losses {
    /// The losses that a step is `used` to minimize, the total among them, and those that it computes but
    /// leaves `unused`, whose values may be infinite or NaN. Each is a scalar.
    pub fn new(used: &[(&'static str, &Tensor)], unused: &[(&'static str, &Tensor)]) -> Self {
        let all = || used.iter().chain(unused);
        let _guard = tch::no_grad_guard();
        let values: Vec<Tensor> = all().map(|(_, value)| value.reshape([1])).collect();
        Self {
            names: all().map(|(name, _)| *name).collect(),
            used: used.len(),
            // As `f64::from` of each.
            values: Tensor::cat(&values, 0).to_kind(Kind::Double),
        }
    }

    /// Reads the losses of the step `at`.
    ///
    /// # Errors
    ///
    /// A used loss that is not finite.
    pub fn read(&self, at: Position) -> Result<BTreeMap<&'static str, f64>, MethodError> {
        self.named(at, &Vec::try_from(&self.values)?)
    }

    /// Reads the losses of several steps, oldest first, with one copy from the device.
    ///
    /// # Errors
    ///
    /// A used loss that is not finite: that of the earliest step.
    pub fn read_all(
        steps: &[(Position, Losses)],
    ) -> Result<Vec<BTreeMap<&'static str, f64>>, MethodError> {
        if steps.is_empty() {
            return Ok(Vec::new());
        }
        let values: Vec<&Tensor> = steps.iter().map(|(_, losses)| &losses.values).collect();
        let values = Vec::try_from(&Tensor::f_cat(&values, 0)?)?;
        let mut rest = values.as_slice();
        let each = steps.iter().map(|(at, losses)| {
            let (own, others) = rest.split_at(losses.names.len());
            rest = others;
            losses.named(*at, own)
        });
        each.collect()
    }

    fn named(
        &self,
        at: Position,
        values: &[f64],
    ) -> Result<BTreeMap<&'static str, f64>, MethodError> {
        let losses = self.names.iter().copied().zip(values.iter().copied());
        let losses = losses.collect();
        match values.iter().take(self.used).all(|value| value.is_finite()) {
            true => Ok(losses),
            false => Err(MethodError::NonFinite { at, losses }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(step: usize) -> Position {
        Position {
            epoch: 1,
            pass: 0,
            step,
            steps: 3,
        }
    }

    #[test]
    fn first_step_with_a_used_loss_that_is_not_finite_is_named() {
        let losses = |step, loss: f32, unused: f32| {
            let values = [loss, unused].map(Tensor::from);
            let [used, unused] = &values;
            (
                at(step),
                Losses::new(&[("loss", used)], &[("part", unused)]),
            )
        };
        let fine = [losses(0, 0.1, f32::NAN), losses(1, 2.0, f32::INFINITY)];
        let read = Losses::read_all(&fine).unwrap();
        assert_eq!(read[0]["loss"], f64::from(0.1_f32));
        assert_eq!(read[1]["part"], f64::INFINITY);
        let [first, second] = fine;
        let steps = [
            first,
            second,
            losses(2, f32::NAN, 1.0),
            losses(3, f32::NAN, 1.0),
        ];
        let error = Losses::read_all(&steps).unwrap_err();
        assert!(
            matches!(&error, MethodError::NonFinite { at, losses } if at.step == 2 && losses["part"] == 1.0),
            "{error}"
        );
        assert!(Losses::read_all(&[]).unwrap().is_empty());
    }

    #[test]
    fn losses_hold_no_graph() {
        let x = Tensor::from(2.0_f32).set_requires_grad(true);
        let losses = Losses::new(&[("loss", &(&x * 3.0))], &[]);
        assert!(!losses.values.requires_grad());
        assert_eq!(losses.read(at(0)).unwrap()["loss"], 6.0);
    }
}
