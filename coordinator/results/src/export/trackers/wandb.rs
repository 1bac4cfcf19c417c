//! Offline runs of Weights & Biases, as `wandb sync` sends them: a folder for each, with a log of
//! protobuf records in blocks as LevelDB has them.

use super::{
    names::part,
    run::{Key, Point, Run, Status, Sweep, TrackerError, at},
};
use crc32fast::Hasher;
use halfheard_shared::text::plain;
use prost::Message;
use serde_json::Value;
use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

/// The beginning of a log: a mark, a number, and the version of the format.
const HEADER: [u8; 7] = *b":W&B\xe1\xbe\x00";
/// Bytes of a block.
const BLOCK: usize = 32_768;
/// Bytes before each piece of a record: checksum, length, kind.
const PIECE: usize = 7;
/// The longest name of a project that W&B takes.
const PROJECT: usize = 128;

/// Writes the runs of a sweep, its project, into a folder.
#[derive(Debug)]
pub struct Writer {
    folder: PathBuf,
    project: String,
    sweep: String,
}

impl Writer {
    /// Begins a project in `folder`.
    pub fn new(folder: &Path, sweep: &Sweep) -> Self {
        let project: String = part(&sweep.name).chars().take(PROJECT).collect();
        Self {
            folder: folder.to_owned(),
            project,
            sweep: sweep.id.clone(),
        }
    }

    /// Writes a run.
    ///
    /// # Errors
    ///
    /// The disk's.
    pub fn write(&mut self, run: &Run) -> Result<(), TrackerError> {
        let began = run.started.format("%Y%m%d_%H%M%S");
        let folder = self.folder.join(format!("offline-run-{began}-{}", run.id));
        let files = folder.join("files");
        fs::create_dir_all(&files).map_err(at(&files))?;
        let path = folder.join(format!("run-{}.wandb", run.id));
        let write = || -> io::Result<()> {
            let mut log = Log::new(BufWriter::new(File::create(&path)?))?;
            log.record(Record::header())?;
            log.record(Record::run(self.run_record(run)))?;
            for point in &run.history {
                log.record(Record::history(history(run, point)))?;
            }
            log.record(Record::summary(summary(run)))?;
            if run.status != Status::Running {
                log.record(Record::exit(exit(run)))?;
            }
            log.finish()
        };
        write().map_err(at(&path))
    }

    fn run_record(&self, run: &Run) -> RunRecord {
        let config = run.config.iter().map(|(key, value)| Item {
            key: plain(key),
            value_json: value.to_string(),
            ..Item::default()
        });
        RunRecord {
            run_id: run.id.clone(),
            project: self.project.clone(),
            config: Some(Items {
                update: config.collect(),
            }),
            run_group: cut(&run.group),
            job_type: "train".to_owned(),
            display_name: cut(&run.name),
            notes: format!("sweep {}", self.sweep),
            tags: run
                .tags
                .iter()
                .map(|(key, value)| cut(&format!("{key}={value}")))
                .collect(),
            start_time: Some(Timestamp {
                seconds: run.started.timestamp(),
                nanos: run.started.timestamp_subsec_nanos().cast_signed(),
            }),
        }
    }
}

/// Tags, names and groups have at most 64 and 128 characters.
fn cut(text: &str) -> String {
    plain(text).chars().take(64).collect()
}

fn item(name: &str, value: impl Into<Value>) -> Item {
    Item {
        nested_key: vec![name.to_owned()],
        // What is not finite is absent where it comes from, and null here.
        value_json: value.into().to_string(),
        ..Item::default()
    }
}

fn name(key: &Key) -> String {
    let parts: Vec<String> = key.iter().map(|part| plain(part)).collect();
    parts.join("/")
}

fn history(run: &Run, point: &Point) -> HistoryRecord {
    let mut items: Vec<Item> = point
        .values
        .iter()
        .map(|(key, value)| item(&name(key), *value))
        .collect();
    items.push(item("epoch", point.epoch));
    items.push(item("_step", point.epoch));
    items.push(item("_runtime", point.seconds));
    items.push(item(
        "_timestamp",
        run.at(point).timestamp_millis() as f64 / 1000.0,
    ));
    HistoryRecord {
        item: items,
        step: Some(HistoryStep { num: point.epoch }),
    }
}

