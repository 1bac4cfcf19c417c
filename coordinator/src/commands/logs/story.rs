//! What became of a job: its attempts, its epochs, its end.

use super::output::{Header, lines, title};
use chrono::{DateTime, Utc};
use halfheard_shared::{
    ids::{AttemptId, JobId},
    text::plain,
};
use halfheard_store::{
    JobKind, JobState, Store, StoreError,
    output::{LoggedAttempt, NamedJob},
    trainings::{AttemptRow, EpochRow},
};
use serde::Serialize;
use std::{
    collections::{BTreeMap, HashSet},
    fmt,
};

/// One thing that happened.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum Line {
    /// Which job it is, and its state now.
    Job {
        job: JobId,
        kind: JobKind,
        method: String,
        variant: String,
        dataset: String,
        seed: i64,
        case_id: Option<String>,
        state: JobState,
        #[serde(skip)]
        title: String,
    },
    /// A worker was given the job.
    AttemptBegan {
        attempt: AttemptId,
        worker: String,
        host: String,
        device: String,
        version: String,
        granted: DateTime<Utc>,
        started: Option<DateTime<Utc>>,
        resumed_after_epoch: Option<i32>,
    },
    /// An attempt ended.
    AttemptEnded {
        attempt: AttemptId,
        worker: String,
        ended: Option<DateTime<Utc>>,
        outcome: String,
        failure_kind: Option<String>,
        errors: Vec<String>,
    },
    /// An epoch was trained.
    Epoch {
        epoch: i32,
        losses: BTreeMap<String, Option<f64>>,
        metrics: BTreeMap<String, Option<f64>>,
        train_seconds: f64,
        eval_seconds: f64,
        best_for: Vec<String>,
    },
    /// What an external program wrote.
    Output {
        attempt: AttemptId,
        bytes: u64,
        stored: bool,
        complete: bool,
        output: String,
        #[serde(skip)]
        header: String,
    },
    /// The metrics of a completed evaluation.
    Results {
        metrics: BTreeMap<String, Option<f64>>,
    },
    /// The job ended.
    JobEnded {
        state: JobState,
        finished: Option<DateTime<Utc>>,
        last_error: Option<String>,
    },
}

fn at(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// `mae 0.9012, corr -`.
fn values(values: &BTreeMap<String, Option<f64>>) -> String {
    let each = values.iter().map(|(name, value)| match value {
        Some(value) => format!("{} {value:.4}", plain(name)),
        None => format!("{} -", plain(name)),
    });
    each.collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Job { title, state, .. } => write!(f, "{}: {state}", plain(title)),
            Self::AttemptBegan {
                attempt,
                worker,
                host,
                device,
                version,
                granted,
                started,
                resumed_after_epoch,
            } => {
                let place = plain(&format!("{worker} ({host}, {device}, {version})"));
                let time = at(started.unwrap_or(*granted));
                let what = if started.is_some() {
                    "began"
                } else {
                    "granted"
                };
                write!(f, "{time}  attempt {} {what} on {place}", attempt.short())?;
                match resumed_after_epoch {
                    Some(epoch @ 1..) => write!(f, ", after epoch {epoch}"),
                    _ => Ok(()),
                }
            }
            Self::AttemptEnded {
                attempt,
                ended,
                outcome,
                failure_kind,
                errors,
                ..
            } => {
                let time = ended.map_or_else(String::new, |ended| format!("{}  ", at(ended)));
                let outcome = outcome.replace('_', " ");
                write!(f, "{time}attempt {} {outcome}", attempt.short())?;
                if let Some(kind) = failure_kind {
                    write!(f, " ({})", plain(kind))?;
                }
                for (depth, error) in errors.iter().enumerate() {
                    let lead = if depth == 0 { "" } else { "  caused by: " };
                    write!(f, "\n    {lead}{}", plain(error))?;
                }
                Ok(())
            }
            Self::Epoch {
                epoch,
                losses,
                metrics,
                train_seconds,
                eval_seconds,
                best_for,
            } => {
                write!(f, "epoch {epoch}: {}", values(losses))?;
                if !metrics.is_empty() {
                    write!(f, "; {}", values(metrics))?;
                }
                write!(f, " ({:.1} s)", train_seconds + eval_seconds)?;
                match best_for.is_empty() {
                    true => Ok(()),
                    false => write!(f, ", best for {}", plain(&best_for.join(", "))),
                }
            }
            Self::Output { header, output, .. } => write!(f, "{header}\n{}", lines(output)),
            Self::Results { metrics } => write!(f, "{}", values(metrics)),
            Self::JobEnded {
                state,
                finished,
                last_error,
            } => {
                let time = finished.map_or_else(String::new, |at_| format!("{}  ", at(at_)));
                write!(f, "{time}job {state}")?;
                match last_error.as_ref().filter(|_| *state == JobState::Failed) {
                    Some(error) => write!(f, ": {}", plain(error)),
                    None => Ok(()),
                }
            }
        }
    }
}

