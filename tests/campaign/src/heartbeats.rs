//! Listens to the workers' heartbeats: how far each training attempt came, and what of that was saved.
//! The rest is done again by the next attempt.

use anyhow::{Context as _, Result};
use halfheard_shared::{ids::AttemptId, wire::Heartbeat};
use std::{
    collections::HashMap,
    fs::File,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// The longest heartbeat that is read.
const MAX_BYTES: usize = 1 << 20;
/// How long it waits for a line before it looks whether it is to stop; the broker may be away.
const PATIENCE: Duration = Duration::from_secs(2);

/// How far one training attempt came, in training steps.
#[derive(Clone, Copy, Debug, Default)]
struct Reach {
    computed: u64,
    saved: u64,
}

/// What was heard.
#[derive(Debug, Default)]
pub struct Heartbeats(Mutex<HashMap<AttemptId, Reach>>);

impl Heartbeats {
    /// Listens until `stop`, at the broker's `host:port`, in the network of `namespace`. The broker
    /// may come and go.
    pub fn listen(&self, broker: &str, namespace: Option<&str>, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            // Ends when the broker does.
            let _ = self.session(broker, namespace, stop);
            thread::sleep(Duration::from_millis(500));
        }
    }

    /// One connection, in the plain protocol of NATS.
    fn session(&self, broker: &str, namespace: Option<&str>, stop: &AtomicBool) -> Result<()> {
        if let Some(name) = namespace {
            let file = File::open(format!("/run/netns/{name}"))?;
            // Of this thread alone.
            nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET)?;
        }
        let address = broker.parse().context("the broker's address")?;
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let mut writer = stream.try_clone()?;
        writer.write_all(
            b"CONNECT {\"verbose\":false,\"pedantic\":false}\r\nSUB $KV.> 1\r\nPING\r\n",
        )?;
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        while !stop.load(Ordering::Relaxed) {
            line.clear();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if line.starts_with("PING") {
                writer.write_all(b"PONG\r\n")?;
            } else if line.starts_with("MSG ") {
                let length = line.split_whitespace().next_back();
                let length: usize = length.context("no length")?.parse()?;
                anyhow::ensure!(length <= MAX_BYTES, "too long");
                let mut payload = vec![0; length + 2];
                reader.read_exact(&mut payload)?;
                if let Ok(beat) = serde_json::from_slice(&payload[..length]) {
                    self.hear(&beat);
                }
            }
        }
        Ok(())
    }

    fn hear(&self, beat: &Heartbeat) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for held in beat.holds.iter().filter(|held| held.begun) {
            let doing = beat.doing.as_ref().filter(|doing| doing.job == held.job);
            let Some(doing) = doing.filter(|doing| doing.epoch > 0) else {
                continue;
            };
            let computed =
                u64::from(doing.epoch - 1) * u64::from(doing.steps) + u64::from(doing.step);
            let reach = all.entry(held.attempt).or_default();
            reach.computed = reach.computed.max(computed).max(held.saved);
            reach.saved = reach.saved.max(held.saved);
        }
    }

    /// Training steps that those of the attempts which did not deliver computed and did not save.
    pub fn wasted(&self, delivered: &[String]) -> u64 {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter()
            .filter(|(attempt, _)| !delivered.contains(&attempt.to_string()))
            .map(|(_, reach)| reach.computed - reach.saved)
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn steps_beyond_the_saved_state_are_wasted_unless_the_attempt_delivered() {
        let id = "00000000-0000-4000-8000-000000000001";
        let beat = |step: u32, saved: u64| {
            serde_json::from_value(json!({
                "worker": { "name": "w1-0", "host": "w1", "device": "cpu", "version": "1" },
                "pid": 7, "at_ms": 1, "memory_bytes": 2,
                "holds": [{ "attempt": id, "job": id, "begun": true, "progress": 3,
                            "saved": saved, "patience_s": 60 }],
                "doing": { "sweep": id, "job": id, "what": "train", "epoch": 2, "max_epochs": 8,
                           "step": step, "steps": 20, "loss": null },
            }))
            .unwrap()
        };
        let heartbeats = Heartbeats::default();
        heartbeats.hear(&beat(3, 20));
        heartbeats.hear(&beat(9, 25));
        assert_eq!(heartbeats.wasted(&[]), 29 - 25);
        assert_eq!(heartbeats.wasted(&[id.to_owned()]), 0);
    }
}
