//! The results of one sweep, read once.

use super::{
    Build, Cells, Checkpoint, Conflict, DatasetFile, Fact, Job, JobOutcome, JobTally, Model,
    Protocol, StoredValues,
};
use crate::{
    benchmark::Benchmark,
    case::Case,
    ids::{JobId, SweepId},
    wire::Selection,
};
use std::{
    collections::{BTreeSet, HashMap},
    time::SystemTime,
};

/// What a sweep left in the database, read in one transaction.
#[derive(Clone, Debug)]
pub struct Results {
    /// The sweep.
    pub sweep: Sweep,
    /// Every dataset in the database: the paper's in its order, then others by name.
    pub known: Vec<Benchmark>,
    /// Every metric of every model, at each case and over all cases of a kind.
    pub cells: Cells,
    /// The same with the checkpoints that the test split chose, where both splits choose; otherwise empty.
    pub cells_on_test: Cells,
    /// Training and evaluation jobs, counted.
    pub tally: Vec<JobTally>,
    /// Training and evaluation jobs, in the order of the sweep; `None` of a sweep of very many, unless wanted.
    pub jobs: Option<Vec<Job>>,
    /// The protocols that models are trained by.
    pub protocols: Vec<Protocol>,
    /// The kinds of processors that results were computed on.
    pub processors: Vec<String>,
    /// The models whose predictions were imported: they were trained elsewhere.
    pub imported: Vec<Model>,
    /// The external programs among the methods, each with the BLAKE3 of its files' bundle.
    pub external: Vec<(String, String)>,
    /// The files of the datasets, as far as the database has them.
    pub files: Vec<DatasetFile>,
    /// Programs, devices, data and encoders behind the results, in the order of a report.
    pub provenance: Vec<Fact>,
    /// Checkpoints whose features are kept; empty unless wanted.
    pub checkpoints: Vec<Checkpoint>,
    /// What the audit checks beyond this; `None` unless wanted.
    pub audit: Option<AuditRecords>,
}

/// A sweep's name and origin.
#[derive(Clone, Debug)]
pub struct Sweep {
    /// Its id.
    pub id: SweepId,
    /// Its name.
    pub name: String,
    /// When it was submitted.
    pub created: SystemTime,
    /// The spec as it was submitted.
    pub spec: String,
}

/// What only the audit reads.
#[derive(Clone, Debug, Default)]
pub struct AuditRecords {
    /// Every stored value of every evaluation.
    pub values: HashMap<JobId, StoredValues>,
    /// Results that arrived twice and differ.
    pub conflicts: Vec<Conflict>,
    /// Which programs on which kinds of machines did its jobs.
    pub builds: Vec<Build>,
    /// Models whose checkpoints were selected on the test split.
    pub selected_on_test: Vec<(Benchmark, Model)>,
}

/// Which optional parts of [`Results`] to read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    /// [`Results::provenance`].
    pub provenance: bool,
    /// [`Results::checkpoints`].
    pub checkpoints: bool,
    /// [`Results::audit`], and [`Results::jobs`] however many they are.
    pub audit: bool,
}

impl Results {
    /// The same sweep with the checkpoints that the test split chose, if it has them beside those of the
    /// validation split.
    pub fn chosen_on_test(&self) -> Option<Self> {
        self.cells_on_test.keys().next()?;
        let mut chosen = self.clone();
        chosen.cells = std::mem::take(&mut chosen.cells_on_test);
        for protocol in &mut chosen.protocols {
            if protocol.selection == Selection::Both {
                protocol.selection = Selection::Test;
            }
        }
        Some(chosen)
    }

    /// All jobs that were read one by one: of the audit, all there are.
    pub fn each_job(&self) -> &[Job] {
        self.jobs.as_deref().unwrap_or_default()
    }

    /// How many evaluations there are on the cases for which `shown` is true, by dataset, model, case and outcome.
    pub fn evaluations(
        &self,
        shown: impl Fn(Benchmark, Case) -> bool,
    ) -> impl Iterator<Item = &JobTally> {
        let tally = self.tally.iter();
        tally.filter(move |t| t.case.is_some_and(|case| shown(t.dataset, case)))
    }

    /// The seeds of these evaluations: how many. Where jobs were not read one by one, those of the model with the most.
    pub fn seeds(&self, shown: impl Fn(Benchmark, Case) -> bool) -> usize {
        if let Some(jobs) = &self.jobs {
            let shown = |job: &&Job| job.case.is_some_and(|case| shown(job.dataset, case));
            let seeds: BTreeSet<u64> = jobs.iter().filter(shown).map(|job| job.seed).collect();
            return seeds.len();
        }
        let mut seeds: HashMap<(Benchmark, &Model, Option<Case>), u64> = HashMap::new();
        for tally in self.evaluations(shown) {
            *seeds
                .entry((tally.dataset, &tally.model, tally.case))
                .or_default() += tally.jobs;
        }
        let most = seeds.into_values().max().unwrap_or_default();
        usize::try_from(most).unwrap_or(usize::MAX)
    }

    /// The datasets and methods of which an evaluation is done. Predictions are loaded for one of
    /// these at a time: they are large.
    pub fn evaluated(&self) -> BTreeSet<(Benchmark, &str)> {
        self.evaluations(|_, _| true)
            .filter(|tally| tally.outcome == JobOutcome::Done)
            .map(|tally| (tally.dataset, tally.model.method.as_str()))
            .collect()
    }

    /// The datasets that models are trained on, by name.
    pub fn trained_datasets(&self) -> Vec<Benchmark> {
        let trained = self.tally.iter().filter(|tally| tally.case.is_none());
        let mut datasets: Vec<Benchmark> = trained.map(|tally| tally.dataset).collect();
        datasets.sort_by_key(|dataset| dataset.id());
        datasets.dedup();
        datasets
    }
}
