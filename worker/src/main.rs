//! `worker`: takes jobs from the broker, trains and evaluates the models with libtorch.

mod check;
mod cli;
mod exit;
mod external;
mod identity;
mod measure;
mod runtime;
mod settings;
mod shutdown;
mod slot_report;
mod supervisor;
mod watched;

use self::{
    check::Question,
    cli::{Cli, LogFormat},
    exit::Exit,
    runtime::{SlotError, SlotSettings},
    shutdown::{Deadlines, Role},
    supervisor::Supervisor,
    watched::Slots,
};
use clap::{CommandFactory as _, FromArgMatches as _};
use halfheard_models::{
    device::{self, DeviceError},
    numerics::{self, Numerics},
};
use halfheard_shared::{
    color,
    device::{Devices, ShareError},
    env,
    error::chain,
    service_manager::{self, State},
    settings::Settings,
    shutdown::Shutdown,
    text::Printable,
};
use halfheard_telemetry::{catalogue::SLOT, http, recorder::Recorder, traces};
use std::{error::Error, ffi::OsString, io::Write as _, process::ExitCode, sync::Arc};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let flags: Vec<OsString> = std::env::args_os().skip(1).collect();
    if flags
        .first()
        .is_some_and(|first| first == external::guard::ARGUMENT)
    {
        return external::guard::run();
    }
    // Values from the environment stay out of the help: they may hold a password.
    let command = Cli::command().mut_args(|arg| arg.hide_env_values(true));
    let cli = match Cli::from_arg_matches(&command.get_matches()) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    init_logging(cli.log_format);
    let exit = match &cli.measuring.measure {
        Some(method) => measure::run(method, &cli, flags),
        None if cli.check || cli.look => print_check(&cli),
        None => run(&cli, flags),
    };
    exit.into()
}

/// Runs the supervisor or, in its children, a slot.
fn run(cli: &Cli, flags: Vec<OsString>) -> Exit {
    let settings = match cli.connection.resolve(&env::process) {
        Ok(settings) => settings,
        Err(error) => return fail(&error, Exit::Usage),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error, Exit::Internal),
    };
    let exit = runtime.block_on(async {
        let shutdown = Shutdown::default();
        let role = cli.slot.map_or(Role::Supervisor, Role::Slot);
        let forced = match shutdown::listen(shutdown.clone(), role) {
            Ok(forced) => forced,
            Err(error) => return fail(&error, Exit::Internal),
        };
        match cli.slot {
            None => supervise(cli, settings.artifacts, flags, shutdown, forced).await,
            Some(slot) => run_slot(cli, settings, slot, shutdown).await,
        }
    });
    // A step in progress is abandoned.
    runtime.shutdown_background();
    exit
}

async fn run_slot(cli: &Cli, settings: Settings, slot: usize, shutdown: Shutdown) -> Exit {
    if let Err(error) = numerics::initialize(cli.numerics) {
        return fail(&error, Exit::Device);
    }
    // A GPU computes to other bits.
    let (devices, threads) = match cli.numerics {
        Numerics::Machine | Numerics::Bf16 => (
            cli.device.clone(),
            cli.threads_per_slot(cli.requested_slots()),
        ),
        Numerics::Portable => (Devices::Cpu, numerics::PORTABLE_THREADS),
    };
    let chosen = match device::choose(&devices, &device::detect(&devices)) {
        Ok(chosen) => chosen,
        Err(error) => return fail(&error, Exit::Device),
    };
    let recorder = match cli.http.http {
        Some(_) => match Recorder::install(SLOT, &[("slot", &slot.to_string())]) {
            Ok(recorder) => Some(recorder),
            Err(error) => return fail(&error, Exit::Internal),
        },
        None => None,
    };
    let name = identity::slot_name(cli.team.as_deref(), &cli.worker_name(), slot);
    let mut broker = settings.broker;
    broker.name.clone_from(&name);
    let settings = SlotSettings {
        broker,
        artifacts: settings.artifacts,
        data_dir: settings.data_dir,
        device: chosen.device,
        device_name: chosen.name,
        sharing: cli.sharing,
        labels: cli.labels.clone(),
        external: cli.external.limits(cli.requested_slots()),
        threads,
        numerics: cli.numerics,
        name,
        save_every: cli.save_every,
        once: cli.once,
        recorder,
        deadlines: Deadlines::within(cli.leave_within),
    };
    let traced = traces::start(
        traces::WORKER,
        &settings.name,
        identity::VERSION,
        &env::process,
    );
    if let Err(error) = traced {
        return fail(&error, Exit::Usage);
    }
    let ended = runtime::run(settings, shutdown).await;
    traces::stop().await;
    match ended {
        Ok(exit) => exit,
        Err(SlotError::Broker(error)) => fail(&error, Exit::Broker),
        Err(SlotError::Artifacts(error)) => fail(&error, Exit::Artifacts),
        Err(error @ SlotError::Unfit(_)) => fail(&error, Exit::Unfit),
        Err(error @ SlotError::Thread(_)) => fail(&error, Exit::Internal),
    }
}

