//! The command.

use super::{
    super::{
        failures::{self, FailureGroup, jobs},
        retry,
        set::{TermFlags, changes},
        watch::{Observer, Snapshot, follow},
    },
    push::push,
};
use crate::{
    config::Settings,
    exit::Exit,
    housekeeping::own_store,
    output::Output,
    submission::{self, Synthesize, programs, sharing},
};
use anyhow::Context as _;
use halfheard_shared::{ids::SweepId, shutdown::Shutdown, text::count};
use halfheard_store::{
    JobCounts, Store, control::Reopen, submit::Shared, sweeps::Progress, terms::SweepTerms,
};
use serde::Serialize;
use std::{
    fmt,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// How often `--watch` polls.
const POLL: Duration = Duration::from_secs(2);

/// Arguments of `coord submit`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  coord submit deploy/benchmark.toml            submit a spec; the same spec is the same sweep
  coord submit deploy/benchmark.toml --watch    and wait until it is finished
  coord submit deploy/benchmark.toml --push     for workers that cannot see this machine's files
  coord submit deploy/benchmark.toml --retry    and run failed jobs again

What another sweep has computed, or is computing, is not computed again: only what is new is added.
`coord serve` and workers run the jobs; `coord status` shows their progress.")]
pub(crate) struct SubmitArgs {
    /// The spec, a TOML file
    spec: PathBuf,
    /// Wait until the sweep is finished, and print its progress
    #[arg(long)]
    watch: bool,
    /// Submit another sweep of a spec that was submitted before, and compute everything anew
    #[arg(long)]
    new: bool,
    /// Run jobs again that failed before, as `coord retry` does
    #[arg(long)]
    retry: bool,
    /// Upload datasets and encoders to the artifact store, for workers that cannot see the files
    #[arg(long)]
    push: bool,
    #[command(flatten)]
    terms: TermFlags,
}

#[derive(Serialize)]
struct SubmitReport {
    sweep: SweepId,
    name: String,
    new: bool,
    jobs: JobCounts,
    /// Those of a new sweep that no other had asked for before.
    new_jobs: JobCounts,
    shared: Shared,
    reopened: i64,
    progress: Progress,
    failures: Vec<FailureGroup>,
    terms: SweepTerms,
    terms_before: Option<SweepTerms>,
    #[serde(skip)]
    reopened_jobs: JobCounts,
}

impl fmt::Display for SubmitReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} ({}) {}: {}, {}",
            self.name,
            self.sweep.short(),
            if self.new {
                "submitted"
            } else {
                "already exists"
            },
            count(self.jobs.train.unsigned_abs() as usize, "training job"),
            count(self.jobs.eval.unsigned_abs() as usize, "evaluation job"),
        )?;
        let (all, new_jobs) = (self.jobs.total(), self.new_jobs.total());
        if self.new
            && let Some(shared) = sharing::describe(all, new_jobs, &self.shared)
        {
            writeln!(f, "{shared}")?;
        }
        if let Some(before) = &self.terms_before
            && *before != self.terms
        {
            writeln!(f, "{}", changes(before, &self.terms).join(", "))?;
        }
        if self.reopened > 0 {
            writeln!(f, "{}", retry::describe(self.reopened_jobs))?;
        }
        if let Some((first, rest)) = self.failures.split_first() {
            write!(f, "{} failed: {}", jobs(self.progress.failed), first.cause)?;
            if !rest.is_empty() {
                write!(f, ", and {}", count(rest.len(), "other cause"))?;
            }
            let id = self.sweep.short();
            writeln!(
                f,
                "\nsee `coord status {id}`; after fixing the cause, `coord retry {id}`"
            )?;
        }
        Ok(())
    }
}

/// Submits a spec.
///
/// # Errors
///
/// The spec is invalid or the database fails; then nothing was submitted.
pub(crate) async fn run(args: SubmitArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let output = Output::of(settings);
    let store = Store::connect_with(settings.database.clone()).await?;
    store.check().await?;
    let loaded = submission::load(&args.spec, &settings.data_dir, Synthesize::Create)?;
    if args.push {
        push(&loaded, settings, &store).await?;
    }
    if !loaded.bundles.is_empty() {
        // Before the jobs: a worker that is given one looks for the files at once.
        let artifacts = own_store::open_own(settings, &store)
            .await
            .context("cannot store the files of the external programs")?;
        programs::store(&loaded, &artifacts).await?;
    }
    let nonce = args.new.then(fresh_nonce);
    let terms = args.terms.terms();
    let (sweep, submitted) = submission::submit(&store, &loaded, nonce.as_deref(), terms).await?;
    // Submitting a cancelled sweep again continues it.
    let mut reopened_jobs = submitted.reopened;
    if args.retry {
        reopened_jobs += store.reopen(sweep, Reopen::Failed).await?;
    }
    let progress = store.progress(sweep).await?;
    let mut failures = match progress.failed {
        0 => Vec::new(),
        _ => failures::load(&store, sweep).await?,
    };
    failures.retain(|group| group.given_up);
    output.print(&SubmitReport {
        sweep,
        name: loaded.resolved.name.clone(),
        new: submitted.new,
        jobs: submitted.jobs,
        new_jobs: submitted.fresh,
        shared: submitted.shared,
        reopened: reopened_jobs.total(),
        progress,
        failures,
        terms: submitted.terms,
        terms_before: submitted.before,
        reopened_jobs,
    })?;
    if args.watch {
        let interrupt = Shutdown::on_signals(Exit::Interrupted.code())?;
        let mut printer = ProgressPrinter { output, last: None };
        let end = follow(&store, None, sweep, POLL, &interrupt, &mut printer).await?;
        return Ok(Exit::of_sweep(end.progress.failed).into());
    }
    // As with --watch.
    Ok(match progress.open() {
        0 => Exit::of_sweep(progress.failed).into(),
        _ => ExitCode::SUCCESS,
    })
}

fn fresh_nonce() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    format!("{}.{}", now.map_or(0, |d| d.as_nanos()), std::process::id())
}

/// Prints progress whenever it has changed.
struct ProgressPrinter {
    output: Output,
    last: Option<Progress>,
}

impl Observer for ProgressPrinter {
    async fn show(&mut self, snapshot: &Snapshot) -> anyhow::Result<()> {
        if self.last != Some(snapshot.progress) {
            self.output.print(&ProgressLine(snapshot.progress))?;
            self.last = Some(snapshot.progress);
        }
        Ok(())
    }
}

#[derive(Serialize)]
struct ProgressLine(Progress);

impl fmt::Display for ProgressLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let progress = &self.0;
        write!(
            f,
            "{} of {} done, {} running, {} failed",
            progress.done,
            progress.total(),
            progress.running,
            progress.failed
        )
    }
}
