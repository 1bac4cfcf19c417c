//! The three benchmarks' protocols: which metrics there are, and by which of them a checkpoint is
//! the best one.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// A dataset's protocol.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Benchmark {
    /// CMU-MOSI: English, sentiment in `[-3, 3]`.
    Mosi,
    /// CMU-MOSEI: English, sentiment in `[-3, 3]`.
    Mosei,
    /// CH-SIMS: Chinese, sentiment in `[-1, 1]`, labels by modality.
    Sims,
}

/// A metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// As in the database and in files.
    pub id: &'static str,
    /// As in tables.
    pub name: &'static str,
    /// Whether more is better.
    pub higher_is_better: bool,
    /// Whether it is a fraction that tables print in percent.
    pub percent: bool,
}

/// A selection criterion: the metric by which a checkpoint is best, and the metrics that are
/// reported from that checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Criterion {
    /// Its id: that of the metric that selects.
    pub id: &'static str,
    /// Whether more is better.
    pub higher_is_better: bool,
    /// The metrics reported from its checkpoint.
    pub family: &'static [&'static str],
}

const fn metric(id: &'static str, name: &'static str, higher: bool, percent: bool) -> Metric {
    Metric {
        id,
        name,
        higher_is_better: higher,
        percent,
    }
}

const fn criterion(
    id: &'static str,
    higher_is_better: bool,
    family: &'static [&'static str],
) -> Criterion {
    Criterion {
        id,
        higher_is_better,
        family,
    }
}

/// In the order of the paper's tables; those it does not print come last.
const ENGLISH: &[Metric] = &[
    metric("acc7", "Acc-7", true, true),
    metric("acc5", "Acc-5", true, true),
    metric("acc2_nonzero", "Acc-2 (neg/pos)", true, true),
    metric("acc2_nonneg", "Acc-2 (neg/non-neg)", true, true),
    metric("f1_nonzero", "F1 (neg/pos)", true, true),
    metric("f1_nonneg", "F1 (neg/non-neg)", true, true),
    metric("mae", "MAE", false, false),
    metric("corr", "Corr", true, false),
    metric("f1_nonzero_swapped", "F1 swapped (neg/pos)", true, true),
    metric("f1_nonneg_swapped", "F1 swapped (neg/non-neg)", true, true),
    metric("laziness", "Laziness", false, true),
];

const CHINESE: &[Metric] = &[
    metric("acc5", "Acc-5", true, true),
    metric("acc3", "Acc-3", true, true),
    metric("acc2", "Acc-2", true, true),
    metric("f1", "F1", true, true),
    metric("mae", "MAE", false, false),
    metric("corr", "Corr", true, false),
    metric("f1_swapped", "F1 swapped", true, true),
    metric("laziness", "Laziness", false, true),
];

const ENGLISH_CRITERIA: &[Criterion] = &[
    criterion(
        "acc2_nonzero",
        true,
        &["acc2_nonzero", "f1_nonzero", "f1_nonzero_swapped"],
    ),
    criterion(
        "acc2_nonneg",
        true,
        &["acc2_nonneg", "f1_nonneg", "f1_nonneg_swapped"],
    ),
    criterion("acc5", true, &["acc5"]),
    criterion("acc7", true, &["acc7", "laziness"]),
    criterion("mae", false, &["mae", "corr"]),
];

const CHINESE_CRITERIA: &[Criterion] = &[
    criterion("acc2", true, &["acc2", "f1", "f1_swapped"]),
    criterion("acc3", true, &["acc3"]),
    criterion("acc5", true, &["acc5", "laziness"]),
    criterion("mae", false, &["mae", "corr"]),
];

impl Benchmark {
    /// All of them.
    pub const ALL: [Benchmark; 3] = [Benchmark::Mosi, Benchmark::Mosei, Benchmark::Sims];

