//! Failures of a sweep, grouped by cause: a hundred jobs that failed for one reason are one problem.

use halfheard_shared::{
    ids::{JobId, SweepId},
    text::{self, count},
};
use halfheard_store::{Store, StoreError};
use std::collections::BTreeMap;

/// Maximum number of jobs named per group.
const EXAMPLES: usize = 3;

/// Jobs that failed for the same reason.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct FailureGroup {
    /// The innermost error.
    pub cause: String,
    /// The error and its causes, outermost first, of one of the attempts.
    pub errors: Vec<String>,
    /// The kind of failure, such as `permanent` or `retryable`; empty without an attempt.
    pub kind: String,
    /// Whether the jobs have failed for good; otherwise they will be retried.
    pub given_up: bool,
    /// The number of jobs.
    pub jobs: i64,
    /// The number of their failed attempts.
    pub attempts: i64,
    /// The number of evaluation jobs that failed only because their training job did.
    pub evaluations_not_begun: i64,
    /// Some of the jobs: `train lnln on mosi, seed 1111`.
    pub examples: Vec<String>,
    /// The ids of these jobs.
    pub example_jobs: Vec<JobId>,
    /// The workers with this failure.
    pub workers: Vec<String>,
}

impl FailureGroup {
    /// Returns the number of jobs that the failure affects.
    pub fn all_jobs(&self) -> i64 {
        self.jobs + self.evaluations_not_begun
    }

    /// Says what to do about it.
    pub fn advice(&self) -> &'static str {
        if !self.given_up {
            return "Nothing: these jobs are tried again after a delay. If it goes on, look at the workers below.";
        }
        match self.kind.as_str() {
            "out_of_memory" => {
                "Give these jobs a device with more memory (`min_memory` in the spec), or fewer workers per \
                 device; then retry."
            }
            "non_finite" => {
                "The loss became infinite or NaN, and would again with the same seed: lower the learning \
                 rate or another hyper-parameter in the spec, and submit it as another sweep."
            }
            "crashed" => {
                "The worker's process ended without a word, again and again. Look at its log and at the \
                 machine's (memory, driver); then retry."
            }
            "invalid" => {
                "The result could not be stored. Compare the versions of worker and coordinator; then retry."
            }
            "retryable" => "It did not pass by itself. Remove the last cause above; then retry.",
            _ => "It would fail again as it is. Remove the last cause above; then retry.",
        }
    }

    /// Describes the group in several lines.
    pub fn describe(&self) -> String {
        let end = if self.given_up {
            "failed for good"
        } else {
            "will be retried"
        };
        let kind = match self.kind.as_str() {
            "" => String::new(),
            kind => format!("{kind}; "),
        };
        let mut text = format!("{} ({kind}{end}): ", jobs(self.jobs));
        text.push_str(&self.examples.join("; "));
        let more = self.jobs - self.examples.len() as i64;
        if more > 0 {
            text.push_str(&format!("; and {more} more"));
        }
        for (depth, error) in self.errors.iter().enumerate() {
            let lead = if depth == 0 {
                "    "
            } else {
                "      caused by: "
            };
            text.push_str(&format!("\n{lead}{error}"));
        }
        if self.evaluations_not_begun > 0 {
            text.push_str(&format!(
                "\n    {} of these models could not start",
                count(
                    self.evaluations_not_begun.unsigned_abs() as usize,
                    "evaluation job"
                )
            ));
        }
        if self.attempts > self.jobs {
            text.push_str(&format!(
                "\n    {} on {}",
                count(self.attempts.unsigned_abs() as usize, "attempt"),
                self.workers.join(", ")
            ));
        } else if !self.workers.is_empty() {
            text.push_str(&format!("\n    on {}", self.workers.join(", ")));
        }
        text
    }
}

/// Formats `2 jobs`.
pub fn jobs(number: i64) -> String {
    count(usize::try_from(number).unwrap_or_default(), "job")
}

