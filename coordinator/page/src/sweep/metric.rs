//! Which metric the cells show.

use halfheard_shared::{
    benchmark::{Benchmark, Metric},
    ids::SweepId,
};
use halfheard_store::{Store, StoreError, benchmarks::Benchmarks};
use maud::{Markup, html};

/// The metric that is shown unless another is asked for, where a dataset has it: the one by which methods
/// are trained.
const FIRST: &str = "mae";

/// The metric of each dataset that cells show.
pub(super) struct Shown {
    known: Benchmarks,
    asked: Option<String>,
    pairs: Vec<(String, String)>,
}

impl Shown {
    /// Those called `asked` where datasets have them; else MAE, or the first of the dataset.
    pub(super) async fn choose(store: &Store, asked: Option<&str>) -> Result<Self, StoreError> {
        let known = store.benchmarks().await?;
        let pair = |dataset: &Benchmark| {
            let metric = choose(*dataset, asked)?;
            Some((dataset.id().to_owned(), metric.id.to_owned()))
        };
        Ok(Self {
            pairs: known.all().iter().filter_map(pair).collect(),
            asked: asked.map(str::to_owned),
            known,
        })
    }

    /// Datasets with their metrics.
    pub(super) fn pairs(&self) -> &[(String, String)] {
        &self.pairs
    }

    /// The metric that the cells of a dataset show.
    pub(super) fn of(&self, dataset: &str) -> Option<&'static Metric> {
        choose(self.known.get(dataset)?, self.asked.as_deref())
    }

    /// Links to the other metrics of these datasets.
    pub(super) fn links(&self, sweep: SweepId, datasets: &[&str]) -> Markup {
        let mut metrics: Vec<&Metric> = Vec::new();
        for dataset in datasets {
            let known = self.known.get(dataset);
            for metric in known.iter().flat_map(|dataset| dataset.metrics()) {
                if !metrics.iter().any(|known| known.id == metric.id) {
                    metrics.push(metric);
                }
            }
        }
        let shown: Vec<&str> = datasets
            .iter()
            .filter_map(|dataset| Some(self.of(dataset)?.id))
            .collect();
        html! {
            nav class="choices" aria-label="Metric in the cells" {
                "Metric: "
                @for metric in metrics {
                    a href={ "/sweeps/" (sweep) "?metric=" (metric.id) }
                        aria-current=[shown.contains(&metric.id).then_some("true")] { (metric.name) }
                    " "
                }
            }
        }
    }
}

fn choose(dataset: Benchmark, asked: Option<&str>) -> Option<&'static Metric> {
    asked
        .and_then(|asked| dataset.metric(asked))
        .or_else(|| dataset.metric(FIRST))
        .or_else(|| dataset.metrics().first())
}

/// A value as tables print it.
pub(super) fn print(metric: &Metric, value: f64) -> String {
    match metric.percent {
        true => format!("{:.2}", value * 100.0),
        false => format!("{value:.3}"),
    }
}
