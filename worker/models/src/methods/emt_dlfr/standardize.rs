//! Standardized features: less the training split's mean, in units of its deviation, frame by frame
//! (the authors' `preprocess/normalize_sims.py`, which rewrites the file).

use tch::{Kind, Tensor, nn};

/// Added to deviations: a feature that never changes becomes 0.
const EPSILON: f64 = 1e-6;

/// The moments of one modality's features over the frames of the training split that are not padding.
/// The mean and the deviation are part of checkpoints.
#[derive(Debug)]
pub(super) struct Moments {
    mean: Tensor,
    deviation: Tensor,
    /// Frames seen, their mean and the sum of squared distances from it, `[1]` and twice `[D]` double.
    sums: [Tensor; 3],
}

impl Moments {
    /// Of `dim` features, with the identity until something is [added](Self::add).
    pub(super) fn new(path: &nn::Path<'_>, dim: i64) -> Self {
        let zeros = |count| Tensor::zeros([count], (Kind::Double, path.device()));
        Self {
            mean: path.zeros_no_train("mean", &[dim]),
            deviation: path.ones_no_train("deviation", &[dim]),
            sums: [zeros(1), zeros(dim), zeros(dim)],
        }
    }

    /// Adds the frames of `x` `[B, T, D]` that are `present` `[B, T]`.
    pub(super) fn add(&mut self, x: &Tensor, present: &Tensor) {
        let frames = x.flatten(0, 1).to_kind(Kind::Double);
        let weights = present.flatten(0, 1).to_kind(Kind::Double).unsqueeze(1);
        let count = weights.sum_dim_intlist(0i64, false, Kind::Double);
        let sum = |x: Tensor| (x * &weights).sum_dim_intlist(0i64, false, Kind::Double);
        let mean = sum(frames.shallow_clone()) / count.clamp_min(1.0);
        let squares = sum((&frames - &mean).square());
        // Two sets of frames as one (Chan et al. 1979).
        let [seen, old_mean, old_squares] = &self.sums;
        let total = (seen + &count).clamp_min(1.0);
        let gap = &mean - old_mean;
        self.sums = [
            seen + &count,
            old_mean + &gap * &count / &total,
            old_squares + squares + gap.square() * seen * &count / &total,
        ];
        self.mean.copy_(&self.sums[1]);
        self.deviation.copy_(&(&self.sums[2] / &total).sqrt());
    }

    /// `x` `[B, T, D]` standardized where `kept` `[B, T]` is 1, and 0 elsewhere.
    pub(super) fn apply(&self, x: &Tensor, kept: &Tensor) -> Tensor {
        (x - &self.mean) / (&self.deviation + EPSILON) * kept.unsqueeze(2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn frames_of_several_batches_get_mean_zero_and_deviation_one() {
        tch::manual_seed(2);
        let vs = nn::VarStore::new(Device::Cpu);
        let mut moments = Moments::new(&vs.root(), 3);
        let float = (Kind::Float, Device::Cpu);
        let scale = Tensor::from_slice(&[1.0f32, 300.0, 0.0]);
        let x = Tensor::randn([7, 5, 3], float) * scale + 4.0;
        let present = Tensor::rand([7, 5], float).gt(0.3).to_kind(Kind::Float);
        tch::no_grad(|| {
            moments.add(&x.narrow(0, 0, 4), &present.narrow(0, 0, 4));
            moments.add(&x.narrow(0, 4, 2), &present.narrow(0, 4, 2).zeros_like());
            moments.add(&x.narrow(0, 4, 3), &present.narrow(0, 4, 3));
        });
        let scaled = moments.apply(&x, &present);
        let frames = scaled
            .flatten(0, 1)
            .index_select(0, &present.flatten(0, 1).nonzero().squeeze_dim(1));
        let of = |t: Tensor| Vec::<f32>::try_from(t).unwrap();
        for (i, mean) in of(frames.mean_dim(0i64, false, Kind::Float))
            .iter()
            .enumerate()
        {
            assert!(mean.abs() < 1e-4, "mean of feature {i} is {mean}");
        }
        let deviations = of(frames.std_dim(0i64, false, false));
        assert!((deviations[0] - 1.0).abs() < 1e-4 && (deviations[1] - 1.0).abs() < 1e-4);
        assert_eq!(deviations[2], 0.0, "a feature that never changes");
        let absent: Tensor = scaled.abs() * present.eq(0.0).unsqueeze(2);
        assert_eq!(absent.sum(Kind::Float).double_value(&[]), 0.0);
    }
}
