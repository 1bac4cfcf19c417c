//! Audio and vision after damage: what is kept, and what the features have become.

use crate::numpy_rng::RandomState;

/// Keeps the stream of noise apart from others of the same seed.
const NOISE: u32 = 0x00d1_5e00;

/// Mean and standard deviation of each feature of a modality.
#[derive(Clone, Debug, PartialEq)]
pub struct FeatureStatistics {
    /// `[dim]`.
    pub mean: Vec<f32>,
    /// `[dim]`, divided by the number of steps, not by one less.
    pub deviation: Vec<f32>,
}

impl FeatureStatistics {
    /// Those of a split, the training split's by the protocol. `features` are `[samples, steps, dim]`,
    /// `present` is `[samples, steps]`, 1 where a step is not padding. Summed in double precision, in
    /// order; zeros without a step.
    ///
    /// Panics when the sizes do not fit.
    pub fn of(features: &[f32], present: &[u8], dim: usize) -> Self {
        assert_eq!(features.len(), present.len() * dim, "one entry a feature");
        let steps = || {
            let steps = features.chunks_exact(dim.max(1)).zip(present);
            steps
                .filter(|(_, present)| **present == 1)
                .map(|(step, _)| step)
        };
        let count = steps().count().max(1) as f64;
        let mut mean = vec![0.0_f64; dim];
        for step in steps() {
            for (sum, value) in mean.iter_mut().zip(step) {
                *sum += f64::from(*value);
            }
        }
        mean.iter_mut().for_each(|sum| *sum /= count);
        let mut variance = vec![0.0_f64; dim];
        for step in steps() {
            for ((sum, mean), value) in variance.iter_mut().zip(&mean).zip(step) {
                *sum += (f64::from(*value) - mean).powi(2);
            }
        }
        Self {
            mean: mean.iter().map(|mean| *mean as f32).collect(),
            deviation: variance
                .iter()
                .map(|sum| (sum / count).sqrt() as f32)
                .collect(),
        }
    }
}

/// Gaussian noise that is added to features.
#[derive(Clone, Debug, PartialEq)]
pub struct Noise {
    /// The standard deviation of each feature's noise, `[dim]`.
    pub scale: Vec<f32>,
    /// The numbers that the modality's noise is drawn from; a sample's place is added to them.
    key: [u32; 3],
}

impl Noise {
    /// Noise of `level` standard deviations of each feature. `modality` keeps modalities apart.
    pub(super) fn new(deviation: &[f32], level: f64, seed: u32, modality: u32) -> Self {
        Self {
            scale: deviation
                .iter()
                .map(|d| (f64::from(*d) * level) as f32)
                .collect(),
            key: [seed, NOISE, modality],
        }
    }

    /// Adds the noise of one sample to its steps that are not padding. `features` are `[steps, dim]`,
    /// `present` is `[steps]`.
    ///
    /// A standard normal number is drawn for each feature of each step, padding included, from a stream of
    /// the sample's own. Another level scales the same numbers.
    pub fn add(&self, features: &mut [f32], present: &[u8], sample: usize) {
        let [seed, stream, modality] = self.key;
        let mut rng = RandomState::from_key(&[seed, stream, modality, sample as u32]);
        let mut spare = None;
        let mut normal = || {
            spare.take().unwrap_or_else(|| {
                let [number, next] = rng.standard_normals();
                spare = Some(next);
                number
            })
        };
        for (step, present) in features
            .chunks_exact_mut(self.scale.len().max(1))
            .zip(present)
        {
            for (value, scale) in step.iter_mut().zip(&self.scale) {
                let number = normal() as f32;
                if *present == 1 {
                    *value += scale * number;
                }
            }
        }
    }
}

/// What damage leaves of audio or vision.
#[derive(Clone, Debug, PartialEq)]
pub struct ModalityDamage {
    /// 1 where a step is neither padding nor erased, `[samples, steps]`.
    pub kept: Vec<u8>,
    /// The sample whose features each sample gets, `[samples]`, where they are permuted. Its length comes
    /// with them.
    pub rows: Option<Vec<u32>>,
    /// What every kept step becomes, `[dim]`, where features are averaged.
    pub average: Option<Vec<f32>>,
    /// What is added to every kept step.
    pub noise: Option<Noise>,
}

impl ModalityDamage {
    /// Steps are erased, the others stay as they are.
    pub fn erased(kept: Vec<u8>) -> Self {
        Self {
            kept,
            rows: None,
            average: None,
            noise: None,
        }
    }

    /// Whether a kept step's features are those of the split: then features times mask is all.
    pub fn is_erasure(&self) -> bool {
        self.rows.is_none() && self.average.is_none() && self.noise.is_none()
    }

