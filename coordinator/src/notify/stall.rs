//! Why nothing happens although jobs are ready.

use halfheard_progress::describe_worker;
use halfheard_shared::{
    ids::SweepId,
    text::{count, plain},
    wire::{Heartbeat, nobody_can},
};
use halfheard_store::drained::Drained;

/// The most workers that are named.
const NAMED: usize = 3;

/// Why no worker does anything for `sweep`. `unmet`: what jobs need that no worker has. `None` if it
/// only waits for its turn: workers are busy for other sweeps.
pub(super) fn why(
    sweep: SweepId,
    workers: &[Heartbeat],
    drained: &[Drained],
    unmet: &[String],
) -> Option<String> {
    if workers.is_empty() {
        return Some("no worker is connected".to_owned());
    }
    if let Some(problem) = nobody_can(workers) {
        return Some(problem);
    }
    if !unmet.is_empty() {
        return Some(unmet.join("; "));
    }
    let is_drained = |worker: &&Heartbeat| drained.iter().any(|d| d.covers(&worker.worker));
    let (off, on): (Vec<_>, Vec<_>) = workers.iter().partition(is_drained);
    if on.is_empty() {
        return Some(format!(
            "{} drained: {}",
            are(off.len(), "worker"),
            named(&off, |worker| plain(&worker.worker.name))
        ));
    }
    let says = |worker: &Heartbeat| {
        format!(
            "{}: {}",
            plain(&worker.worker.name),
            describe_worker(worker)
        )
    };
    let at_it: Vec<_> = on
        .iter()
        .filter(|worker| {
            worker
                .doing
                .as_ref()
                .is_some_and(|doing| doing.sweep == sweep)
        })
        .copied()
        .collect();
    if !at_it.is_empty() {
        return Some(format!(
            "its work does not advance: {}",
            named(&at_it, says)
        ));
    }
    if on.iter().any(|worker| worker.doing.is_some()) {
        return None;
    }
    Some(named(&on, says))
}

fn are(number: usize, noun: &str) -> String {
    let verb = if number == 1 { "is" } else { "are" };
    format!("{} {verb}", count(number, noun))
}

fn named(workers: &[&Heartbeat], says: impl Fn(&Heartbeat) -> String) -> String {
    let mut names: Vec<String> = workers
        .iter()
        .take(NAMED)
        .map(|worker| says(worker))
        .collect();
    if workers.len() > NAMED {
        names.push(format!("and {} more", workers.len() - NAMED));
    }
    names.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;
    use halfheard_shared::wire::{Doing, Fault, FaultKind, Trouble};
    use serde_json::json;

    const OURS: SweepId = SweepId(uuid::Uuid::nil());

    fn worker(name: &str, sweep: Option<SweepId>, sits_out: bool) -> Heartbeat {
        let info = json!({"name": name, "host": "h", "device": "cpu", "version": "0"});
        let json =
            json!({"worker": info, "pid": 1, "at_ms": 5000, "memory_bytes": 0, "doing": null});
        let mut beat: Heartbeat = serde_json::from_value(json).unwrap();
        beat.doing = sweep.map(|sweep| Doing {
            sweep,
            job: halfheard_shared::ids::JobId(uuid::Uuid::nil()),
            what: "train \u{1b}lnln".to_owned(),
            epoch: 0,
            max_epochs: 0,
            step: 0,
            steps: 0,
            loss: None,
            case: 0,
            cases: 0,
        });
        beat.trouble = sits_out.then(|| Trouble {
            fault: Fault::new(
                FaultKind::Device,
                "the device",
                vec!["it fell off".to_owned()],
            ),
            since_ms: 0,
            times: 1,
            next_try_ms: None,
            sits_out: true,
        });
        beat
    }

    #[test]
    fn reason_is_what_an_operator_can_change() {
        let other = Some(SweepId::derive(&[b"other"]));
        let drained = |worker: &str| Drained {
            worker: worker.to_owned(),
            by: String::new(),
            since: DateTime::UNIX_EPOCH,
            at_once: false,
        };
        let why = |workers: &[Heartbeat], drained: &[Drained], unmet: &[String]| {
            why(OURS, workers, drained, unmet)
        };
        let idle = || worker("idle-0", None, false);
        assert_eq!(why(&[], &[], &[]).unwrap(), "no worker is connected");
        let unmet = ["no worker has what 3 jobs need".to_owned()];
        assert_eq!(why(&[idle()], &[], &unmet).unwrap(), unmet[0]);
        let out = || worker("out-0", None, true);
        let text = why(&[out(), out()], &[], &[]).unwrap();
        assert_eq!(text, "no worker can use the device: it fell off");
        let text = why(&[idle()], &[drained("idle")], &[]).unwrap();
        assert_eq!(text, "1 worker is drained: idle-0");
        // Busy for others: its turn will come. Busy for it without progress: that is what is wrong.
        assert_eq!(why(&[worker("b-0", other, false), idle()], &[], &[]), None);
        let text = why(&[worker("b-0", Some(OURS), false)], &[], &[]).unwrap();
        assert_eq!(text, "its work does not advance: b-0: train \u{fffd}lnln");
        let text = why(&[idle(), idle(), out(), idle(), idle()], &[], &[]).unwrap();
        assert!(
            text.starts_with("idle-0: idle; idle-0: idle; out-0: sits out: "),
            "{text}"
        );
        assert!(text.ends_with("; and 2 more"), "{text}");
    }
}
