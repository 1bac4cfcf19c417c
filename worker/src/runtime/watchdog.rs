//! Ends a process whose work does not advance; its supervisor starts another.

use super::{
    presence::{self, Announcement, Status},
    watch::Watch,
};
use crate::{exit::Exit, shutdown};
use halfheard_shared::{
    broker::Broker,
    wire::{Fault, FaultKind},
};
use std::{
    io::Write as _,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};
use tokio::runtime::Handle;

/// How long the last words of the process may take.
const LAST_WORDS: Duration = Duration::from_secs(4);

/// Ends the process when its work does not advance.
pub(super) struct Watchdog {
    pub(super) watch: Watch,
    pub(super) broker: Broker,
    pub(super) announcement: Arc<Announcement>,
    pub(super) status: Status,
}

impl Watchdog {
    /// Starts its thread, which needs nothing of what may hang.
    pub(super) fn start(self) -> std::io::Result<()> {
        let every = self.watch.interval();
        let runtime = Handle::current();
        std::thread::Builder::new()
            .name("watchdog".to_owned())
            .spawn(move || {
                let mut looked = Instant::now();
                loop {
                    std::thread::sleep(every);
                    let late = looked.elapsed().saturating_sub(every);
                    looked = Instant::now();
                    // Stopped, or the machine was asleep.
                    if late > every * 3 {
                        self.watch.excuse(late);
                    } else if let Some(lack) = self.watch.overdue() {
                        self.end(&runtime, lack);
                    }
                }
            })?;
        Ok(())
    }

    /// Says why and ends the process.
    fn end(&self, runtime: &Handle, lack: String) -> ! {
        tracing::error!("{lack}; ending this process");
        let fault = Fault::new(FaultKind::Device, "its device", vec![lack]);
        self.status.record_fault(fault);
        let (said, heard) = mpsc::channel();
        let (broker, announcement) = (self.broker.clone(), self.announcement.clone());
        let status = self.status.clone();
        runtime.spawn(async move {
            presence::send_final_heartbeat(&broker, &announcement, &status).await;
            let _ = said.send(());
        });
        let _ = heard.recv_timeout(LAST_WORDS);
        // A process that hangs in the kernel does not end: the supervisor waits for it no longer.
        let _ = std::io::stdout().write_all(shutdown::ENDING);
        let _ = std::io::stdout().flush();
        // SAFETY: `_exit` has no preconditions. It runs no handlers, of which the device's may hang.
        unsafe { nix::libc::_exit(Exit::Broken.code().into()) }
    }
}
