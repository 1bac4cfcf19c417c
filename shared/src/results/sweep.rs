//! The results of one sweep, read once.

use super::{
    Build, Cells, Checkpoint, Conflict, DatasetFile, Fact, Job, JobOutcome, Model, Protocol,
    StoredValues,
};
use crate::{
    benchmark::Benchmark,
    case::CaseKind,
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
    /// Training and evaluation jobs, in the order of the sweep.
    pub jobs: Vec<Job>,
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
    /// [`Results::audit`].
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

    /// Evaluation jobs of a kind of case.
    pub fn evaluations(&self, kind: CaseKind) -> impl Iterator<Item = &Job> {
        let jobs = self.jobs.iter();
        jobs.filter(move |job| job.case.is_some_and(|case| case.kind() == Some(kind)))
    }

    /// The datasets and methods of which an evaluation is done. Predictions are loaded for one of
    /// these at a time: they are large.
    pub fn evaluated(&self) -> BTreeSet<(Benchmark, &str)> {
        let done = self.jobs.iter();
        done.filter(|job| job.case.is_some() && job.outcome == JobOutcome::Done)
            .map(|job| (job.dataset, job.model.method.as_str()))
            .collect()
    }

    /// The datasets that models are trained on, by name.
    pub fn trained_datasets(&self) -> Vec<Benchmark> {
        let trained = self.jobs.iter().filter(|job| job.case.is_none());
        let mut datasets: Vec<Benchmark> = trained.map(|job| job.dataset).collect();
        datasets.sort_by_key(|dataset| dataset.id());
        datasets.dedup();
        datasets
    }
}
