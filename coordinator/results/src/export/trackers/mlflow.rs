//! MLflow's file store: a folder for the experiment, one for each run in it, and a file for each
//! parameter, tag and metric.

use super::{
    names::Paths,
    run::{Key, Run, Status, Sweep, TrackerError, at},
};
use chrono::{DateTime, Utc};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

/// The most characters of a parameter that MLflow takes.
const PARAMETER: usize = 6000;
/// The most characters of a tag.
const TAG: usize = 8000;
/// What a path in a URL is escaped for.
const ESCAPED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'?')
    .add(b'[')
    .add(b']');

/// Writes the runs of a sweep, its experiment, into a folder.
#[derive(Debug)]
pub struct Writer {
    /// The folder of the experiment.
    folder: PathBuf,
    /// The same as it will be called.
    location: String,
    experiment: String,
    owner: String,
}

impl Writer {
    /// Begins the experiment in `folder`, which will be called `name`, an absolute path.
    ///
    /// # Errors
    ///
    /// The disk's.
    pub fn new(folder: &Path, name: &Path, sweep: &Sweep) -> Result<Self, TrackerError> {
        let location = format!("{}/{}", url(name), sweep.id);
        let writer = Self {
            folder: folder.join(&sweep.id),
            location: location.clone(),
            experiment: sweep.id.clone(),
            owner: text(&sweep.owner, TAG),
        };
        write(&writer.folder.join("tags/halfheard.sweep"), &sweep.id)?;
        let created = sweep.created.timestamp_millis();
        let meta = format!(
            "artifact_location: {}\ncreation_time: {created}\nexperiment_id: {}\n\
             last_update_time: {created}\nlifecycle_stage: active\nname: {}\n",
            quoted(&location),
            quoted(&sweep.id),
            quoted(&format!(
                "{} ({})",
                text(&sweep.name, 200),
                &sweep.id[..8.min(sweep.id.len())]
            )),
        );
        write(&writer.folder.join("meta.yaml"), &meta)?;
        Ok(writer)
    }

    /// Writes a run.
    ///
    /// # Errors
    ///
    /// The disk's.
    pub fn write(&mut self, run: &Run) -> Result<(), TrackerError> {
        let folder = self.folder.join(&run.id);
        fs::create_dir_all(folder.join("artifacts")).map_err(at(folder.join("artifacts")))?;
        write(&folder.join("meta.yaml"), &self.meta(run))?;
        let name = ("mlflow.runName".to_owned(), text(&run.name, TAG));
        let user = ("mlflow.user".to_owned(), self.owner.clone());
        let group = ("halfheard.group".to_owned(), text(&run.group, TAG));
        let mut paths = Paths::default();
        for (key, value) in run.tags.clone().into_iter().chain([name, user, group]) {
            let path = paths.path(&vec![key]);
            write(&folder.join("tags").join(path), &text(&value, TAG))?;
        }
        let mut paths = Paths::default();
        for (key, value) in &run.config {
            let value = match value {
                serde_json::Value::String(value) => value.clone(),
                value => value.to_string(),
            };
            let path = paths.path(&vec![key.clone()]);
            write(&folder.join("params").join(path), &text(&value, PARAMETER))?;
        }
        for (path, lines) in metrics(run) {
            write(&folder.join("metrics").join(path), &lines)?;
        }
        Ok(())
    }

    fn meta(&self, run: &Run) -> String {
        let status = match run.status {
            Status::Running => 1,
            Status::Done => 3,
            Status::Failed => 4,
            Status::Cancelled => 5,
        };
        let end = run
            .finished
            .map_or("null".to_owned(), |at| at.timestamp_millis().to_string());
        format!(
            "artifact_uri: {}\nend_time: {end}\nentry_point_name: ''\nexperiment_id: {}\n\
             lifecycle_stage: active\nrun_id: {}\nrun_name: {}\nsource_name: ''\nsource_type: 4\n\
             source_version: ''\nstart_time: {}\nstatus: {status}\ntags: []\nuser_id: {}\n",
            quoted(&format!("{}/{}/artifacts", self.location, run.id)),
            quoted(&self.experiment),
            quoted(&run.id),
            quoted(&text(&run.name, TAG)),
            run.started.timestamp_millis(),
            quoted(&self.owner),
        )
    }
}

/// The metrics of a run by path: lines of milliseconds, value and step.
fn metrics(run: &Run) -> BTreeMap<String, String> {
    let mut series: BTreeMap<&Key, String> = BTreeMap::new();
    for point in &run.history {
        for (key, value) in &point.values {
            line(
                series.entry(key).or_default(),
                run.at(point),
                *value,
                point.epoch,
            );
        }
    }
    let last = run.history.last();
    let end = run
        .finished
        .or_else(|| last.map(|point| run.at(point)))
        .unwrap_or(run.started);
    for (key, value) in &run.summary {
        let epochs = last.map_or(0, |point| point.epoch);
        line(series.entry(key).or_default(), end, *value, epochs);
    }
    let mut paths = Paths::default();
    series
        .into_iter()
        .map(|(key, lines)| (paths.path(key), lines))
        .collect()
}

fn line(lines: &mut String, at: DateTime<Utc>, value: f64, step: i64) {
    // Writing to a string does not fail.
    let _ = writeln!(lines, "{} {value} {step}", at.timestamp_millis());
}

fn write(path: &Path, content: &str) -> Result<(), TrackerError> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(at(folder))?;
    }
    fs::write(path, content).map_err(at(path))
}

/// Text of others: without control characters, cut.
fn text(text: &str, most: usize) -> String {
    let cut: String = text.chars().take(most).collect();
    halfheard_shared::text::plain(&cut)
}

/// A string in YAML: one of JSON is one, once it has no control characters.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn url(path: &Path) -> String {
    format!(
        "file://{}",
        utf8_percent_encode(&path.to_string_lossy(), ESCAPED)
    )
}
