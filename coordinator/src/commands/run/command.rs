//! The command.

use super::{args::RunArgs, context::RunContext, map::MapBelow, slots::Slots, summary::Summary};
use crate::{
    commands::watch::{Display, Forecast, Observer, Snapshot, follow},
    config::Settings,
    exit::Exit,
    local::{
        Cluster,
        programs::{Part, Programs},
    },
    orchestrator::serve::holder,
    output::Output,
    submission::{self, Loaded, Synthesize, programs, sharing},
};
use anyhow::Context as _;
use halfheard_shared::{
    env,
    error::hinted,
    shutdown::{Interrupted, Shutdown},
    text::count,
};
use halfheard_store::{
    Store, SweepState,
    control::Reopen,
    sweeps::{Progress, SweepRow},
    terms::Terms,
};
use halfheard_telemetry::traces;
use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

/// How often progress is polled.
const POLL: Duration = Duration::from_millis(500);
/// How often crashed servers are restarted before that is an error.
const MAX_RESTARTS: usize = 5;

/// Runs a sweep.
///
/// # Errors
///
/// The spec is invalid, a program is missing, or a server or worker does not stay up. Everything that
/// was started is stopped first.
pub(crate) async fn run(args: RunArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let interrupt = Shutdown::on_signals(Exit::Interrupted.code())?;
    match run_sweep(args, settings, &interrupt).await {
        Err(error) if error.is::<Interrupted>() => {
            eprintln!("interrupted; run the same command to continue");
            Ok(Exit::Interrupted.into())
        }
        outcome => outcome,
    }
}

async fn run_sweep(
    args: RunArgs,
    settings: &Settings,
    interrupt: &Shutdown,
) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let output = Output::of(settings);
    let programs = Programs::discover();
    // Report an invalid spec or a missing program before anything starts.
    let notify = args.notify.options(&env::process)?;
    traces::start(
        traces::COORD,
        &holder(),
        env!("CARGO_PKG_VERSION"),
        &env::process,
    )?;
    programs.find(Part::Nats)?;
    programs.find(Part::Postgres)?;
    let worker = programs.find(Part::Worker)?;
    let (spec, data_dir) = (args.spec.clone(), settings.data_dir.clone());
    let loaded =
        tokio::task::spawn_blocking(move || submission::load(&spec, &data_dir, Synthesize::Create))
            .await
            .context("cannot load the spec")??;
    check_allowed(&args, &loaded)?;
    let listening = args.http.listen().await?;
    let slots = Slots::plan(&args, &loaded, &settings.data_dir, &worker, &programs).await?;
    output.note(slots.describe());
    output.note(format_args!(
        "private servers below {}",
        settings.data_dir.display()
    ));
    let page = listening.map(|listening| {
        output.note(format_args!("page at {}", listening.url()));
        listening.start(&interrupt.token())
    });
    let starting = Cluster::start(&settings.data_dir, &programs);
    let mut cluster = interrupt.or(starting).await??;
    let context = RunContext {
        args,
        settings,
        interrupt,
        output,
        programs,
        worker: worker.path,
        loaded,
        slots,
        started,
        notify,
        page,
    };
    let outcome = context.run(&mut cluster).await;
    if interrupt.is_requested() {
        output.note("stopping; press Ctrl-C again to stop at once");
    }
    if let Some(page) = context.page {
        page.finish().await;
    }
    cluster.stop().await;
    traces::stop().await;
    outcome
}

/// Refuses external programs that nobody has allowed.
fn check_allowed(args: &RunArgs, loaded: &Loaded) -> anyhow::Result<()> {
    let programs = programs::of_sweep(&loaded.resolved);
    let external = programs.methods();
    if args.allow_external || external.is_empty() {
        return Ok(());
    }
    let message = format!(
        "the spec runs external programs, which is not allowed: {}",
        external.join(", ")
    );
    let hint = "if you trust them, pass --allow-external";
    Err(hinted(message, hint).into())
}

