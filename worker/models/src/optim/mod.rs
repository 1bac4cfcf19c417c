//! Optimizers, gradient clipping and learning-rate schedules.

mod adam;
mod clip;
mod schedule;

pub(crate) use adam::{Adam, AdamConfig, Group};
pub(crate) use clip::{clip_grad_norm, clip_grad_value};
pub(crate) use schedule::{ReduceOnPlateau, WarmupCosine};
