//! Faults of the worker, as against faults of its jobs: telling them apart, giving jobs back for
//! them, and sitting out until they are mended.

use super::{
    Slot, SlotError, SlotSettings, JobLease, blobs::BlobError, shutdown::Shutdown, presence::Status,
};
use halfheard_models::{
    methods::MethodError,
    train::{TrainError, chain},
};
use halfheard_shared::{
    artifacts::{ArtifactError, ArtifactStore, Hash, Key},
    broker::Broker,
    dataset::DatasetError,
    ids::{AttemptId, JobId},
    methods,
    wire::{Fault, FaultKind, ResultBody, TrainSpec, WireError},
};
use std::{
    collections::HashSet,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// The first look at whether a fault is mended, and the longest time between two.
const LOOKS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));

/// What the worker lacks, to look whether it is there.
#[derive(Clone, Debug)]
pub enum Need {
    /// What the fault's kind says.
    Kind,
    /// The dataset and the encoder of this training.
    Inputs(Box<TrainSpec>),
    /// A checkpoint in the store.
    Checkpoint(Hash),
}

/// The need behind the fault that was met last, and the jobs that were passed on for it since the
/// last pause.
#[derive(Debug, Default)]
pub struct Needed(Mutex<(Option<Need>, HashSet<JobId>)>);

/// Jobs that are passed on at most before the worker sits out again.
const PASSED_ON: usize = 64;

impl Needed {
    fn lock(&self) -> MutexGuard<'_, (Option<Need>, HashSet<JobId>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, need: Need) {
        *self.lock() = (Some(need), HashSet::new());
    }

    fn get(&self) -> Need {
        self.lock().0.clone().unwrap_or(Need::Kind)
    }

    /// Whether a job may be passed on at once, with others waiting behind it that may go. One that
    /// was before has come round: there are no others.
    fn passes_on(&self, job: JobId) -> bool {
        let passed = &mut self.lock().1;
        passed.len() < PASSED_ON && passed.insert(job)
    }
}

/// A fault of the store, if an error is one: a name that is none, or content that is too large, is
/// the job's own.
pub fn of_store(error: &ArtifactError) -> Option<Fault> {
    match error {
        ArtifactError::Address { .. } | ArtifactError::Hash(_) | ArtifactError::TooLarge { .. } => {
            None
        }
        ArtifactError::Unopened { .. }
        | ArtifactError::Missing { .. }
        | ArtifactError::Damaged { .. }
        | ArtifactError::Store { .. } => Some(Fault::new(
            FaultKind::Store,
            "the artifact store",
            chain(error),
        )),
    }
}

fn of_data_folder(folder: &Path, error: &std::io::Error) -> Fault {
    let why = format!("{}: {error}", folder.display());
    Fault::new(FaultKind::DataFolder, "its data folder", vec![why])
}

/// A fault for which a dataset or an encoder cannot be had, if an error is one.
pub fn of_blob(error: &BlobError, spec: &TrainSpec) -> Option<Fault> {
    match error {
        BlobError::Missing { what, .. } if *what == "dataset" => Some(of_dataset(error, spec)),
        BlobError::Missing { .. } => Some(of_encoder(chain(error), spec)),
        // The store has it, and it is damaged there or has no place here: others need it less.
        BlobError::Store(
            cause @ (ArtifactError::Damaged { key, .. }
            | ArtifactError::Store {
                key,
                action: "written to a file",
                ..
            }),
        ) if key.contains(&spec.data.blake3) => Some(of_dataset(cause, spec)),
        BlobError::Store(
            cause @ (ArtifactError::Damaged { .. }
            | ArtifactError::Store {
                action: "written to a file",
                ..
            }),
        ) => Some(of_encoder(chain(cause), spec)),
        // Damaged in the store: this worker has no encoder, and another may have.
        BlobError::List { .. } => Some(of_encoder(chain(error), spec)),
        BlobError::Store(error) => of_store(error),
    }
}

fn of_dataset(error: &dyn std::error::Error, spec: &TrainSpec) -> Fault {
    let what = format!("dataset {}", spec.dataset);
    Fault::new(FaultKind::Dataset, what, chain(error))
}

