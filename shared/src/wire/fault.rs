//! Faults of a worker, not of a job: what a worker lacks or what broke in it, so that
//! another worker may well do what it cannot.

use super::Heartbeat;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Maximum length of a fault's text in characters: it is part of every heartbeat.
const LONGEST: usize = 1000;
/// The most causes that are kept.
const DEEPEST: usize = 8;

/// What a worker cannot do its jobs without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// The artifact store: it cannot be opened, read or written.
    Store,
    /// The data folder: it cannot be read or made, or has no room for what is to be kept in it.
    DataFolder,
    /// A dataset file: it is nowhere, or cannot be read.
    Dataset,
    /// A text encoder: it is nowhere, or cannot be read.
    Encoder,
    /// A checkpoint: the artifact store of this worker does not have it.
    Checkpoint,
    /// A method, hyper-parameters of one, or whole jobs: those of another release.
    Method,
    /// The device, which broke.
    Device,
}

impl FaultKind {
    /// All of them, in order.
    pub const ALL: [FaultKind; 7] = [
        FaultKind::Store,
        FaultKind::DataFolder,
        FaultKind::Dataset,
        FaultKind::Encoder,
        FaultKind::Checkpoint,
        FaultKind::Method,
        FaultKind::Device,
    ];

    /// As the database and JSON have it.
    pub fn as_str(self) -> &'static str {
        match self {
            FaultKind::Store => "store",
            FaultKind::DataFolder => "data_folder",
            FaultKind::Dataset => "dataset",
            FaultKind::Encoder => "encoder",
            FaultKind::Checkpoint => "checkpoint",
            FaultKind::Method => "method",
            FaultKind::Device => "device",
        }
    }

    /// Whether no job at all can be done: what the others are about, only some jobs need.
    pub fn concerns_every_job(self) -> bool {
        match self {
            FaultKind::Store | FaultKind::DataFolder | FaultKind::Device => true,
            FaultKind::Dataset | FaultKind::Encoder | FaultKind::Checkpoint | FaultKind::Method => {
                false
            }
        }
    }

    fn verb(self) -> &'static str {
        match self {
            FaultKind::Store | FaultKind::DataFolder | FaultKind::Device => "use",
            FaultKind::Dataset | FaultKind::Encoder | FaultKind::Checkpoint => "read",
            FaultKind::Method => "run",
        }
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is wrong with a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// What kind of thing it is about.
    pub kind: FaultKind,
    /// Which: `dataset mosi`, `the artifact store`, `method lnln`. Workers that lack the same thing
    /// say the same here.
    pub what: String,
    /// The error and its causes, outermost first.
    pub chain: Vec<String>,
}

impl Fault {
    /// A fault with its causes, cut where they are endless.
    pub fn new(kind: FaultKind, what: impl Into<String>, chain: Vec<String>) -> Self {
        let mut fault = Self {
            kind,
            what: what.into(),
            chain,
        };
        fault.chain.truncate(DEEPEST);
        for text in fault.chain.iter_mut().chain([&mut fault.what]) {
            if let Some((end, _)) = text.char_indices().nth(LONGEST) {
                text.truncate(end);
            }
        }
        fault
    }

    /// What cannot be done, behind "cannot" or "no worker can": `read dataset mosi`.
    pub fn deed(&self) -> String {
        format!("{} {}", self.kind.verb(), self.what)
    }

    /// Whether it is about the same thing, for whatever reason.
    pub fn is_like(&self, other: &Fault) -> bool {
        self.kind == other.kind && self.what == other.what
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}", self.deed())?;
        for cause in &self.chain {
            write!(f, ": {cause}")?;
        }
        Ok(())
    }
}

/// A worker's fault in its heartbeat: since when, and when it tries again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// What is wrong.
    pub fault: Fault,
    /// Since when, in milliseconds since 1970 by the worker's clock.
    pub since_ms: u64,
    /// How often in a row it was met.
    pub times: u32,
    /// When it takes jobs again, or tries again what did not go; by the worker's clock. `None`: it
    /// takes jobs, and has not done one since.
    pub next_try_ms: Option<u64>,
    /// Whether it takes no jobs meanwhile.
    pub sits_out: bool,
}

/// What none of these workers can do, in words: they all met the same fault and none is at work.
/// `None` where one of them is well, and where there are none.
pub fn nobody_can(workers: &[Heartbeat]) -> Option<String> {
    let mut first: Option<&Fault> = None;
    for worker in workers {
        let fault = &worker.trouble.as_ref()?.fault;
        if worker.doing.is_some() && !fault.kind.concerns_every_job() {
            return None;
        }
        if !first.get_or_insert(fault).is_like(fault) {
            return None;
        }
    }
    let fault = first?;
    let mut text = format!("no worker can {}", fault.deed());
    for cause in &fault.chain {
        text.push_str(": ");
        text.push_str(cause);
    }
    // A worker's words must not steer the terminal.
    Some(crate::text::plain(&text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::WorkerInfo;

    fn worker(fault: Option<(FaultKind, &str)>) -> Heartbeat {
        Heartbeat {
            worker: WorkerInfo {
                name: "w".to_owned(),
                host: "h".to_owned(),
                device: "cpu".to_owned(),
                version: "0".to_owned(),
                processor: String::new(),
            },
            pid: 1,
            session: uuid::Uuid::nil(),
            holds: Vec::new(),
            at_ms: 0,
            memory_bytes: 0,
            doing: None,
            trouble: fault.map(|(kind, what)| Trouble {
                fault: Fault::new(kind, what, vec!["it is nowhere".to_owned()]),
                since_ms: 1,
                times: 1,
                next_try_ms: None,
                sits_out: true,
            }),
            wire: crate::wire::VERSION,
            methods: Vec::new(),
            labels: Vec::new(),
            device_memory: 0,
        }
    }

    #[test]
    fn nobody_can_requires_same_fault_everywhere() {
        let mosi = || worker(Some((FaultKind::Dataset, "dataset mosi")));
        let sims = worker(Some((FaultKind::Dataset, "dataset sims")));
        assert_eq!(
            nobody_can(&[mosi(), mosi()]).as_deref(),
            Some("no worker can read dataset mosi: it is nowhere")
        );
        assert_eq!(nobody_can(&[mosi(), worker(None)]), None);
        assert_eq!(nobody_can(&[mosi(), sims]), None);
        assert_eq!(nobody_can(&[]), None);
    }

    #[test]
    fn heartbeat_of_older_release_is_read() {
        let mut json = serde_json::to_value(worker(None)).unwrap();
        json.as_object_mut().unwrap().remove("trouble");
        assert_eq!(
            serde_json::from_value::<Heartbeat>(json).unwrap(),
            worker(None)
        );
    }

    #[test]
    fn fault_kind_has_one_text_form() {
        for kind in FaultKind::ALL {
            let json = serde_json::to_value(kind).unwrap();
            assert_eq!(json, kind.as_str());
        }
    }

    #[test]
    fn oversized_fault_text_is_truncated() {
        let fault = Fault::new(FaultKind::Store, "ü".repeat(5000), vec!["x".into(); 50]);
        assert_eq!(fault.what.chars().count(), LONGEST);
        assert_eq!(fault.chain.len(), DEEPEST);
    }
}