/// What was told of a job so far.
pub(super) struct Story {
    job: NamedJob,
    /// Whether the heading was told.
    begun: bool,
    /// Attempts that began, and those that ended.
    attempts: (HashSet<AttemptId>, HashSet<AttemptId>),
    /// The last epoch.
    epoch: i32,
    ended: Option<JobState>,
}

impl Story {
    /// Nothing is told yet.
    pub(super) fn new(job: NamedJob) -> Self {
        Self {
            job,
            begun: false,
            attempts: Default::default(),
            epoch: 0,
            ended: None,
        }
    }

    /// How the job ended, once that was told.
    pub(super) fn ended(&self) -> Option<JobState> {
        self.ended
    }

    /// What happened since the last call: all that did, the first time.
    ///
    /// # Errors
    ///
    /// The database fails; then nothing counts as told.
    pub(super) async fn news(&mut self, store: &Store) -> Result<Vec<Line>, StoreError> {
        // The state first: what led to an end is then among what is read after it.
        let training = store.training(self.job.id).await?;
        let attempts = store.attempts(self.job.id).await?;
        let epochs = match self.job.kind {
            JobKind::Train => store.training_epochs(&[self.job.id]).await?,
            _ => Vec::new(),
        };
        let over = matches!(
            training.state,
            JobState::Done | JobState::Failed | JobState::Cancelled
        );
        let results = match (training.state, training.train_job) {
            (JobState::Done, Some(model)) => self.results(store, model).await?,
            _ => None,
        };
        let mut outputs = match attempts.iter().any(|attempt| self.has_ended(attempt)) {
            true => store.logged_attempts(self.job.id).await?,
            false => Vec::new(),
        };
        outputs.retain(|attempt| attempt.output.is_some());
        let mut news = Vec::new();
        if !std::mem::replace(&mut self.begun, true) {
            news.push(self.heading(training.state));
            // Of what was before, the last one only.
            outputs.drain(..outputs.len().saturating_sub(1));
        }
        let ended = self.tell_attempts(&attempts, &mut news);
        self.tell_epochs(epochs, &mut news);
        outputs.retain(|attempt| ended.contains(&attempt.attempt));
        news.extend(outputs.iter().filter_map(output_line));
        if over && self.ended.replace(training.state).is_none() {
            news.extend(results);
            news.push(Line::JobEnded {
                state: training.state,
                finished: training.finished,
                last_error: training.last_error,
            });
        }
        Ok(news)
    }

    fn heading(&self, state: JobState) -> Line {
        let job = &self.job;
        Line::Job {
            job: job.id,
            kind: job.kind,
            method: job.method.clone(),
            variant: job.variant.clone(),
            dataset: job.dataset.clone(),
            seed: job.seed,
            case_id: job.case.clone(),
            state,
            title: title(job),
        }
    }

    fn has_ended(&self, attempt: &AttemptRow) -> bool {
        attempt.outcome.is_some() && !self.attempts.1.contains(&attempt.attempt)
    }

    /// Returns the attempts whose ends were told.
    fn tell_attempts(&mut self, attempts: &[AttemptRow], news: &mut Vec<Line>) -> Vec<AttemptId> {
        let mut ended = Vec::new();
        for row in attempts {
            if self.attempts.0.insert(row.attempt) {
                news.push(Line::AttemptBegan {
                    attempt: row.attempt,
                    worker: row.worker.clone(),
                    host: row.host.clone(),
                    device: row.device.clone(),
                    version: row.version.clone(),
                    granted: row.granted,
                    started: row.started,
                    resumed_after_epoch: row.resumed_after_epoch,
                });
            }
            let Some(outcome) = row.outcome.filter(|_| self.has_ended(row)) else {
                continue;
            };
            self.attempts.1.insert(row.attempt);
            news.push(Line::AttemptEnded {
                attempt: row.attempt,
                worker: row.worker.clone(),
                ended: row.ended,
                outcome: outcome.to_string(),
                failure_kind: row.failure_kind.clone(),
                errors: row.errors.clone(),
            });
            ended.push(row.attempt);
        }
        ended
    }

