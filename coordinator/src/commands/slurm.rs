//! `coord slurm`: submits and retires Slurm jobs for workers by the work that is left.

use crate::{
    config::{Origin, Settings},
    exit::Exit,
    local::programs::{Part, Programs},
    output::{Output, note},
    slurm::{
        Slurm,
        feed::{Feed, Plan},
        job::{Job, Wanted, gpus, signal_before, time_limit, users_settings},
        policy::Limits,
    },
};
use halfheard_shared::{error::hinted, shutdown::Shutdown, text::quoted};
use halfheard_store::Store;
use serde::Serialize;
use std::{fmt, path::PathBuf, process::ExitCode, time::Duration};
use uuid::Uuid;

/// Arguments of `coord slurm`.
#[derive(clap::Args, Debug)]
#[command(
    override_usage = "coord slurm --partition NAME --max N [OPTIONS] [-- WORKER-ARGUMENTS...]",
    after_help = "\
How it works:
  A loop for a login node. It compares the seconds of work that are left with the time left in
  the Slurm jobs that run or wait, and submits more of them, each with one worker, up to --max.
  A training job of unknown length counts as long as --time; one that is longer goes on in the
  next allocation from its saved state. Workers exit by themselves after --idle seconds without
  work, and what waits in the queue is cancelled when the work is gone. A preempted job waits
  under the same number until Slurm starts it again. After failures it backs off, and says why.

  Ctrl-C cancels what waits (--keep: does not); workers that run go on. Started again, it adopts
  what is there. `coord status` shows the allocations. docs/guide/slurm.md has the rest.

Examples:
  coord slurm --partition gpu --max 8                    up to eight GPUs, four hours each
  coord slurm --partition gpu --max 8 --horizon 1:00:00  more of them, done sooner
  coord slurm --partition cpu --max 4 --gres none --cpus 8 --mem 16G
  coord slurm --partition gpu --max 2 -- --save-every 30
  coord slurm --partition gpu --max 8 --dry-run          show what it would submit"
)]
pub(crate) struct SlurmArgs {
    /// The partition to submit to
    #[arg(long, value_name = "NAME", value_parser = word)]
    partition: String,
    /// Maximum number of allocations, running and waiting
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    max: u32,
    /// Minimum number of allocations while there is work
    #[arg(long, value_name = "N", default_value_t = 0)]
    min: u32,
    /// Maximum number of allocations that wait in Slurm's queue
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    backlog: u32,
    /// Time limit of an allocation, as Slurm writes it
    #[arg(long, value_name = "TIME", default_value = "4:00:00", value_parser = time)]
    time: (String, Duration),
    /// Count on at most this much of an allocation's time: less means more of them at once
    /// [default: --time]
    #[arg(long, value_name = "TIME", value_parser = time)]
    horizon: Option<(String, Duration)>,
    /// GPUs of an allocation, as for sbatch; `none` for a CPU
    #[arg(long, value_name = "GRES", default_value = "gpu:1", value_parser = word)]
    gres: String,
    /// CPUs of an allocation [default: the partition's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    cpus: Option<u32>,
    /// Memory of an allocation, as for sbatch: 24G [default: the partition's]
    #[arg(long, value_name = "SIZE", value_parser = word)]
    mem: Option<String>,
    /// The account that is charged
    #[arg(long, value_name = "NAME", value_parser = word)]
    account: Option<String>,
    /// A worker exits after this many seconds without work
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    idle: u64,
    /// Seconds that a worker's shutdown may take: less than the cluster's KillWait and grace time
    #[arg(long, value_name = "SECONDS", default_value_t = 25, value_parser = clap::value_parser!(u64).range(1..=3600))]
    leave_within: u64,
    /// A label of the workers, which a spec's needs may ask for; may be repeated
    #[arg(long = "label", value_name = "LABEL", value_parser = word)]
    labels: Vec<String>,
    /// Your own job script instead of deploy/slurm/worker.sbatch; gets the worker's arguments
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
    /// The workers' settings, NAME=VALUE per line, mode 0600 [default:
    /// ~/.config/halfheard/worker.env, else this command's own without the database]
    #[arg(long, value_name = "FILE")]
    env: Option<PathBuf>,
    /// A folder of the user's that compute nodes see: script, settings, logs [default: slurm in the
    /// data folder]
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// Seconds between two looks at the work and at Slurm's queue
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=3600))]
    poll: u64,
    /// Exit when there is no work and no allocation left
    #[arg(long)]
    until_done: bool,
    /// Leave allocations in the queue on Ctrl-C
    #[arg(long)]
    keep: bool,
    /// Print what would be submitted, and exit
    #[arg(long)]
    dry_run: bool,
    /// Further arguments of the worker
    #[arg(last = true, value_name = "WORKER-ARGUMENTS")]
    worker_arguments: Vec<String>,
}

fn time(text: &str) -> Result<(String, Duration), String> {
    Ok((text.to_owned(), time_limit(text)?))
}

/// A value of one of sbatch's flags.
fn word(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.:,=/()+".contains(c);
    match !text.is_empty() && text.len() <= 200 && text.chars().all(allowed) {
        true => Ok(text.to_owned()),
        false => Err("expected one word".to_owned()),
    }
}

