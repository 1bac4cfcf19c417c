//! `coord run`: a whole sweep on this machine, with private servers and workers.

pub(crate) mod slots;

use self::slots::Slots;
use super::table::print as print_table;
use crate::{
    commands::failures,
    commands::forecast::Forecast,
    commands::progress::{Display, Snapshot, in_words},
    config::{Origin, Settings},
    exit::Exit,
    local::programs::{Part, Programs},
    local::servers::{ServerProcess, Servers},
    orchestrator::{options::ServeOptions, serve::serve},
    submission::specs::{self, Loaded, Making},
};
use anyhow::Context as _;
use halfheard_results::{
    audit,
    tables::{layout, render::Format},
};
use halfheard_shared::{
    artifacts::ArtifactStore,
    broker::{Broker, BrokerSettings, JOBS, Queue},
    device::Devices,
};
use halfheard_shared::{
    shutdown::{Interrupted, Shutdown},
    text::{quoted, quoted_path},
};
use halfheard_store::{
    Store, SweepState,
    control::Reopen,
    sweeps::{Progress, SweepRow},
};
use nix::sys::signal::Signal;
use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::{Duration, Instant},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How often progress is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long workers may take to hand back what they do.
const WORKERS_PATIENCE: Duration = Duration::from_secs(15);
/// How often fallen servers are started again before that is an error.
const REVIVALS: u32 = 5;
/// Causes of failures that are printed at the end.
const FAILURES: usize = 5;

/// Arguments of `coord run`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Starts a nats-server and a Postgres of its own on free loopback ports below the data folder, and
workers; submits the sweep, shows progress, prints the tables, and stops all it started. Ctrl-C
stops it in good order, a second Ctrl-C at once; the same command goes on from there.

Examples:
  coord run deploy/demo.toml                     the demo
  coord run deploy/real-mosi.toml --workers 4    with four workers
  coord run deploy/demo.toml --data-dir /tmp/d   with everything in that folder
  coord run deploy/demo.toml --keep              keep the servers up, to look around with psql
  coord run deploy/demo.toml --retry             try again what failed before

Exit codes: 0 all is done; 1 an error; 3 some jobs failed; 130 interrupted.")]
pub struct RunArgs {
    /// The spec, a TOML file
    spec: PathBuf,
    /// How many workers, each a process; the cores are shared out among them [default: what the
    /// spec says, or one for each GPU, or 2 on the CPU]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: Option<u16>,
    /// Where workers compute: auto (a GPU each; the CPU where there is none), cpu, cuda:0, or a list
    /// cuda:0,cuda:1 [default: what the spec says, or auto]
    #[arg(long, value_name = "DEVICE")]
    device: Option<Devices>,
    /// Let several workers compute on one GPU; otherwise no more start than there are GPUs
    #[arg(long)]
    share_gpus: bool,
    /// Keep the servers running when the sweep is done, until Ctrl-C
    #[arg(long)]
    keep: bool,
    /// Try again the jobs that failed before, as `coord retry` does
    #[arg(long)]
    retry: bool,
}

/// Runs a sweep.
///
/// # Errors
///
/// A spec that cannot be used, a program that is missing, a server or worker that does not stay up.
/// Whatever was started is stopped first.
pub async fn run(args: RunArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let interrupt = Shutdown::on_signals(Exit::Interrupted.code())?;
    match whole(&args, settings, &interrupt).await {
        Err(error) if error.is::<Interrupted>() => {
            eprintln!("interrupted; the same command goes on from here");
            Ok(Exit::Interrupted.into())
        }
        outcome => outcome,
    }
}

async fn whole(
    args: &RunArgs,
    settings: &Settings,
    interrupt: &Shutdown,
) -> anyhow::Result<ExitCode> {
    let began = Instant::now();
    let programs = Programs::discover();
    // What is wrong with the spec or missing on the machine is told before anything starts.
    programs.find(Part::Nats)?;
    programs.find(Part::Postgres)?;
    let worker = programs.find(Part::Worker)?.path;
    let (spec, data_dir) = (args.spec.clone(), settings.data_dir.clone());
    let loaded = tokio::task::spawn_blocking(move || specs::load(&spec, &data_dir, Making::Make))
        .await
        .context("reading the spec")??;
    let slots = Slots::plan(args, &loaded.spec.resources, &worker, &programs).await?;
    say(settings, &slots.line());
    say(
        settings,
        &format!("private servers below {}", settings.data_dir.display()),
    );
    let servers = interrupt
        .or(Servers::start(&settings.data_dir, &programs))
        .await??;
    let mut run = Run {
        servers,
        slots,
        serving: None,
        worker: None,
    };
    let outcome = run
        .sweep(
            args, settings, interrupt, &programs, &worker, &loaded, began,
        )
        .await;
    if interrupt.is_requested() {
        say(settings, "stopping; Ctrl-C again stops at once");
    }
    run.stop().await;
    outcome
}

