//! What a training regime makes of each pass over the training split.

use super::Regime;
use crate::{case::Case, erasure::Rates, numpy_rng::RandomState};

/// The loading processes of LNLN's authors (`Haoyu-ha/LNLN`, `num_workers` of `configs/train_*.yaml`).
const LOADERS: usize = 8;
/// The epoch that stands for what is drawn before the first one.
const BEFORE: u32 = 0;

/// A pass over the training split.
#[derive(Clone, Copy, Debug)]
pub struct Pass<'a> {
    /// The training's seed.
    pub seed: u64,
    /// From 1.
    pub epoch: u32,
    /// From 0, in its epoch.
    pub pass: u32,
    /// The samples in the order in which it visits them; nothing, where the split is read before the
    /// first epoch.
    pub order: &'a [i64],
    /// Samples in a batch.
    pub batch_size: usize,
}

impl Regime {
    /// The rates of `samples` in a pass: a pure function, so that a training that was resumed sees what
    /// the uninterrupted one would have.
    pub fn rates(self, samples: usize, pass: Pass<'_>) -> Rates {
        match self {
            Self::Complete => Rates::complete(samples),
            Self::Fixed(rate) => Rates::of_case(&Case::at_rate(rate), samples),
            Self::DrawnOnce => Rates::of_training(samples, pass.seed, BEFORE),
            Self::Redrawn => Rates::of_training(samples, pass.seed, pass.epoch),
            Self::LnlnLoader => loaded(samples, pass),
        }
    }
}

/// The rates of a pass as LNLN's authors load it.
///
/// The dataset draws rates when it is made (`core/dataset.py`, `__init_mosi`), and again whenever sample
/// 0 is read (`__getitem__`). It is read by processes that PyTorch forks from it for every pass, so what
/// one of them draws is its own, and gone with it. Their generators are seeded anew for each pass.
fn loaded(samples: usize, pass: Pass<'_>) -> Rates {
    let mut rates = Rates::of_training(samples, pass.seed, BEFORE);
    let mut redrawn = after_first_sample(pass.order, pass.batch_size).peekable();
    if redrawn.peek().is_none() {
        return rates;
    }
    let mut rng = RandomState::from_key(&[
        pass.seed as u32,
        (pass.seed >> 32) as u32,
        pass.epoch,
        pass.pass,
        0x000e_5a5e,
    ]);
    let new = Rates::draw(samples, &mut rng);
    for sample in redrawn {
        rates.text[sample] = new.text[sample];
        rates.audio[sample] = new.audio[sample];
        rates.vision[sample] = new.vision[sample];
    }
    rates
}

