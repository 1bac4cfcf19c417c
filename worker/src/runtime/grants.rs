//! Asks the leading coordinator for jobs. What is granted is leased to this worker until it says how
//! it ended.

use super::{
    leases::JobLease,
    report::WIRE,
    slot::{MAX_NOOPS, Slot},
};
use halfheard_shared::wire::{Answer, Ask, WireError};
use std::time::Duration;
use tokio::time::timeout;

/// Evaluation jobs taken at once: the cases of one model.
const EVALUATIONS: u32 = 16;
/// No-op jobs taken at once.
const NOOPS: usize = 512;
/// How long to wait for the answer to the last request of a process that shuts down.
const FAREWELL: Duration = Duration::from_secs(1);
/// How long to wait until no-op jobs that were reported are settled; then other jobs are asked for.
const SETTLING: Duration = Duration::from_secs(1);
/// The shortest interval between requests: the coordinator holds those for which it has nothing.
const MIN_INTERVAL: Duration = Duration::from_millis(20);

/// What came of a request.
pub(super) enum Granted {
    /// These jobs, which may be none.
    Jobs(Vec<JobLease>),
    /// No coordinator answered, or the broker is away.
    NoAnswer,
    /// The coordinator refuses this worker, for this reason.
    Refused(String),
}

/// How many jobs to ask for.
struct Room {
    trainings: u32,
    evaluations: u32,
    noops: u32,
}

/// Asks for jobs. Requests are numbered, so that the coordinator can tell which answers were lost.
#[derive(Default)]
pub(super) struct Asker {
    number: u64,
    received: u64,
    proof: Option<u64>,
}

impl Asker {
    /// Asks for the next jobs and waits while the coordinator has none, for some seconds. During a
    /// shutdown, withdraws the request and returns what was granted meanwhile.
    ///
    /// # Errors
    ///
    /// The answer is of another release.
    pub(super) async fn next(&mut self, slot: &Slot) -> Result<Granted, WireError> {
        let noops = || NOOPS.min(MAX_NOOPS.saturating_sub(slot.leases.noops()));
        // The coordinator would hold a request without room although the room comes in a moment.
        let room_again = async {
            while noops() == 0 {
                slot.leases.settled().await;
            }
        };
        if timeout(SETTLING, room_again).await.is_err() {
            tracing::debug!("no-op jobs are not settled");
        }
        let noops = noops();
        let room = Room {
            trainings: 1,
            evaluations: EVALUATIONS,
            noops: noops as u32,
        };
        match slot.shutdown.or(self.ask(slot, room)).await {
            Ok(granted) => granted,
            Err(_) => self.withdraw(slot).await,
        }
    }

    /// Replaces a request that the coordinator may hold by one for nothing, and fetches what was
    /// granted in an answer that is lost.
    async fn withdraw(&mut self, slot: &Slot) -> Result<Granted, WireError> {
        let none = Room {
            trainings: 0,
            evaluations: 0,
            noops: 0,
        };
        let asked = timeout(FAREWELL, self.ask(slot, none)).await;
        asked.unwrap_or(Ok(Granted::NoAnswer))
    }

    async fn ask(&mut self, slot: &Slot, room: Room) -> Result<Granted, WireError> {
        self.number += 1;
        let announcement = &slot.announcement;
        let ask = Ask {
            worker: announcement.worker.clone(),
            session: announcement.session,
            number: self.number,
            received: self.received,
            proof: self.proof,
            trainings: room.trainings,
            evaluations: room.evaluations,
            noops: room.noops,
            wire: WIRE,
            methods: announcement.methods(),
            labels: announcement.labels.clone(),
            memory: announcement.memory,
            store: Some(slot.store_id.clone()),
        };
        let Some(answer) = slot.broker.ask(&ask).await? else {
            return Ok(Granted::NoAnswer);
        };
        match answer {
            Answer::Grants(jobs) => {
                self.received = ask.number;
                if jobs.is_empty() {
                    tokio::time::sleep(MIN_INTERVAL).await;
                }
                let leases = jobs.into_iter().filter_map(|job| slot.leases.accept(job));
                Ok(Granted::Jobs(leases.collect()))
            }
            Answer::Refused(reason) => Ok(Granted::Refused(reason)),
            Answer::Prove(token) => {
                self.proof = Some(token);
                tokio::time::sleep(MIN_INTERVAL).await;
                Ok(Granted::Jobs(Vec::new()))
            }
        }
    }
}
