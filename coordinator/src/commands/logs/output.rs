//! What an external program wrote to standard error.

use crate::{
    config::Settings,
    housekeeping::{own_store, size::Bytes},
    local::Database,
    output::{Output, say, say_json},
};
use chrono::{DateTime, Utc};
use halfheard_shared::{
    artifacts::{ArtifactStore, Key},
    error::{Hint, hinted},
    ids::{AttemptId, JobId},
    text::{plain, printable},
};
use halfheard_store::{
    JobKind,
    output::{KeptOutput, LoggedAttempt, NamedJob},
};
use serde::Serialize;
use std::{
    fmt,
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::ExitCode,
};

/// The most bytes of an output that are printed as JSON, which is made in memory.
const MAX_JSON: u64 = 64 << 20;
/// The most bytes of an output that are read at all.
const MAX_WHOLE: u64 = 4 << 30;
/// The most bytes that are printed at once: a line may have no end.
const MAX_LINE: u64 = 64 << 10;

/// Why there is nothing to print.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogsError {
    #[error("{job} has no output: {why}")]
    NoOutput {
        job: String,
        why: String,
        /// The errors of its last attempt.
        errors: Vec<String>,
    },
    #[error("{job} has {found} whose id begins with `{text}`")]
    Attempt {
        job: String,
        text: String,
        found: &'static str,
        known: Vec<String>,
    },
    #[error("the whole output of attempt {attempt} is not in the artifact store")]
    NotStored { attempt: AttemptId },
}

impl Hint for LogsError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::NoOutput { errors, .. } if !errors.is_empty() => Some(format!(
                "its last error: {}",
                errors
                    .iter()
                    .map(|text| plain(text))
                    .collect::<Vec<_>>()
                    .join(": ")
            )),
            Self::NoOutput { .. } => None,
            Self::Attempt { known, .. } if known.is_empty() => None,
            Self::Attempt { known, .. } => Some(format!("its attempts: {}", known.join(", "))),
            Self::NotStored { .. } => Some("leave out --all to see its end".to_owned()),
        }
    }
}

/// What is printed as JSON.
#[derive(Serialize)]
struct Log<'a> {
    job: JobId,
    kind: JobKind,
    method: &'a str,
    variant: &'a str,
    dataset: &'a str,
    seed: i64,
    case_id: Option<&'a str>,
    attempt: AttemptId,
    worker: &'a str,
    host: &'a str,
    granted: DateTime<Utc>,
    ended: Option<DateTime<Utc>>,
    outcome: Option<&'a str>,
    failure_kind: Option<&'a str>,
    errors: &'a [String],
    bytes: u64,
    stored: bool,
    /// Whether `output` is all of it.
    complete: bool,
    output: &'a str,
}

/// Prints the output of one attempt, the last one with output unless another is wanted: its end, or
/// with `all` the whole, from the artifact store.
///
/// # Errors
///
/// The job has no output or no such attempt; the database or the artifact store fails.
pub(super) async fn print(
    job: &NamedJob,
    wanted: Option<&str>,
    all: bool,
    settings: &Settings,
    database: &Database,
) -> anyhow::Result<ExitCode> {
    let attempts = database.logged_attempts(job.id).await?;
    let attempt = choose(job, &attempts, wanted)?;
    let Some(kept) = &attempt.output else {
        return Err(no_output(job, Some(attempt)).into());
    };
    let output = Output::of(settings);
    let complete = kept.bytes <= kept.tail.len() as u64;
    if !all || complete {
        if output.is_json() {
            return print_json(job, attempt, kept, complete, &kept.tail);
        }
        output.note(Header {
            attempt,
            kept,
            shown: (!complete).then_some(kept.tail.len() as u64),
        });
        if !kept.tail.is_empty() {
            say(&lines(&kept.tail));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let (id, key) = (attempt.attempt, Key::Output(attempt.attempt));
    if !kept.stored {
        return Err(LogsError::NotStored { attempt: id }.into());
    }
    let artifacts = own_store::open_own(settings, database).await?;
    let missing = || LogsError::NotStored { attempt: id };
    if output.is_json() {
        let whole = artifacts.get(&key, MAX_JSON).await?.ok_or_else(missing)?;
        // Of a program that never stops writing, the first part is kept.
        let complete = whole.len() as u64 >= kept.bytes;
        let text = String::from_utf8_lossy(&whole);
        return print_json(job, attempt, kept, complete, &text);
    }
    let file = fetch(&artifacts, &key).await?.ok_or_else(missing)?;
    output.note(Header {
        attempt,
        kept,
        shown: None,
    });
    let bytes = print_whole(&file, &mut anstream::stdout().lock())?;
    if bytes < kept.bytes {
        output.note(format_args!("only its first {} were kept", Bytes(bytes)));
    }
    Ok(ExitCode::SUCCESS)
}

/// The attempt to print: the one that was asked for, or the last one with output.
fn choose<'a>(
    job: &NamedJob,
    attempts: &'a [LoggedAttempt],
    wanted: Option<&str>,
) -> Result<&'a LoggedAttempt, LogsError> {
    let Some(text) = wanted else {
        let mut with_output = attempts.iter().filter(|attempt| attempt.output.is_some());
        return with_output
            .next_back()
            .ok_or_else(|| no_output(job, attempts.last()));
    };
    let digits = text.replace('-', "").to_lowercase();
    let simple = |attempt: &LoggedAttempt| attempt.attempt.0.simple().to_string();
    let mut found = attempts
        .iter()
        .filter(|attempt| !digits.is_empty() && simple(attempt).starts_with(&digits));
    match (found.next(), found.next()) {
        (Some(only), None) => Ok(only),
        (several, _) => Err(LogsError::Attempt {
            job: title(job),
            text: text.to_owned(),
            found: match several {
                Some(_) => "several attempts",
                None => "no attempt",
            },
            known: attempts
                .iter()
                .map(|attempt| attempt.attempt.short())
                .collect(),
        }),
    }
}

