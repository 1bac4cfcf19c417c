//! Requests for jobs: kept until there is work or their time is over, and answered together.
//!
//! A grant is committed before it is sent. Whether the answer arrives does not matter: the worker's
//! next request says which answers it has, and what it has not is granted again, as the same attempt.

use super::{
    jobs::Jobs,
    sessions::{Sessions, Standing},
};
use crate::observe::events;
use crate::orchestrator::{
    collect::{ingested, last_report},
    context::Lead,
    outage_log::OutageLog,
    schedule::{Contender, Schedule, Wants},
    traced,
};
use async_nats::{Message, Subject, Subscriber};
use futures::{FutureExt as _, StreamExt as _};
use halfheard_shared::{
    broker::{ASK_HOLD, reflected},
    error::chain,
    ids::SweepId,
    wire::{Answer, Ask, JobMessage, PREVIOUS, VERSION},
};
use halfheard_store::{
    StoreError,
    drained::Drained,
    grants::{GrantedJob, Request, Room, ServableSweep},
};
use halfheard_telemetry::traces;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// The most requests that wait at once, against a worker that invents names.
const MAX_WAITING: usize = 10_000;
/// The most bytes of a request.
const MAX_BYTES: usize = 64 << 10;
/// The most requests that are answered in one transaction.
const ROUND: usize = 256;

/// The answer to who gets no job: it asks again.
const NOTHING: Answer = Answer::Grants(Vec::new());

/// A request that waits for an answer.
struct Waiting {
    ask: Ask,
    reply: Subject,
    since: Instant,
    /// When it was in a round of grants last: what was granted in a lost answer was granted again.
    considered: Option<Instant>,
}

/// Answers requests until `stop`.
pub(in crate::orchestrator) async fn dispatch(lead: &Lead, stop: &CancellationToken) {
    let mut desk = Desk {
        lead,
        jobs: Jobs::default(),
        sessions: Sessions::default(),
        shares: Schedule::default(),
        last_round: Instant::now(),
        accepted_store: None,
        waiting: BTreeMap::new(),
    };
    let mut outage = OutageLog::new("granting jobs failed; retrying");
    loop {
        let subject = lead.broker.names().asks();
        let mut asks = match lead.broker.client().subscribe(subject).await {
            Ok(asks) => asks,
            Err(error) => {
                let pause = outage.failed(&chain(&error), 0);
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(pause) => continue,
                }
            }
        };
        if desk.serve(&mut asks, &mut outage, stop).await {
            // The next leader is asked at once.
            return desk.dismiss().await;
        }
    }
}

struct Desk<'a> {
    lead: &'a Lead,
    jobs: Jobs,
    sessions: Sessions,
    shares: Schedule,
    last_round: Instant,
    /// The artifact store that is known to be this installation's.
    accepted_store: Option<String>,
    /// By worker: a newer request replaces an older one.
    waiting: BTreeMap<String, Waiting>,
}

