//! `worker`: takes jobs from the broker, trains and evaluates the models with libtorch.

use clap::{CommandFactory as _, FromArgMatches as _};
use halfheard_models::{
    device::{self, DeviceError},
    numerics::{self, Numerics},
};
use halfheard_shared::{
    device::{Devices, ShareError},
    env,
};
use halfheard_worker::{
    check::Question,
    cli::{Cli, LogFormat},
    exit,
    runtime::{
        self, SlotError, SlotSettings,
        leaving::{self, Leaving, Speaker},
    },
    supervisor::Slots,
};
use std::{
    ffi::OsString,
    io::{IsTerminal as _, Write as _},
    process::ExitCode,
};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let flags: Vec<OsString> = std::env::args_os().skip(1).collect();
    // Values from the environment stay out of the help: they may hold a password.
    let command = Cli::command().mut_args(|arg| arg.hide_env_values(true));
    let cli = match Cli::from_arg_matches(&command.get_matches()) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    log(cli.log_format);
    if cli.check || cli.look {
        return check(&cli);
    }
    let settings = match cli.connection.resolve(&env::process) {
        Ok(settings) => settings,
        Err(error) => return refuse(&error, exit::USAGE),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return refuse(&error, exit::INTERNAL),
    };
    let name = cli
        .name
        .clone()
        .unwrap_or_else(halfheard_worker::default_name);
    let code = runtime.block_on(async {
        let leaving = Leaving::default();
        let speaker = cli.slot.map_or(Speaker::Supervisor, Speaker::Slot);
        if let Err(error) = leaving::on_signals(leaving.clone(), speaker) {
            return refuse(&error, exit::INTERNAL);
        }
        let Some(slot) = cli.slot else {
            return supervise(&cli, flags, name, leaving).await;
        };
        if let Err(error) = numerics::settle(cli.numerics) {
            return refuse(&error, exit::DEVICE);
        }
        // A GPU computes to other bits.
        let (devices, threads) = match cli.numerics {
            Numerics::Machine => (cli.device.clone(), cli.threads_of(cli.asked_slots())),
            Numerics::Portable => (Devices::Cpu, numerics::PORTABLE_THREADS),
        };
        let found = device::look(&devices);
        let chosen = match device::choose(&devices, &found) {
            Ok(chosen) => chosen,
            Err(error) => return refuse(&error, exit::DEVICE),
        };
        let mut broker = settings.broker;
        let name = halfheard_worker::slot_name(&name, slot);
        broker.name.clone_from(&name);
        let slot = SlotSettings {
            broker,
            artifacts: settings.artifacts,
            data_dir: settings.data_dir,
            device: chosen.device,
            device_name: chosen.name,
            threads,
            numerics: cli.numerics,
            name,
            save_every: cli.save_every,
            once: cli.once,
        };
        match runtime::run(slot, leaving).await {
            Ok(code) => code.into(),
            Err(error @ SlotError::Broker(_)) => refuse(&error, exit::BROKER),
            Err(error @ SlotError::Artifacts(_)) => refuse(&error, exit::ARTIFACTS),
            Err(error @ SlotError::Unfit(_)) => refuse(&error, exit::UNFIT),
            Err(error @ SlotError::Process(_)) => refuse(&error, exit::INTERNAL),
        }
    });
    // A step that is still computing is not waited for.
    runtime.shutdown_background();
    code
}

/// Says what this machine has for the slots.
fn check(cli: &Cli) -> ExitCode {
    let slots = cli.asked_slots();
    let check = halfheard_worker::check::check(&Question {
        devices: cli.device.clone(),
        slots,
        share: cli.share_gpus,
        threads: cli.threads_of(slots),
        compute: cli.check,
    });
    let json = serde_json::to_string_pretty(&check).unwrap_or_default();
    // A closed pipe is no concern of ours.
    let _ = writeln!(std::io::stdout(), "{json}");
    let code = match check.device_error {
        None => exit::OK,
        Some(_) => exit::DEVICE,
    };
    code.into()
}

/// Gives the slots their devices and runs them.
async fn supervise(cli: &Cli, flags: Vec<OsString>, name: String, leaving: Leaving) -> ExitCode {
    let slots = Slots {
        number: cli.asked_slots(),
        devices: cli.device.clone(),
        share: cli.share_gpus,
        flags,
        name,
    };
    let assigned = match slots.assign(&leaving).await {
        Ok(Some(assigned)) => assigned,
        Ok(None) => return exit::OK.into(),
        Err(error @ DeviceError::Share(ShareError::TooMany { .. })) => {
            return refuse(&error, exit::USAGE);
        }
        Err(error) => return refuse(&error, exit::DEVICE),
    };
    match slots.run(assigned.places, leaving).await {
        Ok(code) => code.into(),
        Err(error) => refuse(&error, exit::INTERNAL),
    }
}

fn refuse(error: &dyn std::error::Error, code: u8) -> ExitCode {
    tracing::error!("{}", halfheard_worker::chain(error));
    code.into()
}

fn log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("info,async_nats=warn"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => builder.json().init(),
    }
}