fn say(settings: &Settings, text: &str) {
    if !settings.json {
        eprintln!("{text}");
    }
}

/// What was started.
struct Run {
    servers: Servers,
    /// The workers' slots.
    slots: Slots,
    serving: Option<(CancellationToken, JoinHandle<()>)>,
    worker: Option<ServerProcess>,
}

impl Run {
    #[expect(clippy::too_many_arguments, reason = "all that the run is made of")]
    async fn sweep(
        &mut self,
        args: &RunArgs,
        settings: &Settings,
        interrupt: &Shutdown,
        programs: &Programs,
        worker: &Path,
        loaded: &Loaded,
        began: Instant,
    ) -> anyhow::Result<ExitCode> {
        let store = Store::connect_with(self.servers.database()).await?;
        let outcome = async {
            let sweep = interrupt
                .or(self.submit(&store, loaded, args.retry))
                .await??;
            let progress = store.progress(sweep.id).await?;
            let jobs = sweep.jobs;
            say(
                settings,
                &format!(
                    "sweep {} ({}): {} trainings, {} evaluations{}",
                    sweep.name,
                    sweep.id.short(),
                    jobs.train,
                    jobs.eval,
                    match progress.done {
                        0 => String::new(),
                        done => format!("; {done} are done already"),
                    }
                ),
            );
            let progress = if progress.open() > 0 {
                self.work(settings, interrupt, programs, worker, &store, &sweep)
                    .await?
            } else {
                progress
            };
            self.finish(args, settings, loaded, &store, &sweep, progress, began)
                .await?;
            if args.keep {
                self.keep(settings, interrupt).await;
            }
            anyhow::Ok(Exit::of_sweep(progress.failed).into())
        }
        .await;
        // The coordinator has its own clone: it must not meet a closed pool.
        self.stop_serving().await;
        store.pool().close().await;
        outcome
    }

    /// Brings the database up to date and submits; lets only this sweep run.
    async fn submit(
        &self,
        store: &Store,
        loaded: &Loaded,
        retry: bool,
    ) -> anyhow::Result<SweepRow> {
        store.migrate().await?;
        let (id, submitted) = specs::submit(store, loaded, None).await?;
        if !submitted.new {
            let which = match retry {
                true => Reopen::Both,
                false => Reopen::Cancelled,
            };
            store.reopen(id, which).await?;
            store.set_paused(id, false).await?;
            store.set_priority(id, loaded.spec.priority).await?;
        }
        let mut found = None;
        for sweep in store.sweeps().await? {
            if sweep.id == id {
                found = Some(sweep);
            } else if sweep.state == SweepState::Running
                && store.progress(sweep.id).await?.open() > 0
            {
                // One that was interrupted waits until its own spec is run again.
                store.set_paused(sweep.id, true).await?;
            }
        }
        found.context("the sweep that was just submitted is not in the database")
    }

    /// Runs coordinator and workers until the sweep is done.
    async fn work(
        &mut self,
        settings: &Settings,
        interrupt: &Shutdown,
        programs: &Programs,
        worker: &Path,
        store: &Store,
        sweep: &SweepRow,
    ) -> anyhow::Result<Progress> {
        let broker = BrokerSettings {
            name: "coord run".to_owned(),
            ..BrokerSettings::at(self.servers.nats_url())
        }
        .connect()
        .await?;
        free_jobs(&broker).await;
        broker.ensure().await?;
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(serve(
            store.clone(),
            broker.clone(),
            ServeOptions::default(),
            shutdown.clone(),
        ));
        self.serving = Some((shutdown, serving));
        self.worker = Some(self.start_worker(settings, programs, worker)?);

        let mut display = if settings.json {
            Display::silent(sweep.id)
        } else {
            Display::new(sweep.id)
        };
        let watched = self
            .watch(interrupt, store, &broker, sweep, &mut display)
            .await;
        display.clear();
        let progress = watched?;
        self.stop_worker().await;
        self.stop_serving().await;
        Ok(progress)
    }