/// The samples that the process which meets sample 0 reads from then on. Batches go to the processes in
/// turn, whole and in order.
fn after_first_sample(order: &[i64], batch_size: usize) -> impl Iterator<Item = usize> {
    let size = batch_size.max(1);
    let first = order.iter().position(|&sample| sample == 0);
    let first = first.unwrap_or(order.len());
    let process = first / size % LOADERS;
    let read_there = move |place: &usize| *place >= first && place / size % LOADERS == process;
    let places = (first..order.len()).filter(read_there);
    places.filter_map(|place| usize::try_from(order[place]).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// A random order.
    fn shuffled(samples: usize, key: u32) -> Vec<i64> {
        let mut rng = RandomState::from_key(&[key]);
        let mut order: Vec<i64> = (0..samples as i64).collect();
        for i in (1..samples).rev() {
            order.swap(i, rng.below(i + 1));
        }
        order
    }

    fn pass(epoch: u32, order: &[i64]) -> Pass<'_> {
        Pass {
            seed: 1111,
            epoch,
            pass: 0,
            order,
            batch_size: 64,
        }
    }

    fn of(rates: &Rates, sample: usize) -> [f64; 3] {
        [
            rates.text[sample],
            rates.audio[sample],
            rates.vision[sample],
        ]
    }

    #[test]
    fn loader_redraws_what_one_of_eight_processes_reads_after_sample_0() {
        // Batches of two: the third process reads places 4, 5 and 20, 21.
        let mut order: Vec<i64> = (1..24).collect();
        order.insert(4, 0);
        let redrawn = |order: &[i64]| Vec::from_iter(after_first_sample(order, 2));
        assert_eq!(redrawn(&order), [0, 5, 20, 21]);
        order.swap(4, 5);
        assert_eq!(redrawn(&order), [0, 20, 21]);
        assert!(redrawn(&[]).is_empty());
    }

    /// The expectation over all places of sample 0. MOSI's and SIMS' last batches are small and come to
    /// a process that has a batch more than others, so it is not one sixteenth.
    #[test]
    fn loader_redraws_about_one_sample_in_sixteen() {
        for (samples, expected) in [(1_284, 6.53), (16_326, 6.25), (1_368, 6.45)] {
            let mut order: Vec<i64> = (1..=samples).collect();
            let (mut redrawn, mut places) = (0, 0);
            for place in (0..order.len()).step_by(if samples > 10_000 { 37 } else { 1 }) {
                let sample = std::mem::replace(&mut order[place], 0);
                redrawn += after_first_sample(&order, 64).count();
                places += 1;
                order[place] = sample;
            }
            let share = 100.0 * redrawn as f64 / places as f64 / samples as f64;
            assert!((share - expected).abs() < 0.01, "{samples}: {share}");
        }
    }

    #[test]
    fn loader_leaves_all_other_samples_what_was_drawn_first() {
        let samples = 1_284;
        let first = Regime::DrawnOnce.rates(samples, pass(1, &[]));
        let mut kept: BTreeSet<usize> = (0..samples).collect();
        let mut shares = 0;
        for epoch in 1..=30 {
            let order = shuffled(samples, epoch);
            let rates = Regime::LnlnLoader.rates(samples, pass(epoch, &order));
            let redrawn: BTreeSet<usize> = after_first_sample(&order, 64).collect();
            assert!(redrawn.contains(&0));
            shares += redrawn.len();
            let mut changed = 0;
            for sample in 0..samples {
                if redrawn.contains(&sample) {
                    kept.remove(&sample);
                    changed += usize::from(of(&rates, sample) != of(&first, sample));
                } else {
                    assert_eq!(of(&rates, sample), of(&first, sample), "{epoch}: {sample}");
                }
            }
            // An eighth is complete before and after.
            assert!(
                changed * 4 > redrawn.len() * 2,
                "{changed} of {}",
                redrawn.len()
            );
        }
        let share = 100.0 * f64::from(shares as u32) / 30.0 / samples as f64;
        assert!((3.0..10.0).contains(&share), "{share}");
        assert!(kept.len() > 50, "{} samples were never redrawn", kept.len());
    }

    #[test]
    fn rates_are_a_pure_function_of_seed_pass_and_order() {
        let order = shuffled(300, 1);
        let one = pass(2, &order);
        for regime in [
            "complete",
            "fixed:0.2",
            "drawn-once",
            "redrawn",
            "lnln-loader",
        ] {
            let regime: Regime = regime.parse().unwrap();
            let rates = |pass| regime.rates(300, pass);
            assert_eq!(rates(one), rates(one), "{regime}");
            let (of_pass, reseeded) = (Pass { pass: 1, ..one }, Pass { seed: 1112, ..one });
            let (later, other) = (Pass { epoch: 3, ..one }, shuffled(300, 2));
            let moved = Pass {
                order: &other,
                ..one
            };
            let differs = [of_pass, reseeded, later, moved].map(|pass| rates(pass) != rates(one));
            let expected = match regime {
                Regime::Complete | Regime::Fixed(_) => [false; 4],
                Regime::DrawnOnce => [false, true, false, false],
                Regime::Redrawn => [false, true, true, false],
                Regime::LnlnLoader => [true; 4],
            };
            assert_eq!(differs, expected, "{regime}");
            assert_eq!(!differs[2], regime.is_constant(), "{regime}");
        }
        let fixed = Regime::Fixed("0.2".parse().unwrap());
        assert_eq!(of(&fixed.rates(300, one), 299), [0.2; 3]);
        let before = Pass { order: &[], ..one };
        assert_eq!(
            Regime::LnlnLoader.rates(300, before),
            Regime::DrawnOnce.rates(300, one)
        );
    }
}
