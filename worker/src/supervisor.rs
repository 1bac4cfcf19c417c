//! The supervisor: one child process per slot, because libtorch has one random number generator and
//! one set of threads per process. It assigns the devices, restarts slots that crash, after growing
//! pauses, and forwards the shutdown request.

use crate::{
    exit::Exit,
    shutdown::{self, Deadlines},
    slot_report::{self, Line},
    watched::Slots,
};
use halfheard_models::{
    device::{
        self, DeviceError,
        cuda::{self, GpuDetection, GpuProblem},
    },
    environment,
    numerics::{self, Numerics},
};
use halfheard_shared::{
    device::{Assignment, Devices, Place},
    shutdown::Shutdown,
    text::count,
};
use nix::sys::signal::Signal;
use std::{
    ffi::OsString,
    os::unix::process::ExitStatusExt as _,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncWriteExt as _, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// After this uptime a slot's crash counter resets.
const STABLE_UPTIME: Duration = Duration::from_secs(60);
/// The longest pause before a slot is restarted.
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// How long a slot may take to end after it said that it does.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// What to supervise.
#[derive(Clone, Debug)]
pub(crate) struct Supervisor {
    pub(crate) slots: usize,
    pub(crate) devices: Devices,
    /// Whether slots may share GPUs.
    pub(crate) share: bool,
    /// This process's own flags, for the children.
    pub(crate) flags: Vec<OsString>,
    /// The worker's name.
    pub(crate) name: String,
    pub(crate) deadlines: Deadlines,
}

impl Supervisor {
    /// Assigns each slot a device of this machine. Loading the GPU library is left to a child: it
    /// takes memory, and a damaged library may crash the process. `None` on shutdown.
    ///
    /// # Errors
    ///
    /// The requested GPUs are not available.
    pub(crate) async fn assign(
        &self,
        shutdown: &Shutdown,
    ) -> Result<Option<Assignment>, DeviceError> {
        self.devices.check(self.slots, self.share)?;
        let found = match device::detect_without_loading(&self.devices) {
            Some(found) => found,
            None => tokio::select! {
                found = self.look() => found,
                () = shutdown.requested() => return Ok(None),
            },
        };
        let assigned = self
            .devices
            .assign(self.slots, found.gpus, self.share)
            .map_err(|error| device::device_error(&self.devices, &found, error))?;
        if let (Devices::Auto, Some(trouble)) = (&self.devices, &found.problem) {
            tracing::warn!(
                "{} on the CPU because no GPU can be used: {trouble}; {}",
                count(self.slots, "slot"),
                trouble.remedy()
            );
            return Ok(Some(assigned));
        }
        if assigned.left_out > 0 {
            tracing::warn!(
                "{} requested, and libtorch sees {}: starting {}, each on its own GPU; --share-gpus lets slots share them",
                count(self.slots, "slot"),
                count(found.gpus, "GPU"),
                count(assigned.places.len(), "slot"),
            );
        }
        let places = assigned.places.iter().enumerate();
        let places: Vec<String> = places
            .map(|(slot, &place)| format!("slot {slot} on {}", device::of_place(place).name))
            .collect();
        tracing::info!("{}", places.join(", "));
        Ok(Some(assigned))
    }

    /// What a child that loads the GPU library finds.
    async fn look(&self) -> GpuDetection {
        /// The part of `worker --look` that matters here.
        #[derive(serde::Deserialize)]
        struct Look {
            cuda_library: Option<PathBuf>,
            gpus: usize,
            trouble: Option<GpuProblem>,
        }
        let failed = |reason: String| {
            let library = cuda::find_library().unwrap_or_else(|_| cuda::CUDA_LIBRARY.into());
            cuda::failed_load(library, &reason)
        };
        let output = this_program(&self.flags)
            .arg("--look")
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .output()
            .await;
        let output = match output {
            Ok(output) => output,
            Err(error) => return failed(format!("cannot start a process to load it: {error}")),
        };
        match serde_json::from_slice::<Look>(&output.stdout) {
            Ok(look) => GpuDetection {
                library: look.cuda_library,
                gpus: look.gpus,
                problem: look.trouble,
            },
            Err(_) => failed(format!(
                "the process that loaded it ended with {}",
                output.status
            )),
        }
    }

    /// Runs a child of this program for each place until all have ended.
    pub(crate) async fn run(
        self,
        assigned: Assignment,
        watched: Slots,
        shutdown: Shutdown,
        forced: CancellationToken,
    ) -> Exit {
        let mut tasks = JoinSet::new();
        let slots = assigned.places.len();
        for (slot, &place) in assigned.places.iter().enumerate() {
            let process = SlotProcess {
                slot,
                slots,
                place,
                sharing: assigned.sharing(place),
                flags: self.flags.clone(),
                name: self.name.clone(),
                deadlines: self.deadlines,
                watched: watched.clone(),
                shutdown: shutdown.clone(),
                forced: forced.clone(),
            };
            tasks.spawn(process.supervise());
        }
        let mut exit = Exit::Success;
        while let Some(ended) = tasks.join_next().await {
            let ended = ended.unwrap_or(Exit::Internal);
            if ended == Exit::Success {
                continue;
            }
            exit = ended;
            // Each slot has its own device, and meets a fault of the machine by itself.
            if !tasks.is_empty() && !shutdown.is_requested() {
                tracing::error!(code = ended.code(), "a slot exited; the others continue");
            }
        }
        exit
    }
}

/// This very program, even if its file has been replaced by another version.
fn this_program(flags: &[OsString]) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("worker").args(flags);
    command
}

