//! Which artifacts nobody needs, and deleting them.
//!
//! What is young is left alone: it may belong to a job that has yet to report it, or be on its way. What
//! is old is asked about once more just before it goes, because a job may have reported it meanwhile.

use halfheard_shared::{
    artifacts::{Amount, ArtifactError, ArtifactKind, ArtifactStore, Entry, Key, Leftover, age},
    atomic_file::is_temporary,
    encoder::read_list,
    error::chain,
    hash::Hash,
    ids::{AttemptId, JobId},
};
use halfheard_store::Store;
use serde::Serialize;
use std::{
    collections::{BTreeMap, HashSet},
    time::{Duration, SystemTime},
};

/// Artifacts that are asked about at once.
const BATCH: usize = 1000;
/// The note of a deletion and a probe stay so long.
const DAY: Duration = Duration::from_secs(86_400);

/// How the names of files begin that a worker is fetching.
const PARTIAL: &str = ".partial-";
/// Maximum size of an encoder's list of files in bytes.
const MAX_LIST: u64 = 1 << 20;

/// What is to become of the artifacts of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Share {
    /// Needed.
    pub(crate) kept: Amount,
    /// Not needed as far as is known, but too young to tell.
    pub(crate) young: Amount,
    /// Needed by nobody.
    pub(crate) unneeded: Amount,
}

/// What lies in a store, and what of it can go.
#[derive(Debug, Serialize)]
pub(crate) struct Findings {
    /// By kind.
    pub(crate) kinds: BTreeMap<ArtifactKind, Share>,
    /// Temporary files and parts of broken uploads; those that are young may still be written.
    pub(crate) leftovers: Share,
    /// Things in the store's folders that are no artifacts.
    pub(crate) foreign: u64,
    #[serde(skip)]
    doomed: Vec<Entry>,
    #[serde(skip)]
    doomed_leftovers: Vec<Leftover>,
}

impl Findings {
    /// What can go.
    pub(crate) fn unneeded(&self) -> Amount {
        let mut sum = self.leftovers.unneeded;
        for share in self.kinds.values() {
            sum.count += share.unneeded.count;
            sum.bytes += share.unneeded.bytes;
        }
        sum
    }
}

/// What was deleted.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Freed {
    pub(crate) deleted: Amount,
    /// Those that could not be deleted.
    pub(crate) failed: u64,
    /// Why, for the first of them.
    pub(crate) error: Option<String>,
}

/// Looks through the store.
///
/// # Errors
///
/// The store cannot be listed or written, or the database fails.
pub(crate) async fn look(
    artifacts: &ArtifactStore,
    database: &Store,
    keep_states: Duration,
) -> anyhow::Result<Findings> {
    // Before the list: what is written meanwhile is younger than it seems.
    let now = artifacts.now().await?;
    let inventory = artifacts.inventory().await?;
    let mut needs = Needs::load(artifacts, database, keep_states, &inventory.entries).await?;
    let mut findings = Findings {
        kinds: BTreeMap::new(),
        leftovers: Share::default(),
        foreign: inventory.foreign,
        doomed: Vec::new(),
        doomed_leftovers: Vec::new(),
    };
    for batch in inventory.entries.chunks(BATCH) {
        needs.ask(batch).await?;
        for entry in batch {
            let share = findings.kinds.entry(entry.key.kind()).or_default();
            if needs.contain(&entry.key) {
                share.kept.add(entry.bytes);
            } else if age(now, entry.modified) < needs.grace(entry.key.kind()) {
                share.young.add(entry.bytes);
            } else {
                share.unneeded.add(entry.bytes);
                findings.doomed.push(entry.clone());
            }
        }
    }
    for leftover in inventory.leftovers {
        if age(now, leftover.modified) < DAY {
            findings.leftovers.young.add(leftover.bytes);
        } else {
            findings.leftovers.unneeded.add(leftover.bytes);
            findings.doomed_leftovers.push(leftover);
        }
    }
    Ok(findings)
}

