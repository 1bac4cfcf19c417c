//! The loop: looks at the work and at Slurm's queue, submits and cancels.

use super::{
    Slurm, SlurmError, SlurmState,
    job::Job,
    observe::{self, Change, observe, phase},
    policy::{self, Decision, Limits, Phase, decide},
    queue::Seen,
};
use crate::{local::log_tail, output::Output};
use chrono::{DateTime, Utc};
use halfheard_progress::format_duration;
use halfheard_shared::{shutdown::Shutdown, text::count};
use halfheard_store::{
    Store, StoreError,
    allocation::{Allocation, OpenWork},
};
use serde::Serialize;
use std::{
    fmt,
    path::Path,
    time::{Duration, Instant},
};
use uuid::Uuid;

/// Something that happened: a line for people, or JSON.
#[derive(Debug, Serialize)]
struct Event {
    /// `submitted`, `adopted`, `changed`, `requeued`, `ended`, `cancelled`, `submit_failed`, `waits`,
    /// `stopped`.
    event: &'static str,
    slurm_id: Option<i64>,
    state: Option<String>,
    reason: Option<String>,
    message: String,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// What one round found and decided.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Plan {
    pub(crate) work: OpenWork,
    pub(crate) running: usize,
    pub(crate) pending: usize,
    pub(crate) submit: u32,
    /// Slurm's numbers.
    pub(crate) cancel: Vec<i64>,
    /// Seconds for which nothing is submitted, because submissions failed or allocations died.
    pub(crate) backoff_seconds: Option<u64>,
}

/// A `coord slurm` at work.
pub(crate) struct Feed {
    pub(crate) store: Store,
    pub(crate) slurm: Slurm,
    pub(crate) job: Job,
    pub(crate) limits: Limits,
    pub(crate) partition: String,
    pub(crate) labels: Vec<String>,
    pub(crate) idle: Duration,
    /// Whether the script names workers after their allocation.
    pub(crate) named: bool,
    pub(crate) output: Output,
    pub(crate) session: Uuid,
    /// Submissions that failed in a row, and the last.
    pub(crate) failed: Option<(u32, Instant)>,
    /// The fault that was said last.
    pub(crate) said: Option<String>,
    /// Since when there has been work without a break.
    pub(crate) work_since: Option<DateTime<Utc>>,
}

impl Feed {
    /// Submits and cancels every `poll` until shutdown or, with `until_done`, until there is no work and
    /// no allocation left.
    ///
    /// # Errors
    ///
    /// Another process submits to the partition. Outages of Slurm and database are waited for.
    pub(crate) async fn run(
        &mut self,
        poll: Duration,
        until_done: bool,
        shutdown: &Shutdown,
    ) -> anyhow::Result<()> {
        while !shutdown.is_requested() {
            // To its end: a submission that is dropped would not be recorded.
            match self.round(poll).await {
                Ok(plan) => {
                    self.said = None;
                    let held = plan.running + plan.pending + plan.submit as usize;
                    if until_done && plan.work.parallel == 0 && held == 0 {
                        return Ok(());
                    }
                }
                Err(error) if is_final(&error) => return Err(error),
                Err(error) => self.say_fault(&error),
            }
            shutdown.sleep(poll).await;
        }
        Ok(())
    }

    /// Looks, decides and acts.
    async fn round(&mut self, poll: Duration) -> anyhow::Result<Plan> {
        self.take(poll).await?;
        let held = self.look().await?;
        let plan = self.plan(&held).await?;
        if !plan.cancel.is_empty() {
            self.slurm.cancel_pending(&plan.cancel).await?;
            for &id in &plan.cancel {
                let message = format!("cancelled {id}, which waits for no work");
                self.say("cancelled", Some(id), message)?;
            }
        }
        for _ in 0..plan.submit {
            if !self.submit(&plan).await? {
                break;
            }
        }
        Ok(plan)
    }

    /// Takes or renews the right to submit.
    ///
    /// # Errors
    ///
    /// Another has it.
    pub(crate) async fn take(&self, poll: Duration) -> anyhow::Result<()> {
        let host = nix::unistd::gethostname().unwrap_or_default();
        let holder = format!("{} {}", host.to_string_lossy(), std::process::id());
        let place = (self.slurm.cluster(), self.partition.as_str());
        let lease = (poll * 3).max(Duration::from_secs(60));
        let taken = self
            .store
            .take_feed(place, &holder, self.session, lease)
            .await?;
        taken.map_err(|holder| {
            SlurmError::Taken {
                holder,
                partition: self.partition.clone(),
                cluster: self.slurm.cluster().to_owned(),
            }
            .into()
        })
    }

