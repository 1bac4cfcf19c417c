//! The text format of Prometheus: written from samples, and merged from several processes.

use crate::catalogue::Metric;
use std::{collections::BTreeMap, fmt::Write as _};

/// Values of gauges at one moment, all of which are replaced together: a series whose subject is gone
/// disappears.
#[derive(Clone, Debug, Default)]
pub struct Samples(BTreeMap<&'static str, Vec<(String, f64)>>);

impl Samples {
    /// Adds a value, with the values of the metric's labels in their order.
    pub fn add(&mut self, metric: &'static str, labels: &[&str], value: f64) {
        let labels = labels
            .iter()
            .map(|label| escaped(label))
            .collect::<Vec<_>>();
        self.0
            .entry(metric)
            .or_default()
            .push((labels.join("\0"), value));
    }

    /// As the text format has it, in the order of `metrics`; what is not among them is left out.
    pub fn render(&self, metrics: &[Metric]) -> String {
        let mut text = String::new();
        for metric in metrics {
            let Some(samples) = self.0.get(metric.name) else {
                continue;
            };
            let (name, kind) = (metric.name, metric.kind.as_str());
            // Writing to a string cannot fail.
            let _ = writeln!(text, "# HELP {name} {}\n# TYPE {name} {kind}", metric.help);
            for (labels, value) in samples {
                let values = labels.split('\0');
                let pairs: Vec<String> = metric
                    .labels
                    .iter()
                    .zip(values)
                    .map(|(label, value)| format!("{label}=\"{value}\""))
                    .collect();
                let _ = match pairs.is_empty() {
                    true => writeln!(text, "{name} {value}"),
                    false => writeln!(text, "{name}{{{}}} {value}", pairs.join(",")),
                };
            }
        }
        text
    }
}

/// A value of a label. Names come from specs and workers, so no character may end it.
fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            '\0' => text.push(' '),
            c => text.push(c),
        }
    }
    text
}

/// One text of several: each metric is described once, with the series of all.
pub fn merge<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    // By name: the comments, then the series.
    let mut families: BTreeMap<&str, (Vec<&str>, Vec<&str>)> = BTreeMap::new();
    for text in texts {
        let mut family = "";
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(comment) = line.strip_prefix("# ") {
                family = comment.split(' ').nth(1).unwrap_or_default();
                let comments = &mut families.entry(family).or_default().0;
                if !comments.contains(&line) {
                    comments.push(line);
                }
            } else {
                families.entry(family).or_default().1.push(line);
            }
        }
    }
    let lines = families
        .values()
        .flat_map(|(comments, series)| comments.iter().chain(series));
    lines.fold(String::new(), |mut text, line| {
        text.push_str(line);
        text.push('\n');
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::COORDINATOR;

    #[test]
    fn samples_are_written_with_help_type_and_escaped_labels() {
        let mut samples = Samples::default();
        samples.add("halfheard_leadership_term", &[], 3.0);
        let hostile = "a\"} 1\nhalfheard_leader 1\\\0";
        samples.add("halfheard_sweep_idle_seconds", &["ab12", hostile], 1.5);
        let text = samples.render(COORDINATOR);
        assert!(
            text.contains("# TYPE halfheard_leadership_term gauge\nhalfheard_leadership_term 3\n")
        );
        let line = r#"halfheard_sweep_idle_seconds{sweep="ab12",name="a\"} 1\nhalfheard_leader 1\\ "} 1.5"#;
        assert!(text.lines().any(|l| l == line), "{text}");
        assert_eq!(text.lines().count(), 6, "{text}");
    }

    #[test]
    fn merged_text_describes_each_metric_once() {
        let slot = |n: u8| {
            format!(
                "# HELP a_total A.\n# TYPE a_total counter\na_total{{slot=\"{n}\"}} {n}\n\n# HELP b B.\n# TYPE b gauge\nb{{slot=\"{n}\"}} 0\n"
            )
        };
        let merged = merge([slot(1).as_str(), slot(2).as_str()]);
        assert_eq!(
            merged,
            "# HELP a_total A.\n# TYPE a_total counter\na_total{slot=\"1\"} 1\na_total{slot=\"2\"} 2\n\
             # HELP b B.\n# TYPE b gauge\nb{slot=\"1\"} 0\nb{slot=\"2\"} 0\n"
        );
    }
}