/// Deletes what was found to be needed by nobody and still is not.
///
/// # Errors
///
/// The database's. What the store refuses is counted.
pub(crate) async fn delete(
    findings: &Findings,
    artifacts: &ArtifactStore,
    database: &Store,
    keep_states: Duration,
) -> anyhow::Result<Freed> {
    let mut freed = Freed::default();
    let note = |errors: Vec<ArtifactError>, freed: &mut Freed| {
        freed.failed += errors.len() as u64;
        if let Some(error) = errors.first() {
            freed.error.get_or_insert_with(|| chain(error));
        }
    };
    let mut needs = Needs::load(artifacts, database, keep_states, &findings.doomed).await?;
    for batch in findings.doomed.chunks(BATCH) {
        needs.ask(batch).await?;
        let mut doomed = Vec::with_capacity(batch.len());
        for entry in batch {
            if !needs.contain(&entry.key) && artifacts.is_unchanged(entry).await? {
                doomed.push(entry);
            }
        }
        let errors = artifacts
            .delete_all(doomed.iter().map(|entry| entry.key.clone()))
            .await;
        // Which ones failed does not matter: they are found again.
        for entry in doomed.iter().skip(errors.len()) {
            freed.deleted.add(entry.bytes);
        }
        note(errors, &mut freed);
    }
    for leftover in &findings.doomed_leftovers {
        match artifacts.remove(leftover).await {
            Ok(()) => freed.deleted.add(leftover.bytes),
            Err(error) => note(vec![error], &mut freed),
        }
    }
    Ok(freed)
}

/// What is needed, as far as it was asked about.
struct Needs<'a> {
    database: &'a Store,
    keep_states: Duration,
    /// For how long trainings are under way that may have written checkpoints already.
    unreported: Duration,
    /// Datasets, encoders, the files of encoders, and external programs.
    data: HashSet<String>,
    checkpoints: HashSet<String>,
    states: HashSet<JobId>,
    attempts: HashSet<AttemptId>,
}

impl<'a> Needs<'a> {
    async fn load(
        artifacts: &ArtifactStore,
        database: &'a Store,
        keep_states: Duration,
        entries: &[Entry],
    ) -> anyhow::Result<Self> {
        let mut data = database.needed_data().await?;
        let mut files = Vec::new();
        for entry in entries {
            let Key::EncoderFiles(encoder) = &entry.key else {
                continue;
            };
            if data.contains(encoder.as_str()) {
                files.extend(files_of(artifacts, &entry.key, encoder).await?);
            }
        }
        data.extend(files);
        Ok(Self {
            database,
            keep_states,
            unreported: database.unreported_for().await?,
            data,
            checkpoints: HashSet::new(),
            states: HashSet::new(),
            attempts: HashSet::new(),
        })
    }

    /// Asks the database about these.
    async fn ask(&mut self, batch: &[Entry]) -> anyhow::Result<()> {
        let mut checkpoints = HashSet::new();
        let mut states = HashSet::new();
        let mut attempts = HashSet::new();
        for entry in batch {
            match &entry.key {
                Key::Checkpoint(hash) | Key::Features(hash, _) => {
                    checkpoints.insert(hash.to_string());
                }
                Key::Resume(job) | Key::ResumeCheckpoint(job, _) => {
                    states.insert(*job);
                }
                Key::Output(attempt) => {
                    attempts.insert(*attempt);
                }
                _ => {}
            }
        }
        let checkpoints: Vec<String> = checkpoints.into_iter().collect();
        let states: Vec<JobId> = states.into_iter().collect();
        let attempts: Vec<AttemptId> = attempts.into_iter().collect();
        self.checkpoints = self.database.needed_checkpoints(&checkpoints).await?;
        self.states = self
            .database
            .needed_states(&states, self.keep_states)
            .await?;
        self.attempts = self.database.known_attempts(&attempts).await?;
        Ok(())
    }