/// Submits and cancels until stopped.
///
/// # Errors
///
/// Slurm or the database cannot be reached at first, the partition does not exist, or another process
/// submits to it. Later outages are waited for.
pub(crate) async fn run(args: SlurmArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let limits = limits(&args)?;
    let shutdown = Shutdown::on_signals(Exit::Interrupted.code())?;
    let started = shutdown.or(feed(&args, limits, settings)).await;
    let Ok(feed) = started else {
        return Ok(Exit::Interrupted.into());
    };
    let mut feed = feed?;
    let output = Output::of(settings);
    let poll = Duration::from_secs(args.poll);
    if args.dry_run {
        let plan = feed.dry_run().await?;
        output.print_pretty(&DryRun::of(&feed.job, plan))?;
        return Ok(ExitCode::SUCCESS);
    }
    feed.take(poll).await?;
    if settings.broker_origin == Origin::Default && args.env.is_none() && users_settings().is_none()
    {
        note(
            "warning: workers get the default address of the broker, 127.0.0.1, which compute nodes do not reach; set HALFHEARD_NATS_URL",
        );
    }
    feed.run(poll, args.until_done, &shutdown).await?;
    feed.stop(args.keep).await?;
    Ok(match shutdown.is_requested() {
        true => Exit::Interrupted.into(),
        false => ExitCode::SUCCESS,
    })
}

fn limits(args: &SlurmArgs) -> anyhow::Result<Limits> {
    let lead = signal_before(Duration::from_secs(args.leave_within));
    let time = args.time.1;
    if args.min > args.max {
        return Err(hinted("--min is greater than --max", "lower it").into());
    }
    if time < lead + Duration::from_secs(60) {
        let least = (lead.as_secs() + 60).div_ceil(60);
        let text = format!(
            "--time {} leaves no time to work: workers hand back {} s before the end",
            args.time.0,
            lead.as_secs()
        );
        return Err(hinted(text, format!("allow at least {least} minutes")).into());
    }
    Ok(Limits {
        max: args.max,
        min: args.min,
        backlog: args.backlog,
        slots: gpus(Some(&args.gres)),
        time,
        horizon: args.horizon.as_ref().map_or(time, |(_, horizon)| *horizon),
        lead,
    })
}

/// Connects, and prepares what is submitted.
async fn feed(args: &SlurmArgs, limits: Limits, settings: &Settings) -> anyhow::Result<Feed> {
    let slurm = Slurm::connect().await?;
    slurm.check_partition(&args.partition).await?;
    let store = Store::connect_with(settings.database.clone()).await?;
    store.check().await?;
    let programs = Programs::discover();
    let folder = args
        .folder
        .clone()
        .unwrap_or_else(|| settings.data_dir.join("slurm"));
    let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
    let wanted = Wanted {
        partition: args.partition.clone(),
        time: args.time.0.clone(),
        gres: Some(args.gres.clone()).filter(|gres| gres != "none"),
        cpus: args.cpus,
        memory: args.mem.clone(),
        account: args.account.clone(),
        idle: Duration::from_secs(args.idle),
        leave_within: Duration::from_secs(args.leave_within),
        script: args.script.clone().map(absolute),
        arguments: args.worker_arguments.clone(),
        folder: absolute(folder),
        settings: args.env.clone().map(absolute).or_else(users_settings),
        labels: args.labels.clone(),
        worker: match args.script {
            Some(_) => None,
            None => Some(programs.find(Part::Worker)?.path),
        },
        libtorch: programs.find(Part::Libtorch).ok().map(|found| found.path),
    };
    let installation = store.installation().await?.id;
    Ok(Feed {
        job: Job::prepare(&wanted, installation, settings)?,
        store,
        slurm,
        limits,
        partition: args.partition.clone(),
        labels: args.labels.clone(),
        idle: wanted.idle,
        named: args.script.is_none(),
        output: Output::of(settings),
        session: Uuid::new_v4(),
        failed: None,
        said: None,
        work_since: None,
    })
}

/// What would be submitted.
#[derive(Serialize)]
struct DryRun {
    #[serde(flatten)]
    plan: Plan,
    sbatch: Vec<String>,
    environment: Vec<(String, String)>,
}

impl DryRun {
    fn of(job: &Job, plan: Plan) -> Self {
        Self {
            plan,
            sbatch: job.arguments.clone(),
            environment: job.environment.clone(),
        }
    }
}

impl fmt::Display for DryRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.plan)?;
        if let Some(seconds) = self.plan.backoff_seconds {
            writeln!(
                f,
                "nothing is submitted for {seconds} s: submissions or allocations failed"
            )?;
        }
        for id in &self.plan.cancel {
            writeln!(f, "would cancel {id}")?;
        }
        writeln!(f, "would submit {} times:", self.plan.submit)?;
        for (name, value) in &self.environment {
            writeln!(f, "  {name}={} \\", quoted(value))?;
        }
        let words: Vec<_> = self.sbatch.iter().map(|word| quoted(word)).collect();
        writeln!(f, "  sbatch {}", words.join(" "))
    }
}
