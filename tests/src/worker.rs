//! A scripted worker: asks for jobs, beats and reports as the real one does and answers by script,
//! without libtorch. What it "computes" derives from the job alone, so that every run comes out the
//! same.

mod attempt;
mod course;
mod outcome;

pub use course::{Course, Event};
pub use outcome::outcome;

use self::attempt::Attempt;
use anyhow::Result;
use futures::StreamExt as _;
use halfheard_shared::{
    broker::{Broker, BrokerError, reflected},
    ids::{AttemptId, JobId},
    methods,
    retry::while_transient,
    wire::{
        Answer, Ask, FailureKind, Fault, Heartbeat, Held, JobMessage, ResultMessage, Tell, VERSION,
        Work, WorkerInfo,
    },
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::{
    sync::Notify,
    task::{JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// What the worker does with a job.
#[derive(Clone, Debug)]
pub enum Act {
    /// Completes it.
    Complete,
    /// Completes it and sends every message three times, in reverse order.
    Repeat,
    /// Fails with this chain.
    Fail(FailureKind, Vec<String>),
    /// Starts it and declines for a fault of its own.
    Decline(Fault),
    /// Starts it and is never heard of it again, as if its process had died; it goes on with others.
    Vanish,
    /// Starts it, says that this many of its steps are saved, and vanishes.
    Advance(u64),
    /// Starts it and beats without progress until it is taken away; this many seconds without
    /// progress are allowed.
    Stall(u32),
    /// Starts it and is not heard about it until the token is cancelled; then it completes it, whatever it was told
    /// meanwhile.
    CutOff(CancellationToken),
    /// Starts it, does not hear that it is taken away, and completes it when the token is cancelled.
    Deaf(CancellationToken),
    /// Starts it and hands it back.
    HandBack,
    /// Completes it with results that depend on the number.
    Differ(u8),
    /// Sends invalid messages, then completes it.
    SendInvalid,
    /// Completes it after a delay.
    Delay(Duration),
    /// Completes it when the token is cancelled.
    WaitFor(CancellationToken),
    /// Follows its course, or hands it back when it is released before its end.
    Follow(Course),
}

/// Decides what to do with a job, given how often this worker was granted it, from 1.
pub type Script = Arc<dyn Fn(&JobMessage, u64) -> Act + Send + Sync>;

/// Who the worker says it is.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Its unique name.
    pub name: String,
    /// The kind of its processor.
    pub processor: String,
    /// The methods that it has.
    pub methods: Vec<String>,
    /// Its labels.
    pub labels: Vec<String>,
    /// Bytes of its device's memory; 0 if unknown.
    pub memory: u64,
    /// The id of its artifact store.
    pub store: Option<String>,
    /// The version that it speaks.
    pub wire: u8,
    /// Evaluations that it takes at once.
    pub evaluations: u32,
    /// No-op jobs that it takes at once, also beside others.
    pub noops: usize,
    /// How often it beats.
    pub beat_every: Duration,
}

impl Profile {
    /// One with every method.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            processor: String::new(),
            methods: methods::all().iter().map(|m| m.id.to_string()).collect(),
            labels: Vec::new(),
            memory: 0,
            store: None,
            wire: VERSION,
            evaluations: 64,
            noops: NOOPS,
            beat_every: Duration::from_millis(300),
        }
    }
}

/// A running worker; it stops when dropped, without taking leave.
#[derive(Debug)]
pub struct ScriptedWorker {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl ScriptedWorker {
    /// Starts one that completes every job.
    pub fn completing(broker: &Broker, name: &str) -> Self {
        Self::start(broker, name, Arc::new(|_, _| Act::Complete))
    }

    /// Starts one with a script.
    pub fn start(broker: &Broker, name: &str, script: Script) -> Self {
        Self::with(broker, Profile::named(name), script)
    }

    /// Starts one on a kind of processor.
    pub fn on(broker: &Broker, name: &str, processor: &str, script: Script) -> Self {
        let profile = Profile {
            processor: processor.to_owned(),
            ..Profile::named(name)
        };
        Self::with(broker, profile, script)
    }

