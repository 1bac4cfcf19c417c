//! The registry behind `metrics::counter!` and its like, for one process.

use crate::catalogue::{Kind, Metric};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

/// The registry of this process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Recorder(PrometheusHandle);

/// The registry cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot record metrics")]
pub struct RecorderError(#[from] BuildError);

impl Recorder {
    /// Records the metrics of this process from now on, each with `labels`. What is counted before is
    /// lost, and costs nothing.
    ///
    /// # Errors
    ///
    /// This process records already.
    pub fn install(metrics: &[Metric], labels: &[(&str, &str)]) -> Result<Self, RecorderError> {
        let mut builder = PrometheusBuilder::new();
        for metric in metrics {
            if let Kind::Histogram(bounds) = metric.kind {
                let name = Matcher::Full(metric.name.to_owned());
                builder = builder.set_buckets_for_metric(name, bounds)?;
            }
        }
        for (label, value) in labels {
            builder = builder.add_global_label(*label, *value);
        }
        let recorder = Self(builder.install_recorder()?);
        for metric in metrics {
            describe(metric);
        }
        Ok(recorder)
    }

    /// What was recorded, in the text format of Prometheus.
    pub fn render(&self) -> String {
        self.0.render()
    }
}

/// Describes a metric, and begins the counters whose series are known.
fn describe(metric: &Metric) {
    let (name, help) = (metric.name, metric.help);
    match metric.kind {
        Kind::Counter => {
            metrics::describe_counter!(name, help);
            match metric.labels {
                [] => metrics::counter!(name).absolute(0),
                [label, ..] => {
                    for value in metric.values {
                        metrics::counter!(name, *label => *value).absolute(0);
                    }
                }
            }
        }
        Kind::Gauge => metrics::describe_gauge!(name, help),
        Kind::Histogram(_) => metrics::describe_histogram!(name, help),
    }
}
