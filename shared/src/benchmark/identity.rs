//! Datasets as results know them, their metrics and selection criteria.

use super::{Criterion, Kind, Metric, Rules, definition::Rule, valid_name};
use serde::{Serialize, Serializer};
use std::{
    collections::BTreeSet,
    fmt,
    str::FromStr,
    sync::{Mutex, PoisonError},
};

/// A dataset as results know it: its name, and the protocol that it follows. Cheap to copy.
///
/// Written as its name alone; [`super::whole`] writes both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Benchmark {
    /// CMU-MOSI: English, sentiment in `[-3, 3]`.
    Mosi,
    /// CMU-MOSEI: English, sentiment in `[-3, 3]`.
    Mosei,
    /// CH-SIMS: Chinese, sentiment in `[-1, 1]`, labels by modality.
    Sims,
    /// A dataset of another name.
    Own(Own),
}

/// A dataset whose name is not that of a built-in protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Own {
    name: &'static str,
    kind: Kind,
}

/// Why a name and a protocol do not make a dataset.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BenchmarkError {
    /// An invalid name.
    #[error("`{}` is not a valid dataset name: it has 1 to 64 letters, digits, `-`, `_` or `.`", .0.escape_debug())]
    Name(String),
    /// The name of a protocol for a dataset that follows another.
    #[error(
        "`{name}` is the name of a protocol, and the dataset follows another one: results of the \
         two would mix; give the dataset another name"
    )]
    Taken {
        /// The name.
        name: String,
    },
    /// Too many names in one process.
    #[error("this process already has {MAX_NAMES} datasets: start another")]
    TooMany,
}

/// Maximum number of datasets that a process keeps; they stay until it ends.
const MAX_NAMES: usize = 65_536;

static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());

impl Benchmark {
    /// The built-in ones: datasets that have their protocol's name.
    pub const ALL: [Benchmark; 3] = [Benchmark::Mosi, Benchmark::Mosei, Benchmark::Sims];

    /// The dataset called `name` that follows `kind`.
    ///
    /// # Errors
    ///
    /// An invalid name, or that of another protocol.
    pub fn new(name: &str, kind: Kind) -> Result<Self, BenchmarkError> {
        if let Ok(built_in) = name.parse::<Benchmark>() {
            return if built_in.kind() == kind {
                Ok(built_in)
            } else {
                let name = name.to_owned();
                Err(BenchmarkError::Taken { name })
            };
        }
        if !valid_name(name) {
            return Err(BenchmarkError::Name(name.to_owned()));
        }
        let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
        let name = match names.get(name) {
            Some(known) => known,
            None if names.len() >= MAX_NAMES => return Err(BenchmarkError::TooMany),
            None => {
                let kept: &'static str = Box::leak(name.to_owned().into_boxed_str());
                names.insert(kept);
                kept
            }
        };
        Ok(Benchmark::Own(Own { name, kind }))
    }

    /// Its name, under which results are kept: `mosi`, `mosei`, `sims`, or an own one.
    pub fn id(self) -> &'static str {
        match self {
            Benchmark::Mosi => "mosi",
            Benchmark::Mosei => "mosei",
            Benchmark::Sims => "sims",
            Benchmark::Own(own) => own.name,
        }
    }

    /// As tables and figures write it: `MOSI`, or a name of your own as it is.
    pub fn title(self) -> String {
        match self {
            Benchmark::Own(own) => own.name.to_owned(),
            built_in => built_in.id().to_uppercase(),
        }
    }

    /// The protocol that it follows.
    pub fn kind(self) -> Kind {
        match self {
            Benchmark::Mosi => Kind::Mosi,
            Benchmark::Mosei => Kind::Mosei,
            Benchmark::Sims => Kind::Sims,
            Benchmark::Own(own) => own.kind,
        }
    }

    /// The dataset whose published numbers it is to be compared with: the one of its protocol, if
    /// that is built in.
    pub fn published(self) -> Option<Benchmark> {
        self.kind().as_str().parse().ok()
    }

    /// The rules by which its metrics are computed.
    pub fn rules(self) -> &'static Rules {
        self.kind().rules()
    }

    /// The language of its texts: `en` or `zh`, or another.
    pub fn language(self) -> &'static str {
        self.kind().language()
    }

    /// The metrics that are computed.
    pub fn metrics(self) -> &'static [Metric] {
        &self.rules().metrics
    }

    /// The selection criteria.
    pub fn criteria(self) -> &'static [Criterion] {
        &self.rules().criteria
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
    /// better, so the earliest of equal epochs wins. An undefined value beats nothing, and
    /// any value beats an undefined one.
    ///
    /// As in the reference (LNLN `core/utils.py`), whose metrics come rounded to four decimals on
    /// MOSI and MOSEI and unrounded on SIMS: a smaller difference does not count.
    pub fn improves(
        self,
        criterion: &Criterion,
        candidate: Option<f64>,
        best: Option<f64>,
    ) -> bool {
        let compared = |value: f64| match self.kind().definition().rule {
            Rule::Rounded => (value * 1e4).round_ties_even(),
            Rule::Intervals => value,
        };
        match (candidate.map(compared), best.map(compared)) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(new), Some(old)) if criterion.higher_is_better => new > old,
            (Some(new), Some(old)) => new < old,
        }
    }

    /// The smallest and the largest label.
    pub fn label_range(self) -> [f32; 2] {
        self.kind().label_range()
    }

    /// How far the largest label is from the smallest.
    pub fn label_span(self) -> f64 {
        let [low, high] = self.kind().definition().label_range;
        high - low
    }

    /// Samples of the training, validation and test split, as published.
    pub fn split_sizes(self) -> Option<[usize; 3]> {
        self.kind().paper_sizes()
    }
}

impl Serialize for Benchmark {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.id())
    }
}

impl fmt::Display for Benchmark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

impl FromStr for Benchmark {
    type Err = String;

    /// Parses the name of a built-in one.
    fn from_str(s: &str) -> Result<Self, String> {
        Benchmark::ALL
            .into_iter()
            .find(|b| b.id() == s)
            .ok_or_else(|| format!("`{s}` is not a built-in benchmark: use mosi, mosei and sims"))
    }
}