    /// Starts one with a script and a profile.
    pub fn with(broker: &Broker, profile: Profile, script: Script) -> Self {
        let stop = CancellationToken::new();
        let worker = Arc::new(Worker {
            broker: broker.clone(),
            info: WorkerInfo {
                name: profile.name.clone(),
                host: "test".to_owned(),
                device: "cpu".to_owned(),
                version: "scripted".to_owned(),
                processor: profile.processor.clone(),
            },
            profile,
            session: Uuid::new_v4(),
            script,
            table: Mutex::default(),
            granted: Mutex::default(),
            changed: Notify::new(),
        });
        let task = tokio::spawn({
            let stop = stop.clone();
            async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = worker.ask() => {}
                    () = worker.beat() => {}
                    () = worker.listen() => {}
                }
            }
        });
        Self { stop, task }
    }

    /// Aborts it, wherever it is.
    pub async fn kill(self) {
        self.task.abort();
    }
}

impl Drop for ScriptedWorker {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// No-op jobs that it has at most: they are part of every heartbeat.
const MAX_NOOPS: usize = 1024;
/// No-op jobs for which it asks at once.
const NOOPS: usize = 512;
/// How long it waits to be told that a final report counts before it sends it again.
const RESEND: Duration = Duration::from_secs(30);

/// What the worker knows of an attempt that it was granted.
struct Entry {
    job: JobId,
    noop: bool,
    begun: bool,
    /// Missing from heartbeats.
    cut_off: bool,
    /// Does not hear that it is taken away.
    deaf: bool,
    /// Makes no progress.
    stalled: bool,
    progress: u64,
    resumed: u64,
    saved: u64,
    patience_s: u32,
    released: CancellationToken,
    /// Everything that was reported, once it has ended, and when it was last sent.
    ended: Option<(Vec<ResultMessage>, Instant)>,
}

struct Worker {
    broker: Broker,
    info: WorkerInfo,
    profile: Profile,
    session: Uuid,
    script: Script,
    table: Mutex<HashMap<AttemptId, Entry>>,
    granted: Mutex<HashMap<JobId, u64>>,
    changed: Notify,
}

impl Worker {
    fn table(&self) -> MutexGuard<'_, HashMap<AttemptId, Entry>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is known of an attempt, if it still is the worker's.
    fn update(&self, attempt: AttemptId, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.table().get_mut(&attempt) {
            change(entry);
        }
        self.changed.notify_waiters();
    }

    fn forget(&self, attempt: AttemptId) {
        self.table().remove(&attempt);
        self.changed.notify_waiters();
    }

    /// How many trainings, evaluations and no-ops it can take.
    fn room(&self) -> (u32, u32, u32) {
        let table = self.table();
        let busy = table.values().any(|e| !e.noop && e.ended.is_none());
        let noops = table.values().filter(|entry| entry.noop).count();
        let noops = self.profile.noops.min(MAX_NOOPS.saturating_sub(noops)) as u32;
        match busy {
            true => (0, 0, noops),
            false => (1, self.profile.evaluations, noops),
        }
    }