/// A slot's process, restarted when it crashes.
struct SlotProcess {
    slot: usize,
    slots: usize,
    place: Place,
    sharing: usize,
    flags: Vec<OsString>,
    name: String,
    deadlines: Deadlines,
    /// What machines see of this worker.
    watched: Slots,
    shutdown: Shutdown,
    /// Cancelled when this process is forced to exit immediately.
    forced: CancellationToken,
}

impl SlotProcess {
    async fn supervise(self) -> Exit {
        let mut crashes = 0_u32;
        let mut numerics = Numerics::default();
        while !self.shutdown.is_requested() {
            let began = Instant::now();
            let mut child = match self.start(numerics) {
                Ok(child) => child,
                Err(error) => {
                    tracing::error!(slot = self.slot, %error, "cannot start the slot");
                    return Exit::Internal;
                }
            };
            // `wait` would close it, and its end tells the child that this process has exited.
            let pipe = child.stdin.take();
            let words = child.stdout.take();
            let status = tokio::select! {
                status = child.wait() => status,
                () = self.listen(words) => self.end(&mut child).await,
                () = self.shutdown.requested() => self.stop(&mut child, pipe).await,
            };
            let status = match status {
                Ok(status) => status,
                Err(error) => {
                    tracing::error!(slot = self.slot, %error, "cannot wait for the slot");
                    return Exit::Internal;
                }
            };
            let ended = Ended::from(status);
            self.watched
                .ended(self.slot, matches!(ended, Ended::Crashed));
            match ended {
                Ended::Finally(exit) => return exit,
                Ended::SwitchNumerics => {
                    numerics = numerics.other_process();
                    continue;
                }
                Ended::Crashed => {}
            }
            if self.shutdown.is_requested() {
                return Exit::Forced;
            }
            crashes = match began.elapsed() > STABLE_UPTIME {
                true => 1,
                false => crashes + 1,
            };
            let pause = Duration::from_secs(1 << (crashes - 1).min(6)).min(MAX_PAUSE);
            tracing::error!(slot = self.slot, %status, "slot crashed; restarting in {pause:?}");
            self.shutdown.sleep(pause).await;
        }
        Exit::Success
    }

    fn start(&self, numerics: Numerics) -> std::io::Result<Child> {
        this_program(&self.flags)
            .arg("--slot")
            .arg(self.slot.to_string())
            .arg("--slots")
            .arg(self.slots.to_string())
            .arg("--device")
            .arg(self.place.to_string())
            .arg("--sharing")
            .arg(self.sharing.to_string())
            .arg("--name")
            .arg(&self.name)
            .arg("--numerics")
            .arg(numerics.as_str())
            .envs(environment::of_training_process())
            .envs(numerics::environment(numerics).iter().copied())
            // Held open for as long as this process lives: its end tells the child.
            .stdin(Stdio::piped())
            // On it, the child says how it is, and that it ends itself.
            .stdout(Stdio::piped())
            // Ctrl-C in a terminal reaches the whole group; the children learn of it from here, once.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
    }

