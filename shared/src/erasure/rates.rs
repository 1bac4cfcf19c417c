//! The missing rate of each sample in each modality.

use super::modalities;
use crate::{
    case::{Case, Damage, Modality},
    numpy_rng::RandomState,
};

/// The rates of the three modalities for each sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Rates {
    /// Language, one a sample.
    pub text: Vec<f64>,
    /// Audio, one a sample.
    pub audio: Vec<f64>,
    /// Vision, one a sample.
    pub vision: Vec<f64>,
}

impl Rates {
    /// The same case for each of `samples`.
    pub fn of_case(case: &Case, samples: usize) -> Self {
        Self::each(samples, |modality| {
            case.damage.rate_of(modality).unwrap_or(0.0)
        })
    }

    /// The rates at which `damage` erases steps, each on its own: those of `r`, `missing`, `r+missing`
    /// and `l,a,v` are the same for every sample, `mr` gives a modality of a sample 0 or 1. `None` for
    /// damage of another form.
    pub fn of_damage(damage: &Damage, samples: usize, seed: u32) -> Option<Self> {
        if let Damage::RandomModality(rate) = damage {
            return Some(Self::of_random_modality(samples, rate.value(), seed));
        }
        damage.rate_of(Modality::Text)?;
        let rate = |modality| damage.rate_of(modality).unwrap_or(0.0);
        Some(Self::each(samples, rate))
    }

    /// Nothing is missing.
    pub fn complete(samples: usize) -> Self {
        Self::each(samples, |_| 0.0)
    }

    /// Modalities of single samples are missing: 1 where [`modalities::kept`] keeps none, otherwise 0.
    pub fn of_random_modality(samples: usize, rate: f64, seed: u32) -> Self {
        let kept = modalities::kept(samples, rate, seed);
        let column = |column: usize| kept.iter().map(|row| f64::from(1 - row[column])).collect();
        // The order of the columns in GCNet's training.
        Self {
            audio: column(0),
            text: column(1),
            vision: column(2),
        }
    }

    pub(super) fn each(samples: usize, rate: impl Fn(Modality) -> f64) -> Self {
        let all = |modality| vec![rate(modality); samples];
        Self {
            text: all(Modality::Text),
            audio: all(Modality::Audio),
            vision: all(Modality::Vision),
        }
    }

    /// The rates of one epoch of training: in each modality half of the samples, drawn without
    /// replacement, keep rate 0 and the others draw one from U(0, 1). A pure function of the run's
    /// seed and the epoch, so that a resumed run draws what the interrupted one would have.
    pub fn of_training(samples: usize, run_seed: u64, epoch: u32) -> Self {
        // The last word keeps this stream apart from others of the same run and epoch.
        let mut rng =
            RandomState::from_key(&[run_seed as u32, (run_seed >> 32) as u32, epoch, 0x000e_5a5e]);
        Self::draw(samples, &mut rng)
    }

    /// Rates for training, drawn as [`Rates::of_training`] says.
    pub(crate) fn draw(samples: usize, rng: &mut RandomState) -> Self {
        let mut modality = || {
            let mut rates: Vec<f64> = (0..samples).map(|_| rng.uniform()).collect();
            let mut order: Vec<usize> = (0..samples).collect();
            for i in 0..samples / 2 {
                order.swap(i, i + rng.below(samples - i));
                rates[order[i]] = 0.0;
            }
            rates
        };
        Self {
            text: modality(),
            audio: modality(),
            vision: modality(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_training_samples_are_complete() {
        let rates = Rates::of_training(101, 1111, 3);
        for modality in [&rates.text, &rates.audio, &rates.vision] {
            assert_eq!(modality.iter().filter(|&&r| r == 0.0).count(), 50);
            assert!(modality.iter().all(|r| (0.0..1.0).contains(r)));
        }
        assert_ne!(rates.text, rates.audio);
        assert_eq!(rates, Rates::of_training(101, 1111, 3));
        assert_ne!(rates, Rates::of_training(101, 1111, 4));
        assert_ne!(rates, Rates::of_training(101, 1112, 3));
    }

    #[test]
    fn training_rates_follow_the_papers_distribution() {
        let (mut complete, mut sum) = ([0; 100], 0.0);
        for epoch in 0..400 {
            for (sample, rate) in Rates::of_training(100, 7, epoch).text.iter().enumerate() {
                complete[sample] += usize::from(*rate == 0.0);
                sum += rate;
            }
        }
        // Each sample is complete in half of the epochs; the mean rate is a quarter.
        let fair = complete.iter().all(|n| (140..260).contains(n));
        assert!(fair, "{complete:?}");
        assert!((sum / 40_000.0 - 0.25_f64).abs() < 0.01, "{sum}");
        assert_ne!(
            Rates::of_training(100, 7, 1),
            Rates::of_training(100, 7 + (1 << 32), 1),
            "all bits of the seed count"
        );
    }

    #[test]
    fn each_damage_has_its_rates() {
        let of = |text: &str| {
            let damage: Damage = text.parse().unwrap();
            Rates::of_damage(&damage, 2, 1111).map(|r| [r.text[1], r.audio[1], r.vision[1]])
        };
        assert_eq!(of("r=0.3"), Some([0.3, 0.3, 0.3]));
        assert_eq!(of("missing=la"), Some([1.0, 1.0, 0.0]));
        assert_eq!(of("r=0.3+missing=la"), Some([1.0, 1.0, 0.3]));
        assert_eq!(of("l=0.7,a=0.1,v=0.3"), Some([0.7, 0.1, 0.3]));
        for other in [
            "block=0.3",
            "bursts=0.3",
            "asr=0.3",
            "noise=0.5",
            "permuted=a",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