/// The last epoch, and what the model came to.
fn summary(run: &Run) -> Items {
    let mut items = Vec::new();
    if let Some(last) = run.history.last() {
        items.extend(
            last.values
                .iter()
                .map(|(key, value)| item(&name(key), *value)),
        );
        items.push(item("epoch", last.epoch));
        items.push(item("_step", last.epoch));
        items.push(item("_runtime", last.seconds));
        items.push(item(
            "_timestamp",
            run.at(last).timestamp_millis() as f64 / 1000.0,
        ));
    }
    items.extend(
        run.summary
            .iter()
            .map(|(key, value)| item(&name(key), *value)),
    );
    Items { update: items }
}

fn exit(run: &Run) -> ExitRecord {
    let seconds = run.history.last().map_or(0.0, |point| point.seconds);
    ExitRecord {
        exit_code: i32::from(run.status != Status::Done),
        runtime: seconds.clamp(0.0, f64::from(i32::MAX)) as i32,
    }
}

/// Appends records in blocks.
struct Log<W> {
    out: W,
    /// Bytes of the block in progress.
    used: usize,
    records: i64,
}

impl<W: Write> Log<W> {
    fn new(mut out: W) -> io::Result<Self> {
        out.write_all(&HEADER)?;
        Ok(Self {
            out,
            used: HEADER.len(),
            records: 0,
        })
    }

    fn record(&mut self, mut record: Record) -> io::Result<()> {
        self.records += 1;
        record.num = self.records;
        let bytes = record.encode_to_vec();
        let mut rest = bytes.as_slice();
        let mut first = true;
        loop {
            let left = BLOCK - self.used;
            if left < PIECE {
                self.out.write_all(&[0; PIECE][..left])?;
                self.used = 0;
                continue;
            }
            let (piece, after) = rest.split_at(rest.len().min(left - PIECE));
            let last = after.is_empty();
            let kind = match (first, last) {
                (true, true) => 1,
                (true, false) => 2,
                (false, false) => 3,
                (false, true) => 4,
            };
            self.piece(kind, piece)?;
            if last {
                return Ok(());
            }
            (rest, first) = (after, false);
        }
    }

    fn piece(&mut self, kind: u8, bytes: &[u8]) -> io::Result<()> {
        let mut checksum = Hasher::new();
        checksum.update(&[kind]);
        checksum.update(bytes);
        // Less than a block.
        let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
        self.out.write_all(&checksum.finalize().to_le_bytes())?;
        self.out.write_all(&length.to_le_bytes())?;
        self.out.write_all(&[kind])?;
        self.out.write_all(bytes)?;
        self.used = (self.used + PIECE + bytes.len()) % BLOCK;
        Ok(())
    }