    async fn watch(
        &mut self,
        interrupt: &Shutdown,
        store: &Store,
        broker: &Broker,
        sweep: &SweepRow,
        display: &mut Display,
    ) -> anyhow::Result<Progress> {
        let mut revivals = 0;
        let mut forecast = Forecast::new(sweep.id);
        loop {
            for name in self.servers.revive().await? {
                revivals += 1;
                display.say(&format!("{name} had ended and was started again"));
                anyhow::ensure!(revivals <= REVIVALS, "{name} ends again and again");
            }
            if let Some(worker) = &mut self.worker
                && let Some(status) = worker.exited()
            {
                anyhow::bail!(
                    "the workers ended ({status}); the end of their log, {}:\n{}",
                    worker.log().display(),
                    worker.log_tail()
                );
            }
            // A database that was just started again may need a moment.
            match Snapshot::take(store, Some(broker), sweep.id).await {
                Ok(snapshot) => {
                    let left = forecast.left(store, &snapshot).await;
                    display.show(&snapshot, left);
                    if snapshot.progress.open() == 0 {
                        return Ok(snapshot.progress);
                    }
                }
                Err(error) if error.is_transient() => tracing::warn!(%error, "waiting"),
                Err(error) => return Err(error.into()),
            }
            interrupt.or(tokio::time::sleep(LOOK_EVERY)).await?;
        }
    }

