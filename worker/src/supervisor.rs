//! The supervisor: one child process a slot, because libtorch has one random generator and one
//! set of threads for a whole process. It gives each slot its device; a child that crashes is
//! started again, after a while that grows; that it is time to leave is passed on.

use crate::{
    device::{
        self, DeviceError,
        cuda::{self, Found, Trouble},
    },
    exit,
    runtime::shutdown::{LEAVE, Shutdown},
};
use halfheard_models::{
    memory,
    numerics::{Numerics, environment},
};
use halfheard_shared::device::{Assignment, Devices, Place, count};
use nix::sys::signal::Signal;
use std::{
    ffi::OsString,
    os::unix::process::ExitStatusExt as _,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};
use tokio::{
    io::AsyncWriteExt as _,
    process::{Child, ChildStdin, Command},
};

/// A slot that ran so long has no trouble starting.
const SETTLED: Duration = Duration::from_secs(60);
/// The longest pause before a slot is started again.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What is asked of a supervisor.
#[derive(Clone, Debug)]
pub struct Slots {
    /// How many.
    pub number: usize,
    /// Where they are to compute.
    pub devices: Devices,
    /// Whether they may share GPUs.
    pub share: bool,
    /// This process's own flags, for the children.
    pub flags: Vec<OsString>,
    /// The worker's name.
    pub name: String,
}

impl Slots {
    /// Looks at what this machine has and gives each slot its place. Loading the GPU's library is
    /// left to a child: it takes memory, and a damaged one may take the process along. `None` when
    /// it is time to leave.
    ///
    /// # Errors
    ///
    /// There are not the GPUs that were asked for.
    pub async fn assign(&self, shutdown: &Shutdown) -> Result<Option<Assignment>, DeviceError> {
        self.devices.check(self.number, self.share)?;
        let found = match device::glance(&self.devices) {
            Some(found) => found,
            None => tokio::select! {
                found = self.look() => found,
                () = shutdown.requested() => return Ok(None),
            },
        };
        let assigned = self
            .devices
            .assign(self.number, found.gpus, self.share)
            .map_err(|error| device::refusal(&self.devices, &found, error))?;
        if let (Devices::Auto, Some(trouble)) = (&self.devices, &found.trouble) {
            tracing::warn!(
                "{} on the CPU, because no GPU can be used: {trouble}; {}",
                count(self.number, "slot"),
                trouble.remedy()
            );
            return Ok(Some(assigned));
        }
        if assigned.left_out > 0 {
            tracing::warn!(
                "{} asked for, and libtorch sees {}: {} started, each on a GPU of its own; --share-gpus lets slots share them",
                count(self.number, "slot"),
                count(found.gpus, "GPU"),
                count(assigned.places.len(), "slot"),
            );
        }
        let places = assigned.places.iter().enumerate();
        let places: Vec<String> = places
            .map(|(slot, &place)| format!("slot {slot} on {}", device::at(place).name))
            .collect();
        tracing::info!("{}", places.join(", "));
        Ok(Some(assigned))
    }

    /// What a child finds that loads the GPU's library.
    async fn look(&self) -> Found {
        /// The part of `worker --look` that counts here.
        #[derive(serde::Deserialize)]
        struct Look {
            cuda_library: Option<PathBuf>,
            gpus: usize,
            trouble: Option<Trouble>,
        }
        let library = || cuda::find().unwrap_or_else(|_| cuda::CUDA_LIBRARY.into());
        let output = this_program(&self.flags)
            .arg("--look")
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .output()
            .await;
        match output {
            Ok(output) => match serde_json::from_slice::<Look>(&output.stdout) {
                Ok(look) => Found {
                    library: look.cuda_library,
                    gpus: look.gpus,
                    trouble: look.trouble,
                },
                Err(_) => {
                    let reason = format!("the process that loaded it ended with {}", output.status);
                    cuda::does_not_load(library(), &reason)
                }
            },
            Err(error) => {
                let reason = format!("no process can be started to load it: {error}");
                cuda::does_not_load(library(), &reason)
            }
        }
    }

    /// Runs a child of this program for each place until all are done. Returns the exit code.
    ///
    /// # Errors
    ///
    /// None so far; a slot that cannot be started is an exit code.
    pub async fn run(self, places: Vec<Place>, shutdown: Shutdown) -> std::io::Result<u8> {
        let mut tasks = tokio::task::JoinSet::new();
        let slots = places.len();
        for (slot, place) in places.into_iter().enumerate() {
            let supervised = Supervised {
                slot,
                slots,
                place,
                flags: self.flags.clone(),
                name: self.name.clone(),
                shutdown: shutdown.clone(),
            };
            tasks.spawn(supervised.run());
        }
        let mut code = exit::OK;
        while let Some(ended) = tasks.join_next().await {
            let ended = ended.unwrap_or(exit::INTERNAL);
            if ended == exit::OK {
                continue;
            }
            code = ended;
            if ended == exit::DEVICE && !tasks.is_empty() {
                tracing::error!("a slot ends, since its device cannot be used; the others go on");
                continue;
            }
            // What one slot cannot do, the others cannot either.
            shutdown.request();
        }
        Ok(code)
    }
}

