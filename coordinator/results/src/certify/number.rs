//! The verdict on one published number.

use super::{
    bound::Spread,
    lookup::Measured,
    tost::{Decision, Mean, Tost, tost},
};
use serde::Serialize;

/// The seeds of every published mean.
const PUBLISHED_SEEDS: usize = 3;

/// The degrees of freedom of Table 8's deviations: each is the mean of those at ten rates.
const PUBLISHED_FREEDOM: f64 = 20.0;

/// The most seeds that are worth proposing.
pub(super) const MOST_SEEDS: usize = 100;

/// What is to be said about a published number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Equivalent to the sweep's mean within the bound.
    Reproduced,
    /// The difference is significant, and equivalence is not shown.
    Different,
    /// Neither is shown, or there is one seed.
    TooFewSeeds,
    /// The sweep measured something else than the paper, or the number is retracted.
    NotComparable,
    /// The sweep does not have it.
    NotMeasured,
}

impl Verdict {
    /// All, in the order of tables.
    pub const ALL: [Self; 5] = [
        Self::Reproduced,
        Self::Different,
        Self::TooFewSeeds,
        Self::NotComparable,
        Self::NotMeasured,
    ];

    /// As in files: `too_few_seeds`.
    pub fn id(self) -> &'static str {
        match self {
            Self::Reproduced => "reproduced",
            Self::Different => "different",
            Self::TooFewSeeds => "too_few_seeds",
            Self::NotComparable => "not_comparable",
            Self::NotMeasured => "not_measured",
        }
    }

    /// As printed: `too few seeds`.
    pub fn text(self) -> String {
        self.id().replace('_', " ")
    }
}

/// A published number with its verdict. Values are in the unit of results: fractions, MAE, correlation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Certified {
    /// Where the number is printed: `9:mosi:lnln:r=0.3:acc7`.
    pub address: String,
    /// The table.
    pub table: u8,
    /// The dataset's id.
    pub dataset: &'static str,
    /// The method's id.
    pub method: &'static str,
    /// The variant's id, in Tables 4 to 7.
    pub variant: &'static str,
    /// The case, or the mean over cases.
    pub case: &'static str,
    /// The metric's id.
    pub metric: &'static str,
    /// The digits in print, in percent where the paper prints percent.
    pub printed: &'static str,
    /// The value that is compared: as printed, or as corrected by an erratum; `None` if retracted.
    pub published: Option<f64>,
    /// The verdict.
    pub verdict: Verdict,
    /// Why, where the verdict needs a reason; what was compared, where an erratum changes it.
    pub reason: String,
    /// The standard deviation over seeds that stands for the published mean, and times
    /// [`Options::factor`](super::Options::factor) is the bound.
    pub spread: Option<f64>,
    /// Where it is from.
    pub spread_source: String,
    /// The tests and what they rest on; `None` unless the sweep's mean is comparable.
    pub evidence: Option<Evidence>,
}

/// A sweep's mean beside the published one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Evidence {
    /// The mean over seeds.
    pub measured: f64,
    /// The standard deviation over seeds; over cases, the mean of these.
    pub std: Option<f64>,
    /// The seeds.
    pub seeds: usize,
    /// The difference that is too small to matter.
    pub bound: f64,
    /// The tests; `None` with one seed.
    pub tost: Option<Tost>,
    /// The seeds that would decide, if mean and deviation stayed as they are; `None` if decided, or if
    /// not even [`MOST_SEEDS`] would.
    pub seeds_needed: Option<usize>,
}

/// By how much a sample deviation of `count` normal values is too small on average (`c4`).
fn bias(count: usize) -> f64 {
    // By recurrence: c4(n) · c4(n + 1) = sqrt((n - 1) / n), from c4(2).
    let first = (2.0 / std::f64::consts::PI).sqrt();
    (2..count).fold(first, |c4, n| ((n as f64 - 1.0) / n as f64).sqrt() / c4)
}

