//! Which process of each worker may be granted jobs.
//!
//! A worker that was started again has a new session, and its first grant ends what the dead process
//! held. But requests arrive late and out of order: one of the dead process must not end what the
//! living one holds. So a session is confirmed before it gets anything, by a token that only a living
//! process can return; and only when every report that the dead one may have sent is ingested.

use halfheard_shared::wire::Ask;
use std::{collections::HashMap, time::Instant};
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
    confirmed: Option<Confirmed>,
    contender: Option<Contender>,
}

/// A session that is known to live, and its newest request.
#[derive(Debug)]
struct Confirmed {
    session: Uuid,
    number: u64,
}

/// A session that wants to be confirmed.
#[derive(Debug)]
struct Contender {
    session: Uuid,
    /// What it is to return.
    token: u64,
    /// The last report on the broker at that time.
    last_report: u64,
    since: Instant,
}

/// What to do with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Its session is confirmed: it may be granted jobs.
    Confirmed,
    /// Answer it with the token of [`Sessions::challenge`]: the next request shows whether it lives.
    Unknown,
    /// A newer request of the session has come: its worker does not wait for this one's answer any more.
    Outdated,
    /// It lives; confirm it with [`Sessions::confirm`] once the reports up to this one are ingested.
    Alive {
        /// A sequence number in the stream of reports.
        last_report: u64,
        /// When it asked first. Longer than a lease it need not wait: a report that the database neither
        /// takes nor refuses must not keep it from work.
        since: Instant,
    },
}

impl Sessions {
    /// Where the session of a request stands.
    pub(super) fn standing(&self, ask: &Ask) -> Standing {
        let Some(worker) = self.workers.get(&ask.worker.name) else {
            return Standing::Unknown;
        };
        match &worker.confirmed {
            Some(confirmed) if confirmed.session == ask.session => {
                return match ask.number < confirmed.number {
                    true => Standing::Outdated,
                    false => Standing::Confirmed,
                };
            }
            _ => {}
        }
        match &worker.contender {
            Some(contender)
                if contender.session == ask.session && ask.proof == Some(contender.token) =>
            {
                Standing::Alive {
                    last_report: contender.last_report,
                    since: contender.since,
                }
            }
            _ => Standing::Unknown,
        }
    }

    /// Returns the token that the session of a request is to return.
    pub(super) fn challenge(&mut self, ask: &Ask, last_report: u64) -> u64 {
        let name = &ask.worker.name;
        if self.workers.len() >= MAX_WORKERS && !self.workers.contains_key(name) {
            // Whoever was confirmed is confirmed again with two requests.
            self.workers.clear();
        }
        let worker = self.workers.entry(name.clone()).or_default();
        // Random, so that nothing that another coordinator sent counts here.
        let token = Uuid::new_v4().as_u64_pair().0;
        worker.contender = Some(Contender {
            session: ask.session,
            token,
            last_report,
            since: Instant::now(),
        });
        token
    }

    /// Confirms the session of a request.
    pub(super) fn confirm(&mut self, ask: &Ask) {
        let worker = self.workers.entry(ask.worker.name.clone()).or_default();
        worker.confirmed = Some(Confirmed {
            session: ask.session,
            number: ask.number,
        });
        worker.contender = None;
    }

    /// Notes a request of a confirmed session.
    pub(super) fn saw(&mut self, ask: &Ask) {
        let worker = self.workers.get_mut(&ask.worker.name);
        if let Some(confirmed) = worker.and_then(|worker| worker.confirmed.as_mut())
            && confirmed.session == ask.session
        {
            confirmed.number = confirmed.number.max(ask.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use halfheard_shared::wire::{VERSION, WorkerInfo};

    fn ask(session: u128, number: u64, proof: Option<u64>) -> Ask {
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
            received: 0,
            trainings: 1,
            evaluations: 16,
            noops: 0,
            wire: VERSION,
            methods: Vec::new(),
            labels: Vec::new(),
            memory: 0,
            store: None,
            proof,
        }
    }

    #[test]
    fn only_a_session_that_returns_the_token_is_confirmed() {
        let mut sessions = Sessions::default();
        assert_eq!(sessions.standing(&ask(1, 1, None)), Standing::Unknown);
        let token = sessions.challenge(&ask(1, 1, None), 7);
        assert_eq!(sessions.standing(&ask(1, 2, None)), Standing::Unknown);
        let wrong = Some(token.wrapping_add(1));
        assert_eq!(sessions.standing(&ask(1, 2, wrong)), Standing::Unknown);
        let proven = ask(1, 2, Some(token));
        assert!(matches!(
            sessions.standing(&proven),
            Standing::Alive { last_report: 7, .. }
        ));
        sessions.confirm(&proven);
        assert_eq!(sessions.standing(&ask(1, 3, None)), Standing::Confirmed);
        sessions.saw(&ask(1, 5, None));
        assert_eq!(sessions.standing(&ask(1, 4, None)), Standing::Outdated);
    }

    #[test]
    fn late_request_of_a_dead_process_replaces_nobody() {
        let mut sessions = Sessions::default();
        let mut last = None;
        for session in [1, 2] {
            let token = sessions.challenge(&ask(session, 1, None), 0);
            sessions.confirm(&ask(session, 2, Some(token)));
            last = last.or(Some(token));
        }
        // Of the first process, with the token that it returned while it lived.
        let late = ask(1, 51, last);
        assert_eq!(sessions.standing(&late), Standing::Unknown);
        sessions.challenge(&late, 0);
        assert_eq!(sessions.standing(&ask(2, 3, None)), Standing::Confirmed);
        assert_eq!(sessions.standing(&late), Standing::Unknown);
    }
}