    /// Its id: `mosi`, `mosei`, `sims`.
    pub fn id(self) -> &'static str {
        match self {
            Benchmark::Mosi => "mosi",
            Benchmark::Mosei => "mosei",
            Benchmark::Sims => "sims",
        }
    }

    /// The language of its texts: `en` or `zh`.
    pub fn language(self) -> &'static str {
        match self {
            Benchmark::Mosi | Benchmark::Mosei => "en",
            Benchmark::Sims => "zh",
        }
    }

    /// The metrics that are computed.
    pub fn metrics(self) -> &'static [Metric] {
        match self {
            Benchmark::Mosi | Benchmark::Mosei => ENGLISH,
            Benchmark::Sims => CHINESE,
        }
    }

    /// The selection criteria.
    pub fn criteria(self) -> &'static [Criterion] {
        match self {
            Benchmark::Mosi | Benchmark::Mosei => ENGLISH_CRITERIA,
            Benchmark::Sims => CHINESE_CRITERIA,
        }
    }

    /// The metric called `id`, if this benchmark has it.
    pub fn metric(self, id: &str) -> Option<&'static Metric> {
        self.metrics().iter().find(|metric| metric.id == id)
    }

    /// The selection criterion called `id`, if this benchmark has it.
    pub fn criterion(self, id: &str) -> Option<&'static Criterion> {
        self.criteria().iter().find(|criterion| criterion.id == id)
    }

    /// The criterion from whose checkpoint the metric called `id` is reported.
    pub fn criterion_of(self, id: &str) -> Option<&'static Criterion> {
        let mut criteria = self.criteria().iter();
        criteria.find(|criterion| criterion.family.contains(&id))
    }

    /// Whether `candidate` beats `best`, the best so far of `criterion`'s metric: it must be strictly
    /// better, so that of equal epochs the earliest stays. An undefined value beats nothing, and
    /// any value beats an undefined one.
    ///
    /// As in the reference (LNLN `core/utils.py`), whose metrics come rounded to four decimals on
    /// MOSI and MOSEI and unrounded on SIMS: an error smaller by less than that is no better.
    pub fn improves(
        self,
        criterion: &Criterion,
        candidate: Option<f64>,
        best: Option<f64>,
    ) -> bool {
        let compared = |value: f64| match self {
            Benchmark::Mosi | Benchmark::Mosei => (value * 1e4).round_ties_even(),
            Benchmark::Sims => value,
        };
        match (candidate.map(compared), best.map(compared)) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(new), Some(old)) if criterion.higher_is_better => new > old,
            (Some(new), Some(old)) => new < old,
        }
    }

    /// Labels lie in ± this.
    pub fn label_bound(self) -> f32 {
        match self {
            Benchmark::Mosi | Benchmark::Mosei => 3.0,
            Benchmark::Sims => 1.0,
        }
    }

    /// Samples of the training, validation and test split, as published.
    pub fn split_sizes(self) -> [usize; 3] {
        match self {
            Benchmark::Mosi => [1284, 229, 686],
            Benchmark::Mosei => [16326, 1871, 4659],
            Benchmark::Sims => [1368, 456, 457],
        }
    }
}

impl fmt::Display for Benchmark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

impl FromStr for Benchmark {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        Benchmark::ALL
            .into_iter()
            .find(|b| b.id() == s)
            .ok_or_else(|| format!("`{s}` is no benchmark: use mosi, mosei or sims"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_reported_from_exactly_one_checkpoint() {
        for benchmark in Benchmark::ALL {
            for metric in benchmark.metrics() {
                let families = benchmark.criteria().iter();
                let count = families.filter(|c| c.family.contains(&metric.id)).count();
                assert_eq!(count, 1, "{} on {benchmark}", metric.id);
            }
        }
    }
    #[test]
    fn criteria_are_metrics_and_stand_in_their_own_families() {
        for benchmark in Benchmark::ALL {
            for criterion in benchmark.criteria() {
                let metric = benchmark.metric(criterion.id).unwrap();
                assert_eq!(metric.higher_is_better, criterion.higher_is_better);
                assert_eq!(benchmark.criterion_of(criterion.id), Some(criterion));
                assert_eq!(benchmark.criterion(criterion.id), Some(criterion));
            }
            assert_eq!(benchmark.metric("nothing"), None);
            assert_eq!(benchmark.id().parse(), Ok(benchmark));
        }
        assert!("mosii".parse::<Benchmark>().is_err());
    }

    #[test]
    fn only_strictly_better_is_better() {
        let improves = |benchmark: Benchmark, id, new, old| {
            benchmark.improves(benchmark.criterion(id).unwrap(), new, old)
        };
        let mosi = |id, new, old| improves(Benchmark::Mosi, id, new, old);
        assert!(mosi("acc7", Some(0.31), Some(0.3)));
        assert!(!mosi("acc7", Some(0.3), Some(0.3)));
        assert!(!mosi("acc7", Some(0.3), Some(0.31)));
        assert!(mosi("mae", Some(0.8), Some(0.9)));
        assert!(!mosi("mae", Some(0.9), Some(0.8)));
        assert!(mosi("mae", Some(0.9), None));
        assert!(!mosi("mae", None, Some(0.9)));
        assert!(!mosi("mae", None, None));
        // Less than the fourth decimal is nothing on MOSI, and something on SIMS.
        assert!(!mosi("mae", Some(0.900_01), Some(0.900_04)));
        assert!(improves(
            Benchmark::Sims,
            "mae",
            Some(0.900_01),
            Some(0.900_04)
        ));
    }
}
