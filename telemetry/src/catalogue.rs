//! Every metric that the programs export. Dashboards, alert rules and the reference name these, and a
//! test compares them.

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// It only grows, until its process ends.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Counts by upper bound, with sum and count.
    Histogram(&'static [f64]),
}

impl Kind {
    /// As Prometheus writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// One metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metric {
    /// Its name, with its unit.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// The names of its labels, without those that say which process it is.
    pub labels: &'static [&'static str],
    /// For a counter with one label: the values that are exported from the start, with 0, so that the
    /// first event is an increase.
    pub values: &'static [&'static str],
    /// What it says, in a sentence.
    pub help: &'static str,
}

/// Upper bounds of durations of steps and saves, in seconds.
const DURATIONS: &[f64] = &[
    0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0,
];

const fn counter(
    name: &'static str,
    labels: &'static [&'static str],
    values: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric {
        name,
        kind: Kind::Counter,
        labels,
        values,
        help,
    }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric {
        name,
        kind: Kind::Gauge,
        labels,
        values: &[],
        help,
    }
}

const fn durations(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric {
        name,
        kind: Kind::Histogram(DURATIONS),
        labels,
        values: &[],
        help,
    }
}

/// Both programs'.
pub const BUILD_INFO: Metric = gauge(
    "halfheard_build_info",
    &["version"],
    "Always 1; the label is the version of the program.",
);

/// Both programs', where the artifact store is a folder.
pub const ARTIFACTS_FREE: Metric = gauge(
    "halfheard_artifacts_free_bytes",
    &[],
    "What this process may still write to the disk of the artifact store; exported where the store is a folder.",
);

/// See [`ARTIFACTS_FREE`].
pub const ARTIFACTS_SIZE: Metric = gauge(
    "halfheard_artifacts_size_bytes",
    &[],
    "Size of the disk of the artifact store; exported where the store is a folder.",
);

/// What `coord serve` exports.
pub const COORDINATOR: &[Metric] = &[
    BUILD_INFO,
    gauge(
        "halfheard_database_up",
        &[],
        "Whether Postgres answers and its migrations match, 1 or 0.",
    ),
    gauge(
        "halfheard_broker_up",
        &[],
        "Whether the broker answers, 1 or 0.",
    ),
    gauge(
        "halfheard_snapshot_age_seconds",
        &[],
        "Age of what the gauges from the database show; absent before the first look.",
    ),
    gauge(
        "halfheard_snapshot_duration_seconds",
        &[],
        "How long reading them from the database took.",
    ),
    gauge(
        "halfheard_leader",
        &[],
        "Whether this coordinator leads, 1 or 0.",
    ),
    gauge(
        "halfheard_leadership_term",
        &[],
        "The latest term in the database; it grows with every change of the leader.",
    ),
    gauge(
        "halfheard_jobs",
        &["kind", "state"],
        "Jobs by kind (train, eval, noop) and state.",
    ),
    gauge(
        "halfheard_pending_work_seconds",
        &["kind", "state"],
        "Estimated seconds of one slot that ready and blocked jobs of running sweeps will take; jobs without an estimate count nothing.",
    ),
    gauge(
        "halfheard_jobs_without_estimate",
        &["kind", "state"],
        "Ready and blocked jobs of running sweeps whose duration cannot be estimated yet.",
    ),
    gauge(
        "halfheard_queue_age_seconds",
        &[],
        "How long the oldest job that may be granted has been waiting; 0 if there is none.",
    ),
    gauge(
        "halfheard_sweeps",
        &["state"],
        "Sweeps by state: running, paused, finished, cancelled.",
    ),
    gauge(
        "halfheard_sweep_jobs",
        &["sweep", "name", "state"],
        "Jobs of the 20 newest unfinished running sweeps, by state.",
    ),
    gauge(
        "halfheard_sweep_idle_seconds",
        &["sweep", "name"],
        "How long an unfinished running sweep has not advanced: no job ended and no state with more steps was saved. Counted from the start of this coordinator at the earliest.",
    ),
    gauge(
        "halfheard_sweep_gpu_seconds",
        &["sweep", "name"],
        "How long slots have been busy with a sweep's jobs; divide by 3600 for GPU hours.",
    ),
    gauge(
        "halfheard_workers",
        &["state"],
        "Slots that are heard, by state: busy, idle, sitting_out, drained; silent are those not heard for 15 s, forgotten after a minute.",
    ),
    gauge(
        "halfheard_worker_sitting_out_seconds",
        &["worker", "fault"],
        "How long a slot has been sitting out for a fault of its own; the 20 longest.",
    ),
    gauge(
        "halfheard_training_step_seconds",
        &["method"],
        "Mean duration of a training step in the last epochs of the jobs in progress; methods without a batch size are left out.",
    ),
    gauge(
        "halfheard_training_samples_per_second",
        &["method"],
        "Mean samples per second of one slot in the last epochs of the training jobs in progress.",
    ),
    gauge(
        "halfheard_dead_letters",
        &[],
        "Dead letters that are kept, at most 1000.",
    ),
    counter(
        "halfheard_results_total",
        &["kind"],
        &["train", "eval", "noop"],
        "Results that this coordinator stored, by kind of job.",
    ),
    counter(
        "halfheard_jobs_granted_total",
        &[],
        &[],
        "Jobs that this coordinator granted to workers.",
    ),
    counter(
        "halfheard_leases_ended_total",
        &["reason"],
        &["silent", "stalled", "replaced"],
        "Leases that this coordinator ended without the worker's word: it was not heard, its work did not advance, its process was replaced.",
    ),
    counter(
        "halfheard_retries_total",
        &["reason"],
        &[
            "retryable",
            "out_of_memory",
            "handed_back",
            "declined",
            "silent",
            "stalled",
            "replaced",
        ],
        "Jobs that are to be tried again, by what ended the attempt.",
    ),
    counter(
        "halfheard_attempts_released_total",
        &[],
        &[],
        "Repairs: attempts that a worker still held and the database gave to nobody or to another, which it was told to release.",
    ),
    counter(
        "halfheard_dead_letters_total",
        &[],
        &[],
        "Messages that this coordinator refused or could not store.",
    ),
    counter(
        "halfheard_database_errors_total",
        &["fault"],
        &[
            "transient",
            "refusal",
            "timeout",
            "content",
            "deposed",
            "other",
        ],
        "Errors of the database that this coordinator met, by whose fault they are.",
    ),
    counter(
        "halfheard_broker_errors_total",
        &["kind"],
        &["transient", "permanent"],
        "Errors of the broker that this coordinator met.",
    ),
    gauge(
        "halfheard_resident_memory_bytes",
        &[],
        "Resident memory of this process.",
    ),
    ARTIFACTS_FREE,
    ARTIFACTS_SIZE,
];