    /// One process that keeps a child for each slot.
    fn start_worker(
        &self,
        settings: &Settings,
        programs: &Programs,
        worker: &Path,
    ) -> anyhow::Result<ServerProcess> {
        let mut command = Command::new(worker);
        command
            .args(&self.slots.flags)
            // The address has a password: it goes where other users cannot read it.
            .env("HALFHEARD_NATS_URL", self.servers.nats_url())
            .env("HALFHEARD_ARTIFACTS", artifacts(settings))
            .env("HALFHEARD_DATA_DIR", &settings.data_dir)
            // Settings of another installation do not concern these workers.
            .env("HALFHEARD_CONFIG", "/dev/null")
            .env("NO_COLOR", "1");
        for variable in [
            halfheard_shared::env::NATS_CREDS,
            halfheard_shared::env::NATS_CA,
            halfheard_shared::env::NATS_CERT,
            halfheard_shared::env::NATS_KEY,
            // Workers never see a database.
            halfheard_shared::env::DATABASE_URL,
        ] {
            command.env_remove(variable);
        }
        if let Some(libraries) = programs.library_path() {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        let log = self.worker_log();
        // SIGUSR1 asks it to leave as SIGTERM does, and may come on top of one that was sent to all.
        ServerProcess::start(command, "worker", &log, Signal::SIGUSR1)
            .with_context(|| format!("{} does not start", worker.display()))
    }

    fn worker_log(&self) -> PathBuf {
        self.servers.folder().join("worker.log")
    }

    /// Prints tables, failures, and where to look further.
    #[expect(clippy::too_many_arguments, reason = "all that the run is made of")]
    async fn finish(
        &self,
        args: &RunArgs,
        settings: &Settings,
        loaded: &Loaded,
        store: &Store,
        sweep: &SweepRow,
        progress: Progress,
        began: Instant,
    ) -> anyhow::Result<()> {
        let failed = failures::grouped(store, sweep.id).await?;
        let collapsed = audit::collapsed(store, sweep.id).await?;
        if settings.json {
            let report = serde_json::json!({
                "sweep": sweep.id,
                "name": sweep.name,
                "jobs": progress,
                "failures": failed,
                "collapsed": collapsed,
                "seconds": began.elapsed().as_secs_f64(),
                "devices": self.slots.devices,
                "device_warning": self.slots.warning,
                "data_dir": settings.data_dir,
            });
            println!("{report}");
            return Ok(());
        }
        let mut numbers = Vec::new();
        if shown_by(loaded, 2) {
            numbers.extend([2, 9]);
        }
        if shown_by(loaded, 3) {
            numbers.extend([3, 10]);
        }
        if loaded.spec.rates.is_empty() {
            // Only sets of missing modalities: their tables.
            numbers
                .iter_mut()
                .for_each(|number| *number += if *number < 9 { 9 } else { 4 });
        }
        let evaluated = Snapshot::take(store, None, sweep.id).await?.eval_done;
        if evaluated > 0 {
            for number in numbers {
                if let Some(layout) = layout::find(number) {
                    print_table(store, sweep, layout, Format::Text, settings.color).await?;
                    println!();
                }
            }
        } else {
            println!("No evaluation is done: there is nothing for a table.\n");
        }
        if !collapsed.is_empty() {
            println!(
                "{} answered one class nearly everywhere: {}.",
                if collapsed.len() == 1 {
                    "A model"
                } else {
                    "Models"
                },
                collapsed.join(", ")
            );
            println!(
                "Their accuracies are those of the dataset's most frequent class (`{}` has the \
                 evidence).\n",
                self.command(settings, &["audit", &sweep.name])
            );
        }
        if progress.failed > 0 {
            println!("{} jobs failed:", progress.failed);
            for failure in failed.iter().take(FAILURES) {
                println!("  {}", failure.describe().replace('\n', "\n  "));
            }
            if failed.len() > FAILURES {
                let more = failed.len() - FAILURES;
                let all = self.command(settings, &["status", &sweep.name]);
                println!("  and {more} more causes: `{all}`");
            }
            println!(
                "Once that is mended, `{}` tries them again.",
                self.command(
                    settings,
                    &["run", &args.spec.display().to_string(), "--retry"]
                )
            );
            println!();
        }
        self.say_further(args, settings, loaded, sweep, progress, began);
        Ok(())
    }

    fn say_further(
        &self,
        args: &RunArgs,
        settings: &Settings,
        loaded: &Loaded,
        sweep: &SweepRow,
        progress: Progress,
        began: Instant,
    ) {
        let mut more = vec![format!(
            "  {}",
            self.command(settings, &["status", &sweep.name])
        )];
        if !loaded.spec.missing.is_empty() && !loaded.spec.rates.is_empty() {
            let number = if shown_by(loaded, 13) { "13" } else { "14" };
            more.push(format!(
                "  {}    (missing modalities)",
                self.command(settings, &["table", number])
            ));
        }
        more.push(format!(
            "  {}    (also markdown, csv, json)",
            self.command(settings, &["table", "2", "--format", "latex"])
        ));
        if !args.keep {
            let spec = args.spec.display().to_string();
            more.push(format!(
                "  {}    (keeps the servers up, for SQL)",
                self.command(settings, &["run", &spec, "--keep"])
            ));
        }
        println!(
            "{} of {} jobs are done; this run took {}.",
            progress.done,
            progress.total(),
            in_words(began.elapsed())
        );
        println!("Look further:\n{}", more.join("\n"));
        println!("Data and results: {}", settings.data_dir.display());
        let database = self.servers.postgres().data();
        if !database.starts_with(&settings.data_dir) {
            // Where Postgres' own user cannot get at the data folder.
            println!("The database's files: {}", database.display());
        }
        println!(
            "Logs: {}/{{worker.log,postgres.log,nats/nats.log}}",
            quoted_path(self.servers.folder())
        );
    }

    /// A command of ours as it can be pasted into a shell, with the data folder where it was given.
    fn command(&self, settings: &Settings, words: &[&str]) -> String {
        let mut line = "coord".to_owned();
        for word in words {
            line.push(' ');
            line.push_str(&quoted(word));
        }
        if let Origin::Flag(_) = settings.data_dir_origin {
            line.push_str(" --data-dir ");
            line.push_str(&quoted_path(&settings.data_dir));
        }
        line
    }

    /// Keeps the servers up until someone asks to stop.
    async fn keep(&mut self, settings: &Settings, interrupt: &Shutdown) {
        let pgpass = self.servers.pgpass();
        say(
            settings,
            &format!(
                "\nThe servers stay up until Ctrl-C. SQL (docs/reference/sql.md has the views):\n  {}",
                self.servers.postgres().psql(&pgpass)
            ),
        );
        interrupt.requested().await;
    }

    async fn stop_worker(&mut self) {
        if let Some(mut worker) = self.worker.take() {
            worker.stop(WORKERS_PATIENCE).await;
        }
    }

    async fn stop_serving(&mut self) {
        // Workers first: what they hand back is still gathered.
        self.stop_worker().await;
        if let Some((shutdown, serving)) = self.serving.take() {
            shutdown.cancel();
            // It ends on its own; a panic in it is logged where it happens.
            let _ = tokio::time::timeout(Duration::from_secs(10), serving).await;
        }
    }

    /// Stops all that was started, in order.
    async fn stop(mut self) {
        self.stop_serving().await;
        self.servers.stop().await;
    }
}

/// Whether table `number` has a block for a dataset of the spec.
fn shown_by(loaded: &Loaded, number: u8) -> bool {
    let mut datasets = loaded.resolved.datasets.iter();
    layout::find(number).is_some_and(|layout| datasets.any(|d| layout.shows(d.benchmark)))
}

/// Where the run keeps checkpoints: in the data folder, unless a flag says otherwise. What the
/// environment and the config file say is about a cluster.
fn artifacts(settings: &Settings) -> String {
    match settings.artifacts_origin {
        Origin::Flag(_) => settings.artifacts.clone(),
        _ => ArtifactStore::url_of(&settings.data_dir.join("artifacts")),
    }
}

/// Takes back what workers of an earlier run had in hand when they were killed: none of them lives,
/// so their jobs need not wait until the broker gives up on them.
async fn free_jobs(broker: &Broker) {
    for queue in Queue::ALL {
        let deleted = broker
            .jetstream()
            .delete_consumer_from_stream(queue.consumer(), JOBS)
            .await;
        // The first run has none.
        tracing::debug!(queue = %queue, deleted = deleted.is_ok(), "consumer");
    }
}