    /// Brings the allocations up to date with Slurm's queue. Returns those that have not ended.
    async fn look(&mut self) -> anyhow::Result<Vec<Allocation>> {
        let queue = self.slurm.queue(&self.job.name, &self.partition).await?;
        let known = self.mine().await?;
        for seen in &queue {
            let is_known = |a: &Allocation| a.slurm_id == seen.id && a.ended.is_none();
            if !known.iter().any(is_known) {
                // Submitted right before a crash, or the database was restored.
                self.add(seen.id).await?;
                let message = format!("adopted {}, which is {}", seen.id, seen.state.word());
                self.say("adopted", Some(seen.id), message)?;
            }
        }
        let mut held = Vec::new();
        for mut allocation in self.mine().await? {
            if allocation.ended.is_some() {
                continue;
            }
            let in_queue = queue.iter().find(|seen| seen.id == allocation.slurm_id);
            let looked_up = match in_queue {
                Some(_) => None,
                None => self.slurm.look_up(allocation.slurm_id).await?,
            };
            self.update(&mut allocation, in_queue.or(looked_up.as_ref()))
                .await?;
            if allocation.ended.is_none() {
                held.push(allocation);
            }
        }
        Ok(held)
    }

    async fn update(
        &mut self,
        allocation: &mut Allocation,
        seen: Option<&Seen>,
    ) -> anyhow::Result<()> {
        let now = Utc::now();
        let Some(change) = observe(allocation, seen, self.idle, now) else {
            return Ok(());
        };
        if change == Change::Ended && self.was_given_nothing(allocation).await? {
            allocation.died = true;
            allocation.reason =
                "its worker was given no job, though there is work; `coord status` says \
                                 what workers lack"
                    .to_owned();
        }
        self.store.update_allocation(allocation).await?;
        self.say_change(allocation, change).await
    }

    /// Whether it ended by itself, as when its worker finds no work, though there was work all the time.
    async fn was_given_nothing(&self, allocation: &Allocation) -> Result<bool, StoreError> {
        let Some(started) = allocation.started.filter(|_| self.named) else {
            return Ok(false);
        };
        if allocation.state != "COMPLETED" || self.work_since.is_none_or(|since| since > started) {
            return Ok(false);
        }
        let name = format!("{}-{}", allocation.cluster, allocation.slurm_id);
        Ok(!self.store.was_granted_a_job(&name, started).await?)
    }

    /// Decides for the allocations that have not ended.
    async fn plan(&mut self, held: &[Allocation]) -> Result<Plan, StoreError> {
        let now = Utc::now();
        let work = self.store.open_work(&self.labels, self.named).await?;
        self.work_since = match work.parallel {
            0 => None,
            _ => self.work_since.or(Some(now)),
        };
        let phases: Vec<Phase> = held.iter().map(|a| phase(a, now)).collect();
        let backoff = self.backoff(&self.mine().await?, now);
        let Decision { submit, cancel } = decide(&self.limits, &work, &phases, backoff.is_some());
        let pending = phases.iter().filter(|p| **p == Phase::Pending).count();
        Ok(Plan {
            work,
            running: phases.len() - pending,
            pending,
            submit,
            cancel: cancel.iter().map(|&i| held[i].slurm_id).collect(),
            backoff_seconds: backoff.map(|left| left.as_secs()),
        })
    }

    /// How long nothing is submitted.
    fn backoff(&self, known: &[Allocation], now: DateTime<Utc>) -> Option<Duration> {
        let refused = self
            .failed
            .and_then(|(failures, last)| policy::backoff(failures).checked_sub(last.elapsed()));
        refused.max(observe::backs_off(known, now))
    }

    /// What would be done now, without doing it.
    ///
    /// # Errors
    ///
    /// Slurm or the database does not answer.
    pub(crate) async fn dry_run(&mut self) -> anyhow::Result<Plan> {
        let queue = self.slurm.queue(&self.job.name, &self.partition).await?;
        let mut held = self.mine().await?;
        held.retain_mut(|allocation| {
            let seen = queue.iter().find(|seen| seen.id == allocation.slurm_id);
            if allocation.ended.is_none() {
                observe(allocation, seen, self.idle, Utc::now());
            }
            allocation.ended.is_none()
        });
        Ok(self.plan(&held).await?)
    }

    /// Submits one more. Returns whether Slurm took it.
    async fn submit(&mut self, plan: &Plan) -> anyhow::Result<bool> {
        match self
            .slurm
            .submit(&self.job.arguments, &self.job.environment)
            .await
        {
            Ok(id) => {
                self.failed = None;
                self.add(id).await?;
                let message = format!("submitted {id}: {plan}");
                self.say("submitted", Some(id), message)?;
                Ok(true)
            }
            Err(error) => {
                let failures = self.failed.map_or(0, |(failures, _)| failures) + 1;
                self.failed = Some((failures, Instant::now()));
                let wait = format_duration(policy::backoff(failures));
                let message = format!("submission failed: {error}; next attempt in {wait}");
                self.say("submit_failed", None, message)?;
                Ok(false)
            }
        }
    }

