//! What of a sweep a figure shows: checks what was asked for against what there is, and chooses
//! where nothing was said.

use super::{FigureError, Request};
use crate::tables::layout;
use halfheard_shared::{
    benchmark::Benchmark,
    case::{Case, Rate},
    ids::SweepId,
    methods,
};
use halfheard_store::{Store, StoreError};
use sqlx::Row as _;

/// Method and variant.
pub type Model = (String, String);

/// What a sweep's spec asks for.
#[derive(Clone, Debug, Default)]
pub struct Content {
    /// Models in the order of tables.
    pub models: Vec<Model>,
    /// Datasets in the paper's order, others behind.
    pub datasets: Vec<Benchmark>,
    /// Missing rates, rising.
    pub rates: Vec<Rate>,
}

/// Looks up what a sweep has.
///
/// # Errors
///
/// The database's.
pub async fn content(store: &Store, sweep: SweepId) -> Result<Content, StoreError> {
    let rows = sqlx::query(
        "SELECT DISTINCT method, variant, dataset, case_id
         FROM job WHERE sweep = $1 AND kind = 'eval'",
    )
    .bind(sweep.0)
    .fetch_all(store.pool())
    .await?;
    let known = store.benchmarks().await?;
    let mut content = Content::default();
    for row in rows {
        let model: Model = (row.try_get("method")?, row.try_get("variant")?);
        if !content.models.contains(&model) {
            content.models.push(model);
        }
        let (dataset, case): (String, String) = (row.try_get("dataset")?, row.try_get("case_id")?);
        if let Some(dataset) = known.get(&dataset)
            && !content.datasets.contains(&dataset)
        {
            content.datasets.push(dataset);
        }
        if let Ok(Case::Rate(rate)) = case.parse()
            && !content.rates.contains(&rate)
        {
            content.rates.push(rate);
        }
    }
    let place = |method: &str| layout::method_order(method);
    content
        .models
        .sort_by(|a, b| (place(&a.0), a).cmp(&(place(&b.0), b)));
    content.datasets.sort();
    content.rates.sort();
    Ok(content)
}

/// `lnln`, `lnln/no-dmc`.
fn written((method, variant): &Model) -> String {
    if variant.is_empty() {
        method.clone()
    } else {
        format!("{method}/{variant}")
    }
}

/// How figures write a dataset: `MOSI`.
pub fn name(dataset: Benchmark) -> String {
    dataset.title()
}

fn listed<T>(items: &[T], write: impl Fn(&T) -> String) -> String {
    if items.is_empty() {
        return "none".to_owned();
    }
    items.iter().map(write).collect::<Vec<_>>().join(", ")
}

