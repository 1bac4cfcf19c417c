//! What no live worker can do.

use halfheard_shared::{
    external,
    spec::ResolvedNeeds,
    text::{count, plain},
    wire::Heartbeat,
};
use halfheard_store::measured_needs::OpenNeed;

/// One line for each need of ready jobs that no live worker meets. Nothing without workers: that is said
/// elsewhere.
pub fn unmet(needs: &[OpenNeed], workers: &[Heartbeat]) -> Vec<String> {
    if workers.is_empty() {
        return Vec::new();
    }
    let most = workers.iter().map(|worker| worker.device_memory).max();
    needs
        .iter()
        .filter(|need| {
            let need = ResolvedNeeds {
                memory: need.memory.max(0).unsigned_abs(),
                label: need.label.clone(),
            };
            !workers
                .iter()
                .any(|worker| need.met_by(worker.device_memory, &worker.labels))
        })
        .map(|need| {
            let mut wanted = Vec::new();
            if need.memory > 0 {
                wanted.push(format!("{} of device memory", gigabytes(need.memory)));
            }
            if let Some(label) = &need.label {
                wanted.push(format!("the label `{label}`"));
            }
            let jobs = count(need.jobs.max(0).unsigned_abs() as usize, "job");
            let most = most.unwrap_or_default().cast_signed();
            format!(
                "no worker has what {jobs} need: {} (the most memory of a worker: {})",
                wanted.join(" and "),
                gigabytes(most)
            )
        })
        .collect()
}

/// A line if no live worker runs external programs, whose methods come with the number of their jobs.
/// Nothing without workers: that is said elsewhere.
pub fn no_external(methods: &[(String, i64)], workers: &[Heartbeat]) -> Option<String> {
    let runs = |worker: &Heartbeat| worker.methods.iter().any(|id| id == external::METHOD);
    if methods.is_empty() || workers.is_empty() || workers.iter().any(runs) {
        return None;
    }
    let jobs: i64 = methods.iter().map(|(_, jobs)| jobs).sum();
    let names: Vec<String> = methods.iter().map(|(method, _)| plain(method)).collect();
    Some(format!(
        "no worker runs external programs, and {} of {} wait for one: start a worker with \
         `--allow-external`",
        count(jobs.max(0).unsigned_abs() as usize, "job"),
        names.join(", ")
    ))
}

/// Decimal gigabytes, as makers of devices count.
fn gigabytes(bytes: i64) -> String {
    format!("{:.1} GB", bytes as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;
    use halfheard_shared::wire::{VERSION, WorkerInfo};

    fn worker(version: &str, wire: u8, device_memory: u64, label: &str) -> Heartbeat {
        Heartbeat {
            worker: WorkerInfo {
                name: "w".to_owned(),
                host: "h".to_owned(),
                device: "cuda:0".to_owned(),
                version: version.to_owned(),
                processor: String::new(),
            },
            pid: 1,
            session: Default::default(),
            holds: Vec::new(),
            at_ms: 0,
            memory_bytes: 0,
            doing: None,
            trouble: None,
            wire,
            methods: Vec::new(),
            labels: vec![label.to_owned()],
            device_memory,
        }
    }

    fn need(memory: i64, label: Option<&str>) -> OpenNeed {
        OpenNeed {
            memory,
            label: label.map(str::to_owned),
            jobs: 3,
        }
    }

    #[test]
    fn unmet_needs_are_named() {
        let workers = [
            worker("1", VERSION, 16_000_000_000, "t4"),
            worker("1", VERSION, 80_000_000_000, "a100"),
        ];
        let met = [
            need(16_000_000_000, None),
            need(1, Some("t4")),
            need(0, Some("a100")),
        ];
        assert!(unmet(&met, &workers).is_empty());
        // Each half is met, but not by one worker.
        assert_eq!(
            unmet(&[need(20_000_000_000, Some("t4"))], &workers),
            [
                "no worker has what 3 jobs need: 20.0 GB of device memory and the label `t4` (the most \
                 memory of a worker: 80.0 GB)"
            ]
        );
        assert!(unmet(&[need(1, None)], &[]).is_empty());
    }

    #[test]
    fn jobs_of_external_programs_that_nobody_runs_are_named() {
        let open = [("my-model".to_owned(), 3), ("other".to_owned(), 1)];
        let mut workers = [worker("1", VERSION, 0, ""), worker("1", VERSION, 0, "")];
        assert_eq!(no_external(&[], &workers), None);
        assert_eq!(no_external(&open, &[]), None);
        assert_eq!(
            no_external(&open, &workers).unwrap(),
            "no worker runs external programs, and 4 jobs of my-model, other wait for one: start a \
             worker with `--allow-external`"
        );
        workers[1].methods = vec!["lnln".to_owned(), external::METHOD.to_owned()];
        assert_eq!(no_external(&open, &workers), None);
    }
}