fn no_output(job: &NamedJob, attempt: Option<&LoggedAttempt>) -> LogsError {
    let why = match attempt {
        None => "no worker has begun it".to_owned(),
        Some(attempt) => format!(
            "attempt {} wrote none, and only external programs do",
            attempt.attempt.short()
        ),
    };
    LogsError::NoOutput {
        job: title(job),
        why,
        errors: attempt.map_or_else(Vec::new, |attempt| attempt.errors.clone()),
    }
}

/// `train my-model on mosi, seed 1111 (3f2a91c0)`.
pub(super) fn title(job: &NamedJob) -> String {
    let model = match job.variant.as_str() {
        "" => job.method.clone(),
        variant => format!("{}/{variant}", job.method),
    };
    let case = job.case.as_ref().map(|case| format!(", {case}"));
    let id = job.id.short();
    match job.kind {
        JobKind::Noop => format!("no-op job {id}"),
        kind => format!(
            "{kind} {model} on {}, seed {}{} ({id})",
            job.dataset,
            job.seed,
            case.unwrap_or_default()
        ),
    }
}

/// One line about an attempt and its output.
pub(super) struct Header<'a> {
    pub(super) attempt: &'a LoggedAttempt,
    pub(super) kept: &'a KeptOutput,
    /// How many of its last bytes follow, if not all.
    pub(super) shown: Option<u64>,
}

impl fmt::Display for Header<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let attempt = self.attempt;
        let at = |time: DateTime<Utc>| time.format("%Y-%m-%d %H:%M:%S UTC");
        write!(
            f,
            "attempt {} on {} ({}): ",
            attempt.attempt.short(),
            plain(&attempt.worker),
            plain(&attempt.host)
        )?;
        match (&attempt.outcome, attempt.ended) {
            (Some(outcome), Some(ended)) => {
                write!(f, "{}", outcome.replace('_', " "))?;
                if let Some(kind) = &attempt.failure_kind {
                    write!(f, " ({})", plain(kind))?;
                }
                write!(f, ", {}", at(ended))?;
            }
            _ => write!(f, "running since {}", at(attempt.granted))?,
        }
        let bytes = Bytes(self.kept.bytes);
        match self.shown {
            None => write!(f, "; {bytes}"),
            Some(shown) if self.kept.stored => {
                write!(
                    f,
                    "; the last {} of {bytes} (--all prints all)",
                    Bytes(shown)
                )
            }
            Some(shown) => write!(
                f,
                "; the last {} of {bytes}, the rest was not kept",
                Bytes(shown)
            ),
        }
    }
}

/// Text of a program with line breaks where it went back to the start of a line, as progress bars do.
pub(super) fn lines(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\r', "\n")
}

fn print_json(
    job: &NamedJob,
    attempt: &LoggedAttempt,
    kept: &KeptOutput,
    complete: bool,
    output: &str,
) -> anyhow::Result<ExitCode> {
    let log = Log {
        job: job.id,
        kind: job.kind,
        method: &job.method,
        variant: &job.variant,
        dataset: &job.dataset,
        seed: job.seed,
        case_id: job.case.as_deref(),
        attempt: attempt.attempt,
        worker: &attempt.worker,
        host: &attempt.host,
        granted: attempt.granted,
        ended: attempt.ended,
        outcome: attempt.outcome.as_deref(),
        failure_kind: attempt.failure_kind.as_deref(),
        errors: &attempt.errors,
        bytes: kept.bytes,
        stored: kept.stored,
        complete,
        output,
    };
    say_json(&serde_json::to_string(&log)?);
    Ok(ExitCode::SUCCESS)
}

/// Fetches an output into a file; `None` if the store does not have it.
async fn fetch(artifacts: &ArtifactStore, key: &Key) -> anyhow::Result<Option<tempfile::TempPath>> {
    let file = tempfile::NamedTempFile::new()
        .map_err(|error| hinted(error.to_string(), "set TMPDIR to a folder with room"))?
        .into_temp_path();
    let found = artifacts.fetch_to(key, &file, MAX_WHOLE).await?;
    Ok(found.then_some(file))
}