impl Desk<'_> {
    /// Returns true on `stop`, false when the subscription ended.
    async fn serve(
        &mut self,
        asks: &mut Subscriber,
        outage: &mut OutageLog,
        stop: &CancellationToken,
    ) -> bool {
        let mut pause = Duration::ZERO;
        loop {
            let poll = self.lead.options.poll.max(pause);
            tokio::select! {
                () = stop.cancelled() => return true,
                message = asks.next() => match message {
                    Some(message) => {
                        self.receive(message).await;
                        while let Some(Some(message)) = asks.next().now_or_never() {
                            self.receive(message).await;
                        }
                    }
                    None => return false,
                },
                () = self.lead.wake.notified() => {}
                () = tokio::time::sleep(poll), if !self.waiting.is_empty() => {}
            }
            let granted = tokio::select! {
                () = stop.cancelled() => return true,
                granted = self.grant() => granted,
            };
            match granted {
                Ok(()) => {
                    outage.recovered();
                    pause = Duration::ZERO;
                    self.send_away().await;
                }
                // Who waits is told nothing: it asks again, and nothing is lost.
                Err(error) => {
                    events::database_failed(&error);
                    pause = outage.failed(&chain(&error), self.waiting.len());
                }
            }
        }
    }

    /// Takes in a request, or refuses it.
    async fn receive(&mut self, message: Message) {
        let Some(reply) = message.reply else {
            return;
        };
        if reflected(message.headers.as_ref()) || message.payload.len() > MAX_BYTES {
            return;
        }
        let ask = match Ask::read(&message.payload) {
            Ok(ask) => ask,
            Err(error) => {
                tracing::warn!(%error, subject = %message.subject, "a request for jobs cannot be read");
                return;
            }
        };
        // The broker lets a worker ask under its own name only.
        if self.lead.broker.names().worker_of(&message.subject) != Some(ask.worker.name.as_str()) {
            tracing::warn!(subject = %message.subject, name = ask.worker.name, "a request under another name");
            return;
        }
        match self.refusal(&ask).await {
            Ok(None) => {}
            Ok(Some(reason)) => {
                tracing::warn!(worker = ask.worker.name, reason, "a worker is refused");
                return self
                    .answer(&reply, ask.wire, &Answer::Refused(reason))
                    .await;
            }
            Err(error) => {
                tracing::debug!(error = chain(&error), "cannot check a worker");
                return;
            }
        }
        match self.sessions.standing(&ask) {
            Standing::Confirmed => self.sessions.saw(&ask),
            Standing::Alive { .. } => {}
            Standing::Outdated => return,
            Standing::Unknown => match last_report(&self.lead.broker).await {
                Ok(last) => {
                    let token = self.sessions.challenge(&ask, last);
                    return self.answer(&reply, ask.wire, &Answer::Prove(token)).await;
                }
                // It asks again.
                Err(error) => {
                    return tracing::debug!(error = chain(&error), "cannot look at the stream");
                }
            },
        }
        if self.waiting.len() < MAX_WAITING || self.waiting.contains_key(&ask.worker.name) {
            let name = ask.worker.name.clone();
            let waiting = Waiting {
                ask,
                reply,
                since: Instant::now(),
                considered: None,
            };
            self.waiting.insert(name, waiting);
        }
    }

    /// Confirms the sessions that live and whose predecessors have nothing left to say.
    async fn confirm(&mut self) {
        let alive = |sessions: &Sessions, ask: &Ask| match sessions.standing(ask) {
            Standing::Alive { last_report, since } => Some((last_report, since)),
            _ => None,
        };
        let waiting = || self.waiting.values().map(|waiting| &waiting.ask);
        if !waiting().any(|ask| alive(&self.sessions, ask).is_some()) {
            return;
        }
        // Asked once for all of them: after a change of lead, every worker is to be confirmed.
        let ingested = match ingested(&self.lead.broker).await {
            Ok(ingested) => ingested,
            Err(error) => {
                return tracing::debug!(error = chain(&error), "cannot look at the stream");
            }
        };
        for Waiting { ask, .. } in self.waiting.values() {
            if let Some((last_report, since)) = alive(&self.sessions, ask)
                && (ingested.is_up_to(last_report) || since.elapsed() > self.lead.options.lease)
            {
                self.sessions.confirm(ask);
            }
        }
    }

    /// The workers that may be granted jobs in this round. Each has its turn, however many wait for what only
    /// others can have: first who was in no round yet, then who was longest ago.
    fn eligible(&self, drained: &[Drained]) -> Vec<String> {
        let confirmed =
            |waiting: &&Waiting| self.sessions.standing(&waiting.ask) == Standing::Confirmed;
        // A drained one takes part once: what was granted in an answer that was lost is granted again.
        let idle =
            |waiting: &&Waiting| waiting.considered.is_some() && is_drained(drained, &waiting.ask);
        let confirmed = self.waiting.values().filter(confirmed);
        let mut turns: Vec<&Waiting> = confirmed.filter(|waiting| !idle(waiting)).collect();
        turns.sort_by_key(|waiting| (waiting.considered, waiting.since));
        turns.truncate(ROUND);
        let name = |waiting: &Waiting| waiting.ask.worker.name.clone();
        turns.into_iter().map(name).collect()
    }

    /// Why a worker is given nothing at all, if it is.
    async fn refusal(&mut self, ask: &Ask) -> Result<Option<String>, StoreError> {
        if !matches!(ask.wire, VERSION | PREVIOUS) {
            return Ok(Some(format!(
                "it speaks version {} of the protocol, and this coordinator speaks {PREVIOUS} and {VERSION}: run the same release of coord and worker",
                ask.wire
            )));
        }
        let Some(store) = &ask.store else {
            return Ok(None);
        };
        if self.accepted_store.as_ref() == Some(store) {
            return Ok(None);
        }
        let claimed = self.lead.store.claim_store(store).await?;
        if claimed.is_ok() {
            self.accepted_store = Some(store.clone());
        }
        Ok(claimed.err().map(|other| {
            format!("its artifact store is {store}, and the other workers use {other}: set HALFHEARD_ARTIFACTS to the same for all")
        }))
    }

    /// Grants jobs to those who wait, and answers who got any.
    async fn grant(&mut self) -> Result<(), StoreError> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        self.confirm().await;
        let store = &self.lead.store;
        let drained = store.drained().await?;
        let names = self.eligible(&drained);
        if names.is_empty() {
            return Ok(());
        }
        let mut servable = store.servable().await?;
        let considered = |name: &String| {
            self.waiting
                .get(name)
                .is_none_or(|w| w.considered.is_some())
        };
        if servable.is_empty() && names.iter().all(considered) {
            return Ok(());
        }
        servable.sort_by_key(|sweep| (sweep.created, sweep.id));
        let contenders: Vec<Contender> = servable.iter().map(contender).collect();
        let mut round = self.shares.round(&contenders, self.last_round.elapsed());
        self.last_round = Instant::now();
        let evaluators = self.waiting.values().map(|waiting| &waiting.ask);
        let evaluators = evaluators.filter(|ask| ask.evaluations > 0 && !is_drained(&drained, ask));
        let spread = evaluators.count().saturating_sub(names.len());
        let asks: Vec<(&Ask, Room, Vec<SweepId>)> = names
            .iter()
            .filter_map(|name| self.waiting.get(name))
            .map(|Waiting { ask, .. }| {
                let room = match is_drained(&drained, ask) {
                    true => Room::default(),
                    false => room(ask),
                };
                (ask, room, round.next(wants(room)))
            })
            .collect();
        let requests: Vec<Request<'_>> = asks
            .iter()
            .map(|(ask, room, sweeps)| request(ask, *room, sweeps, spread))
            .collect();
        let policy = self.lead.retry_policy();
        let grants = store
            .grant(&requests, self.lead.options.lease, &policy)
            .await?;
        self.consider(&names);
        events::leases_ended(&grants.ended, "replaced");
        traced::ended(
            self.lead,
            grants.ended.iter().map(|ended| ended.attempt),
            None,
        );
        for ended in &grants.ended {
            let _context = traces::context(ended.job, ended.attempt).entered();
            tracing::info!(job = %ended.job, worker = ended.worker, gave_up = ended.gave_up, "a lease ended: its worker was started again");
        }
        let all: Vec<&GrantedJob> = grants.answers.iter().flatten().collect();
        metrics::counter!("halfheard_jobs_granted_total").increment(all.len() as u64);
        if all.is_empty() {
            return Ok(());
        }
        self.jobs.load(store, &all).await?;
        for (name, granted) in names.into_iter().zip(grants.answers) {
            if granted.is_empty() {
                continue;
            }
            let jobs = self.messages(&granted).await?;
            if let Some(waiting) = self.waiting.remove(&name) {
                tracing::debug!(worker = name, jobs = jobs.len(), "granted");
                let answer = Answer::Grants(jobs);
                self.answer(&waiting.reply, waiting.ask.wire, &answer).await;
            }
        }
        Ok(())
    }

    /// Notes who had a turn.
    fn consider(&mut self, names: &[String]) {
        let now = Instant::now();
        for name in names {
            if let Some(waiting) = self.waiting.get_mut(name) {
                waiting.considered = Some(now);
            }
        }
    }

    async fn messages(&self, granted: &[GrantedJob]) -> Result<Vec<JobMessage>, StoreError> {
        let mut jobs = Vec::with_capacity(granted.len());
        for job in granted {
            match self.jobs.message(job) {
                Ok(message) => jobs.push(message),
                Err(reason) => {
                    tracing::error!(job = %job.job, reason, "a job cannot be granted");
                    self.lead.store.give_up(job.job, &reason).await?;
                }
            }
        }
        Ok(jobs)
    }

    /// Answers those who have waited long enough: they ask again.
    async fn send_away(&mut self) {
        let over = |waiting: &Waiting| waiting.since.elapsed() >= ASK_HOLD;
        let names: Vec<String> = self
            .waiting
            .iter()
            .filter(|(_, waiting)| over(waiting))
            .map(|(name, _)| name.clone())
            .collect();
        for name in names {
            if let Some(Waiting { ask, reply, .. }) = self.waiting.remove(&name) {
                self.answer(&reply, ask.wire, &NOTHING).await;
            }
        }
    }

    /// Answers everybody with nothing.
    async fn dismiss(&mut self) {
        for (_, Waiting { ask, reply, .. }) in std::mem::take(&mut self.waiting) {
            self.answer(&reply, ask.wire, &NOTHING).await;
        }
    }

    async fn answer(&self, reply: &Subject, wire: u8, answer: &Answer) {
        // A refusal for its version is written in one that may be read.
        let wire = if wire < PREVIOUS {
            PREVIOUS
        } else {
            wire.min(VERSION)
        };
        match answer.encode_for(wire) {
            Ok(payload) => {
                let sent = self
                    .lead
                    .broker
                    .client()
                    .publish(reply.clone(), payload.into());
                if let Err(error) = sent.await {
                    tracing::debug!(%error, "an answer cannot be sent; the worker asks again");
                }
            }
            Err(error) => tracing::error!(error = chain(&error), "an answer cannot be written"),
        }
    }
}

