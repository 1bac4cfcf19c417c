//! Looking for what happened.
//!
//! An event is recorded in the database before anybody is told, by the leader of the moment: whoever
//! leads next finds it there and tells nobody again. What happened while no coordinator looked is found
//! by the next one, if it is not older than a day.

use super::{
    deliver::Notifier,
    event::{Event, Failed, Kind, Sweep},
    stall,
};
use chrono::{DateTime, TimeDelta, Utc};
use halfheard_progress::{format_duration, no_external, unmet};
use halfheard_shared::{
    ids::SweepId,
    text::{count, plain},
    wire::Heartbeat,
};
use halfheard_store::{Store, StoreError, SweepState, notifications::Activity};
use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

/// How often all sweeps are looked at, not only those that were open: one may be retried and finish
/// between two looks.
const ALL_EVERY: Duration = Duration::from_secs(300);
/// How far back events are of interest that nobody looked for, in hours.
const BACK: i64 = 24;
/// What may have been committed after the last look although it began before, in seconds.
const MARGIN: i64 = 60;
/// The most reasons of failures in an event.
const REASONS: usize = 3;

/// What is known of the workers.
#[derive(Debug)]
pub(crate) struct Scene {
    /// Their last heartbeats.
    pub(crate) workers: Vec<Heartbeat>,
    /// For how long they have been heard without interruption.
    pub(crate) heard_for: Duration,
}

/// Looks for events during one lead.
#[derive(Debug)]
pub(crate) struct Watch<'a> {
    notifier: &'a Notifier,
    began: Instant,
    since: Option<DateTime<Utc>>,
    /// Sweeps with open jobs.
    open: Vec<SweepId>,
    looked_at_all: Option<Instant>,
    /// What the workers said of their progress with each sweep, and since when they say the same.
    beats: HashMap<SweepId, (u64, Instant)>,
    /// Events that were recorded, so that the database need not be asked again.
    recorded: HashSet<(Kind, String)>,
}

impl<'a> Watch<'a> {
    pub(crate) fn new(notifier: &'a Notifier) -> Self {
        Self {
            notifier,
            began: Instant::now(),
            since: None,
            open: Vec::new(),
            looked_at_all: None,
            beats: HashMap::new(),
            recorded: HashSet::new(),
        }
    }

    /// Looks once, and tells what is new. `all`: looks at every sweep.
    ///
    /// # Errors
    ///
    /// The database's; nothing is lost.
    pub(crate) async fn look(
        &mut self,
        store: &Store,
        scene: &Scene,
        all: bool,
    ) -> Result<(), StoreError> {
        let watched = store.watch_events().await?;
        let now = watched.now;
        let since = *self.since.get_or_insert_with(|| {
            let last = watched.before.unwrap_or(now) - TimeDelta::seconds(MARGIN);
            last.max(watched.began).max(now - TimeDelta::hours(BACK))
        });
        let all = all || self.looked_at_all.is_none_or(|at| at.elapsed() > ALL_EVERY);
        let activities = store.activity(&self.open, since, all).await?;
        if all {
            self.looked_at_all = Some(Instant::now());
        }
        self.hear(&scene.workers);
        for activity in &activities {
            if let Some(event) = self.sweep_event(store, activity, scene, since, now).await? {
                self.tell(store, event).await?;
            }
        }
        self.open = activities
            .iter()
            .filter(|activity| activity.progress.open() > 0)
            .map(|activity| activity.sweep)
            .collect();
        for worker in &scene.workers {
            if let Some(event) = self.sits_out(worker, now) {
                self.tell(store, event).await?;
            }
        }
        if let Some(letters) = store.new_dead_letters(since).await? {
            let number = usize::try_from(letters.count).unwrap_or_default();
            let messages = count(number, "message");
            let event = Event {
                event: Kind::DeadLetters,
                at: now,
                text: format!(
                    "{messages} refused, the last because: {} (`coord dead-letters`)",
                    letters.reason
                ),
                sweep: None,
                worker: None,
                reason: Some(letters.reason),
                key: letters.newest.to_string(),
            };
            self.tell(store, event).await?;
        }
        Ok(())
    }

    /// Tells an event unless somebody was told before.
    async fn tell(&mut self, store: &Store, event: Event) -> Result<(), StoreError> {
        let id = (event.event, event.key.clone());
        if self.recorded.contains(&id) {
            return Ok(());
        }
        let sweep = event.sweep.as_ref().map(|sweep| sweep.id);
        if store
            .claim_event(event.event.as_str(), &event.key, sweep)
            .await?
        {
            self.notifier.tell(event);
            self.recorded.insert(id);
        }
        Ok(())
    }

