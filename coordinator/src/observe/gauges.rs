//! Gauges from what the database, the broker and the workers said.

use super::{looks::Look, probe::Probe};
use halfheard_shared::{broker::heartbeats::Heartbeats, wire::Heartbeat};
use halfheard_store::{
    JobKind, JobState,
    drained::Drained,
    observation::{JobGroup, Pace},
};
use halfheard_telemetry::exposition::Samples;
use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

/// A worker that is not heard for so long is silent: five heartbeats.
const SILENT: Duration = Duration::from_secs(15);
/// The most workers with a series of their own.
const SITTING_OUT: usize = 20;
/// The most methods with series of their own: external programs have names of their own.
const METHODS: usize = 50;

/// Whether the servers behind answer.
pub(super) fn servers(probe: &Probe, samples: &mut Samples) {
    let up = |outcome: &Result<(), String>| f64::from(u8::from(outcome.is_ok()));
    samples.add("halfheard_database_up", &[], up(&probe.database));
    samples.add("halfheard_broker_up", &[], up(&probe.broker));
}

/// What the database said last, however old that is.
pub(super) fn database(look: &Look, samples: &mut Samples) {
    let age = look.at.elapsed();
    samples.add("halfheard_snapshot_age_seconds", &[], age.as_secs_f64());
    samples.add(
        "halfheard_snapshot_duration_seconds",
        &[],
        look.took.as_secs_f64(),
    );
    samples.add("halfheard_leadership_term", &[], look.standing.term as f64);
    samples.add(
        "halfheard_dead_letters",
        &[],
        look.standing.dead_letters as f64,
    );
    jobs(&look.jobs, samples);
    for (state, count) in &look.sweeps {
        samples.add("halfheard_sweeps", &[state], *count as f64);
    }
    for sweep in &look.newest {
        let labels = [sweep.id.short(), sweep.name.clone()];
        let labels = [labels[0].as_str(), labels[1].as_str()];
        for (state, count) in &sweep.jobs {
            let labels = [labels[0], labels[1], state.as_str()];
            samples.add("halfheard_sweep_jobs", &labels, *count as f64);
        }
        // As of the look: what happened since is not known.
        let idle = look.at.saturating_duration_since(sweep.advanced);
        samples.add("halfheard_sweep_idle_seconds", &labels, idle.as_secs_f64());
        if let Some(busy) = sweep.busy {
            samples.add("halfheard_sweep_gpu_seconds", &labels, busy);
        }
    }
    paces(&look.paces, samples);
}

fn jobs(groups: &[JobGroup], samples: &mut Samples) {
    let mut counts: BTreeMap<(&str, &str), i64> = BTreeMap::new();
    let mut pending: BTreeMap<(&str, &str), (f64, i64)> = BTreeMap::new();
    let mut oldest: f64 = 0.0;
    // What an evaluation took, by method and dataset.
    let took: HashMap<(&str, &str), f64> = groups
        .iter()
        .filter(|group| group.kind == JobKind::Eval)
        .filter_map(|g| Some(((g.method.as_str(), g.dataset.as_str()), g.took?)))
        .collect();
    for group in groups {
        let key = (group.kind.as_str(), group.state.as_str());
        *counts.entry(key).or_default() += group.jobs;
        if !matches!(group.state, JobState::Ready | JobState::Blocked) {
            continue;
        }
        let of_kind = pending.entry(key).or_default();
        of_kind.0 += group.seconds;
        match took.get(&(group.method.as_str(), group.dataset.as_str())) {
            Some(each) if group.kind == JobKind::Eval => {
                of_kind.0 += each * group.unestimated as f64
            }
            // It takes no time worth mentioning.
            _ if group.kind == JobKind::Noop => {}
            _ => of_kind.1 += group.unestimated,
        }
        if group.state == JobState::Ready {
            oldest = oldest.max(group.oldest.unwrap_or_default());
        }
    }
    for ((kind, state), count) in counts {
        samples.add("halfheard_jobs", &[kind, state], count as f64);
    }
    for ((kind, state), (seconds, unestimated)) in pending {
        samples.add("halfheard_pending_work_seconds", &[kind, state], seconds);
        samples.add(
            "halfheard_jobs_without_estimate",
            &[kind, state],
            unestimated as f64,
        );
    }
    samples.add("halfheard_queue_age_seconds", &[], oldest);
}

/// Samples per second and seconds per step by method, weighted by the jobs of each config.
fn paces(paces: &[Pace], samples: &mut Samples) {
    #[derive(Default)]
    struct Sum {
        jobs: f64,
        rate: f64,
        step_jobs: f64,
        step: f64,
    }
    let mut methods: BTreeMap<&str, Sum> = BTreeMap::new();
    for pace in paces {
        if !methods.contains_key(pace.method.as_str()) && methods.len() >= METHODS {
            continue;
        }
        let sum = methods.entry(&pace.method).or_default();
        let (jobs, size) = (pace.jobs as f64, f64::from(pace.samples));
        sum.jobs += jobs;
        sum.rate += jobs * size / pace.seconds;
        // Programs of others have hyper-parameters of their own.
        let hyper: serde_json::Value = serde_json::from_str(&pace.hyper).unwrap_or_default();
        if let Some(batch) = hyper["batch_size"].as_f64().filter(|batch| *batch >= 1.0) {
            sum.step_jobs += jobs;
            sum.step += jobs * pace.seconds / (size / batch).ceil().max(1.0);
        }
    }
    for (method, sum) in methods {
        let rate = sum.rate / sum.jobs;
        samples.add("halfheard_training_samples_per_second", &[method], rate);
        if sum.step_jobs > 0.0 {
            let step = sum.step / sum.step_jobs;
            samples.add("halfheard_training_step_seconds", &[method], step);
        }
    }
}