fn contender(sweep: &ServableSweep) -> Contender {
    let running = sweep.running;
    let running = running.train + running.eval + running.noop;
    let room = |most: i32| u32::try_from(i64::from(most) - running).unwrap_or_default();
    Contender {
        id: sweep.id,
        owner: sweep.owner.clone(),
        priority: sweep.priority,
        weight: sweep.weight,
        workers: u32::try_from(sweep.workers).unwrap_or(u32::MAX),
        room: sweep.max_running.map(room),
        trainings: sweep.ready.train,
        evaluations: sweep.ready.eval || sweep.ready.noop,
    }
}

fn is_drained(drained: &[Drained], ask: &Ask) -> bool {
    drained.iter().any(|name| name.covers(&ask.worker))
}

fn wants(room: Room) -> Wants {
    Wants {
        trainings: room.trainings > 0,
        evaluations: room.evaluations + room.noops > 0,
    }
}

fn room(ask: &Ask) -> Room {
    Room {
        trainings: ask.trainings,
        evaluations: ask.evaluations,
        noops: ask.noops,
    }
}

fn request<'a>(ask: &'a Ask, room: Room, sweeps: &'a [SweepId], spread: usize) -> Request<'a> {
    Request {
        worker: &ask.worker,
        session: ask.session,
        ask: ask.number,
        received: ask.received,
        room,
        methods: &ask.methods,
        labels: &ask.labels,
        memory: ask.memory,
        sweeps,
        spread,
    }
}
