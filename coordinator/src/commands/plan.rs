//! `coord plan`: what a spec expands to.

use crate::{
    config::{Origin, Settings},
    local::Servers,
    local::connect::Database,
    submission::demand,
    submission::specs::{self, Loaded, Making},
};
use comfy_table::{CellAlignment, Table, presets};
use halfheard_shared::{
    error::chain,
    ids::{JobId, SweepId},
    matrix::{self, PlannedWork},
};
use halfheard_store::JobState;
use serde_json::json;
use std::{
    collections::{BTreeMap, HashMap},
    io::Write as _,
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

/// How long the database may take to answer before the plan is made without it.
const PATIENCE: Duration = Duration::from_secs(3);
/// The same, where the private database must be started first.
const START_PATIENCE: Duration = Duration::from_secs(30);

/// Arguments of `coord plan`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  coord plan deploy/benchmark.toml          what it expands to, and what is already done
  coord plan deploy/demo.toml --jobs        each job

Nothing is written: the spec is checked as `coord submit` would check it.")]
pub struct PlanArgs {
    /// The spec, a TOML file
    spec: PathBuf,
    /// List every job
    #[arg(long)]
    jobs: bool,
}

/// Prints what a spec expands to.
///
/// # Errors
///
/// A spec that cannot be used. A database that cannot be asked is only told.
pub async fn run(args: PlanArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let loaded = specs::load(&args.spec, &settings.data_dir, Making::Note)?;
    // Without the datasets' hashes there is no id yet.
    let sweep = loaded
        .to_make
        .is_empty()
        .then(|| loaded.resolved.sweep_id(None));
    let nothing_run = sweep.is_some() && nothing_was_run(settings);
    let states = match sweep {
        Some(sweep) if !nothing_run => states(settings, sweep).await,
        _ => Ok(HashMap::new()),
    };
    if args.jobs {
        return jobs(&loaded, sweep, &states, settings);
    }
    if settings.json {
        println!("{}", summary(&loaded, sweep, &states));
    } else {
        print(&loaded, sweep, &states, nothing_run);
    }
    Ok(ExitCode::SUCCESS)
}

type States = Result<HashMap<JobId, JobState>, String>;

/// Whether nothing names a database and `coord run` has left none in the data folder: then there is
/// none to ask, and nothing of the spec can be done.
fn nothing_was_run(settings: &Settings) -> bool {
    settings.database_origin == Origin::Default && !Servers::exists(&settings.data_dir)
}

/// The states of a sweep's jobs, where it has been submitted: in the database that the settings name,
/// or in the private one that `coord run` left, as `coord status` finds it.
async fn states(settings: &Settings, sweep: SweepId) -> States {
    // The private one is started first, which may take a while.
    let patience = match settings.database_origin {
        Origin::Default => START_PATIENCE,
        _ => PATIENCE,
    };
    // Only the first answer is waited for so long: a large sweep takes a while to tell.
    let database = match tokio::time::timeout(patience, Database::open(settings)).await {
        Ok(Ok(database)) => database,
        Ok(Err(error)) => return Err(format!("{error:#}")),
        Err(_) => return Err("the database does not answer".to_owned()),
    };
    let states = database.job_states(sweep).await;
    database.close().await;
    states.map_err(|error| chain(&error))
}

/// Jobs and done jobs of one method on one dataset.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
struct Part {
    train: usize,
    train_done: usize,
    eval: usize,
    eval_done: usize,
}

fn parts(
    loaded: &Loaded,
    sweep: Option<SweepId>,
    states: &States,
) -> BTreeMap<(usize, String, String), Part> {
    let mut parts: BTreeMap<(usize, String, String), Part> = BTreeMap::new();
    let id = sweep.unwrap_or_else(|| loaded.resolved.sweep_id(None));
    for job in matrix::expand(loaded.resolved.clone(), id) {
        let done = states
            .as_ref()
            .is_ok_and(|states| states.get(&job.id) == Some(&JobState::Done));
        let spec = match &job.work {
            PlannedWork::Train(spec) | PlannedWork::Eval { spec, .. } => spec,
            PlannedWork::Noop => continue,
        };
        let order = loaded.resolved.methods.iter();
        let order = order
            .take_while(|m| m.method != spec.method || m.variant != spec.variant)
            .count();
        let name = method_name(&spec.method, &spec.variant);
        let part = parts
            .entry((order, name, spec.dataset.id().to_owned()))
            .or_default();
        let (count, done_count) = match job.work {
            PlannedWork::Train(_) => (&mut part.train, &mut part.train_done),
            PlannedWork::Eval { .. } => (&mut part.eval, &mut part.eval_done),
            PlannedWork::Noop => continue,
        };
        *count += 1;
        *done_count += usize::from(done);
    }
    parts
}

fn method_name(method: &str, variant: &str) -> String {
    if variant.is_empty() {
        method.to_owned()
    } else {
        format!("{method}/{variant}")
    }
}

fn summary(loaded: &Loaded, sweep: Option<SweepId>, states: &States) -> serde_json::Value {
    let rows: Vec<_> = parts(loaded, sweep, states)
        .into_iter()
        .map(|((_, method, dataset), part)| {
            json!({ "method": method, "dataset": dataset, "jobs": part })
        })
        .collect();
    json!({
        "name": loaded.resolved.name,
        "sweep": sweep,
        "submitted": states.as_ref().is_ok_and(|states| !states.is_empty()),
        "database": states.as_ref().err(),
        "to_make": loaded.to_make,
        "notes": loaded.notes,
        "memory": {
            "slots": demand::of_sweep(loaded),
            "workers": workers(loaded),
            "available_bytes": demand::available(),
        },
        "counts": matrix::counts(&loaded.resolved),
        "seeds": loaded.resolved.seeds,
        "cases": loaded.resolved.cases,
        "protocol": loaded.resolved.protocol,
        "by_method": rows,
    })
}

fn print(loaded: &Loaded, sweep: Option<SweepId>, states: &States, nothing_run: bool) {
    let resolved = &loaded.resolved;
    let counts = matrix::counts(resolved);
    match sweep {
        Some(sweep) => println!("{} ({sweep})", resolved.name),
        None => println!("{}", resolved.name),
    }
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(["method", "dataset", "trainings", "evaluations"]);
    let known = states.as_ref().is_ok_and(|states| !states.is_empty());
    let show = |all: usize, done: usize| {
        if known {
            format!("{done} of {all} done")
        } else {
            all.to_string()
        }
    };
    for ((_, method, dataset), part) in parts(loaded, sweep, states) {
        table.add_row([
            method,
            dataset,
            show(part.train, part.train_done),
            show(part.eval, part.eval_done),
        ]);
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("{table}");
    println!(
        "{} and {}: {}, {}",
        many(counts.train, "training"),
        many(counts.eval, "evaluation"),
        many(resolved.seeds.len(), "seed"),
        many(resolved.cases.len(), "case")
    );
    for name in &loaded.to_make {
        println!("the dataset `{name}` is not there yet; submitting the spec makes it");
    }
    memory(loaded);
    for note in &loaded.notes {
        println!("note: {note}");
    }
    match states {
        Ok(_) if known => {}
        Ok(_) if nothing_run => println!("nothing was run here yet"),
        Ok(_) if sweep.is_some() => println!("not submitted yet"),
        Ok(_) => {}
        Err(reason) => println!("what is already done is not known: {reason}"),
    }
}

/// The workers that `coord run` would start.
fn workers(loaded: &Loaded) -> usize {
    let workers = loaded.spec.resources.workers.map(usize::from);
    workers.unwrap_or(crate::commands::run::slots::WORKERS)
}

/// What slots need, beside what there is.
fn memory(loaded: &Loaded) {
    let needs = demand::of_sweep(loaded);
    let Some(most) = needs.first() else {
        return;
    };
    println!(
        "memory: a slot takes up to about {} on the CPU ({} on {}, batches of {})",
        demand::gigabytes(most.bytes),
        most.method,
        most.dataset,
        most.batch_size
    );
    let workers = workers(loaded);
    let all = most.bytes.saturating_mul(workers as u64);
    let Some(available) = demand::available() else {
        return;
    };
    if all > available {
        println!(
            "note: {} as `coord run` starts here may take {}, and {} are free: give it fewer \
             (`--workers`, `[resources]`), or a smaller `batch_size`",
            many(workers, "worker"),
            demand::gigabytes(all),
            demand::gigabytes(available)
        );
    }
}

/// `1 seed`, `2 seeds`.
fn many(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// One line or JSON object a job.
fn jobs(
    loaded: &Loaded,
    sweep: Option<SweepId>,
    states: &States,
    settings: &Settings,
) -> anyhow::Result<ExitCode> {
    let id = sweep.unwrap_or_else(|| loaded.resolved.sweep_id(None));
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for job in matrix::expand(loaded.resolved.clone(), id) {
        let state = match states {
            Ok(states) => states
                .get(&job.id)
                .map_or_else(|| "new".to_owned(), ToString::to_string),
            Err(_) => "unknown".to_owned(),
        };
        let (kind, spec, case) = match &job.work {
            PlannedWork::Train(spec) => ("train", spec, None),
            PlannedWork::Eval { spec, case, .. } => ("eval", spec, Some(case.to_string())),
            PlannedWork::Noop => continue,
        };
        let method = method_name(&spec.method, &spec.variant);
        if settings.json {
            let line = json!({
                "job": sweep.map(|_| job.id), "kind": kind, "method": method,
                "dataset": spec.dataset, "seed": spec.seed, "case": case, "state": state,
            });
            writeln!(out, "{line}")?;
        } else {
            let name = sweep.map_or_else(|| "-".to_owned(), |_| job.id.to_string());
            writeln!(
                out,
                "{name}  {kind:5}  {method:<24} {:<6} seed {:<6} {:<12} {state}",
                spec.dataset.id(),
                spec.seed,
                case.unwrap_or_default()
            )?;
        }
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}