/// The published mean with its error. Table 8's deviation is a mean of deviations of three values each,
/// so the error is that of the unbiased one.
fn theirs(value: f64, spread: &Spread) -> Option<Mean> {
    let mean = Mean::of(value, spread.std / bias(PUBLISHED_SEEDS), PUBLISHED_SEEDS)?;
    Some(Mean {
        freedom: PUBLISHED_FREEDOM,
        ..mean
    })
}

/// The sweep's mean with its error, as if over `seeds`. Over cases its deviation is a mean of deviations,
/// too.
fn ours(value: f64, std: f64, seeds: usize, over_cases: bool) -> Option<Mean> {
    let bias = if over_cases { bias(seeds) } else { 1.0 };
    Mean::of(value, std / bias, seeds)
}

/// Tests a sweep's mean against a published one, with `factor` spreads as the bound.
pub(super) fn test(
    measured: Measured,
    published: f64,
    spread: &Spread,
    factor: f64,
    over_cases: bool,
) -> (Verdict, String, Evidence) {
    let Measured { mean, std, seeds } = measured;
    let bound = factor * spread.std;
    let with = |seeds: usize, std: f64| {
        let ours = ours(mean, std, seeds, over_cases)?;
        tost(ours, theirs(published, spread)?, bound)
    };
    let found = std.and_then(|std| with(seeds, std));
    let decision = found.map(|found| found.decision());
    let (verdict, reason, seeds_needed) = match decision {
        Some(Decision::Equivalent) => (Verdict::Reproduced, String::new(), None),
        Some(Decision::Different) => (Verdict::Different, String::new(), None),
        Some(Decision::Undecided) | None => {
            // Of one seed the deviation is unknown: that of the paper stands in.
            let std = std.unwrap_or(spread.std);
            let decides = |n: &usize| {
                with(*n, std).is_some_and(|found| found.decision() != Decision::Undecided)
            };
            let needed = (seeds.max(1) + 1..=MOST_SEEDS).find(decides);
            let would = match needed {
                Some(needed) => format!("{needed} would do"),
                None => format!(
                    "not even {MOST_SEEDS} would do: the published mean is over {PUBLISHED_SEEDS}"
                ),
            };
            let have = match seeds {
                1 => "one seed has no deviation".to_owned(),
                seeds => format!("undecided with {seeds} seeds"),
            };
            (Verdict::TooFewSeeds, format!("{have}; {would}"), needed)
        }
    };
    let evidence = Evidence {
        measured: mean,
        std,
        seeds,
        bound,
        tost: found,
        seeds_needed,
    };
    (verdict, reason, evidence)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_mt::Mt64;

    fn spread() -> Spread {
        Spread {
            std: 0.01,
            source: String::new(),
        }
    }

    fn verdict(shift: f64, std: Option<f64>, seeds: usize) -> (Verdict, Option<usize>) {
        let measured = Measured {
            mean: 0.7 + shift * 0.01,
            std,
            seeds,
        };
        let (verdict, _, evidence) = test(measured, 0.7, &spread(), 2.0, false);
        (verdict, evidence.seeds_needed)
    }

    #[test]
    fn bias_is_that_of_normal_deviations() {
        // By scipy's gamma function: sqrt(2/(n-1)) Γ(n/2) / Γ((n-1)/2).
        for (n, c4) in [
            (2, 0.797_884_560_802_865_4),
            (3, 0.886_226_925_452_758),
            (5, 0.939_985_602_986_625_4),
            (10, 0.972_659_274_121_588_4),
        ] {
            assert!((bias(n) - c4).abs() < 1e-12, "{n}: {}", bias(n));
        }
    }

    #[test]
    fn verdict_follows_the_shift_and_the_number_of_seeds() {
        use Verdict::{Different, Reproduced, TooFewSeeds};
        let same = Some(0.01);
        assert_eq!(verdict(0.0, same, 3), (Reproduced, None));
        assert_eq!(verdict(0.5, same, 3), (TooFewSeeds, Some(4)));
        assert_eq!(verdict(0.5, same, 4), (Reproduced, None));
        // One spread is 1.5 errors of the published mean itself: nothing decides.
        assert_eq!(verdict(1.0, same, 3), (TooFewSeeds, None));
        assert_eq!(verdict(1.0, same, 100), (TooFewSeeds, None));
        assert_eq!(verdict(2.0, same, 3), (Different, None));
        assert_eq!(verdict(-2.0, same, 3), (Different, None));
        // Deterministic results, and one seed.
        assert_eq!(verdict(0.0, Some(0.0), 3), (Reproduced, None));
        assert_eq!(verdict(2.0, Some(0.0), 3), (Different, None));
        assert_eq!(verdict(0.0, None, 1), (TooFewSeeds, Some(3)));
    }

    /// Twelve uniform numbers minus six: approximately normal.
    fn normal(random: &mut Mt64) -> f64 {
        let uniform = |random: &mut Mt64| (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        (0..12).map(|_| uniform(random)).sum::<f64>() - 6.0
    }

    /// Mean and deviation, over seeds, of a case of a model whose seeds have a standard deviation of
    /// `sigma`; and the mean of the deviations at ten such cases, half of whose variance is common.
    fn train(random: &mut Mt64, center: f64, sigma: f64, seeds: usize) -> (f64, f64, f64) {
        let share = 0.5f64.sqrt() * sigma;
        let common: Vec<f64> = (0..seeds).map(|_| normal(random)).collect();
        let mut deviations = Vec::new();
        let mut first = 0.0;
        for rate in 0..10 {
            let values: Vec<f64> = common
                .iter()
                .map(|common| center + share * (common + normal(random)))
                .collect();
            let mean = values.iter().sum::<f64>() / seeds as f64;
            let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
            deviations.push((squares / (seeds - 1) as f64).sqrt());
            if rate == 0 {
                first = mean;
            }
        }
        (first, deviations[0], deviations.iter().sum::<f64>() / 10.0)
    }

    /// The shares of the verdicts when our model's mean is `shift` of their spread away.
    fn simulate(shift: f64, seeds: usize) -> [f64; 3] {
        const RUNS: usize = 2000;
        const SIGMA: f64 = 0.01;
        let mut random = Mt64::new(seeds as u64);
        let mut counts = [0usize; 3];
        for _ in 0..RUNS {
            let (published, _, std) = train(&mut random, 0.7, SIGMA, PUBLISHED_SEEDS);
            let (mean, own, _) = train(&mut random, 0.7 + shift * SIGMA, SIGMA, seeds);
            let measured = Measured {
                mean,
                std: Some(own),
                seeds,
            };
            let spread = Spread {
                std,
                source: String::new(),
            };
            // The bound of the true deviation: what the level is promised for.
            let factor = 2.0 * SIGMA / std;
            let (verdict, _, _) = test(measured, published, &spread, factor, false);
            counts[verdict as usize] += 1;
        }
        counts.map(|count| count as f64 / RUNS as f64)
    }

    /// Level: a model that is the paper's is called different, and one at the bound reproduced, at most as
    /// often as the level says, but for what two thousand runs leave open. Power: most models that are
    /// the paper's are reproduced with ten seeds, most of those at twice the bound different.
    #[test]
    fn level_and_power_are_as_documented() {
        for (seeds, power) in [(3, 0.40), (5, 0.60), (10, 0.75), (20, 0.80)] {
            let [reproduced, different, _] = simulate(0.0, seeds);
            println!("{seeds} seeds, no shift: {reproduced} reproduced, {different} different");
            assert!(different < 0.06, "{seeds}: {different}");
            assert!(reproduced > power, "{seeds}: {reproduced}");
            for shift in [2.0, -2.0] {
                let [reproduced, different, _] = simulate(shift, seeds);
                println!(
                    "{seeds} seeds, at {shift}: {reproduced} reproduced, {different} different"
                );
                assert!(reproduced < 0.07, "{seeds}: {reproduced}");
            }
            let [reproduced, different, _] = simulate(4.0, seeds);
            assert!(reproduced < 0.01 && different > 0.9, "{seeds}: {different}");
        }
    }
}