    /// The features after damage, `[samples, steps, dim]`, zeros where a step is not kept. `features` are
    /// those of the whole split.
    ///
    /// Panics when the sizes do not fit.
    pub fn features(&self, features: &[f32], samples: usize) -> Vec<f32> {
        if self.kept.is_empty() {
            return Vec::new();
        }
        let (dim, steps) = (features.len() / self.kept.len(), self.kept.len() / samples);
        assert_eq!(features.len(), samples * steps * dim, "one entry a feature");
        let mut damaged = match &self.rows {
            None => features.to_vec(),
            Some(rows) => pick(features, rows),
        };
        let rows = damaged.chunks_exact_mut((steps * dim).max(1));
        for (sample, (row, kept)) in rows.zip(self.kept.chunks_exact(steps)).enumerate() {
            for (step, kept) in row.chunks_exact_mut(dim).zip(kept) {
                match &self.average {
                    _ if *kept == 0 => step.fill(0.0),
                    Some(average) => step.copy_from_slice(average),
                    None => {}
                }
            }
            if let Some(noise) = &self.noise {
                noise.add(row, kept, sample);
            }
        }
        damaged
    }

    /// The samples' lengths after damage, `[samples]`.
    pub fn lengths(&self, lengths: &[i64]) -> Vec<i64> {
        match &self.rows {
            None => lengths.to_vec(),
            Some(rows) => pick(lengths, rows),
        }
    }
}

/// The rows of `values`, `[samples, ...]`, in another order.
pub(super) fn pick<T: Copy>(values: &[T], rows: &[u32]) -> Vec<T> {
    let width = values.len() / rows.len().max(1);
    let row = |&row: &u32| values[row as usize * width..][..width].iter().copied();
    rows.iter().flat_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_of_present_steps() {
        let features = [1.0, 10.0, 3.0, 10.0, 99.0, 99.0];
        let statistics = FeatureStatistics::of(&features, &[1, 1, 0], 2);
        assert_eq!(statistics.mean, [2.0, 10.0]);
        assert_eq!(statistics.deviation, [1.0, 0.0]);
        let none = FeatureStatistics::of(&[5.0], &[0], 1);
        assert_eq!((none.mean, none.deviation), (vec![0.0], vec![0.0]));
    }

    #[test]
    fn average_and_rows_leave_padding_zero() {
        let features = [1.0, 2.0, 3.0, 0.0];
        let mut damage = ModalityDamage::erased(vec![1, 0, 1, 1]);
        assert_eq!(damage.features(&features, 2), [1.0, 0.0, 3.0, 0.0]);
        damage.rows = Some(vec![1, 0]);
        assert_eq!(damage.features(&features, 2), [3.0, 0.0, 1.0, 2.0]);
        assert_eq!(damage.lengths(&[7, 9]), [9, 7]);
        damage.average = Some(vec![0.5]);
        assert_eq!(damage.features(&features, 2), [0.5, 0.0, 0.5, 0.5]);
        assert!(
            ModalityDamage::erased(Vec::new())
                .features(&[], 0)
                .is_empty()
        );
    }

    #[test]
    fn noise_has_its_deviation_and_leaves_padding() {
        let (samples, steps, dim) = (40, 50, 3);
        let mut kept = vec![1; samples * steps];
        kept[steps - 1] = 0;
        let mut damage = ModalityDamage::erased(kept);
        let deviation = [1.0, 4.0, 0.0];
        let at = |damage: &mut ModalityDamage, level| {
            damage.noise = Some(Noise::new(&deviation, level, 1111, 1));
            damage.features(&vec![0.0; samples * steps * dim], samples)
        };
        let (half, whole) = (at(&mut damage, 0.5), at(&mut damage, 1.0));
        let statistics = FeatureStatistics::of(&half, &damage.kept, dim);
        for (found, deviation) in statistics.deviation.iter().zip(deviation) {
            assert!(
                (found - deviation / 2.0).abs() <= 0.05 * deviation,
                "{found}"
            );
        }
        assert_eq!(half[(steps - 1) * dim..steps * dim], [0.0; 3]);
        assert!(
            half.iter()
                .zip(&whole)
                .all(|(half, whole)| 2.0 * half == *whole)
        );
        assert_ne!(
            half[..dim * 4],
            half[steps * dim..][..dim * 4],
            "samples differ"
        );
        assert_eq!(half, at(&mut damage, 0.5));
        damage.noise = Some(Noise::new(&deviation, 0.5, 1111, 2));
        assert_ne!(
            half,
            damage.features(&vec![0.0; samples * steps * dim], samples)
        );
    }
}
