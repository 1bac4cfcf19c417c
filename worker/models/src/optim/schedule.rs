//! Learning-rate schedules.

use super::Adam;
use crate::{error::MethodError, state::MethodState};
use halfheard_shared::methods::faults::{Fault, Faults};
use serde_json::{Value, json};

/// `ReduceLROnPlateau` with mode `min`: multiplies the learning rate by `factor` after more than
/// `patience` epochs without an improvement of the monitored value by a ten-thousandth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ReduceOnPlateau {
    factor: f64,
    patience: u32,
    best: f64,
    bad_epochs: u32,
}

impl ReduceOnPlateau {
    /// A schedule before the first epoch.
    pub(crate) fn new(factor: f64, patience: u32) -> Self {
        Self {
            factor,
            patience,
            best: f64::INFINITY,
            bad_epochs: 0,
        }
    }

    /// Ends an epoch with `value`.
    pub(crate) fn step(&mut self, value: f64, optimizer: &mut Adam) {
        if value < self.best * (1.0 - 1e-4) {
            self.best = value;
            self.bad_epochs = 0;
        } else {
            self.bad_epochs += 1;
        }
        if self.bad_epochs > self.patience {
            optimizer.scale(self.factor);
            self.bad_epochs = 0;
        }
    }

    /// Saves the schedule.
    pub(crate) fn save(&self, state: &mut MethodState) {
        // JSON has no infinity; null means no value yet.
        let best = self.best.is_finite().then_some(self.best);
        state
            .scalars
            .insert("plateau".to_owned(), json!([best, self.bad_epochs]));
    }

    /// Restores what [`save`](Self::save) wrote.
    pub(crate) fn load(&mut self, state: &MethodState) -> Result<(), MethodError> {
        let (best, bad_epochs): (Option<f64>, u32) = state
            .scalars
            .get("plateau")
            .and_then(|v| serde_json::from_value(v.clone()).ok())
            .ok_or_else(|| MethodError::State("`plateau` is missing".to_owned()))?;
        self.best = best.unwrap_or(f64::INFINITY);
        self.bad_epochs = bad_epochs;
        Ok(())
    }
}

/// Warm-up over a tenth of the epochs, then cosine annealing over the rest, stepped once per epoch:
/// the schedule of LNLN and ALMT.
///
/// In the references ([`Fault::WarmUpFromZero`]), the warm-up starts at 0, so the first epoch changes no
/// weight, and the cosine starts one epoch after the warm-up has reached 1. Corrected, it learns from
/// the first epoch on and repeats no factor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct WarmupCosine {
    epochs: f64,
    done: u32,
    from_zero: bool,
}

impl WarmupCosine {
    /// A schedule over `epochs`; sets the optimizer's learning rates for the first one.
    pub(crate) fn new(epochs: u32, faults: Faults, optimizer: &mut Adam) -> Self {
        let schedule = Self {
            epochs: f64::from(epochs.max(1)),
            done: 0,
            from_zero: faults.keeps(Fault::WarmUpFromZero),
        };
        optimizer.scale_initial(schedule.factor());
        schedule
    }

    /// The factor of the initial learning rate after the completed epochs.
    pub(crate) fn factor(&self) -> f64 {
        let (warmup, period) = (0.1 * self.epochs, 0.9 * self.epochs);
        let done = f64::from(self.done);
        let cosine = |annealed: f64| 0.5 * (1.0 + (std::f64::consts::PI * annealed / period).cos());
        match self.from_zero {
            true if done <= warmup => done / warmup,
            true => cosine(done - (warmup.floor() + 1.0)),
            false if done < warmup => ((done + 1.0) / warmup).min(1.0),
            false => cosine((done - warmup).min(period)),
        }
    }

    /// Ends an epoch.
    pub(crate) fn step(&mut self, optimizer: &mut Adam) {
        self.done += 1;
        optimizer.scale_initial(self.factor());
    }

    /// Saves the schedule.
    pub(crate) fn save(&self, state: &mut MethodState) {
        state
            .scalars
            .insert("schedule".to_owned(), json!(self.done));
    }

    /// Takes back what [`save`](Self::save) wrote; the optimizer restores the learning rates.
    pub(crate) fn load(&mut self, state: &MethodState) -> Result<(), MethodError> {
        let done = state.scalars.get("schedule").and_then(Value::as_u64);
        self.done = done
            .and_then(|done| u32::try_from(done).ok())
            .ok_or_else(|| MethodError::State("`schedule` is missing".to_owned()))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::{AdamConfig, Group};

    fn factors(epochs: u32, faults: Faults) -> Vec<f64> {
        let mut adam = Adam::new("adam", Vec::new(), AdamConfig::ADAM);
        let mut schedule = WarmupCosine::new(epochs, faults, &mut adam);
        let mut factors = Vec::new();
        for _ in 0..epochs {
            factors.push(schedule.factor());
            schedule.step(&mut adam);
        }
        factors
    }

    #[test]
    fn reference_warm_up_starts_at_zero_and_anneals_after_one() {
        let cosine = 0.5 * (1.0 + (std::f64::consts::PI / 18.0).cos());
        let got = factors(20, Faults::REFERENCE);
        assert_eq!(got[..5], [0.0, 0.5, 1.0, 1.0, cosine]);
        let short = factors(8, Faults::REFERENCE);
        assert_eq!(short[..2], [0.0, 1.0], "a warm-up of less than an epoch");
    }

    #[test]
    fn corrected_schedule_learns_in_every_epoch() {
        let got = factors(20, Faults::CORRECTED);
        assert_eq!(got[..3], [0.5, 1.0, 1.0]);
        assert!(got[2..].windows(2).all(|pair| pair[1] < pair[0]), "{got:?}");
        assert!(got[19] > 0.0);
    }

    #[test]
    fn plateau_reduces_after_patience() {
        let group = Group {
            params: Vec::new(),
            lr: 1.0,
            weight_decay: 0.0,
        };
        let mut adam = Adam::new("adam", vec![group], AdamConfig::ADAM);
        let mut plateau = ReduceOnPlateau::new(0.5, 1);
        for (value, lr) in [(3.0, 1.0), (3.0, 1.0), (3.0, 0.5), (2.0, 0.5)] {
            plateau.step(value, &mut adam);
            assert_eq!(adam.learning_rates(), [lr], "after {value}");
        }
    }
}