/// This very program, even if its file has been replaced by another version meanwhile.
fn this_program(flags: &[OsString]) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("worker").args(flags);
    command
}

struct Supervised {
    slot: usize,
    slots: usize,
    place: Place,
    flags: Vec<OsString>,
    name: String,
    shutdown: Shutdown,
}

impl Supervised {
    async fn run(self) -> u8 {
        let mut crashes = 0_u32;
        let mut numerics = Numerics::default();
        while !self.shutdown.is_requested() {
            let began = Instant::now();
            let mut child = match self.start(numerics) {
                Ok(child) => child,
                Err(error) => {
                    tracing::error!(slot = self.slot, %error, "the slot cannot be started");
                    return exit::INTERNAL;
                }
            };
            // `wait` would close it, and its end tells the child that we are gone.
            let pipe = child.stdin.take();
            let status = tokio::select! {
                status = child.wait() => status,
                () = self.shutdown.requested() => self.stop(&mut child, pipe).await,
            };
            let code = match status {
                Ok(status) => match code(status) {
                    Code::Over(code) => return code,
                    Code::Turn => {
                        numerics = numerics.other();
                        continue;
                    }
                    Code::Crashed => status,
                },
                Err(error) => {
                    tracing::error!(slot = self.slot, %error, "the slot cannot be waited for");
                    return exit::INTERNAL;
                }
            };
            if self.shutdown.is_requested() {
                return exit::AT_ONCE;
            }
            crashes = if began.elapsed() > SETTLED {
                1
            } else {
                crashes + 1
            };
            let pause = Duration::from_secs(1 << (crashes - 1).min(6)).min(LONGEST_PAUSE);
            tracing::error!(slot = self.slot, ended = %code, "the slot crashed; it starts again in {pause:?}");
            self.shutdown.sleep(pause).await;
        }
        exit::OK
    }

    fn start(&self, numerics: Numerics) -> std::io::Result<Child> {
        this_program(&self.flags)
            .arg("--slot")
            .arg(self.slot.to_string())
            .arg("--slots")
            .arg(self.slots.to_string())
            .arg("--device")
            .arg(self.place.to_string())
            .arg("--name")
            .arg(&self.name)
            .arg("--numerics")
            .arg(numerics.as_str())
            .envs(memory::for_child())
            .envs(environment(numerics).iter().copied())
            // Leases open for as long as this process lives: its end tells the child.
            .stdin(Stdio::piped())
            // Ctrl-C in a terminal goes to the whole group; the children hear of it from here, once.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
    }

    /// Tells the child to leave and waits; a child that cannot, or may not any longer, is ended.
    /// It is told through its pipe and by no signal: it may have had one already.
    async fn stop(
        &self,
        child: &mut Child,
        pipe: Option<ChildStdin>,
    ) -> std::io::Result<ExitStatus> {
        if let Some(mut pipe) = pipe {
            // One that is gone already needs no word.
            let _ = pipe.write_all(LEAVE).await;
        }
        tokio::select! {
            status = child.wait() => return status,
            () = self.shutdown.at_once() => {}
            () = self.shutdown.deadline(Duration::from_secs(12)) => {
                tracing::warn!(slot = self.slot, "the slot does not leave: ending it");
            }
        }
        child.kill().await?;
        child.wait().await
    }
}

enum Code {
    /// Not to be started again.
    Over(u8),
    /// To be started again, to compute the other way.
    Turn,
    /// To be started again.
    Crashed,
}

fn code(status: ExitStatus) -> Code {
    // A slot hears signals before it takes a job: one that died of being told to leave had none.
    let told = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGUSR1];
    if status
        .signal()
        .is_some_and(|number| told.iter().any(|&signal| signal as i32 == number))
    {
        return Code::Over(exit::OK);
    }
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    match code {
        Some(
            code @ (exit::OK
            | exit::USAGE
            | exit::BROKER
            | exit::DEVICE
            | exit::ARTIFACTS
            | exit::UNFIT
            | exit::AT_ONCE),
        ) => Code::Over(code),
        Some(exit::TURN) => Code::Turn,
        _ => Code::Crashed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_that_was_told_to_leave_before_it_could_hear_left_in_good_order() {
        let over = |raw| match code(ExitStatus::from_raw(raw)) {
            Code::Over(code) => Some(code),
            Code::Crashed | Code::Turn => None,
        };
        assert_eq!(over(Signal::SIGTERM as i32), Some(exit::OK));
        assert_eq!(over(Signal::SIGKILL as i32), None);
        assert_eq!(over(Signal::SIGSEGV as i32), None);
        assert_eq!(over(i32::from(exit::DEVICE) << 8), Some(exit::DEVICE));
        assert_eq!(over(i32::from(exit::BROKEN) << 8), None);
    }
}