    /// Gives up the right to submit and, unless they are kept, cancels allocations that wait.
    ///
    /// # Errors
    ///
    /// Slurm or the database does not answer.
    pub(crate) async fn stop(&self, keep: bool) -> anyhow::Result<()> {
        let now = Utc::now();
        let mut held = self.mine().await?;
        held.retain(|allocation| allocation.ended.is_none());
        let waits = |a: &&Allocation| phase(a, now) == Phase::Pending;
        let pending: Vec<i64> = held.iter().filter(waits).map(|a| a.slurm_id).collect();
        if !keep && !pending.is_empty() {
            self.slurm.cancel_pending(&pending).await?;
        }
        self.store.leave_feed(self.session).await?;
        let running = held.len() - pending.len();
        let fate = if keep { "kept" } else { "cancelled" };
        let message = format!(
            "stopped: {} in the queue {fate}; {} running, whose workers go on until they find no work \
             for {}",
            count(pending.len(), "allocation"),
            running,
            format_duration(self.idle)
        );
        self.say("stopped", None, message)
    }

    async fn add(&self, id: i64) -> Result<(), StoreError> {
        let place = (self.slurm.cluster(), self.partition.as_str());
        self.store
            .add_allocation(place, id, &self.job.log(id))
            .await
    }

    /// The allocations of this partition, those that ended lately as well.
    async fn mine(&self) -> Result<Vec<Allocation>, StoreError> {
        let mut all = self.store.allocations().await?;
        all.retain(|a| a.cluster == self.slurm.cluster() && a.partition == self.partition);
        Ok(all)
    }

    async fn say_change(&self, allocation: &Allocation, change: Change) -> anyhow::Result<()> {
        let Allocation {
            slurm_id,
            state,
            reason,
            ..
        } = allocation;
        let because = match reason.as_str() {
            "" => String::new(),
            reason => format!(" ({reason})"),
        };
        let (event, mut message) = match change {
            Change::State => ("changed", format!("{slurm_id} is {state}{because}")),
            Change::Requeued => (
                "requeued",
                format!(
                    "{slurm_id} was preempted, or its node failed: {state}{because}, {} so far",
                    count(allocation.restarts.unsigned_abs() as usize, "restart")
                ),
            ),
            Change::Ended => ("ended", format!("{slurm_id} ended: {state}{because}")),
        };
        let tail = match allocation.died {
            true => log_tail(Path::new(&allocation.log)),
            false => String::new(),
        };
        if let (Change::Ended, Some(advice)) = (change, SlurmState::advice(state, &tail)) {
            message.push_str(&format!("; {advice}"));
        }
        if allocation.died {
            let deaths = observe::deaths(&self.mine().await?).map_or(0, |(deaths, _)| deaths);
            let wait = format_duration(policy::backoff(deaths));
            let log = &allocation.log;
            message.push_str(&format!(
                "; next submission in {wait}; the end of {log}:\n{tail}"
            ));
        }
        self.output.event(&Event {
            event,
            slurm_id: Some(*slurm_id),
            state: Some(state.clone()),
            reason: Some(reason.clone()).filter(|reason| !reason.is_empty()),
            message,
        })?;
        Ok(())
    }

    fn say(
        &self,
        event: &'static str,
        slurm_id: Option<i64>,
        message: String,
    ) -> anyhow::Result<()> {
        let (state, reason) = (None, None);
        self.output.event(&Event {
            event,
            slurm_id,
            state,
            reason,
            message,
        })?;
        Ok(())
    }

    /// Says a fault once, until it is another or has passed.
    fn say_fault(&mut self, error: &anyhow::Error) {
        let text = format!("{error:#}");
        if self.said.as_ref() != Some(&text) {
            // Nobody is left to tell if that fails.
            let _ = self.say("waits", None, format!("waiting: {text}"));
            self.said = Some(text);
        }
    }
}

/// Whether the loop ends with it; everything else may pass.
fn is_final(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(SlurmError::Taken { .. }))
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let jobs = usize::try_from(self.work.parallel).unwrap_or(0);
        write!(f, "{} could be at work", count(jobs, "job"))?;
        if self.work.seconds > 0.0 {
            let left = format_duration(Duration::from_secs_f64(self.work.seconds));
            write!(f, ", {left} of work")?;
        }
        if self.work.unknown > 0 {
            write!(f, ", {} of unknown length", self.work.unknown)?;
        }
        let (running, pending) = (self.running, self.pending);
        write!(f, "; {running} running, {pending} waiting")
    }
}