fn of_encoder(chain: Vec<String>, spec: &TrainSpec) -> Fault {
    let short: String = spec.encoder.blake3.chars().take(8).collect();
    Fault::new(FaultKind::Encoder, format!("text encoder {short}"), chain)
}

/// A fault of this worker for which a training or an evaluation failed, if it is one. `encoder` is
/// the folder that was used.
pub fn of_training(error: &TrainError, spec: &TrainSpec, encoder: &Path) -> Option<Fault> {
    match error {
        TrainError::Worker(fault) => Some(fault.clone()),
        TrainError::Unknown { method } => Some(Fault::new(
            FaultKind::Method,
            format!("method {method}"),
            chain(error),
        )),
        TrainError::Method(MethodError::Hyper { .. }) => {
            let strange = strange_hyper(spec)?;
            let mut chain = chain(error);
            chain.insert(0, strange);
            let what = format!("method {}", spec.method);
            Some(Fault::new(FaultKind::Method, what, chain))
        }
        TrainError::Method(MethodError::Encoder(_)) => {
            let unreadable = unreadable(encoder)?;
            Some(of_encoder(vec![unreadable], spec))
        }
        TrainError::Dataset(DatasetError::Io { .. }) => Some(of_dataset(error, spec)),
        error if error.is_broken_device() => {
            Some(Fault::new(FaultKind::Device, "its device", chain(error)))
        }
        _ => None,
    }
}

/// How a job's hyper-parameters differ from those that this release has. The coordinator fills in
/// all of its own, so that others come from another release.
fn strange_hyper(spec: &TrainSpec) -> Option<String> {
    let own = &methods::find(&spec.method)?.hyper;
    let asked: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(&spec.hyper).ok()?;
    let names = |these: &serde_json::Map<String, serde_json::Value>,
                 others: &serde_json::Map<String, serde_json::Value>| {
        let names: Vec<String> = these
            .keys()
            .filter(|key| !others.contains_key(*key))
            .map(|key| format!("`{key}`"))
            .collect();
        names.join(", ")
    };
    let (unknown, missing) = (names(&asked, own), names(own, &asked));
    let what = match (unknown.is_empty(), missing.is_empty()) {
        (true, true) => return None,
        (false, true) => format!("it does not know {unknown}"),
        (true, false) => format!("the job does not say {missing}"),
        (false, false) => format!("it does not know {unknown}, and the job does not say {missing}"),
    };
    Some(format!(
        "the hyper-parameters are those of another release ({what}): run the same release of coord and worker"
    ))
}

/// What in a folder cannot be opened, and why.
fn unreadable(folder: &Path) -> Option<String> {
    let read = || -> std::io::Result<()> {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_file() {
                let mut file = std::fs::File::open(&path)?;
                std::io::Read::read(&mut file, &mut [0])?;
            }
        }
        Ok(())
    };
    let error = read().err()?;
    Some(format!("{}: {error}", folder.display()))
}

/// Whether a data folder can be used: `Ok` with a warning where it can only be read.
fn probe_data_folder(folder: &Path, name: &str) -> Result<Option<String>, std::io::Error> {
    std::fs::create_dir_all(folder)?;
    if let Some(first) = std::fs::read_dir(folder)?.next() {
        first?;
    }
    let path = folder.join(format!(".probe-{name}"));
    let written = std::fs::write(&path, name)
        .and_then(|()| std::fs::read(&path))
        .and_then(|_| std::fs::remove_file(&path));
    Ok(written.err().map(|error| {
        format!(
            "the data folder {} cannot be written ({error}): files are hashed anew at every start, and nothing can be fetched into it",
            folder.display()
        )
    }))
}

