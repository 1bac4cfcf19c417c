//! What a campaign was: faults by kind, how long until the work went on, what was done twice.

use crate::{cluster::Cluster, fault::Fault, heartbeats::Heartbeats, monitor::Progress};
use anyhow::Result;
use serde_json::{Value, json};
use std::{collections::BTreeMap, fmt::Write as _};

/// A fault that was tried.
#[derive(Clone, Debug)]
pub struct Made {
    pub fault: Fault,
    /// When it was over, in seconds since the start.
    pub ended: f64,
    /// Why it could not be made.
    pub missed: Option<String>,
}

/// The faults of one kind.
#[derive(Clone, Debug, Default)]
struct Kind {
    made: usize,
    missed: usize,
    /// Seconds from the end of each to the next epoch or result.
    recoveries: Vec<f64>,
}

/// The figures.
#[derive(Clone, Debug)]
pub struct Figures {
    kinds: BTreeMap<&'static str, Kind>,
    rows: Value,
    wasted_steps: u64,
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

fn largest(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}

/// How the attempts went. Useful time is what the epochs and cases took that are in the results.
const ATTEMPTS: &str = "
    SELECT json_build_object(
        'jobs', (SELECT count(*) FROM job),
        'attempts', (SELECT count(*) FROM attempt),
        'most_attempts_of_a_job', (SELECT max(n) FROM (SELECT count(*) n FROM attempt GROUP BY job) a),
        'outcomes', (SELECT json_object_agg(outcome, n) FROM
            (SELECT coalesce(outcome::text, 'none') AS outcome, count(*) AS n FROM attempt GROUP BY 1) o),
        'declined', (SELECT count(*) FROM attempt WHERE outcome = 'handed_back' AND failure_kind IS NOT NULL),
        'training_seconds_in_attempts', (SELECT sum(extract(epoch FROM attempt.ended - attempt.started))
            FROM attempt JOIN job ON job.id = attempt.job WHERE job.kind = 'train'),
        'training_seconds_of_results', (SELECT sum(train_seconds + eval_seconds) FROM epoch_log),
        'terms', (SELECT max(term) FROM leadership))";

impl Figures {
    /// Of the faults that were tried.
    ///
    /// # Errors
    ///
    /// The rows cannot be read.
    pub fn of(
        made: &[Made],
        progress: &Progress,
        heartbeats: &Heartbeats,
        cluster: &Cluster,
    ) -> Result<Self> {
        let mut kinds: BTreeMap<&'static str, Kind> = BTreeMap::new();
        for made in made {
            let kind = kinds.entry(made.fault.what.kind()).or_default();
            if made.missed.is_some() {
                kind.missed += 1;
                continue;
            }
            kind.made += 1;
            if let Some(next) = progress.after(made.ended) {
                kind.recoveries.push(next - made.ended);
            }
        }
        let sql = cluster.sql.patient();
        let delivered = sql.rows("SELECT id FROM attempt WHERE outcome = 'done'")?;
        Ok(Self {
            kinds,
            rows: serde_json::from_str(&sql.rows(ATTEMPTS)?.join(" "))?,
            wasted_steps: heartbeats.wasted(&delivered),
        })
    }

    /// How many faults were made.
    pub fn made(&self) -> usize {
        self.kinds.values().map(|kind| kind.made).sum()
    }

    fn recoveries(&self) -> Vec<f64> {
        let all = self.kinds.values().flat_map(|kind| &kind.recoveries);
        all.copied().collect()
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let kinds: BTreeMap<&str, Value> = self
            .kinds
            .iter()
            .map(|(name, kind)| {
                let facts = json!({
                    "made": kind.made, "missed": kind.missed,
                    "recovery_median_s": median(&kind.recoveries),
                    "recovery_max_s": largest(&kind.recoveries),
                });
                (*name, facts)
            })
            .collect();
        let all = self.recoveries();
        json!({
            "faults": self.made(), "kinds": kinds, "rows": self.rows,
            "training_steps_done_again": self.wasted_steps,
            "recovery_median_s": median(&all), "recovery_max_s": largest(&all),
        })
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = format!(
            "{:20} {:>5} {:>6} {:>16} {:>16}\n",
            "kind", "made", "missed", "recovery median", "recovery max"
        );
        let all = self.recoveries();
        let total = Kind {
            made: self.made(),
            missed: self.kinds.values().map(|kind| kind.missed).sum(),
            recoveries: all,
        };
        let kinds = self.kinds.iter().map(|(name, kind)| (*name, kind));
        for (name, kind) in kinds.chain([("all", &total)]) {
            // A text cannot fail to be written to.
            let _ = writeln!(
                text,
                "{name:20} {:>5} {:>6} {:>14.1} s {:>14.1} s",
                kind.made,
                kind.missed,
                median(&kind.recoveries),
                largest(&kind.recoveries)
            );
        }
        // Each fact of the rows on a line of its own.
        for (name, value) in self.rows.as_object().into_iter().flatten() {
            let _ = writeln!(text, "{}: {value}", name.replace('_', " "));
        }
        let _ = writeln!(text, "training steps done again: {}", self.wasted_steps);
        text
    }
}
