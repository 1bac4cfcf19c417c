//! The sweep's mean for a published number.

use halfheard_shared::{
    benchmark::Benchmark,
    case::{CaseKind, CaseOrMean, MissingSet},
    results::{Cell, Cells, Model},
};

/// What a sweep has for a published number.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Found {
    /// A mean over seeds; over cases, the mean of these, with the mean of their deviations as in Table 8.
    Measured(Measured),
    /// Nothing, and why.
    Absent(String),
    /// Something else than the paper's mean, and what.
    Unlike(String),
}

/// A mean over seeds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Measured {
    pub(super) mean: f64,
    /// The sample standard deviation over seeds; `None` with one seed.
    pub(super) std: Option<f64>,
    pub(super) seeds: usize,
}

/// The cases of one of the paper's means.
fn cases(kind: CaseKind) -> Vec<String> {
    match kind {
        CaseKind::Rate => (0..10)
            .map(|tenths| format!("r={}", f64::from(tenths) / 10.0))
            .collect(),
        CaseKind::Missing => MissingSet::PAPER.map(|set| format!("missing={set}")).into(),
    }
}

/// Looks a number up. A mean is taken over the paper's cases, whatever other cases the sweep has.
pub(super) fn find(
    cells: &Cells,
    dataset: Benchmark,
    model: &Model,
    case: &str,
    metric: &str,
) -> Found {
    let cell = |case: &str| {
        let case: CaseOrMean = case.parse().ok()?;
        cells.get(dataset, model, case, metric)
    };
    let wanted = match case.parse() {
        Ok(CaseOrMean::Mean(kind)) => cases(kind),
        _ => vec![case.to_owned()],
    };
    let (have, lack): (Vec<&str>, Vec<&str>) = wanted
        .iter()
        .map(String::as_str)
        .partition(|case| cell(case).is_some());
    if have.is_empty() {
        return Found::Absent("not in the sweep".to_owned());
    }
    if !lack.is_empty() {
        let (n, all) = (have.len(), wanted.len());
        let lack = lack.join(", ");
        return Found::Unlike(format!(
            "the sweep has {n} of the mean's {all} cases: it lacks {lack}"
        ));
    }
    let own: Vec<&Cell> = wanted.iter().filter_map(|case| cell(case)).collect();
    let evaluated = own.iter().filter(|cell| cell.completed > 0).count();
    if evaluated < own.len() {
        return Found::Absent(match own.len() {
            1 => "not evaluated yet".to_owned(),
            all => format!("evaluated on {evaluated} of {all} cases yet"),
        });
    }
    let count = own.len() as f64;
    let means: Option<Vec<f64>> = own.iter().map(|cell| cell.mean).collect();
    let Some(means) = means else {
        return Found::Unlike("the metric is undefined for the sweep's predictions".to_owned());
    };
    let stds: Option<Vec<f64>> = own.iter().map(|cell| cell.std).collect();
    let seeds = own.iter().map(|cell| cell.completed).min().unwrap_or(0);
    Found::Measured(Measured {
        mean: means.iter().sum::<f64>() / count,
        std: stds.map(|stds| stds.iter().sum::<f64>() / count),
        seeds: usize::try_from(seeds).unwrap_or(0),
    })
}