/// Opens the store and looks whether store and data folder can be used, for as long as it takes:
/// meanwhile the worker sits out and says so. `None`: it is to leave.
///
/// # Errors
///
/// An address that means nothing; with `--once`, what could not be used for all of that time.
pub async fn ready(
    settings: &SlotSettings,
    broker: &Broker,
    status: &Status,
    shutdown: &Shutdown,
) -> Result<Option<ArtifactStore>, SlotError> {
    let began = Instant::now();
    let mut pause = Duration::from_secs(2);
    let mut said = None;
    loop {
        let fault = match start(settings, broker).await {
            Ok(store) => {
                status.health(|health| health.mended());
                if said.is_some() {
                    tracing::info!("the artifact store and the data folder can be used now");
                }
                return Ok(Some(store));
            }
            Err(Start::Wrong(error)) => return Err(error.into()),
            Err(Start::Fault(fault)) => fault,
        };
        if settings.once.is_some_and(|once| began.elapsed() >= once) {
            return Err(SlotError::Unfit(fault));
        }
        if said.as_ref() != Some(&fault) {
            tracing::error!("the worker waits and takes no jobs: it {fault}");
            said = Some(fault.clone());
        }
        status.sit_out(fault, pause);
        shutdown.sleep(pause).await;
        if shutdown.is_requested() {
            return Ok(None);
        }
        pause = (pause * 2).min(LOOKS.1);
    }
}

enum Start {
    Wrong(ArtifactError),
    Fault(Fault),
}

async fn start(settings: &SlotSettings, broker: &Broker) -> Result<ArtifactStore, Start> {
    let wrong = |error: ArtifactError| match of_store(&error) {
        Some(fault) => Start::Fault(fault),
        None => Start::Wrong(error),
    };
    let folder = &settings.data_dir;
    match probe_data_folder(folder, &settings.name) {
        Ok(None) => {}
        Ok(Some(warning)) => tracing::warn!("{warning}"),
        Err(error) => return Err(Start::Fault(of_data_folder(folder, &error))),
    }
    let store = ArtifactStore::open(&settings.artifacts, Some(broker)).await;
    let store = store.map_err(wrong)?;
    store.probe(&settings.name).await.map_err(wrong)?;
    Ok(store)
}

impl Slot {
    /// A fault was met at `job`: the worker sits out for it. Where it knows already that it lacks
    /// this and its pause is over, it passes the job on and looks at the next ones: work that it can
    /// do must not wait behind work that nobody can.
    pub(super) fn met(&self, job: JobId, fault: &Fault, need: Need) {
        if self.status.takes_in_spite_of(fault) && self.needed.passes_on(job) {
            return;
        }
        tracing::error!("a fault of this worker, not of the job: it {fault}");
        self.needed.set(need);
        self.status.met(fault.clone());
    }

    /// A job came that this program cannot read: where another release wrote it, that is a fault of
    /// this worker, or of all of them.
    pub(super) fn cannot_read(&self, error: &WireError) {
        // Several may come at once.
        if matches!(error, WireError::Version { .. }) && self.status.sitting_out().is_none() {
            let what = "jobs of another release";
            let fault = Fault::new(FaultKind::Method, what, chain(error));
            tracing::error!("a fault of this worker, not of the job: it {fault}");
            self.needed.set(Need::Kind);
            self.status.met(fault);
        }
    }

    /// The fault for which no job at all can be done now.
    pub(super) fn stands_still(&self) -> Option<Fault> {
        let (fault, _) = self.status.sitting_out()?;
        fault.kind.concerns_every_job().then_some(fault)
    }

    /// Gives a job back, uncounted, for a fault of this worker: the coordinator publishes it again
    /// for another one.
    pub(super) async fn decline(
        &self,
        lease: JobLease,
        attempt: AttemptId,
        after_epoch: u32,
        fault: &Fault,
    ) {
        tracing::warn!(job = %lease.job.job, fault = %fault.kind, "the job goes back: another worker may do it");
        let body = ResultBody::Declined {
            after_epoch,
            fault: fault.clone(),
        };
        let report = self.report(&lease, attempt, body);
        self.report_and_ack(&lease, report).await;
    }

