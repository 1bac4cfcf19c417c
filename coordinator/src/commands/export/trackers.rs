//! Training runs for experiment trackers, some at a time.

use crate::{
    config::Settings,
    local::connect::Database,
    output::{say, say_json},
};
use anyhow::Context as _;
use chrono::{DateTime, Utc};
use halfheard_results::export::trackers::{
    mlflow,
    run::{Key, Point, Run, Status, Sweep, TrackerError},
    wandb,
};
use halfheard_shared::{error::hinted, ids::JobId, text::count};
use halfheard_store::{
    JobState, Store,
    map::MapRow,
    trainings::{AttemptRow, CaseRow, EpochRow, Training},
};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Trainings whose epochs and results are in memory at once.
const AT_ONCE: usize = 32;

/// Which tracker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tracker {
    Mlflow,
    Wandb,
}

/// What writes runs.
enum Writer {
    Mlflow(mlflow::Writer),
    Wandb(wandb::Writer),
}

impl Writer {
    fn write(&mut self, run: &Run) -> Result<(), TrackerError> {
        match self {
            Self::Mlflow(writer) => writer.write(run),
            Self::Wandb(writer) => writer.write(run),
        }
    }
}

/// Exports a sweep's trainings into a new folder, which appears when it is complete.
///
/// # Errors
///
/// There is something at `out`; an unknown sweep; the database cannot be reached; the disk's.
pub(super) async fn run(
    tracker: Tracker,
    sweep: &str,
    out: &Path,
    settings: &Settings,
) -> anyhow::Result<ExitCode> {
    let out = std::path::absolute(out).context("cannot find the folder")?;
    refuse_existing(&out)?;
    let database = Database::open(settings).await?;
    let outcome = export(tracker, sweep, &out, &database).await;
    database.close().await;
    let runs = outcome?;
    let folder = out.display();
    match settings.json {
        true => {
            say_json(&serde_json::json!({ "folder": folder.to_string(), "runs": runs }).to_string())
        }
        false => say(&format!("{folder}: {}", count(runs, "run"))),
    }
    Ok(ExitCode::SUCCESS)
}

fn refuse_existing(out: &Path) -> anyhow::Result<()> {
    // An empty folder is replaced.
    let is_free = match fs::read_dir(out) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    };
    if is_free {
        return Ok(());
    }
    let message = format!("{} already exists", out.display());
    Err(hinted(message, "name a new folder: nothing is overwritten").into())
}

async fn export(tracker: Tracker, sweep: &str, out: &Path, store: &Store) -> anyhow::Result<usize> {
    let row = store.find_sweep(sweep).await?;
    let sweep = Sweep {
        id: row.id.0.simple().to_string(),
        name: row.name,
        owner: row.terms.owner,
        created: row.created,
    };
    let parent = out
        .parent()
        .map_or_else(|| PathBuf::from("/"), Path::to_owned);
    let building = tempfile::Builder::new()
        .prefix(".halfheard-export-")
        .tempdir_in(&parent)
        .with_context(|| format!("cannot write to {}", parent.display()))?;
    let mut writer = match tracker {
        Tracker::Mlflow => Writer::Mlflow(mlflow::Writer::new(building.path(), out, &sweep)?),
        Tracker::Wandb => Writer::Wandb(wandb::Writer::new(building.path(), &sweep)),
    };
    let mut runs = 0;
    for some in store.map(row.id, &[]).await?.chunks(AT_ONCE) {
        for run in load(store, some).await? {
            writer.write(&run)?;
            runs += 1;
        }
    }
    readable(building.path())?;
    fs::rename(building.path(), out).with_context(|| format!("cannot create {}", out.display()))?;
    // It is not there any more.
    let _ = building.keep();
    Ok(runs)
}

/// Gives the folder the mode of any other: a temporary one is its owner's alone.
fn readable(folder: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = fs::metadata(folder)?.permissions().mode();
    fs::set_permissions(folder, fs::Permissions::from_mode(mode | 0o055))
        .context("cannot set the mode of the folder")
}

/// The runs of those of these trainings that have begun.
async fn load(store: &Store, rows: &[MapRow]) -> anyhow::Result<Vec<Run>> {
    let jobs: Vec<JobId> = rows.iter().map(|row| row.job).collect();
    let mut epochs: BTreeMap<JobId, Vec<EpochRow>> = BTreeMap::new();
    for epoch in store.training_epochs(&jobs).await? {
        epochs.entry(epoch.job).or_default().push(epoch);
    }
    let mut cases: BTreeMap<JobId, Vec<CaseRow>> = BTreeMap::new();
    for case in store.training_cases(&jobs).await? {
        cases.entry(case.train_job).or_default().push(case);
    }
    let mut runs = Vec::new();
    for job in jobs {
        let training = store.training(job).await?;
        let Some(started) = training.started else {
            continue;
        };
        let attempts = store.attempts(job).await?;
        let epochs = epochs.remove(&job).unwrap_or_default();
        let cases = cases.remove(&job).unwrap_or_default();
        runs.push(as_run(&training, started, attempts.last(), &epochs, &cases));
    }
    Ok(runs)
}

