//! What dashboards, alert rules and the reference name is what the programs export.
#![expect(clippy::unwrap_used, reason = "a test ends where something is wrong")]

use halfheard_telemetry::catalogue::{COORDINATOR, Kind, Metric, SLOT, WORKER};
use std::{collections::BTreeSet, fs, path::PathBuf};

fn read(path: &str) -> String {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    fs::read_to_string(root.join(path)).unwrap()
}

/// The rows of the reference's tables.
fn rows(metrics: &[Metric]) -> Vec<String> {
    let row = |metric: &Metric| {
        let labels: Vec<String> = metric.labels.iter().map(|l| format!("`{l}`")).collect();
        let (name, kind, help) = (metric.name, metric.kind.as_str(), metric.help);
        format!("| `{name}` | {kind} | {} | {help} |", labels.join(", "))
    };
    metrics.iter().map(row).collect()
}

#[test]
fn reference_lists_every_metric_and_no_other() {
    let page = read("docs/reference/metrics.md");
    let listed: Vec<&str> = page
        .lines()
        .filter(|line| line.starts_with("| `halfheard_"))
        .collect();
    let expected = [COORDINATOR, SLOT, WORKER].map(rows).concat();
    assert_eq!(listed, expected, "\n{}", expected.join("\n"));
}

/// Every word that looks like a metric.
fn named(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("halfheard_"))
        .collect()
}

#[test]
fn dashboard_rules_and_guide_name_exported_metrics_only() {
    let mut exported = BTreeSet::new();
    for metric in [COORDINATOR, SLOT, WORKER].into_iter().flatten() {
        match metric.kind {
            Kind::Histogram(_) => {
                for suffix in ["bucket", "sum", "count"] {
                    exported.insert(format!("{}_{suffix}", metric.name));
                }
            }
            Kind::Counter | Kind::Gauge => drop(exported.insert(metric.name.to_owned())),
        }
    }
    for file in [
        "deploy/monitoring/alerts.yml",
        "deploy/monitoring/alerts_test.yml",
        "deploy/monitoring/grafana/halfheard.json",
        "docs/guide/monitoring.md",
    ] {
        let text = read(file);
        let named = named(&text);
        assert!(!named.is_empty(), "{file} names none");
        let unknown: Vec<&&str> = named
            .iter()
            .filter(|name| !exported.contains(**name))
            .collect();
        assert!(unknown.is_empty(), "{file} names {unknown:?}");
    }
}