    /// Takes no jobs until the pause is over or what was wrong is seen to be mended. Returns whether
    /// to go on at all: with `--once` a worker that cannot work for so long leaves.
    pub(super) async fn sit_out(&self, idle_since: Instant) -> bool {
        let Some((fault, until)) = self.status.sitting_out() else {
            return true;
        };
        let need = self.needed.get();
        let mut look = LOOKS.0;
        let mut seen_broken = false;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            self.shutdown.sleep(look.min(left)).await;
            if self.shutdown.is_requested() {
                return true;
            }
            let over = until <= Instant::now();
            // A device that broke may compute a moment later: it has its whole pause.
            if fault.kind == FaultKind::Device && !over {
                continue;
            }
            match self.probe(&fault, &need).await {
                // One that looks sound at once was not seen: the pause is for that.
                None if over || seen_broken => {
                    tracing::info!("jobs are lease again: it can {}", fault.deed());
                    match fault.kind {
                        FaultKind::Device | FaultKind::Method => {
                            self.status.health(|health| health.takes_again());
                        }
                        _ => self.status.health(|health| health.mended()),
                    }
                    return true;
                }
                None => {}
                Some(still) => {
                    seen_broken = true;
                    if over && still.kind.concerns_every_job() {
                        tracing::warn!("still no jobs are lease: it {still}");
                        if still.kind == FaultKind::Device {
                            self.broken
                                .store(true, std::sync::atomic::Ordering::Relaxed);
                        }
                        self.status.met(still);
                        return true;
                    }
                    if over {
                        // Others than the last may go.
                        self.status.health(|health| health.takes_again());
                        return true;
                    }
                }
            }
            let once = self.settings.once;
            if once.is_some_and(|once| idle_since.elapsed() >= once) {
                tracing::error!("nothing could be done: shutdown");
                return false;
            }
            look = (look * 2).min(LOOKS.1);
        }
    }

    /// What is still wrong, if it can be seen.
    async fn probe(&self, fault: &Fault, need: &Need) -> Option<Fault> {
        let name = &self.settings.name;
        match (fault.kind, need) {
            (FaultKind::Store, _) => {
                let error = self.store.probe(name).await.err()?;
                Some(of_store(&error).unwrap_or_else(|| fault.clone()))
            }
            (FaultKind::DataFolder, _) => {
                let folder = &self.settings.data_dir;
                match probe_data_folder(folder, name) {
                    Ok(None) => None,
                    Ok(Some(warning)) => Some(Fault::new(
                        FaultKind::DataFolder,
                        fault.what.clone(),
                        vec![warning],
                    )),
                    Err(error) => Some(of_data_folder(folder, &error)),
                }
            }
            (_, Need::Inputs(spec)) => {
                let error = self.inputs(spec).await.err()?;
                Some(of_blob(&error, spec).unwrap_or_else(|| fault.clone()))
            }
            (_, Need::Checkpoint(hash)) => {
                match self.store.size(&Key::Checkpoint(hash.clone())).await {
                    Ok(Some(_)) => None,
                    Ok(None) => Some(fault.clone()),
                    Err(error) => Some(of_store(&error).unwrap_or_else(|| fault.clone())),
                }
            }
            (FaultKind::Device, _) => match self.engine.probe().await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(Fault::new(
                    FaultKind::Device,
                    fault.what.clone(),
                    chain(&error),
                )),
                Err(gone) => Some(Fault::new(
                    FaultKind::Device,
                    fault.what.clone(),
                    chain(&gone),
                )),
            },
            // A program learns no method while it runs.
            (FaultKind::Method, _) => Some(fault.clone()),
            (FaultKind::Dataset | FaultKind::Encoder | FaultKind::Checkpoint, Need::Kind) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use halfheard_models::train::failure;
    use halfheard_shared::wire::{BlobRef, FailureKind, Fidelity, Protocol, Selection};

    fn spec(hyper: serde_json::Value) -> TrainSpec {
        let blob = BlobRef {
            blake3: "ab".repeat(32),
            path: "/nowhere".into(),
        };
        TrainSpec {
            method: "lnln".into(),
            variant: String::new(),
            dataset: halfheard_shared::benchmark::Benchmark::Mosi,
            data: blob.clone(),
            encoder: blob,
            tokens: halfheard_shared::encoder::TokenIds::BERT,
            seed: 1,
            max_epochs: 1,
            hyper: hyper.to_string(),
            protocol: Protocol {
                selection: Selection::Validation,
                train_missing: true,
                erasure_seed: 1111,
                selection_rate: 500,
                fidelity: Fidelity::Reference,
            },
            numerics: halfheard_shared::numerics::Numerics::Machine,
        }
    }

    fn own_hyper() -> serde_json::Map<String, serde_json::Value> {
        methods::find("lnln").unwrap().hyper.clone()
    }

    #[test]
    fn a_hyper_parameter_of_another_release_is_the_workers_fault() {
        let folder = tempfile::tempdir().unwrap();
        let refused = TrainError::Method(MethodError::Hyper {
            method: "lnln",
            what: "unknown field `tokenz`".into(),
        });
        let mut hyper = own_hyper();
        // One that every release has, with a value that makes no model: the job's own.
        let same = spec(hyper.clone().into());
        assert_eq!(of_training(&refused, &same, folder.path()), None);
        assert_eq!(failure("x", &refused).kind, FailureKind::Permanent);
        hyper.insert("tokenz".into(), 4.into());
        hyper.remove("alpha");
        let fault = of_training(&refused, &spec(hyper.into()), folder.path()).unwrap();
        assert_eq!(
            (fault.kind, fault.what.as_str()),
            (FaultKind::Method, "method lnln")
        );
        let text = fault.to_string();
        assert!(
            text.contains("`tokenz`") && text.contains("`alpha`"),
            "{text}"
        );
        let unknown = TrainError::Unknown {
            method: "nonesuch".into(),
        };
        let fault = of_training(&unknown, &same, folder.path()).unwrap();
        assert_eq!(fault.deed(), "run method nonesuch");
    }

    #[test]
    fn an_encoder_that_cannot_be_read_is_the_workers_fault_and_one_that_is_wrong_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let missing = halfheard_shared::encoder::Encoder::open(folder.path()).unwrap_err();
        let refused = TrainError::Method(missing.into());
        let spec = spec(own_hyper().into());
        std::fs::write(folder.path().join("config.json"), "{}").unwrap();
        assert_eq!(of_training(&refused, &spec, folder.path()), None);
        let gone = folder.path().join("gone");
        let fault = of_training(&refused, &spec, &gone).unwrap();
        assert_eq!(fault.deed(), "read text encoder abababab");
    }

    #[test]
    fn what_is_wrong_with_a_name_or_a_size_is_not_the_stores_fault() {
        let hash = ArtifactError::Hash("zz".into());
        assert_eq!(of_store(&hash), None);
        let missing = ArtifactError::Missing { key: "k".into() };
        assert_eq!(of_store(&missing).unwrap().deed(), "use the artifact store");
    }

    #[test]
    fn jobs_are_passed_on_until_they_come_round() {
        let needed = Needed::default();
        let job = |n: usize| JobId::derive(&[&n.to_le_bytes()]);
        assert!(needed.passes_on(job(0)) && needed.passes_on(job(1)));
        assert!(!needed.passes_on(job(0)), "it has come round");
        needed.set(Need::Kind);
        assert!(needed.passes_on(job(0)), "after another pause");
        assert!((1..PASSED_ON).all(|n| needed.passes_on(job(n))));
        assert!(!needed.passes_on(job(PASSED_ON)), "not for ever");
    }

    #[test]
    fn a_data_folder_is_probed() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("a/b");
        assert_eq!(probe_data_folder(&data, "w").unwrap(), None);
        assert_eq!(std::fs::read_dir(&data).unwrap().count(), 0);
        // A folder stands where the probe is written: nothing can be written there.
        std::fs::create_dir(data.join(".probe-w")).unwrap();
        let warning = probe_data_folder(&data, "w").unwrap().unwrap();
        assert!(warning.contains("cannot be written"), "{warning}");
        let file = folder.path().join("file");
        std::fs::write(&file, "no folder").unwrap();
        assert!(probe_data_folder(&file, "w").is_err());
    }
}
