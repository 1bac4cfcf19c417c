//! Feature sequences that express a value by how they change.

use super::random::Random;

/// Correlation of the noise from one step to the next.
const MEMORY: f32 = 0.7;

/// How one modality expresses a value: for each feature, the weights of the sequence's level, rise and
/// swell.
pub(super) struct Signal {
    weights: Vec<[f32; 3]>,
}

impl Signal {
    /// Directions of a modality with `dim` features.
    pub(super) fn new(random: &mut Random, dim: usize) -> Self {
        let weights = (0..dim)
            .map(|_| {
                // A third of the features carry nothing.
                let carries = if random.below(3) == 0 { 0.0 } else { 1.0 };
                [0.5, 1.0, 0.8].map(|scale| carries * scale * random.between(-1.0, 1.0))
            })
            .collect();
        Self { weights }
    }

    /// The sequence `[steps, dim]` for `value` in [-1, 1]; zeros from `length` on.
    pub(super) fn render(
        &self,
        random: &mut Random,
        value: f32,
        length: usize,
        steps: usize,
        out: &mut Vec<f32>,
    ) {
        out.clear();
        let mut noise: Vec<f32> = self.weights.iter().map(|_| random.normal()).collect();
        for step in 0..length.min(steps) {
            let at = step as f32 / (length.max(2) - 1) as f32;
            // From -1 to 1; and from -1 to 1 in the middle and back.
            let rise = 2.0 * at - 1.0;
            let swell = 1.0 - 2.0 * rise.abs();
            for (weights, noise) in self.weights.iter().zip(&mut noise) {
                *noise = MEMORY * *noise + 0.7 * random.normal();
                let [level, rising, swelling] = *weights;
                out.push(1.5 * value * (level + rising * rise + swelling * swell) + 0.6 * *noise);
            }
        }
        out.resize(steps * self.weights.len(), 0.0);
    }
}