    /// Whether an artifact of the last batch is needed.
    fn contain(&self, key: &Key) -> bool {
        let known = |hash: &Hash, set: &HashSet<String>| set.contains(hash.as_str());
        match key {
            Key::Checkpoint(hash) | Key::Features(hash, _) => known(hash, &self.checkpoints),
            Key::Resume(job) | Key::ResumeCheckpoint(job, _) => self.states.contains(job),
            Key::Blob(hash) | Key::EncoderConfig(hash) | Key::EncoderFiles(hash) => {
                known(hash, &self.data)
            }
            Key::Output(attempt) => self.attempts.contains(attempt),
            Key::StoreId => true,
            Key::Probe(_) => false,
        }
    }

    /// How old an artifact must be before it is taken for unneeded.
    fn grace(&self, kind: ArtifactKind) -> Duration {
        match kind {
            // A training that is under way uploads its checkpoints before it reports them, and the
            // report may be held up for as long as the broker is away.
            ArtifactKind::Checkpoints | ArtifactKind::Features => self.unreported + kind.grace(),
            kind => kind.grace(),
        }
    }
}

/// The hashes of the files of an encoder that has other files than one.
async fn files_of(
    artifacts: &ArtifactStore,
    key: &Key,
    encoder: &Hash,
) -> anyhow::Result<Vec<String>> {
    let Some(list) = artifacts.get(key, MAX_LIST).await? else {
        return Ok(Vec::new());
    };
    // A list that cannot be read is damaged; without it the files are of no use.
    let files = read_list(&list, encoder).unwrap_or_default();
    Ok(files
        .into_iter()
        .map(|(_, hash)| hash.to_string())
        .collect())
}

/// Removes temporary files of processes that were killed, older than a day, from a folder and the
/// folders below it.
///
/// # Errors
///
/// The folder cannot be read.
pub(crate) fn sweep_temporary(folder: &std::path::Path, dry_run: bool) -> std::io::Result<Amount> {
    let mut amount = Amount::default();
    let mut folders = vec![folder.to_owned()];
    let now = SystemTime::now();
    while let Some(folder) = folders.pop() {
        let files = match std::fs::read_dir(&folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            files => files?,
        };
        for file in files {
            let file = file?;
            let Ok(metadata) = file.metadata() else {
                continue;
            };
            let name = file.file_name();
            if metadata.is_dir() {
                // The private servers look after their own.
                if name != "embedded" {
                    folders.push(file.path());
                }
            } else if is_unfinished(&name.to_string_lossy())
                && age(now, metadata.modified()?) >= DAY
            {
                if !dry_run {
                    std::fs::remove_file(file.path())?;
                }
                amount.add(metadata.len());
            }
        }
    }
    Ok(amount)
}

/// Whether a file of this name was never finished: written, or fetched from the store.
fn is_unfinished(name: &str) -> bool {
    is_temporary(name) || name.starts_with(PARTIAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_old_temporary_files_are_removed() {
        let root = tempfile::tempdir().unwrap();
        let below = root.path().join("mosi");
        std::fs::create_dir(&below).unwrap();
        let old = below.join(".halfheard-aB3");
        let young = below.join(".halfheard-xY9");
        let data = below.join("data.safetensors");
        for path in [&old, &young, &data] {
            std::fs::write(path, b"half").unwrap();
        }
        for path in [&old, &data] {
            let file = std::fs::File::options().write(true).open(path).unwrap();
            file.set_modified(SystemTime::now() - 2 * DAY).unwrap();
        }
        let amount = Amount { count: 1, bytes: 4 };
        assert_eq!(sweep_temporary(root.path(), true).unwrap(), amount);
        assert!(old.exists());
        assert_eq!(sweep_temporary(root.path(), false).unwrap(), amount);
        assert!(!old.exists() && young.exists() && data.exists());
        let none = sweep_temporary(&root.path().join("none"), false).unwrap();
        assert_eq!(none, Amount::default());
    }
}
