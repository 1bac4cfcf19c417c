//! Which process of each worker may be granted jobs.
//!
//! A worker that was started again has a new session, and its first grant ends what the dead process
//! held. But requests arrive late and out of order: one of the dead process must not end what the
//! living one holds. So a session is confirmed before it gets anything, by an answer that only a living
//! process can have received; and only when every report that the dead one may have sent is ingested.

use halfheard_shared::wire::Ask;
use std::collections::HashMap;
use uuid::Uuid;

/// The most workers that are remembered.
const MAX_WORKERS: usize = 20_000;

/// The sessions of workers, in this term.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    workers: HashMap<String, Worker>,
}

#[derive(Debug, Default)]
struct Worker {
    confirmed: Option<Uuid>,
    contender: Option<Contender>,
}

/// A session that wants to be confirmed.
#[derive(Debug)]
struct Contender {
    session: Uuid,
    /// Its request that was answered with nothing.
    number: u64,
    /// The last report on the broker at that time.
    last_report: u64,
}

/// What to do with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Its session is confirmed: it may be granted jobs.
    Confirmed,
    /// Answer it with nothing, after [`Sessions::challenge`]: the next request shows whether it lives.
    Unknown,
    /// It lives; confirm it with [`Sessions::confirm`] once the reports up to this one are ingested.
    Alive {
        /// A sequence number in the stream of reports.
        last_report: u64,
    },
}

impl Sessions {
    /// Where the session of a request stands.
    pub(super) fn standing(&self, ask: &Ask) -> Standing {
        let Some(worker) = self.workers.get(&ask.worker.name) else {
            return Standing::Unknown;
        };
        if worker.confirmed == Some(ask.session) {
            return Standing::Confirmed;
        }
        match &worker.contender {
            Some(contender)
                if contender.session == ask.session && ask.received >= contender.number =>
            {
                Standing::Alive {
                    last_report: contender.last_report,
                }
            }
            _ => Standing::Unknown,
        }
    }

    /// Notes a request that is answered with nothing.
    pub(super) fn challenge(&mut self, ask: &Ask, last_report: u64) {
        let name = &ask.worker.name;
        if self.workers.len() >= MAX_WORKERS && !self.workers.contains_key(name) {
            // Whoever was confirmed is confirmed again with two requests.
            self.workers.clear();
        }
        let worker = self.workers.entry(name.clone()).or_default();
        worker.contender = Some(Contender {
            session: ask.session,
            number: ask.number,
            last_report,
        });
    }

    /// Confirms the session of a request.
    pub(super) fn confirm(&mut self, ask: &Ask) {
        let worker = self.workers.entry(ask.worker.name.clone()).or_default();
        worker.confirmed = Some(ask.session);
        worker.contender = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use halfheard_shared::wire::{VERSION, WorkerInfo};

    fn ask(session: u128, number: u64, received: u64) -> Ask {
        Ask {
            worker: WorkerInfo {
                name: "w-0".to_owned(),
                host: "h".to_owned(),
                device: "cpu".to_owned(),
                version: "0".to_owned(),
                processor: String::new(),
            },
            session: Uuid::from_u128(session),
            number,
            received,
            trainings: 1,
            evaluations: 16,
            noops: 0,
            wire: VERSION,
            methods: Vec::new(),
            labels: Vec::new(),
            memory: 0,
            store: None,
        }
    }

    #[test]
    fn only_a_session_that_received_an_answer_is_confirmed() {
        let mut sessions = Sessions::default();
        assert_eq!(sessions.standing(&ask(1, 1, 0)), Standing::Unknown);
        sessions.challenge(&ask(1, 1, 0), 7);
        assert_eq!(sessions.standing(&ask(1, 2, 0)), Standing::Unknown);
        assert_eq!(
            sessions.standing(&ask(1, 2, 1)),
            Standing::Alive { last_report: 7 }
        );
        sessions.confirm(&ask(1, 2, 1));
        assert_eq!(sessions.standing(&ask(1, 3, 2)), Standing::Confirmed);
    }

    #[test]
    fn late_request_of_a_dead_process_replaces_nobody() {
        let mut sessions = Sessions::default();
        for session in [1, 2] {
            sessions.challenge(&ask(session, 1, 0), 0);
            sessions.confirm(&ask(session, 2, 1));
        }
        // The first process had received up to answer 50 before it died.
        let late = ask(1, 51, 50);
        assert_eq!(sessions.standing(&late), Standing::Unknown);
        sessions.challenge(&late, 0);
        assert_eq!(sessions.standing(&ask(2, 3, 2)), Standing::Confirmed);
        assert_eq!(sessions.standing(&late), Standing::Unknown);
    }
}