    fn finish(mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// The messages of `wandb_internal.proto`, with the fields that are written here.
#[derive(Clone, PartialEq, Message)]
struct Record {
    #[prost(int64, tag = "1")]
    num: i64,
    #[prost(message, optional, tag = "2")]
    history: Option<HistoryRecord>,
    #[prost(message, optional, tag = "3")]
    summary: Option<Items>,
    #[prost(message, optional, tag = "17")]
    run: Option<RunRecord>,
    #[prost(message, optional, tag = "18")]
    exit: Option<ExitRecord>,
    #[prost(message, optional, tag = "21")]
    header: Option<HeaderRecord>,
}

impl Record {
    fn header() -> Self {
        let version_info = VersionInfo {
            producer: concat!("halfheard ", env!("CARGO_PKG_VERSION")).to_owned(),
            min_consumer: "0.16.0".to_owned(),
        };
        Self {
            header: Some(HeaderRecord {
                version_info: Some(version_info),
            }),
            ..Self::default()
        }
    }

    fn run(run: RunRecord) -> Self {
        Self {
            run: Some(run),
            ..Self::default()
        }
    }

    fn history(history: HistoryRecord) -> Self {
        Self {
            history: Some(history),
            ..Self::default()
        }
    }

    fn summary(summary: Items) -> Self {
        Self {
            summary: Some(summary),
            ..Self::default()
        }
    }

    fn exit(exit: ExitRecord) -> Self {
        Self {
            exit: Some(exit),
            ..Self::default()
        }
    }
}

#[derive(Clone, PartialEq, Message)]
struct HeaderRecord {
    #[prost(message, optional, tag = "1")]
    version_info: Option<VersionInfo>,
}

#[derive(Clone, PartialEq, Message)]
struct VersionInfo {
    #[prost(string, tag = "1")]
    producer: String,
    #[prost(string, tag = "2")]
    min_consumer: String,
}

#[derive(Clone, PartialEq, Message)]
struct RunRecord {
    #[prost(string, tag = "1")]
    run_id: String,
    #[prost(string, tag = "3")]
    project: String,
    #[prost(message, optional, tag = "4")]
    config: Option<Items>,
    #[prost(string, tag = "6")]
    run_group: String,
    #[prost(string, tag = "7")]
    job_type: String,
    #[prost(string, tag = "8")]
    display_name: String,
    #[prost(string, tag = "9")]
    notes: String,
    #[prost(string, repeated, tag = "10")]
    tags: Vec<String>,
    #[prost(message, optional, tag = "17")]
    start_time: Option<Timestamp>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Timestamp {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

/// `ConfigRecord` and `SummaryRecord`, which are alike.
#[derive(Clone, PartialEq, Message)]
struct Items {
    #[prost(message, repeated, tag = "1")]
    update: Vec<Item>,
}

/// `ConfigItem`, `SummaryItem` and `HistoryItem`, as far as they are alike.
#[derive(Clone, PartialEq, Message)]
struct Item {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, repeated, tag = "2")]
    nested_key: Vec<String>,
    #[prost(string, tag = "16")]
    value_json: String,
}

#[derive(Clone, PartialEq, Message)]
struct HistoryRecord {
    #[prost(message, repeated, tag = "1")]
    item: Vec<Item>,
    #[prost(message, optional, tag = "2")]
    step: Option<HistoryStep>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct HistoryStep {
    #[prost(int64, tag = "1")]
    num: i64,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct ExitRecord {
    #[prost(int32, tag = "1")]
    exit_code: i32,
    #[prost(int32, tag = "2")]
    runtime: i32,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a log back.
    fn records(log: &[u8]) -> Vec<Record> {
        assert_eq!(log[..HEADER.len()], HEADER);
        let (mut at, mut record, mut records) = (HEADER.len(), Vec::new(), Vec::new());
        while at < log.len() {
            let left = BLOCK - at % BLOCK;
            if left < PIECE {
                at += left;
                continue;
            }
            let length = usize::from(u16::from_le_bytes([log[at + 4], log[at + 5]]));
            let kind = log[at + 6];
            let body = &log[at + PIECE..at + PIECE + length];
            let mut checksum = Hasher::new();
            checksum.update(&log[at + 6..at + PIECE + length]);
            assert_eq!(log[at..at + 4], checksum.finalize().to_le_bytes());
            record.extend_from_slice(body);
            at += PIECE + length;
            if matches!(kind, 1 | 4) {
                records.push(Record::decode(record.as_slice()).unwrap());
                record.clear();
            }
        }
        records
    }

    #[test]
    fn records_of_any_length_are_read_back() {
        let mut out = Vec::new();
        let mut log = Log::new(&mut out).unwrap();
        // Around the end of a block and longer than two.
        let lengths = [0, 1, BLOCK - 40, 13, 7, 5, 2 * BLOCK, 3 * BLOCK + 11];
        let mut expected = Vec::new();
        for (length, number) in lengths.into_iter().cycle().take(200).zip(1..) {
            let run = RunRecord {
                notes: "n".repeat(length),
                ..RunRecord::default()
            };
            log.record(Record::run(run.clone())).unwrap();
            expected.push(Record {
                num: number,
                ..Record::run(run)
            });
        }
        log.finish().unwrap();
        assert!(records(&out) == expected);
    }
}
