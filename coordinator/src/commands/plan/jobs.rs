//! The list of a plan's jobs.

use super::{model_name::model_name, states::States};
use crate::{output::Output, submission::Loaded};
use halfheard_shared::{
    benchmark::Benchmark,
    ids::{JobId, SweepId},
    matrix::{self, PlannedWork},
};
use serde::Serialize;
use std::io::Write as _;

#[derive(Serialize)]
struct Job {
    job: Option<JobId>,
    kind: &'static str,
    method: String,
    dataset: Benchmark,
    seed: u64,
    case: Option<String>,
    state: String,
}

/// Prints one line or JSON object per job.
pub(super) fn print(
    loaded: &Loaded,
    sweep: Option<SweepId>,
    states: &States,
    output: Output,
) -> anyhow::Result<()> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for planned in matrix::expand(loaded.resolved.clone(), None) {
        let (kind, spec, case) = match &planned.work {
            PlannedWork::Train(spec) => ("train", spec, None),
            PlannedWork::Eval { spec, case, .. } => ("eval", spec, Some(case.to_string())),
            PlannedWork::Noop => continue,
        };
        let job = Job {
            job: sweep.map(|_| planned.id),
            kind,
            method: model_name(&spec.method, &spec.variant),
            dataset: spec.dataset,
            seed: spec.seed,
            case,
            state: states.of(planned.id),
        };
        if output.is_json() {
            writeln!(out, "{}", serde_json::to_string(&job)?)?;
        } else {
            writeln!(
                out,
                "{}  {:5}  {:<24} {:<6} seed {:<6} {:<12} {}",
                job.job.map_or_else(|| "-".to_owned(), |id| id.to_string()),
                job.kind,
                job.method,
                job.dataset.id(),
                job.seed,
                job.case.unwrap_or_default(),
                job.state
            )?;
        }
    }
    out.flush()?;
    Ok(())
}