impl RunContext<'_> {
    async fn run(&self, cluster: &mut Cluster) -> anyhow::Result<ExitCode> {
        let store = Store::connect_with(cluster.servers().database()).await?;
        let outcome = self.run_jobs(cluster, &store).await;
        // The coordinator uses the same pool, so it must stop before the pool is closed.
        cluster.stop_jobs().await;
        store.pool().close().await;
        outcome
    }

    async fn run_jobs(&self, cluster: &mut Cluster, store: &Store) -> anyhow::Result<ExitCode> {
        let sweep = self.interrupt.or(self.submit(cluster, store)).await??;
        self.show_page(cluster.servers(), store).await?;
        let mut progress = store.progress(sweep.id).await?;
        self.output.note(format_args!(
            "sweep {} ({}): {}, {}{}",
            sweep.name,
            sweep.id.short(),
            count(sweep.jobs.train.unsigned_abs() as usize, "training job"),
            count(sweep.jobs.eval.unsigned_abs() as usize, "evaluation job"),
            match progress.done {
                0 => String::new(),
                done => format!("; {done} of them are done"),
            }
        ));
        if progress.open() > 0 {
            progress = self.follow_jobs(cluster, store, &sweep).await?;
        }
        let failed = progress.failed;
        Summary::load(self, cluster.servers(), store, &sweep, progress)
            .await?
            .print(store, &sweep)
            .await?;
        if self.args.keep {
            let servers = cluster.servers();
            self.output.note(format_args!(
                "\nThe servers keep running until Ctrl-C. SQL (views: docs/reference/sql.md):\n  {}",
                servers.postgres().psql(&servers.pgpass())
            ));
            self.interrupt.requested().await;
        }
        Ok(Exit::of_sweep(failed).into())
    }

    /// Migrates the database and submits the sweep. Other sweeps are paused.
    async fn submit(&self, cluster: &Cluster, store: &Store) -> anyhow::Result<SweepRow> {
        store.migrate().await?;
        if !self.loaded.bundles.is_empty() {
            let artifacts = self.open_artifacts(cluster.servers(), store).await?;
            programs::store(&self.loaded, &artifacts).await?;
        }
        let (id, submitted) =
            submission::submit(store, &self.loaded, None, Terms::default()).await?;
        if self.args.retry {
            store.reopen(id, Reopen::Failed).await?;
        }
        store.resume(id).await?;
        let (all, new) = (submitted.jobs.total(), submitted.fresh.total());
        if submitted.new
            && let Some(shared) = sharing::describe(all, new, &submitted.shared)
        {
            self.output.note(shared);
        }
        let mut found = None;
        for sweep in store.sweeps().await? {
            if sweep.id == id {
                found = Some(sweep);
            } else if sweep.state == SweepState::Running
                && store.progress(sweep.id).await?.open() > 0
            {
                // An interrupted sweep waits until its own spec is run again.
                store.pause(sweep.id, None).await?;
            }
        }
        found.context("the database lacks the sweep that was just submitted")
    }

    /// Runs a coordinator and workers until the sweep is finished.
    async fn follow_jobs(
        &self,
        cluster: &mut Cluster,
        store: &Store,
        sweep: &SweepRow,
    ) -> anyhow::Result<Progress> {
        let worker = self.worker_command(cluster.servers());
        let broker = cluster
            .start_jobs(store, worker, self.serve_options())
            .await?;
        let mut watch = Watch {
            cluster,
            store,
            display: match self.output.is_json() {
                true => Display::silent(sweep.id),
                false => Display::new(sweep.id),
            },
            forecast: Forecast::new(sweep.id),
            map: (!self.args.plain).then(|| MapBelow::of(sweep.id)),
            restarts: 0,
        };
        let ended = follow(
            store,
            Some(&broker),
            sweep.id,
            POLL,
            self.interrupt,
            &mut watch,
        )
        .await;
        watch.display.clear();
        let progress = ended?.progress;
        cluster.stop_jobs().await;
        Ok(progress)
    }
}

/// Keeps the cluster running and shows progress.
struct Watch<'a> {
    cluster: &'a mut Cluster,
    store: &'a Store,
    display: Display,
    forecast: Forecast,
    map: Option<MapBelow>,
    restarts: usize,
}

impl Observer for Watch<'_> {
    async fn check(&mut self) -> anyhow::Result<()> {
        for name in self.cluster.restart_exited().await? {
            self.restarts += 1;
            self.display
                .note(&format!("{name} exited unexpectedly and was restarted"));
            anyhow::ensure!(self.restarts <= MAX_RESTARTS, "{name} keeps crashing");
        }
        self.cluster.check_workers()
    }

    async fn show(&mut self, snapshot: &Snapshot) -> anyhow::Result<()> {
        let left = self.forecast.left(self.store, snapshot).await;
        self.display.show(snapshot, left);
        if let Some(map) = &mut self.map {
            map.show(&mut self.display, self.store, snapshot.workers.len())
                .await;
        }
        Ok(())
    }
}
