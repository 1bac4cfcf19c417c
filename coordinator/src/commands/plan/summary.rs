//! The summary of a plan.

use super::model_name::model_name;
use super::{
    estimate::{Estimate, Open},
    forecast::Forecast,
    hardware::Hardware,
    states::States,
};
use crate::submission::{
    Loaded,
    memory::{self, SlotNeed, gigabytes},
    programs::{self, ExternalPrograms},
    sharing,
};
use comfy_table::{CellAlignment, Table, presets};
use halfheard_results::tables::protocols;
use halfheard_shared::{
    ids::SweepId,
    matrix::{self, PlannedWork},
    results,
    spec::ResolvedSpec,
    text::count,
    wire::Protocol,
};
use halfheard_store::{JobState, submit::Shared};
use serde::Serialize;
use std::{collections::BTreeMap, fmt};

/// The number of jobs of one method on one dataset, and how many of them are done.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Part {
    train: usize,
    train_done: usize,
    eval: usize,
    eval_done: usize,
}

#[derive(Serialize)]
struct Row {
    method: String,
    dataset: String,
    jobs: Part,
}

#[derive(Serialize)]
struct Memory {
    slots: Vec<SlotNeed>,
    /// The number of workers that `coord run` would start.
    workers: usize,
    available_bytes: Option<u64>,
}

#[derive(Serialize)]
pub(super) struct Summary<'a> {
    name: &'a str,
    sweep: Option<SweepId>,
    submitted: bool,
    /// Why the states of jobs are unknown.
    database: Option<&'a str>,
    pending_datasets: &'a [String],
    external_programs: ExternalPrograms,
    notes: &'a [String],
    /// Needs of jobs that no live worker meets.
    unmet_needs: &'a [String],
    memory: Memory,
    counts: matrix::Counts,
    seeds: &'a [u64],
    cases: &'a [String],
    protocol: &'a Protocol,
    /// How each method and variant is trained.
    protocols: Vec<results::Protocol>,
    by_method: Vec<Row>,
    /// Jobs that no sweep has asked for, and what becomes of the others; unknown without a database.
    new_jobs: Option<i64>,
    shared: Option<Shared>,
    estimate: Estimate,
    /// What the open jobs cost.
    forecast: Forecast,
    #[serde(skip)]
    states: &'a States,
}

impl<'a> Summary<'a> {
    /// `tuned_workers` is what `coord tune-machine` found for the spec.
    pub(super) fn new(
        loaded: &'a Loaded,
        sweep: Option<SweepId>,
        states: &'a States,
        unmet_needs: &'a [String],
        tuned_workers: Option<usize>,
        hardware: Option<Hardware>,
    ) -> Self {
        let resolved: &ResolvedSpec = &loaded.resolved;
        let workers = loaded.spec.resources.workers.map(usize::from);
        let workers = workers.or(tuned_workers);
        let by_method = rows(loaded, states);
        let open = || {
            by_method.iter().map(|row| Open {
                model: &row.method,
                dataset: &row.dataset,
                trainings: row.jobs.train - row.jobs.train_done,
                evaluations: row.jobs.eval - row.jobs.eval_done,
            })
        };
        let (new_jobs, shared) = match states {
            States::Known(_) => {
                let (new, shared) = shared(loaded, states);
                (Some(new), Some(shared))
            }
            _ => (None, None),
        };
        Self {
            estimate: Estimate::new(loaded, open(), states.measured()),
            forecast: Forecast::new(resolved, loaded, open(), states.timings(), hardware),
            new_jobs,
            shared,
            name: &resolved.name,
            sweep,
            submitted: states.is_submitted(),
            database: match states {
                States::Unknown(reason) => Some(reason),
                _ => None,
            },
            pending_datasets: &loaded.pending,
            external_programs: programs::of_sweep(resolved),
            notes: &loaded.notes,
            unmet_needs,
            memory: Memory {
                slots: memory::of_sweep(loaded),
                workers: workers.unwrap_or(memory::DEFAULT_WORKERS),
                available_bytes: memory::available(),
            },
            counts: matrix::counts(resolved),
            seeds: &resolved.seeds,
            cases: &resolved.cases,
            protocol: &resolved.protocol,
            protocols: results::Protocol::of_spec(resolved),
            by_method,
            states,
        }
    }
}