    fn tell_epochs(&mut self, epochs: Vec<EpochRow>, news: &mut Vec<Line>) {
        for row in epochs.into_iter().filter(|row| row.epoch > self.epoch) {
            news.push(Line::Epoch {
                epoch: row.epoch,
                losses: row.losses,
                metrics: row.metrics,
                train_seconds: row.train_seconds,
                eval_seconds: row.eval_seconds,
                best_for: row.best_for,
            });
        }
        let told = news.iter().filter_map(|line| match line {
            Line::Epoch { epoch, .. } => Some(*epoch),
            _ => None,
        });
        self.epoch = told.max().unwrap_or(self.epoch);
    }

    async fn results(&self, store: &Store, model: JobId) -> Result<Option<Line>, StoreError> {
        let cases = store.training_cases(&[model]).await?;
        let own = cases.into_iter().find(|case| case.job == self.job.id);
        Ok(own.map(|case| Line::Results {
            metrics: case.metrics,
        }))
    }
}

fn output_line(attempt: &LoggedAttempt) -> Option<Line> {
    let kept = attempt.output.as_ref()?;
    let complete = kept.bytes <= kept.tail.len() as u64;
    let header = Header {
        attempt,
        kept,
        shown: (!complete).then_some(kept.tail.len() as u64),
    };
    Some(Line::Output {
        attempt: attempt.attempt,
        bytes: kept.bytes,
        stored: kept.stored,
        complete,
        header: format!("written by its program in {header}"),
        output: kept.tail.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use halfheard_store::job::AttemptOutcome;

    fn story() -> Story {
        Story::new(NamedJob {
            id: JobId::derive(&[b"j"]),
            kind: JobKind::Train,
            method: "lnln".to_owned(),
            variant: String::new(),
            dataset: "mosi".to_owned(),
            seed: 1,
            case: None,
        })
    }

    fn attempt(name: &str, outcome: Option<AttemptOutcome>) -> AttemptRow {
        AttemptRow {
            attempt: AttemptId::derive(&[name.as_bytes()]),
            worker: "gpu7\x1b[2J".to_owned(),
            host: "gpu7".to_owned(),
            device: "cpu".to_owned(),
            version: "0.1.0".to_owned(),
            processor: String::new(),
            granted: DateTime::UNIX_EPOCH,
            started: Some(DateTime::UNIX_EPOCH),
            resumed_after_epoch: Some(2),
            ended: outcome.map(|_| DateTime::UNIX_EPOCH),
            outcome,
            failure_kind: outcome.map(|_| "retryable".to_owned()),
            errors: vec!["training".to_owned(), "no more threads".to_owned()],
            peak_memory: None,
        }
    }

    fn told(news: &[Line]) -> Vec<String> {
        news.iter().map(Line::to_string).collect()
    }

    #[test]
    fn each_thing_is_told_once_and_drives_no_terminal() {
        let mut story = story();
        let mut news = Vec::new();
        story.tell_attempts(&[attempt("a", None)], &mut news);
        let id = AttemptId::derive(&[b"a"]).short();
        let began = format!(
            "1970-01-01 00:00:00 UTC  attempt {id} began on gpu7\u{fffd}[2J (gpu7, cpu, 0.1.0), after epoch 2"
        );
        assert_eq!(told(&news), [began]);
        let mut news = Vec::new();
        let failed = attempt("a", Some(AttemptOutcome::Failed));
        story.tell_attempts(std::slice::from_ref(&failed), &mut news);
        story.tell_attempts(&[failed], &mut news);
        let ended = format!(
            "1970-01-01 00:00:00 UTC  attempt {id} failed (retryable)\n    training\n      caused by: no more threads"
        );
        assert_eq!(told(&news), [ended]);
    }

    #[test]
    fn epochs_are_told_as_they_come() {
        let mut story = story();
        let epoch = |epoch| EpochRow {
            job: JobId::derive(&[b"j"]),
            epoch,
            losses: [("loss".to_owned(), Some(0.5))].into(),
            metrics: [("corr".to_owned(), None), ("mae".to_owned(), Some(1.25))].into(),
            train_seconds: 1.0,
            eval_seconds: 0.5,
            best_for: vec!["mae".to_owned()],
        };
        let mut news = Vec::new();
        story.tell_epochs(vec![epoch(1)], &mut news);
        story.tell_epochs(vec![epoch(1), epoch(2)], &mut news);
        let lines = told(&news);
        assert_eq!(
            lines[0],
            "epoch 1: loss 0.5000; corr -, mae 1.2500 (1.5 s), best for mae"
        );
        assert_eq!(lines.len(), 2, "{lines:?}");
        let json = serde_json::to_value(&news[1]).unwrap();
        assert_eq!(
            (&json["event"], &json["epoch"]),
            (&"epoch".into(), &2.into())
        );
        assert!(json["metrics"]["corr"].is_null());
    }
}
