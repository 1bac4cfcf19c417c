//! Workers of several versions.

use halfheard_shared::wire::{Heartbeat, VERSION};
use std::collections::BTreeMap;

/// A line if live workers are of several versions, or speak another version of the wire format than
/// this program.
pub(crate) fn versions(workers: &[Heartbeat]) -> Option<String> {
    let mut versions: BTreeMap<(&str, u8), usize> = BTreeMap::new();
    for worker in workers {
        let version = (worker.worker.version.as_str(), worker.wire);
        *versions.entry(version).or_default() += 1;
    }
    // 0: a worker that does not say.
    let other = versions
        .keys()
        .any(|(_, wire)| ![0, VERSION].contains(wire));
    if versions.len() < 2 && !other {
        return None;
    }
    let named: Vec<String> = versions
        .into_iter()
        .map(|((version, wire), number)| format!("{version} (wire format {wire}): {number}"))
        .collect();
    Some(format!("workers of several versions: {}", named.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use halfheard_shared::wire::WorkerInfo;

    fn worker(version: &str, wire: u8) -> Heartbeat {
        Heartbeat {
            worker: WorkerInfo {
                name: "w".to_owned(),
                host: "h".to_owned(),
                device: "cuda:0".to_owned(),
                version: version.to_owned(),
                processor: String::new(),
            },
            pid: 1,
            session: uuid::Uuid::nil(),
            holds: Vec::new(),
            at_ms: 0,
            memory_bytes: 0,
            doing: None,
            trouble: None,
            wire,
            methods: Vec::new(),
            labels: Vec::new(),
            device_memory: 0,
        }
    }

    #[test]
    fn several_versions_are_named() {
        let new = || worker("2", VERSION);
        assert_eq!(versions(&[]), None);
        assert_eq!(versions(&[new(), new()]), None);
        let line = versions(&[new(), worker("1", VERSION - 1), new()]).unwrap();
        assert_eq!(
            line,
            format!(
                "workers of several versions: 1 (wire format {}): 1, 2 (wire format {VERSION}): 2",
                VERSION - 1
            )
        );
        assert!(versions(&[worker("1", VERSION - 1)]).is_some());
    }
}
