//! Metrics and selection criteria.

/// A metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// As in the database and in files.
    pub id: &'static str,
    /// As in tables.
    pub name: &'static str,
    /// Whether higher values are better.
    pub higher_is_better: bool,
    /// Whether it is a fraction that tables print in percent.
    pub percent: bool,
}

impl Metric {
    /// Whether the paper's tables have metrics of the sort: not the swapped F1 and laziness.
    pub fn in_paper(&self) -> bool {
        !self.id.ends_with("_swapped") && self.id != "laziness"
    }
}

/// A selection criterion: the metric by which a checkpoint is best, and the metrics that are
/// reported from that checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Criterion {
    /// Its id: that of the metric that selects.
    pub id: &'static str,
    /// Whether higher values are better.
    pub higher_is_better: bool,
    /// The metrics reported from its checkpoint.
    pub family: &'static [&'static str],
}