/// Prints what this machine has for the slots.
fn print_check(cli: &Cli) -> Exit {
    let slots = cli.requested_slots();
    let check = check::check(&Question {
        devices: cli.device.clone(),
        slots,
        share: cli.share_gpus,
        threads: cli.threads_per_slot(slots),
        compute: cli.check,
    });
    let json = serde_json::to_string_pretty(&check).unwrap_or_default();
    // The reader may have closed the pipe.
    let _ = writeln!(std::io::stdout(), "{json}");
    match check.device_error {
        None => Exit::Success,
        Some(_) => Exit::Device,
    }
}

/// Assigns devices to the slots and runs them.
async fn supervise(
    cli: &Cli,
    artifacts: String,
    flags: Vec<OsString>,
    shutdown: Shutdown,
    forced: CancellationToken,
) -> Exit {
    let supervisor = Supervisor {
        slots: cli.requested_slots(),
        devices: cli.device.clone(),
        share: cli.share_gpus,
        flags,
        name: cli.worker_name(),
        deadlines: Deadlines::within(cli.leave_within),
    };
    match supervisor.assign(&shutdown).await {
        Ok(Some(assigned)) => {
            let watched = Slots::new(assigned.places.len());
            if let Err(error) = serve(cli, &watched, artifacts).await {
                return fail(error.as_ref(), Exit::Usage);
            }
            service_manager::notify(State::Ready);
            let stopping = shutdown.clone();
            tokio::spawn(async move {
                stopping.requested().await;
                service_manager::notify(State::Stopping);
            });
            supervisor.run(assigned, watched, shutdown, forced).await
        }
        Ok(None) => Exit::Success,
        Err(error @ DeviceError::Share(ShareError::TooMany { .. })) => fail(&error, Exit::Usage),
        Err(error) => fail(&error, Exit::Device),
    }
}

/// Serves what machines see of this worker, if it is to.
///
/// # Errors
///
/// The address cannot be used, or nothing says who may read the metrics there.
async fn serve(cli: &Cli, watched: &Slots, artifacts: String) -> Result<(), Box<dyn Error>> {
    let Some(address) = cli.http.http else {
        return Ok(());
    };
    let access = cli.http.access(address)?;
    let listener = http::listen(address).await?;
    tracing::info!(address = %listener.local_addr()?, "serving metrics and health");
    tokio::spawn(watched.clone().watch_disk(artifacts));
    let routes = http::routes(Arc::new(watched.clone()), access);
    // Until this process ends: slots that shut down are watched, too.
    tokio::spawn(http::serve(listener, routes, CancellationToken::new()));
    Ok(())
}

/// Logs why the program cannot go on, and what to do about it.
fn fail(error: &(dyn Error + 'static), exit: Exit) -> Exit {
    let hint = runtime::ERRORS.hint(error);
    tracing::error!(hint, "{}", chain(error));
    exit
}

fn init_logging(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("info,async_nats=warn"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(traces::in_logs(filter, format == LogFormat::Json))
        .with_target(false)
        .with_writer(|| Printable(std::io::stderr()));
    match format {
        LogFormat::Text => builder.with_ansi(color::stderr()).init(),
        LogFormat::Json => builder.json().init(),
    }
}