/// Counts jobs by method and dataset, in the order of the spec.
fn rows(loaded: &Loaded, states: &States) -> Vec<Row> {
    let mut parts: BTreeMap<(usize, String, String), Part> = BTreeMap::new();
    for job in matrix::expand(loaded.resolved.clone(), None) {
        let spec = match &job.work {
            PlannedWork::Train(spec) | PlannedWork::Eval { spec, .. } => spec,
            PlannedWork::Noop => continue,
        };
        let methods = loaded.resolved.methods.iter();
        let order = methods
            .take_while(|m| m.method != spec.method || m.variant != spec.variant)
            .count();
        let name = model_name(&spec.method, &spec.variant);
        let key = (order, name, spec.dataset.id().to_owned());
        let part = parts.entry(key).or_default();
        let (all, done) = match job.work {
            PlannedWork::Train(_) => (&mut part.train, &mut part.train_done),
            _ => (&mut part.eval, &mut part.eval_done),
        };
        *all += 1;
        *done += usize::from(states.is_done(job.id));
    }
    let row = |((_, method, dataset), jobs)| Row {
        method,
        dataset,
        jobs,
    };
    parts.into_iter().map(row).collect()
}

/// Counts the jobs that no sweep has asked for, and the others as a submission would find them.
fn shared(loaded: &Loaded, states: &States) -> (i64, Shared) {
    let (mut new, mut shared) = (0, Shared::default());
    let mut under: BTreeMap<&str, usize> = BTreeMap::new();
    for job in matrix::expand(loaded.resolved.clone(), None) {
        let Some(known) = states.get(job.id) else {
            new += 1;
            continue;
        };
        match known.state {
            JobState::Done => shared.done += 1,
            JobState::Failed => shared.failed += 1,
            JobState::Cancelled => shared.cancelled += 1,
            JobState::Blocked | JobState::Ready | JobState::Queued | JobState::Running => {
                shared.open += 1;
                if let Some(name) = known.sweep.and_then(|sweep| states.name(sweep)) {
                    *under.entry(name).or_default() += 1;
                }
            }
        }
    }
    let mut under: Vec<(&str, usize)> = under.into_iter().collect();
    under.sort_by_key(|(_, jobs)| std::cmp::Reverse(*jobs));
    let names = under.into_iter().take(3);
    shared.sweeps = names.map(|(name, _)| name.to_owned()).collect();
    (new, shared)
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.sweep {
            Some(sweep) => writeln!(f, "{} ({sweep})", self.name)?,
            None => writeln!(f, "{}", self.name)?,
        }
        let mut table = Table::new();
        table.load_style(presets::UTF8_HORIZONTAL_ONLY);
        table.set_header(["method", "dataset", "training", "evaluation"]);
        let any = self
            .by_method
            .iter()
            .any(|row| row.jobs.train_done + row.jobs.eval_done > 0);
        let show = |all: usize, done: usize| match self.submitted || any {
            true => format!("{done} of {all} done"),
            false => all.to_string(),
        };
        for row in &self.by_method {
            table.add_row([
                row.method.clone(),
                row.dataset.clone(),
                show(row.jobs.train, row.jobs.train_done),
                show(row.jobs.eval, row.jobs.eval_done),
            ]);
        }
        for column in table.column_iter_mut().skip(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        writeln!(f, "{table}")?;
        writeln!(
            f,
            "{} and {}: {}, {}",
            count(self.counts.train, "training job"),
            count(self.counts.eval, "evaluation job"),
            count(self.seeds.len(), "seed"),
            count(self.cases.len(), "case")
        )?;
        for line in protocols::lines(&self.protocols, |_| true) {
            writeln!(f, "{line}")?;
        }
        for name in self.pending_datasets {
            writeln!(
                f,
                "dataset `{name}` does not exist yet; submitting the spec creates it"
            )?;
        }
        write!(
            f,
            "{}{}{}{}",
            self.external_programs, self.memory, self.estimate, self.forecast
        )?;
        for note in self.notes.iter().chain(self.unmet_needs) {
            writeln!(f, "note: {note}")?;
        }
        match self.states {
            States::NoDatabase => writeln!(f, "no sweep was run here yet"),
            States::Known(_) if !self.submitted => {
                let all = (self.counts.train + self.counts.eval) as i64;
                let shared = self.new_jobs.zip(self.shared.as_ref());
                match shared.and_then(|(new, shared)| sharing::describe(all, new, shared)) {
                    Some(shared) => writeln!(f, "not submitted yet: {shared}"),
                    None => writeln!(f, "not submitted yet"),
                }
            }
            States::Known(_) | States::Pending => Ok(()),
            States::Unknown(reason) => writeln!(f, "progress is unknown: {reason}"),
        }
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(largest) = self.slots.first() else {
            return Ok(());
        };
        writeln!(
            f,
            "memory: a slot needs up to about {} on the CPU ({} on {}, batches of {})",
            gigabytes(largest.bytes),
            largest.method,
            largest.dataset,
            largest.batch_size
        )?;
        let total = largest.bytes.saturating_mul(self.workers as u64);
        match self.available_bytes {
            Some(available) if total > available => writeln!(
                f,
                "note: {} of `coord run` may need {}, and {} are free: use fewer (`--workers`, \
                 `[resources]`) or a smaller `batch_size`",
                count(self.workers, "worker"),
                gigabytes(total),
                gigabytes(available)
            ),
            _ => Ok(()),
        }
    }
}