/// Prints a file as text without what would drive a terminal. Returns its bytes.
fn print_whole(path: &Path, out: &mut impl Write) -> std::io::Result<u64> {
    let mut reader = BufReader::new(std::fs::File::open(path)?);
    let (mut line, mut bytes) = (Vec::new(), 0);
    loop {
        line.clear();
        let read = (&mut reader).take(MAX_LINE).read_until(b'\n', &mut line)?;
        if read == 0 {
            break;
        }
        bytes += read as u64;
        let text = lines(&String::from_utf8_lossy(&line));
        out.write_all(printable(&text).as_bytes())?;
    }
    out.flush()?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn job() -> NamedJob {
        NamedJob {
            id: JobId::derive(&[b"j"]),
            kind: JobKind::Eval,
            method: "my-model".to_owned(),
            variant: "wide".to_owned(),
            dataset: "mosi".to_owned(),
            seed: 1111,
            case: Some("r=0.3".to_owned()),
        }
    }

    fn attempt(id: u128, tail: Option<&str>) -> LoggedAttempt {
        let at = |seconds| DateTime::from_timestamp(seconds, 0).unwrap();
        LoggedAttempt {
            attempt: AttemptId(Uuid::from_u128(id << 96)),
            worker: "gpu1\n".to_owned(),
            host: "host".to_owned(),
            granted: at(1_800_000_000),
            ended: Some(at(1_800_000_060)),
            outcome: Some("failed".to_owned()),
            failure_kind: Some("permanent".to_owned()),
            errors: vec![
                "the program exited with 1".to_owned(),
                "no \x1b module".to_owned(),
            ],
            output: tail.map(|tail| KeptOutput {
                tail: tail.to_owned(),
                bytes: 1_200_000,
                stored: true,
            }),
        }
    }

    #[test]
    fn last_attempt_with_output_is_chosen_unless_another_is_named() {
        let attempts = [
            attempt(0x1111_1111, Some("one")),
            attempt(0x1122_2222, Some("two")),
            attempt(0x3333_3333, None),
        ];
        let chosen = |text: Option<&str>| {
            choose(&job(), &attempts, text).map(|attempt| attempt.attempt.short())
        };
        assert_eq!(chosen(None).unwrap(), "11222222");
        assert_eq!(chosen(Some("1111-1111")).unwrap(), "11111111");
        assert_eq!(chosen(Some("33")).unwrap(), "33333333");
        for (text, found) in [
            ("11", "several attempts"),
            ("4", "no attempt"),
            ("", "no attempt"),
        ] {
            let error = chosen(Some(text)).unwrap_err();
            assert!(error.to_string().contains(found), "{error}");
            assert!(error.hint().unwrap().contains("11222222, 33333333"));
        }
    }

    #[test]
    fn job_without_output_shows_its_errors() {
        let error = choose(&job(), &[attempt(0x3333_3333, None)], None).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "eval my-model/wide on mosi, seed 1111, r=0.3 ({}) has no output: attempt 33333333 \
                 wrote none, and only external programs do",
                job().id.short()
            )
        );
        assert_eq!(
            error.hint().unwrap(),
            "its last error: the program exited with 1: no \u{fffd} module"
        );
        let error = choose(&job(), &[], None).unwrap_err();
        assert!(
            error.to_string().ends_with("no worker has begun it"),
            "{error}"
        );
        assert_eq!(error.hint(), None);
    }

    #[test]
    fn header_says_who_and_how_much() {
        let attempt = attempt(0x1111_1111, Some("end"));
        let mut kept = attempt.output.clone().unwrap();
        let header = |kept: &KeptOutput| {
            Header {
                attempt: &attempt,
                kept,
                shown: Some(65_536),
            }
            .to_string()
        };
        assert_eq!(
            header(&kept),
            "attempt 11111111 on gpu1  (host): failed (permanent), 2027-01-15 08:01:00 UTC; the last \
             65.5 kB of 1.2 MB (--all prints all)"
        );
        kept.stored = false;
        assert!(header(&kept).ends_with("of 1.2 MB, the rest was not kept"));
    }

    #[test]
    fn whole_output_is_printed_without_control_sequences() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("output");
        let long = "x".repeat(3 * MAX_LINE as usize);
        let text = format!("epoch 1\r50%\r100%\r\n\x1b]0;title\x07{long}\n\x1b[31mred\x1b[0m");
        std::fs::write(&path, &text).unwrap();
        let mut out = Vec::new();
        assert_eq!(print_whole(&path, &mut out).unwrap(), text.len() as u64);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            format!("epoch 1\n50%\n100%\n\u{fffd}]0;title\u{fffd}{long}\n\x1b[31mred\x1b[0m")
        );
    }
}