/// What the slots of `worker` measure; each series has the label `slot` as well.
pub const SLOT: &[Metric] = &[
    counter(
        "halfheard_worker_jobs_total",
        &["kind", "outcome"],
        &[],
        "Attempts that ended, by kind of job and outcome: done, failed, handed_back, declined.",
    ),
    counter(
        "halfheard_worker_steps_total",
        &["method"],
        &[],
        "Training steps.",
    ),
    counter(
        "halfheard_worker_samples_total",
        &["method"],
        &[],
        "Samples that were trained on, every pass counted.",
    ),
    durations(
        "halfheard_worker_step_seconds",
        &["method"],
        "Duration of a training step.",
    ),
    durations(
        "halfheard_worker_save_seconds",
        &[],
        "Duration of saving a state, from the decision until it is stored.",
    ),
    counter(
        "halfheard_worker_save_failures_total",
        &[],
        &[],
        "States that could not be saved.",
    ),
    counter(
        "halfheard_worker_faults_total",
        &["fault"],
        &[
            "store",
            "data_folder",
            "dataset",
            "encoder",
            "checkpoint",
            "method",
            "device",
        ],
        "Faults of its own that a slot met.",
    ),
    counter(
        "halfheard_worker_reconnects_total",
        &[],
        &[],
        "Connections to the broker after the first one.",
    ),
    counter(
        "halfheard_worker_busy_seconds_total",
        &[],
        &[],
        "Time with a job.",
    ),
    counter(
        "halfheard_worker_idle_seconds_total",
        &[],
        &[],
        "Time without a job, sitting out included.",
    ),
    gauge(
        "halfheard_worker_sitting_out",
        &[],
        "Whether the slot sits out for a fault of its own, 1 or 0.",
    ),
    gauge(
        "halfheard_worker_connected",
        &[],
        "Whether the slot is connected to the broker, 1 or 0.",
    ),
    gauge(
        "halfheard_worker_resident_memory_bytes",
        &[],
        "Resident memory of the slot's process.",
    ),
    gauge(
        "halfheard_worker_device_memory_bytes",
        &[],
        "Memory of the slot's device; for the CPU, the machine's as far as the process may use it.",
    ),
    gauge(
        "halfheard_worker_device_memory_used_bytes",
        &[],
        "Memory in use on the slot's GPU, by everybody; for the CPU, the peak of the slot's process.",
    ),
];

/// What the supervisor of `worker` measures.
pub const WORKER: &[Metric] = &[
    BUILD_INFO,
    gauge(
        "halfheard_worker_slot_up",
        &["slot"],
        "Whether the slot's process runs and its work advances, 1 or 0.",
    ),
    counter(
        "halfheard_worker_slot_crashes_total",
        &["slot"],
        &[],
        "How often the slot's process crashed and was started again.",
    ),
    ARTIFACTS_FREE,
    ARTIFACTS_SIZE,
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn all() -> impl Iterator<Item = &'static Metric> {
        [COORDINATOR, SLOT, WORKER].into_iter().flatten()
    }

    #[test]
    fn names_follow_the_conventions_of_prometheus() {
        for metric in all() {
            let name = metric.name;
            assert!(name.starts_with("halfheard_"), "{name}");
            let plain = |c: char| c.is_ascii_lowercase() || c == '_';
            assert!(name.chars().all(plain), "{name}");
            let total = name.ends_with("_total");
            assert_eq!(total, metric.kind == Kind::Counter, "{name}");
            for suffix in ["_count", "_sum", "_bucket", "_milliseconds", "_hours"] {
                assert!(!name.ends_with(suffix), "{name}");
            }
            assert!(metric.help.ends_with('.'), "{name}");
            assert!(
                metric.values.is_empty() || metric.labels.len() == 1,
                "{name}"
            );
        }
    }

    #[test]
    fn names_are_unique_in_each_program() {
        for program in [COORDINATOR.to_vec(), [SLOT, WORKER].concat()] {
            let names: BTreeSet<&str> = program.iter().map(|metric| metric.name).collect();
            assert_eq!(names.len(), program.len());
        }
    }
}