/// What the workers said.
pub(super) fn workers(heartbeats: &Heartbeats, drained: &[Drained], samples: &mut Samples) {
    let mut states: BTreeMap<_, u64> = ["busy", "idle", "sitting_out", "drained", "silent"]
        .map(|state| (state, 0))
        .into();
    let mut out = Vec::new();
    heartbeats.each(|heard| {
        let state = match heard.at.elapsed() > SILENT {
            true => "silent",
            false => state(&heard.beat, drained),
        };
        *states.entry(state).or_default() += 1;
        if let Some(trouble) = &heard.beat.trouble
            && trouble.sits_out
        {
            // Both by the worker's clock.
            let since = heard.beat.at_ms.saturating_sub(trouble.since_ms);
            let name = heard.beat.worker.name.clone();
            out.push((since, name, trouble.fault.kind.as_str()));
        }
    });
    for (state, count) in states {
        samples.add("halfheard_workers", &[state], count as f64);
    }
    out.sort_by(|a, b| b.cmp(a));
    for (since_ms, worker, fault) in out.into_iter().take(SITTING_OUT) {
        let seconds = since_ms as f64 / 1000.0;
        let labels = [worker.as_str(), fault];
        samples.add("halfheard_worker_sitting_out_seconds", &labels, seconds);
    }
}

fn state(beat: &Heartbeat, drained: &[Drained]) -> &'static str {
    if beat
        .trouble
        .as_ref()
        .is_some_and(|trouble| trouble.sits_out)
    {
        "sitting_out"
    } else if drained.iter().any(|drained| drained.covers(&beat.worker)) {
        "drained"
    } else if beat.doing.is_some() {
        "busy"
    } else {
        "idle"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use halfheard_telemetry::catalogue::COORDINATOR;

    fn group(kind: JobKind, state: JobState) -> JobGroup {
        JobGroup {
            kind,
            state,
            method: "lnln".to_owned(),
            dataset: "mosi".to_owned(),
            jobs: 10,
            wanted: 10,
            unestimated: 10,
            seconds: 0.0,
            oldest: None,
            took: None,
        }
    }

    fn rendered(fill: impl Fn(&mut Samples)) -> Vec<String> {
        let mut samples = Samples::default();
        fill(&mut samples);
        let text = samples.render(COORDINATOR);
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(str::to_owned).collect()
    }

    #[test]
    fn evaluations_are_estimated_from_those_that_are_done() {
        let train = JobGroup {
            seconds: 600.0,
            unestimated: 4,
            oldest: Some(90.0),
            ..group(JobKind::Train, JobState::Ready)
        };
        let done = JobGroup {
            took: Some(3.0),
            ..group(JobKind::Eval, JobState::Done)
        };
        let other = JobGroup {
            method: "almt".to_owned(),
            ..group(JobKind::Eval, JobState::Blocked)
        };
        let groups = [train, done, group(JobKind::Eval, JobState::Blocked), other];
        let lines = rendered(|samples| jobs(&groups, samples));
        for line in [
            r#"halfheard_jobs{kind="eval",state="blocked"} 20"#,
            r#"halfheard_pending_work_seconds{kind="train",state="ready"} 600"#,
            r#"halfheard_pending_work_seconds{kind="eval",state="blocked"} 30"#,
            r#"halfheard_jobs_without_estimate{kind="train",state="ready"} 4"#,
            r#"halfheard_jobs_without_estimate{kind="eval",state="blocked"} 10"#,
            "halfheard_queue_age_seconds 90",
        ] {
            assert!(lines.contains(&line.to_owned()), "{line} not in {lines:#?}");
        }
    }

    #[test]
    fn pace_is_the_mean_over_jobs_and_a_method_without_batches_has_no_steps() {
        let pace = |method: &str, hyper: &str, jobs, seconds| Pace {
            method: method.to_owned(),
            hyper: hyper.to_owned(),
            jobs,
            samples: 100,
            seconds,
        };
        let all = [
            pace("lnln", r#"{"batch_size": 16}"#, 1, 10.0),
            pace("lnln", r#"{"batch_size": 16}"#, 3, 20.0),
            pace("own", "{}", 1, 50.0),
        ];
        let lines = rendered(|samples| paces(&all, samples));
        assert_eq!(
            lines,
            [
                r#"halfheard_training_step_seconds{method="lnln"} 2.5"#,
                r#"halfheard_training_samples_per_second{method="lnln"} 6.25"#,
                r#"halfheard_training_samples_per_second{method="own"} 2"#,
            ]
        );
    }
}