    /// Keeps what a slot says of itself. Returns once it says that it ends.
    async fn listen(&self, words: Option<ChildStdout>) {
        if let Some(words) = words {
            let mut words = BufReader::new(words);
            while let Some(line) = slot_report::next(&mut words).await {
                match line {
                    Line::Ending => return,
                    Line::Report(report) => self.watched.heard(self.slot, report),
                }
            }
        }
        // Its end closes the pipe, and ends the wait for it.
        std::future::pending().await
    }

    /// Waits for a child that ends because its work hangs. One that hangs in the kernel, which its
    /// device's driver may cause, is killed, which may not help either.
    async fn end(&self, child: &mut Child) -> std::io::Result<ExitStatus> {
        if let Ok(status) = timeout(END_TIMEOUT, child.wait()).await {
            return status;
        }
        tracing::error!(
            slot = self.slot,
            pid = child.id(),
            "slot hangs and does not end; killing it"
        );
        child.start_kill()?;
        let killed = tokio::select! {
            status = child.wait() => return status,
            () = tokio::time::sleep(END_TIMEOUT) => child.wait(),
        };
        tracing::error!(
            slot = self.slot,
            "slot cannot be killed: it hangs in the kernel, its device or a file system; restart this machine if it stays"
        );
        tokio::select! {
            status = killed => status,
            () = self.shutdown.deadline(self.deadlines.kill()) => {
                Err(std::io::Error::other("the slot cannot be killed"))
            }
        }
    }

    /// Requests the child's shutdown and waits; kills it at the deadline or when forced to exit.
    /// Uses the pipe and not a signal, because the child may have received one already.
    async fn stop(
        &self,
        child: &mut Child,
        pipe: Option<ChildStdin>,
    ) -> std::io::Result<ExitStatus> {
        if let Some(mut pipe) = pipe {
            // Fails if the child has exited already.
            let _ = pipe.write_all(shutdown::REQUEST).await;
        }
        tokio::select! {
            status = child.wait() => return status,
            () = self.forced.cancelled() => {}
            () = self.shutdown.deadline(self.deadlines.kill()) => {
                tracing::warn!(slot = self.slot, "slot did not exit in time; killing it");
            }
        }
        child.kill().await?;
        child.wait().await
    }
}

/// How a slot's process ended.
enum Ended {
    /// Not to be restarted.
    Finally(Exit),
    /// To be restarted with the other numerics.
    SwitchNumerics,
    /// To be restarted.
    Crashed,
}

impl From<ExitStatus> for Ended {
    fn from(status: ExitStatus) -> Self {
        // A slot handles signals before it takes a job: one that died of a shutdown signal had none.
        let shutdown = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGUSR1];
        if status
            .signal()
            .is_some_and(|number| shutdown.iter().any(|&signal| signal as i32 == number))
        {
            return Ended::Finally(Exit::Success);
        }
        match status.code().and_then(Exit::from_code) {
            Some(Exit::SwitchNumerics) => Ended::SwitchNumerics,
            None | Some(Exit::Broken | Exit::Internal) => Ended::Crashed,
            Some(exit) => Ended::Finally(exit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slot_killed_by_a_shutdown_signal_exited_cleanly() {
        let exit = |raw| match Ended::from(ExitStatus::from_raw(raw)) {
            Ended::Finally(exit) => Some(exit),
            Ended::Crashed | Ended::SwitchNumerics => None,
        };
        let code = |exit: Exit| i32::from(exit.code()) << 8;
        assert_eq!(exit(Signal::SIGTERM as i32), Some(Exit::Success));
        assert_eq!(exit(Signal::SIGKILL as i32), None);
        assert_eq!(exit(Signal::SIGSEGV as i32), None);
        assert_eq!(exit(code(Exit::Device)), Some(Exit::Device));
        assert_eq!(exit(code(Exit::Broken)), None);
    }
}
