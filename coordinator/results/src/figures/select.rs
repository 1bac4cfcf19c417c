//! What a figure shows of a sweep: checks the request against the sweep, and chooses defaults.

use super::{FigureError, Request};
use crate::tables::layout;
use halfheard_shared::{
    benchmark::Benchmark,
    case::Rate,
    methods,
    results::{Model, Results},
};
use std::collections::BTreeSet;

/// What a sweep's spec asks for.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    /// Models in the order of tables.
    pub(super) models: Vec<Model>,
    /// Datasets in the paper's order, others after these.
    pub(super) datasets: Vec<Benchmark>,
    /// Missing rates, rising.
    pub(super) rates: Vec<Rate>,
}

/// The printed name of a dataset: `MOSI`.
pub(super) fn name(dataset: Benchmark) -> String {
    dataset.title()
}

fn listed<T>(items: &[T], write: impl Fn(&T) -> String) -> String {
    if items.is_empty() {
        return "none".to_owned();
    }
    items.iter().map(write).collect::<Vec<_>>().join(", ")
}

impl Content {
    /// What the evaluations of a sweep are of.
    pub(super) fn of(results: &Results) -> Self {
        let (mut models, mut datasets, mut rates) =
            (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for tally in &results.tally {
            let Some(case) = tally.case else { continue };
            models.insert(&tally.model);
            datasets.insert(tally.dataset);
            if let Some(rate) = case.rate() {
                rates.insert(rate);
            }
        }
        let mut models: Vec<Model> = models.into_iter().cloned().collect();
        layout::sort_models(&mut models);
        Self {
            models,
            datasets: datasets.into_iter().collect(),
            rates: rates.into_iter().collect(),
        }
    }

    /// The requested models, in that order; `None` if none was requested.
    ///
    /// # Errors
    ///
    /// One that the sweep does not have.
    pub(super) fn requested(&self, request: &Request) -> Result<Option<Vec<Model>>, FigureError> {
        if request.methods.is_empty() {
            return Ok(None);
        }
        let mut models: Vec<Model> = Vec::new();
        for given in &request.methods {
            let all = || self.models.iter();
            let Some(model) = all().find(|model| model.to_string() == *given) else {
                let names: Vec<String> = all().map(ToString::to_string).collect();
                return Err(FigureError::Method {
                    given: given.clone(),
                    nearest: methods::nearest(given, names.iter().map(String::as_str)),
                    have: listed(&names, String::clone),
                });
            };
            if !models.contains(model) {
                models.push(model.clone());
            }
        }
        Ok(Some(models))
    }

    /// The requested models; by default all but ablations.
    ///
    /// # Errors
    ///
    /// One that the sweep does not have.
    pub(super) fn models(&self, request: &Request) -> Result<Vec<Model>, FigureError> {
        if let Some(models) = self.requested(request)? {
            return Ok(models);
        }
        let mut models = self.models.clone();
        models.retain(|model| !layout::is_ablation(model));
        Ok(if models.is_empty() {
            self.models.clone()
        } else {
            models
        })
    }

    /// The requested datasets; by default all.
    ///
    /// # Errors
    ///
    /// One that the sweep does not have.
    pub(super) fn datasets(&self, request: &Request) -> Result<Vec<Benchmark>, FigureError> {
        if request.datasets.is_empty() {
            return Ok(self.datasets.clone());
        }
        for &dataset in &request.datasets {
            self.has(dataset)?;
        }
        let mut datasets = self.datasets.clone();
        datasets.retain(|dataset| request.datasets.contains(dataset));
        Ok(datasets)
    }

    /// The ids of all datasets.
    pub(super) fn names(&self) -> String {
        listed(&self.datasets, |dataset| dataset.id().to_owned())
    }

    /// Checks that a dataset is in the sweep.
    ///
    /// # Errors
    ///
    /// It is not.
    pub(super) fn has(&self, dataset: Benchmark) -> Result<(), FigureError> {
        if self.datasets.contains(&dataset) {
            return Ok(());
        }
        Err(FigureError::NotInSweep {
            what: name(dataset),
            have: listed(&self.datasets, |dataset| name(*dataset)),
        })
    }

    /// The requested rates; by default at most `max`, spread over those of the sweep.
    ///
    /// # Errors
    ///
    /// One that the sweep does not have; a sweep without any.
    pub(super) fn rates(&self, request: &Request, max: usize) -> Result<Vec<Rate>, FigureError> {
        if self.rates.is_empty() {
            return Err(FigureError::NotInSweep {
                what: "a missing rate".to_owned(),
                have: "sets of missing modalities only".to_owned(),
            });
        }
        if request.rates.is_empty() {
            return Ok(spread(&self.rates, max));
        }
        let mut rates = request.rates.clone();
        rates.sort();
        rates.dedup();
        if let Some(rate) = rates.iter().find(|rate| !self.rates.contains(rate)) {
            return Err(FigureError::NotInSweep {
                what: format!("the missing rate {rate}"),
                have: listed(&self.rates, Rate::to_string),
            });
        }
        Ok(rates)
    }
}

/// At most `max` items: the first, the last, and evenly spaced ones in between.
pub(super) fn spread<T: Clone>(all: &[T], max: usize) -> Vec<T> {
    if all.len() <= max || max < 2 {
        return all[..all.len().min(max)].to_vec();
    }
    let last = all.len() - 1;
    let place = |i: usize| (i * last + (max - 1) / 2) / (max - 1);
    (0..max).map(|i| all[place(i)].clone()).collect()
}

/// The requested metrics, checked; `None` if none was requested.
///
/// # Errors
///
/// An unknown one.
pub(super) fn metrics<'r>(
    request: &'r Request,
    datasets: &[Benchmark],
) -> Result<Option<&'r [String]>, FigureError> {
    let mut ids: Vec<&str> = Vec::new();
    let all = Benchmark::ALL.iter().chain(datasets);
    for metric in all.flat_map(|b| b.metrics()) {
        if !ids.contains(&metric.id) {
            ids.push(metric.id);
        }
    }
    for given in &request.metrics {
        if !ids.contains(&given.as_str()) {
            return Err(FigureError::Metric {
                given: given.clone(),
                nearest: methods::nearest(given, ids.iter().copied()),
                have: ids.join(", "),
            });
        }
    }
    Ok((!request.metrics.is_empty()).then_some(&request.metrics))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content() -> Content {
        Content {
            models: vec![
                Model::new("almt", ""),
                Model::new("lnln", ""),
                Model::new("lnln", "no-dmc"),
            ],
            datasets: vec![Benchmark::Mosi, Benchmark::Sims],
            rates: (0..10).map(|i| Rate::from_thousandths(i * 100)).collect(),
        }
    }

    fn requesting(methods: &[&str]) -> Request {
        Request {
            methods: methods.iter().map(|&m| m.to_owned()).collect(),
            ..Request::default()
        }
    }

    #[test]
    fn models_are_those_of_the_sweep() {
        let content = content();
        assert_eq!(content.models(&Request::default()).unwrap().len(), 2);
        let requested = content
            .models(&requesting(&["lnln/no-dmc", "almt", "almt"]))
            .unwrap();
        assert_eq!(
            requested
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>(),
            ["lnln/no-dmc", "almt"]
        );
        let error = content
            .models(&requesting(&["lnl"]))
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "the sweep has no method `lnl` (did you mean `lnln`?): it has almt, lnln, lnln/no-dmc"
        );
        let ablations = Content {
            models: content.models[2..].to_vec(),
            ..content
        };
        assert_eq!(ablations.models(&Request::default()).unwrap().len(), 1);
    }

    #[test]
    fn default_rates_are_spread_over_the_sweep() {
        let content = content();
        let written = |rates: Vec<Rate>| listed(&rates, Rate::to_string);
        let default = content.rates(&Request::default(), 4).unwrap();
        assert_eq!(written(default), "0, 0.3, 0.6, 0.9");
        assert_eq!(spread(&[1, 2], 4), [1, 2]);
        assert_eq!(spread(&[1, 2, 3, 4, 5], 3), [1, 3, 5]);
        let requested = |rates: &[f64]| {
            let request = Request {
                rates: rates.iter().map(|&r| Rate::new(r).unwrap()).collect(),
                ..Request::default()
            };
            content.rates(&request, 4)
        };
        assert_eq!(written(requested(&[0.9, 0.1, 0.9]).unwrap()), "0.1, 0.9");
        let error = requested(&[0.35]).unwrap_err().to_string();
        assert!(error.starts_with("the missing rate 0.35 is not in the sweep: it has 0, 0.1"));
        assert!(Content::default().rates(&Request::default(), 4).is_err());
    }

    #[test]
    fn unknown_datasets_and_metrics_are_refused() {
        let request = Request {
            datasets: vec![Benchmark::Mosei],
            metrics: vec!["acc8".to_owned()],
            ..Request::default()
        };
        let error = content().datasets(&request).unwrap_err().to_string();
        assert_eq!(error, "MOSEI is not in the sweep: it has MOSI, SIMS");
        let error = metrics(&request, &[]).unwrap_err().to_string();
        assert!(error.contains("did you mean `acc"), "{error}");
        assert_eq!(metrics(&Request::default(), &[]).unwrap(), None);
    }
}