    async fn sweep_event(
        &self,
        store: &Store,
        activity: &Activity,
        scene: &Scene,
        since: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Result<Option<Event>, StoreError> {
        let id = activity.sweep;
        let (kind, moment, reason) = if activity.progress.open() == 0 {
            // One without jobs finished when it was submitted.
            let finished = activity.finished.unwrap_or(activity.created);
            if finished.max(activity.changed) <= since {
                return Ok(None);
            }
            (Kind::SweepFinished, finished, None)
        } else if let Some(reason) = &activity.stopped_because {
            if activity.state != SweepState::Paused || activity.changed <= since {
                return Ok(None);
            }
            (Kind::SweepPaused, activity.changed, Some(reason.clone()))
        } else {
            let stands = self.stands(activity, scene, now);
            if stands < self.notifier.options().after {
                return Ok(None);
            }
            let Some(reason) = reason_of_stall(store, id, &scene.workers).await? else {
                return Ok(None);
            };
            (Kind::SweepStalled, activity.advanced, Some(reason))
        };
        let key = format!("{id} {}", moment.timestamp_micros());
        if self.recorded.contains(&(kind, key.clone())) {
            return Ok(None);
        }
        let sweep = describe(store, activity).await?;
        let text = text_of(kind, &sweep, activity, reason.as_deref(), now);
        Ok(Some(Event {
            event: kind,
            at: now,
            text,
            sweep: Some(sweep),
            worker: None,
            reason,
            key,
        }))
    }

    /// For how long nothing has happened although jobs of a running sweep could be granted.
    fn stands(&self, activity: &Activity, scene: &Scene, now: DateTime<Utc>) -> Duration {
        if activity.state != SweepState::Running || activity.due == 0 {
            return Duration::ZERO;
        }
        let since_change = (now - activity.advanced).to_std().unwrap_or_default();
        let beats = self.beats.get(&activity.sweep);
        let since_beat = beats.map_or(Duration::MAX, |(_, at)| at.elapsed());
        since_change
            .min(since_beat)
            .min(self.began.elapsed())
            .min(scene.heard_for)
    }

    /// Notes which sweeps workers advance with.
    fn hear(&mut self, workers: &[Heartbeat]) {
        let mut said: HashMap<SweepId, u64> = HashMap::new();
        for worker in workers {
            let Some(doing) = &worker.doing else {
                continue;
            };
            let progress = worker.holds.iter().map(|held| held.progress);
            let sum = said.entry(doing.sweep).or_default();
            *sum = progress.fold(*sum, u64::wrapping_add);
        }
        self.beats.retain(|sweep, _| said.contains_key(sweep));
        for (sweep, sum) in said {
            let known = self.beats.entry(sweep).or_insert((sum, Instant::now()));
            if known.0 != sum {
                *known = (sum, Instant::now());
            }
        }
    }

    fn sits_out(&self, worker: &Heartbeat, now: DateTime<Utc>) -> Option<Event> {
        let trouble = worker.trouble.as_ref().filter(|trouble| trouble.sits_out)?;
        // Both by the worker's clock, which may differ from ours.
        let lasts = Duration::from_millis(worker.at_ms.saturating_sub(trouble.since_ms));
        if lasts < self.notifier.options().after {
            return None;
        }
        let name = plain(&worker.worker.name);
        let reason = plain(&trouble.fault.to_string());
        Some(Event {
            event: Kind::WorkerSitsOut,
            at: now,
            text: format!(
                "worker {name} sits out for {}: {reason}",
                format_duration(lasts)
            ),
            sweep: None,
            reason: Some(reason),
            key: format!("{name} {}", trouble.since_ms),
            worker: Some(name),
        })
    }
}

/// Why nothing happens; `None` if the sweep waits for its turn.
async fn reason_of_stall(
    store: &Store,
    sweep: SweepId,
    workers: &[Heartbeat],
) -> Result<Option<String>, StoreError> {
    let mut lines = unmet(&store.open_needs().await?, workers);
    lines.extend(no_external(&store.open_externals().await?, workers));
    let drained = store.drained().await?;
    Ok(stall::why(sweep, workers, &drained, &lines))
}

async fn describe(store: &Store, activity: &Activity) -> Result<Sweep, StoreError> {
    let work = store.work(activity.sweep).await?;
    let seconds: f64 = work.iter().map(|work| work.busy).sum();
    let failures = match activity.progress.failed {
        0 => Vec::new(),
        _ => store.failures(activity.sweep, 1).await?,
    };
    let failures = failures
        .into_iter()
        .filter(|failure| failure.given_up)
        .take(REASONS)
        .map(|failure| Failed {
            jobs: failure.jobs,
            errors: failure.errors.iter().map(|error| plain(error)).collect(),
        });
    Ok(Sweep::new(activity, seconds / 3600.0, failures.collect()))
}

fn text_of(
    kind: Kind,
    sweep: &Sweep,
    activity: &Activity,
    reason: Option<&str>,
    now: DateTime<Utc>,
) -> String {
    let jobs = &activity.progress;
    let label = sweep.label();
    let reason = reason.map(plain).unwrap_or_default();
    let mut text = match kind {
        Kind::SweepFinished => {
            let end = activity.finished.unwrap_or(activity.created);
            let took = (end - activity.created).to_std().unwrap_or_default();
            format!(
                "sweep {label} finished: {} of {} jobs done, {} failed, in {} ({:.1} hours of workers)",
                jobs.done,
                jobs.total(),
                jobs.failed,
                format_duration(took),
                sweep.worker_hours
            )
        }
        Kind::SweepPaused => format!(
            "sweep {label} was paused: {reason} (`coord status SWEEP` shows what failed, `coord resume` goes on)"
        ),
        _ => {
            let stands = (now - activity.advanced).to_std().unwrap_or_default();
            format!(
                "sweep {label} has made no progress for {} with {} ready: {reason}",
                format_duration(stands),
                count(usize::try_from(activity.due).unwrap_or_default(), "job")
            )
        }
    };
    if let Some(first) = sweep.failures.first() {
        text.push_str(&format!("; most failed with: {}", first.errors.join(": ")));
    }
    text
}