    async fn ask(self: &Arc<Self>) {
        let mut attempts = JoinSet::new();
        let (mut number, mut received, mut proof) = (0, 0, None);
        loop {
            while attempts.try_join_next().is_some() {}
            let (trainings, evaluations, noops) = self.room();
            if trainings + evaluations + noops == 0 {
                tokio::select! {
                    () = self.changed.notified() => {}
                    () = tokio::time::sleep(Duration::from_millis(20)) => {}
                }
                continue;
            }
            number += 1;
            let ask = Ask {
                worker: self.info.clone(),
                session: self.session,
                number,
                received,
                proof,
                trainings,
                evaluations,
                noops,
                wire: self.profile.wire,
                methods: self.profile.methods.clone(),
                labels: self.profile.labels.clone(),
                memory: self.profile.memory,
                store: self.profile.store.clone(),
            };
            // The leader holds a request while there is nothing for it: once a training job could be taken as well, another
            // request takes its place.
            let answer = tokio::select! {
                answer = self.broker.ask(&ask) => answer,
                () = self.room_for_more(trainings) => continue,
            };
            match answer {
                Ok(Some(Answer::Grants(jobs))) => {
                    received = number;
                    for job in jobs {
                        if let Some(attempt) = self.accept(job) {
                            attempts.spawn(attempt.perform());
                        }
                    }
                }
                Ok(Some(Answer::Refused(reason))) => {
                    tracing::info!(worker = self.info.name, reason, "refused");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                Ok(Some(Answer::Prove(token))) => proof = Some(token),
                Ok(None) | Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// Waits until there is room for more than so many training jobs.
    async fn room_for_more(&self, trainings: u32) {
        while self.room().0 <= trainings {
            tokio::select! {
                () = self.changed.notified() => {}
                () = tokio::time::sleep(Duration::from_millis(20)) => {}
            }
        }
    }

    /// Takes a granted job, unless it was granted in an earlier answer too.
    fn accept(self: &Arc<Self>, job: JobMessage) -> Option<Attempt> {
        let released = CancellationToken::new();
        let entry = Entry {
            job: job.job,
            noop: matches!(job.work, Work::Noop),
            begun: false,
            cut_off: false,
            deaf: false,
            stalled: false,
            progress: 0,
            resumed: 0,
            saved: 0,
            patience_s: 0,
            released: released.clone(),
            ended: None,
        };
        match self.table().entry(job.attempt) {
            std::collections::hash_map::Entry::Occupied(_) => return None,
            std::collections::hash_map::Entry::Vacant(place) => place.insert(entry),
        };
        let mut granted = self.granted.lock().unwrap_or_else(PoisonError::into_inner);
        let nth = granted.entry(job.job).or_default();
        *nth += 1;
        Some(Attempt::new(self.clone(), job, *nth, released))
    }

    /// Beats, and sends again what was not settled.
    async fn beat(&self) {
        loop {
            let json = serde_json::to_vec(&self.heartbeat()).unwrap_or_default();
            let subject = self.broker.names().heartbeat(&self.info.name);
            let _ = self.broker.client().publish(subject, json.into()).await;
            for report in self.unsettled() {
                let _ = self.send(&report).await;
            }
            tokio::time::sleep(self.profile.beat_every).await;
        }
    }

    fn heartbeat(&self) -> Heartbeat {
        let mut table = self.table();
        let holds = table
            .iter_mut()
            .filter(|(_, entry)| !entry.cut_off)
            .map(|(&attempt, entry)| {
                if entry.begun && !entry.stalled && entry.ended.is_none() {
                    entry.progress += 1;
                }
                Held {
                    attempt,
                    job: entry.job,
                    begun: entry.begun,
                    progress: entry.progress,
                    resumed: entry.resumed,
                    saved: entry.saved,
                    patience_s: entry.patience_s,
                }
            })
            .collect();
        Heartbeat {
            worker: self.info.clone(),
            pid: std::process::id(),
            session: self.session,
            holds,
            at_ms: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(0)),
            memory_bytes: 0,
            doing: None,
            trouble: None,
            wire: self.profile.wire,
            methods: self.profile.methods.clone(),
            labels: self.profile.labels.clone(),
            device_memory: self.profile.memory,
        }
    }

    /// Reports to send again.
    fn unsettled(&self) -> Vec<ResultMessage> {
        let mut table = self.table();
        let due = table.values_mut().filter_map(|entry| {
            let (reports, sent) = entry.ended.as_mut()?;
            (sent.elapsed() >= RESEND).then(|| {
                *sent = Instant::now();
                reports.clone()
            })
        });
        due.flatten().collect()
    }

    /// Sends a report once.
    async fn send(&self, report: &ResultMessage) -> Result<()> {
        let sent = self.broker.send_result_as(self.profile.wire, report);
        sent.await?.confirmed().await?;
        Ok(())
    }

    /// Sends a report, however long the broker is away.
    async fn deliver(&self, report: &ResultMessage) -> Result<()> {
        while_transient(
            async || {
                let sent = self.broker.send_result_as(self.profile.wire, report);
                sent.await?.confirmed().await
            },
            BrokerError::is_transient,
            |_| {},
        )
        .await?;
        Ok(())
    }

    /// Hears what is not the worker's any more.
    async fn listen(&self) {
        let subject = self.broker.names().tell(&self.info.name);
        let Ok(mut told) = self.broker.client().subscribe(subject).await else {
            return;
        };
        while let Some(message) = told.next().await {
            if reflected(message.headers.as_ref()) {
                continue;
            }
            let Ok(Tell::Released { attempts }) = serde_json::from_slice(&message.payload) else {
                continue;
            };
            let mut table = self.table();
            for attempt in attempts {
                if let Some(entry) = table.get(&attempt)
                    && !entry.deaf
                    && !entry.cut_off
                {
                    entry.released.cancel();
                    table.remove(&attempt);
                }
            }
            drop(table);
            self.changed.notify_waiters();
        }
    }
}
