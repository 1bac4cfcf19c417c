//! A small computation that shows whether a device works.

use crate::train::{TorchMessage, TrainError, catch_panics};
use tch::{Device, Kind, Tensor};

/// Multiplies two small matrices on `device`.
///
/// # Errors
///
/// The device fails or computes something wrong.
pub fn probe(device: Device) -> Result<(), TrainError> {
    catch_panics(None, || {
        let ones = Tensor::f_ones([8, 8], (Kind::Float, device))?;
        let sum = ones.f_matmul(&ones)?.f_sum(Kind::Float)?;
        match f64::try_from(&sum)? {
            512.0 => Ok(()),
            wrong => Err(TrainError::Device(TorchMessage(format!(
                "a test product that sums to 512 came out as {wrong}"
            )))),
        }
    })
}