/// Replaces numbers and hashes in a cause: they differ between jobs with the same problem, such as the
/// epoch of a loss that is not finite, a step, or a byte offset.
fn normalize(cause: &str) -> String {
    let mut out = String::with_capacity(cause.len());
    let mut word = String::new();
    let flush = |word: &mut String, out: &mut String| {
        let digits = word.bytes().any(|b| b.is_ascii_digit());
        let number = digits && word.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        let hash = digits && word.len() >= 16 && word.bytes().all(|b| b.is_ascii_hexdigit());
        out.push_str(if number || hash { "#" } else { word });
        word.clear();
    };
    for c in cause.chars() {
        if c.is_ascii_alphanumeric() || c == '.' || c == '_' {
            word.push(c);
        } else {
            flush(&mut word, &mut out);
            out.push(c);
        }
    }
    flush(&mut word, &mut out);
    out
}

/// Returns the failures of a sweep by cause: those for good first, then by the number of jobs.
///
/// # Errors
///
/// The database fails.
pub async fn load(store: &Store, sweep: SweepId) -> Result<Vec<FailureGroup>, StoreError> {
    let rows = store.failures(sweep, EXAMPLES as i32).await?;
    let mut groups: Vec<FailureGroup> = Vec::new();
    let mut known: BTreeMap<(bool, String, String), usize> = BTreeMap::new();
    for row in rows {
        let errors: Vec<String> = row.errors.iter().map(|text| text::plain(text)).collect();
        let cause = errors.last().cloned().unwrap_or_default();
        let (given_up, kind) = (row.given_up, row.failure_kind);
        let workers = row.workers.iter().map(|name| text::plain(name));
        let key = (given_up, kind.clone(), normalize(&cause));
        let at = *known.entry(key).or_insert(groups.len());
        if at == groups.len() {
            groups.push(FailureGroup {
                cause,
                errors,
                kind,
                given_up,
                jobs: 0,
                attempts: 0,
                evaluations_not_begun: 0,
                examples: Vec::new(),
                example_jobs: Vec::new(),
                workers: Vec::new(),
            });
        }
        let group = &mut groups[at];
        group.jobs += row.jobs;
        group.attempts += row.attempts;
        group.evaluations_not_begun += row.evaluations_not_begun;
        let room = EXAMPLES - group.examples.len();
        group.examples.extend(row.examples.into_iter().take(room));
        let ids = row.example_jobs.into_iter().take(room);
        group.example_jobs.extend(ids.map(JobId));
        for worker in workers {
            if !group.workers.contains(&worker) {
                group.workers.push(worker);
            }
        }
    }
    groups.sort_by_key(|group| (!group.given_up, -group.all_jobs()));
    Ok(groups)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_that_differ_in_numbers_and_hashes_are_one() {
        assert_eq!(
            normalize("the loss is not finite at epoch 3, step 12 of 40: loss = NaN"),
            normalize("the loss is not finite at epoch 11, step 2 of 40: loss = NaN")
        );
        assert_eq!(
            normalize("no dataset with BLAKE3 0123456789abcdef0123: not there"),
            normalize("no dataset with BLAKE3 fedcba98765432100123: not there")
        );
        // Digits within names count.
        assert_ne!(
            normalize("`h_1` has shape [2]"),
            normalize("`h_2` has shape [2]")
        );
        assert_ne!(normalize("no tensor `a`"), normalize("no tensor `b`"));
    }

    #[test]
    fn group_is_described_by_jobs_cause_and_workers() {
        let group = FailureGroup {
            cause: "no tensor".into(),
            errors: vec!["the encoder cannot be used".into(), "no tensor".into()],
            kind: "permanent".into(),
            given_up: true,
            jobs: 12,
            attempts: 12,
            evaluations_not_begun: 192,
            examples: vec!["train lnln on mosi, seed 1".into()],
            example_jobs: Vec::new(),
            workers: vec!["gpu1".into()],
        };
        assert_eq!(
            format!("{}: {}", jobs(group.all_jobs()), group.cause),
            "204 jobs: no tensor"
        );
        assert_eq!(
            group.describe(),
            "12 jobs (permanent; failed for good): train lnln on mosi, seed 1; and 11 more\n    \
             the encoder cannot be used\n      caused by: no tensor\n    \
             192 evaluation jobs of these models could not start\n    on gpu1"
        );
    }
}
