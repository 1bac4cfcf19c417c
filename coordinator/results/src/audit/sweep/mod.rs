//! The audit of a sweep: its jobs and how they went ([`state`]), its predictions against what was
//! stored of them ([`answers`]), and the rules for tables on its results.

mod answers;
mod load;
mod state;

use super::{
    Cell, Finding, Place, Rule, Severity, classes, classes::Splits, f1, range, repeated, sort,
    trend,
};
use halfheard_shared::{benchmark::Benchmark, ids::SweepId};
use halfheard_store::{
    Store,
    predictions::{Filter, PredictionsError},
};
use load::Loaded;
use std::collections::{BTreeMap, BTreeSet};

/// What is wrong or suspect in a sweep.
///
/// Predictions that cannot be read are a finding and no error: the rest is audited all the same.
///
/// # Errors
///
/// The database's; a dataset that this program does not know.
pub async fn sweep(store: &Store, sweep: SweepId) -> Result<Vec<Finding>, PredictionsError> {
    let loaded = load::load(store, sweep).await?;
    let mut findings = state::check(&loaded);
    let mut splits = Splits::default();
    let mut samples: BTreeMap<Benchmark, usize> = BTreeMap::new();
    // A method on a dataset at a time: predictions are large, and one that is damaged hides no more
    // than these.
    let models: BTreeSet<(Benchmark, &str)> = loaded
        .jobs
        .iter()
        .filter(|job| job.is_done() && job.case.is_some())
        .map(|job| (job.dataset, job.method.as_str()))
        .collect();
    for (dataset, method) in models {
        let filter = Filter {
            methods: vec![method.to_owned()],
            datasets: vec![dataset],
            cases: Vec::new(),
        };
        match store.predictions(sweep, &filter).await {
            Ok(predictions) => {
                if let Some(labels) = predictions.labels.get(&dataset) {
                    splits.count(dataset, labels);
                    samples.insert(dataset, labels.len());
                }
                findings.extend(answers::check(&predictions, &loaded.results));
            }
            Err(error @ (PredictionsError::NoLabels { .. } | PredictionsError::Damaged { .. })) => {
                findings.push(Finding::new(
                    Rule::WrongResult,
                    Severity::Error,
                    "predictions cannot be read, so that nothing can be checked against them",
                    vec![load::place(dataset, method, "")],
                    vec![error.to_string()],
                ))
            }
            Err(error) => return Err(error),
        }
    }
    findings.extend(results(&loaded, &samples, &splits));
    sort(&mut findings);
    Ok(findings)
}

/// The models of a sweep that answer one class, or nearly one value, in all that is evaluated of
/// them: `almt on mosi`, with the seeds where it is not all of them.
///
/// # Errors
///
/// The database's. Predictions that cannot be read are [`sweep`]'s to tell.
pub async fn collapsed(store: &Store, sweep: SweepId) -> Result<Vec<String>, PredictionsError> {
    let models = sqlx::query_as::<_, (String, String)>(
        "SELECT DISTINCT dataset, method FROM job
         WHERE sweep = $1 AND kind = 'eval' AND state = 'done' ORDER BY 1, 2",
    )
    .bind(sweep.0)
    .fetch_all(store.pool())
    .await?;
    let mut names = Vec::new();
    let known = store.benchmarks().await?;
    for (dataset, method) in models {
        let dataset = known.named(&dataset)?;
        let filter = Filter {
            methods: vec![method],
            datasets: vec![dataset],
            cases: Vec::new(),
        };
        match store.predictions(sweep, &filter).await {
            Ok(predictions) => names.extend(answers::collapsed_models(&predictions)),
            Err(PredictionsError::NoLabels { .. } | PredictionsError::Damaged { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(names)
}

/// The rules for tables.
fn results(loaded: &Loaded, samples: &BTreeMap<Benchmark, usize>, splits: &Splits) -> Vec<Finding> {
    let cells = cells(loaded, samples);
    let means = over_seeds(&cells);
    // Accuracies on few samples are equal by chance; errors and correlations are not.
    let exact: Vec<Cell> = cells
        .iter()
        .filter(|cell| matches!(cell.place.metric.as_str(), "mae" | "corr"))
        .cloned()
        .collect();
    let mut findings = [
        range::check(&cells),
        f1::check(&cells, splits),
        repeated::columns(&exact),
        trend::check(&means),
        classes::majority(&means, splits),
    ]
    .concat();
    // A little below is what another checkpoint for each metric does.
    findings.extend(
        range::nesting(&means)
            .into_iter()
            .filter(|finding| finding.counts()),
    );
    findings
}

/// The numbers that tables rest on: of each metric, the one of its own family's checkpoint.
fn cells(loaded: &Loaded, samples: &BTreeMap<Benchmark, usize>) -> Vec<Cell> {
    let mut cells = Vec::new();
    for job in loaded.jobs.iter().filter(|job| job.is_done()) {
        let (Some(case), Some(results)) = (&job.case, loaded.results.get(&job.id)) else {
            continue;
        };
        for metric in job.dataset.metrics() {
            let in_paper = metric.in_paper();
            let criterion = job.dataset.criterion_of(metric.id);
            let value = criterion.and_then(|criterion| {
                let key = (criterion.id.to_owned(), metric.id.to_owned());
                results.get(&key).copied().flatten()
            });
            if let (true, Some(value)) = (in_paper, value) {
                cells.push(Cell {
                    place: Place {
                        seed: Some(job.seed),
                        metric: metric.id.to_owned(),
                        case: case.clone(),
                        ..load::place(job.dataset, &job.method, &job.variant)
                    },
                    value,
                    half: 0.0,
                    std: None,
                    samples: samples.get(&job.dataset).copied().unwrap_or(1),
                });
            }
        }
    }
    cells
}

fn over_seeds(cells: &[Cell]) -> Vec<Cell> {
    let groups = super::cell::by(cells, |p| Place {
        seed: None,
        ..p.clone()
    });
    groups
        .into_iter()
        .map(|(place, cells)| Cell {
            place,
            value: cells.iter().map(|cell| cell.value).sum::<f64>() / cells.len() as f64,
            half: 0.0,
            std: None,
            samples: cells[0].samples,
        })
        .collect()
}
