//! What failed in a sweep, grouped by cause: a hundred jobs that failed for one reason are one thing
//! to mend.

use halfheard_shared::ids::SweepId;
use halfheard_shared::text;
use halfheard_store::{Store, StoreError};
use std::collections::BTreeMap;

/// Jobs of a group that are named.
const NAMED: usize = 3;

/// Jobs that failed for the same reason.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct FailureGroup {
    /// The innermost error: what is to be mended.
    pub cause: String,
    /// The error and its causes, outermost first, of one of the attempts.
    pub errors: Vec<String>,
    /// The kind of failure: `permanent`, `retryable`, ...; empty where no attempt was made.
    pub kind: String,
    /// Whether the jobs were given up; otherwise they will be tried again.
    pub given_up: bool,
    /// How many jobs.
    pub jobs: i64,
    /// How many attempts at them failed.
    pub attempts: i64,
    /// Evaluations that failed only because their training did.
    pub evaluations_not_begun: i64,
    /// Some of the jobs: `train lnln on mosi, seed 1111`.
    pub examples: Vec<String>,
    /// The workers that met it.
    pub workers: Vec<String>,
}

impl FailureGroup {
    /// How many jobs are lost with it.
    pub fn all_jobs(&self) -> i64 {
        self.jobs + self.evaluations_not_begun
    }

    /// For people, several lines.
    pub fn describe(&self) -> String {
        let plural = |count: i64, one: &str| match count {
            1 => format!("1 {one}"),
            n => format!("{n} {one}s"),
        };
        let end = if self.given_up {
            "given up"
        } else {
            "will be tried again"
        };
        let kind = match self.kind.as_str() {
            "" => String::new(),
            kind => format!("{kind}; "),
        };
        let mut text = format!("{} ({kind}{end}): ", plural(self.jobs, "job"));
        text.push_str(&self.examples.join("; "));
        let more = self.jobs - self.examples.len() as i64;
        if more > 0 {
            text.push_str(&format!("; and {more} more"));
        }
        for (depth, error) in self.errors.iter().enumerate() {
            let lead = if depth == 0 {
                "    "
            } else {
                "      because: "
            };
            text.push_str(&format!("\n{lead}{error}"));
        }
        if self.evaluations_not_begun > 0 {
            text.push_str(&format!(
                "\n    {} of these models could not begin",
                plural(self.evaluations_not_begun, "evaluation")
            ));
        }
        if self.attempts > self.jobs {
            text.push_str(&format!(
                "\n    {} on {}",
                plural(self.attempts, "attempt"),
                self.workers.join(", ")
            ));
        } else if !self.workers.is_empty() {
            text.push_str(&format!("\n    on {}", self.workers.join(", ")));
        }
        text
    }

    /// In one line: how many jobs and why.
    pub fn headline(&self) -> String {
        let jobs = match self.all_jobs() {
            1 => "1 job".to_owned(),
            n => format!("{n} jobs"),
        };
        format!("{jobs}: {}", self.cause)
    }
}

/// A cause without what differs between jobs that met the same: numbers and hashes. `epoch 3` and
/// `epoch 4` of a loss that is not finite are one thing; so are steps, samples and byte offsets.
fn normal(cause: &str) -> String {
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

/// What failed in a sweep by cause: what was given up first, then what most jobs met.
///
/// # Errors
///
/// The database's.
pub async fn grouped(store: &Store, sweep: SweepId) -> Result<Vec<FailureGroup>, StoreError> {
    let rows = store.failures(sweep, NAMED as i32).await?;
    let mut groups: Vec<FailureGroup> = Vec::new();
    let mut known: BTreeMap<(bool, String, String), usize> = BTreeMap::new();
    for row in rows {
        let errors: Vec<String> = row.errors.iter().map(|text| text::plain(text)).collect();
        let cause = errors.last().cloned().unwrap_or_default();
        let (given_up, kind) = (row.given_up, row.failure_kind);
        let workers = row.workers.iter().map(|name| text::plain(name));
        let key = (given_up, kind.clone(), normal(&cause));
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
                workers: Vec::new(),
            });
        }
        let group = &mut groups[at];
        group.jobs += row.jobs;
        group.attempts += row.attempts;
        group.evaluations_not_begun += row.evaluations_not_begun;
        let room = NAMED - group.examples.len();
        group.examples.extend(row.examples.into_iter().take(room));
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
    fn numbers_and_hashes_do_not_make_another_cause() {
        assert_eq!(
            normal("the loss is not finite at epoch 3, step 12 of 40: loss = NaN"),
            normal("the loss is not finite at epoch 11, step 2 of 40: loss = NaN")
        );
        assert_eq!(
            normal("no dataset with BLAKE3 0123456789abcdef0123: not there"),
            normal("no dataset with BLAKE3 fedcba98765432100123: not there")
        );
        // Names with digits in them are names.
        assert_ne!(normal("`h_1` has shape [2]"), normal("`h_2` has shape [2]"));
        assert_ne!(normal("no tensor `a`"), normal("no tensor `b`"));
    }

    #[test]
    fn a_group_says_how_many_why_and_where() {
        let group = FailureGroup {
            cause: "no tensor".into(),
            errors: vec!["the encoder cannot be used".into(), "no tensor".into()],
            kind: "permanent".into(),
            given_up: true,
            jobs: 12,
            attempts: 12,
            evaluations_not_begun: 192,
            examples: vec!["train lnln on mosi, seed 1".into()],
            workers: vec!["gpu1".into()],
        };
        assert_eq!(group.headline(), "204 jobs: no tensor");
        assert_eq!(
            group.describe(),
            "12 jobs (permanent; given up): train lnln on mosi, seed 1; and 11 more\n    \
             the encoder cannot be used\n      because: no tensor\n    \
             192 evaluations of these models could not begin\n    on gpu1"
        );
    }
}
