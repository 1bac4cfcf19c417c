//! Lengths of sequences, on the device and on the host.

use tch::{Kind, Tensor};

/// The lengths of a batch's sequences.
///
/// A recurrent network packs its sequences by lengths on the host. Whoever puts batches together knows
/// them there, and reading them back from a GPU would wait for everything that it has to do before.
#[derive(Debug)]
pub(crate) struct Lengths {
    device: Tensor,
    host: Option<Vec<i64>>,
}

impl Lengths {
    /// Lengths `[B]` on the device, and the same on the host, if they are known there.
    pub(crate) fn new(device: Tensor, host: Option<Vec<i64>>) -> Self {
        Self { device, host }
    }

    /// `[B]`, on the device.
    pub(crate) fn device(&self) -> &Tensor {
        &self.device
    }

    /// Decreasing, `[B]` int64 on the host: read from the device if they are not known here.
    pub(crate) fn decreasing(&self) -> Tensor {
        match &self.host {
            Some(lengths) => {
                let mut lengths = lengths.clone();
                lengths.sort_unstable_by(|a, b| b.cmp(a));
                Tensor::from_slice(&lengths)
            }
            None => {
                let lengths = self.device.to_device(tch::Device::Cpu);
                lengths.to_kind(Kind::Int64).sort(0, true).0
            }
        }
    }

    /// None smaller than `min`.
    pub(crate) fn clamp_min(&self, min: i64) -> Self {
        self.map(|device| device.clamp_min(min), |length| length.max(min))
    }

    /// None larger than `max`.
    pub(crate) fn clamp_max(&self, max: i64) -> Self {
        self.map(|device| device.clamp_max(max), |length| length.min(max))
    }

    /// Each less `by`.
    pub(crate) fn less(&self, by: i64) -> Self {
        self.map(|device| device - by, |length| length - by)
    }

    fn map(&self, device: impl Fn(&Tensor) -> Tensor, host: impl Fn(i64) -> i64) -> Self {
        let lengths = self.host.as_ref();
        Self {
            device: device(&self.device),
            host: lengths.map(|lengths| lengths.iter().map(|&length| host(length)).collect()),
        }
    }
}

/// Lengths that are known on the device alone.
impl From<Tensor> for Lengths {
    fn from(device: Tensor) -> Self {
        Self::new(device, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_stay_the_same_lengths() {
        let known = vec![3, 0, 7, 5];
        let device = Tensor::from_slice(&known);
        for lengths in [
            Lengths::new(device.shallow_clone(), Some(known)),
            Lengths::from(device),
        ] {
            let changed = lengths.less(1).clamp_min(1).clamp_max(5);
            assert_eq!(changed.device(), &Tensor::from_slice(&[2_i64, 1, 5, 4]));
            let decreasing = Tensor::from_slice(&[5_i64, 4, 2, 1]);
            assert_eq!(changed.decreasing(), decreasing);
        }
    }
}