fn as_run(
    training: &Training,
    started: DateTime<Utc>,
    attempt: Option<&AttemptRow>,
    epochs: &[EpochRow],
    cases: &[CaseRow],
) -> Run {
    let model = match training.variant.as_str() {
        "" => training.method.clone(),
        variant => format!("{}/{variant}", training.method),
    };
    let group = format!("{model} on {}", training.dataset);
    let config = config(training);
    let selects_on_test = config.get("protocol.selection") == Some(&Value::from("test"));
    Run {
        id: training.job.0.simple().to_string(),
        name: format!("{group}, seed {}", training.seed),
        group,
        status: match training.state {
            JobState::Done => Status::Done,
            JobState::Failed => Status::Failed,
            JobState::Cancelled => Status::Cancelled,
            _ => Status::Running,
        },
        started,
        finished: training.finished,
        tags: tags(training, attempt),
        history: history(epochs, if selects_on_test { "test" } else { "valid" }),
        summary: summary(cases),
        config,
    }
}

/// What is trained, with dots between the levels, and the seed.
fn config(training: &Training) -> BTreeMap<String, Value> {
    let mut flat = BTreeMap::new();
    let mut spec = training.spec.clone().unwrap_or_default();
    // Hyper-parameters are an object within a text.
    if let Some(hyper) = spec.get_mut("hyper")
        && let Some(object) = hyper
            .as_str()
            .and_then(|text| serde_json::from_str(text).ok())
    {
        *hyper = object;
    }
    for (key, value) in spec.as_object().into_iter().flatten() {
        flatten(key, value, &mut flat);
    }
    // Where the submitting machine had its files says nothing.
    flat.retain(|key, _| !key.ends_with(".path"));
    flat.insert("dataset".to_owned(), Value::from(training.dataset.as_str()));
    flat.insert("seed".to_owned(), Value::from(training.seed));
    flat
}

fn flatten(key: &str, value: &Value, flat: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(object) if !object.is_empty() => {
            for (name, value) in object {
                flatten(&format!("{key}.{name}"), value, flat);
            }
        }
        Value::Null => {}
        value => drop(flat.insert(key.to_owned(), value.clone())),
    }
}

fn tags(training: &Training, attempt: Option<&AttemptRow>) -> BTreeMap<String, String> {
    let mut tags = BTreeMap::from([
        ("method".to_owned(), training.method.clone()),
        ("dataset".to_owned(), training.dataset.clone()),
        ("job".to_owned(), training.job.to_string()),
    ]);
    if let Some(attempt) = attempt {
        let texts = [
            ("device", &attempt.device),
            ("processor", &attempt.processor),
            ("version", &attempt.version),
        ];
        tags.extend(
            texts
                .into_iter()
                .filter(|(_, text)| !text.is_empty())
                .map(|(key, text)| (key.to_owned(), text.clone())),
        );
    }
    tags
}

fn history(epochs: &[EpochRow], split: &str) -> Vec<Point> {
    let key = |first: &str, last: &str| vec![first.to_owned(), last.to_owned()];
    let mut seconds = 0.0;
    let mut points = Vec::with_capacity(epochs.len());
    for epoch in epochs {
        seconds += epoch.train_seconds + epoch.eval_seconds;
        let mut values: BTreeMap<Key, f64> = BTreeMap::new();
        for (name, value) in &epoch.losses {
            values.extend(value.map(|value| (key("train", name), value)));
        }
        for (name, value) in &epoch.metrics {
            // Where both splits select, those on the test split say so.
            let key = match name.strip_prefix("test:") {
                Some(name) => key("test", name),
                None => key(split, name),
            };
            values.extend(value.map(|value| (key, value)));
        }
        values.insert(key("seconds", "train"), epoch.train_seconds);
        values.insert(key("seconds", "eval"), epoch.eval_seconds);
        points.push(Point {
            epoch: i64::from(epoch.epoch),
            seconds,
            values,
        });
    }
    points
}

/// Each metric of each case that was evaluated.
fn summary(cases: &[CaseRow]) -> BTreeMap<Key, f64> {
    let values = cases.iter().flat_map(|case| {
        case.metrics.iter().filter_map(|(metric, value)| {
            let key = vec!["case".to_owned(), case.case_id.clone(), metric.clone()];
            Some((key, (*value)?))
        })
    });
    values.collect()
}
