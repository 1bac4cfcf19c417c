//! What each of the paper's tables holds.

use missbench_shared::benchmark::Benchmark;

/// What a table's rows are over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Means over all cases of the kind.
    Overall,
    /// Case by case.
    Details,
}

/// The kind of case, as the views call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaseKind {
    /// Random missing.
    Rate,
    /// Missing modalities.
    Missing,
}

/// One table of the paper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Its number.
    pub number: u8,
    /// What it shows.
    pub title: &'static str,
    /// Its datasets, in order.
    pub datasets: &'static [Benchmark],
    /// Means or details.
    pub scope: Scope,
    /// Over what.
    pub kind: CaseKind,
}

const ENGLISH: &[Benchmark] = &[Benchmark::Mosi, Benchmark::Mosei];
const CHINESE: &[Benchmark] = &[Benchmark::Sims];

const fn layout(
    number: u8,
    title: &'static str,
    datasets: &'static [Benchmark],
    scope: Scope,
    kind: CaseKind,
) -> Layout {
    Layout {
        number,
        title,
        datasets,
        scope,
        kind,
    }
}

/// The tables that can be printed.
pub const LAYOUTS: &[Layout] = &[
    layout(
        2,
        "Overall performance under random missing on MOSI and MOSEI",
        ENGLISH,
        Scope::Overall,
        CaseKind::Rate,
    ),
    layout(
        3,
        "Overall performance under random missing on SIMS",
        CHINESE,
        Scope::Overall,
        CaseKind::Rate,
    ),
    layout(
        9,
        "Performance at each missing rate on MOSI and MOSEI",
        ENGLISH,
        Scope::Details,
        CaseKind::Rate,
    ),
    layout(
        10,
        "Performance at each missing rate on SIMS",
        CHINESE,
        Scope::Details,
        CaseKind::Rate,
    ),
    layout(
        11,
        "Overall performance under missing modalities on MOSI and MOSEI",
        ENGLISH,
        Scope::Overall,
        CaseKind::Missing,
    ),
    layout(
        12,
        "Overall performance under missing modalities on SIMS",
        CHINESE,
        Scope::Overall,
        CaseKind::Missing,
    ),
    layout(
        13,
        "Performance for each set of missing modalities on MOSI and MOSEI",
        ENGLISH,
        Scope::Details,
        CaseKind::Missing,
    ),
    layout(
        14,
        "Performance for each set of missing modalities on SIMS",
        CHINESE,
        Scope::Details,
        CaseKind::Missing,
    ),
];

/// The layout of table `number`, if it can be printed.
pub fn find(number: u8) -> Option<Layout> {
    LAYOUTS.iter().copied().find(|l| l.number == number)
}

/// The columns of a dataset: heading and metrics, two beside each other where the paper prints
/// `negative/positive / negative/non-negative`.
pub fn columns(benchmark: Benchmark) -> &'static [(&'static str, &'static [&'static str])] {
    match benchmark {
        Benchmark::Mosi | Benchmark::Mosei => &[
            ("Acc-7", &["acc7"]),
            ("Acc-5", &["acc5"]),
            ("Acc-2", &["acc2_nonzero", "acc2_nonneg"]),
            ("F1", &["f1_nonzero", "f1_nonneg"]),
            ("MAE", &["mae"]),
            ("Corr", &["corr"]),
        ],
        Benchmark::Sims => &[
            ("Acc-5", &["acc5"]),
            ("Acc-3", &["acc3"]),
            ("Acc-2", &["acc2"]),
            ("F1", &["f1"]),
            ("MAE", &["mae"]),
            ("Corr", &["corr"]),
        ],
    }
}

/// The paper's order of methods, and how it writes them.
const METHODS: &[(&str, &str)] = &[
    ("misa", "MISA"),
    ("self-mm", "Self-MM"),
    ("mmim", "MMIM"),
    ("cenet", "CENET"),
    ("tetfn", "TETFN"),
    ("tfr-net", "TFR-Net"),
    ("almt", "ALMT"),
    ("lnln", "LNLN"),
];

/// Where a method stands in tables; those the paper does not have come last.
pub fn method_order(method: &str) -> usize {
    METHODS
        .iter()
        .position(|(id, _)| *id == method)
        .unwrap_or(METHODS.len())
}

/// How tables write a method or variant: `LNLN`, `LNLN/no-dmc`.
pub fn label(method: &str, variant: &str) -> String {
    let name = METHODS
        .iter()
        .find(|(id, _)| *id == method)
        .map_or(method, |(_, name)| name);
    if variant.is_empty() {
        name.to_owned()
    } else {
        format!("{name}/{variant}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_is_a_metric_of_its_dataset() {
        for benchmark in Benchmark::ALL {
            for (_, metrics) in columns(benchmark) {
                for id in *metrics {
                    assert!(benchmark.metrics().iter().any(|m| m.id == *id), "{id}");
                }
            }
        }
    }
}