impl Content {
    /// The models that were asked for, in that order; `None` if none was.
    ///
    /// # Errors
    ///
    /// One that the sweep does not have.
    pub fn asked(&self, request: &Request) -> Result<Option<Vec<Model>>, FigureError> {
        if request.methods.is_empty() {
            return Ok(None);
        }
        let mut models: Vec<Model> = Vec::new();
        for given in &request.methods {
            let all = || self.models.iter();
            let Some(model) = all().find(|model| written(model) == *given) else {
                let names: Vec<String> = all().map(written).collect();
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

    /// The models that were asked for, or all that are no ablations.
    ///
    /// # Errors
    ///
    /// One that the sweep does not have.
    pub fn models(&self, request: &Request) -> Result<Vec<Model>, FigureError> {
        if let Some(models) = self.asked(request)? {
            return Ok(models);
        }
        let mut models = self.models.clone();
        models.retain(|(method, variant)| !layout::is_ablation(method, variant));
        Ok(if models.is_empty() {
            self.models.clone()
        } else {
            models
        })
    }

    /// The datasets that were asked for, or all.
    ///
    /// # Errors
    ///
    /// One that the sweep does not have.
    pub fn datasets(&self, request: &Request) -> Result<Vec<Benchmark>, FigureError> {
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

    /// The datasets' names as they are asked for.
    pub fn names(&self) -> String {
        listed(&self.datasets, |dataset| dataset.id().to_owned())
    }

    /// That a dataset is in the sweep.
    ///
    /// # Errors
    ///
    /// That it is not.
    pub fn has(&self, dataset: Benchmark) -> Result<(), FigureError> {
        if self.datasets.contains(&dataset) {
            return Ok(());
        }
        Err(FigureError::NotInSweep {
            what: name(dataset),
            have: listed(&self.datasets, |dataset| name(*dataset)),
        })
    }

    /// The rates that were asked for, or at most so many, spread over those of the sweep.
    ///
    /// # Errors
    ///
    /// One that the sweep does not have; a sweep without any.
    pub fn rates(&self, request: &Request, most: usize) -> Result<Vec<Rate>, FigureError> {
        if self.rates.is_empty() {
            return Err(FigureError::NotInSweep {
                what: "a missing rate".to_owned(),
                have: "sets of missing modalities only".to_owned(),
            });
        }
        if request.rates.is_empty() {
            return Ok(spread(&self.rates, most));
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

/// The first, the last, and those evenly between.
pub fn spread<T: Clone>(all: &[T], most: usize) -> Vec<T> {
    if all.len() <= most || most < 2 {
        return all[..all.len().min(most)].to_vec();
    }
    let last = all.len() - 1;
    let place = |i: usize| (i * last + (most - 1) / 2) / (most - 1);
    (0..most).map(|i| all[place(i)].clone()).collect()
}

/// The metrics that were asked for, checked; `None` if none was.
///
/// # Errors
///
/// One that there is not.
pub fn metrics<'r>(
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
        let model = |method: &str, variant: &str| (method.to_owned(), variant.to_owned());
        Content {
            models: vec![
                model("almt", ""),
                model("lnln", ""),
                model("lnln", "no-dmc"),
            ],
            datasets: vec![Benchmark::Mosi, Benchmark::Sims],
            rates: (0..10).map(|i| Rate::from_thousandths(i * 100)).collect(),
        }
    }

    fn asking(methods: &[&str]) -> Request {
        Request {
            methods: methods.iter().map(|&m| m.to_owned()).collect(),
            ..Request::default()
        }
    }

    #[test]
    fn models_are_those_of_the_sweep() {
        let content = content();
        assert_eq!(content.models(&Request::default()).unwrap().len(), 2);
        let asked = content
            .models(&asking(&["lnln/no-dmc", "almt", "almt"]))
            .unwrap();
        assert_eq!(
            asked.iter().map(written).collect::<Vec<_>>(),
            ["lnln/no-dmc", "almt"]
        );
        let error = content.models(&asking(&["lnl"])).unwrap_err().to_string();
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
    fn rates_are_spread_over_the_sweeps() {
        let content = content();
        let written = |rates: Vec<Rate>| listed(&rates, Rate::to_string);
        let default = content.rates(&Request::default(), 4).unwrap();
        assert_eq!(written(default), "0, 0.3, 0.6, 0.9");
        assert_eq!(spread(&[1, 2], 4), [1, 2]);
        assert_eq!(spread(&[1, 2, 3, 4, 5], 3), [1, 3, 5]);
        let asked = |rates: &[f64]| {
            let request = Request {
                rates: rates.iter().map(|&r| Rate::new(r).unwrap()).collect(),
                ..Request::default()
            };
            content.rates(&request, 4)
        };
        assert_eq!(written(asked(&[0.9, 0.1, 0.9]).unwrap()), "0.1, 0.9");
        let error = asked(&[0.35]).unwrap_err().to_string();
        assert!(error.starts_with("the missing rate 0.35 is not in the sweep: it has 0, 0.1"));
        assert!(Content::default().rates(&Request::default(), 4).is_err());
    }

    #[test]
    fn datasets_and_metrics_are_checked() {
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
