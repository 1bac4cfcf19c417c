//! What the leader does: it serves requests, renews what it hears of, ingests reports, and expires.

use super::{
    model::{Action, Lease},
    state::{
        Answer, Ask, Attempt, Contender, Content, SLOTS, State, TTL, Wrong, insert, report_of,
        reports_of, retain,
    },
};
use crate::{
    bug::Bug,
    rules::{self, Effect, Outcome, Report},
    table,
};

/// What the leader does with a request.
enum Service {
    /// It holds it: there is nothing to do.
    Hold,
    /// It drops it: the session has sent a newer one.
    Drop,
    /// The first request of a session: it is answered at once, and must prove itself.
    Meet,
    /// The session has proved that it lives.
    Confirm,
    /// The lease of another session of the worker ends.
    Replace(usize),
    /// An unanswered grant is repeated.
    Repeat(usize),
    /// A new attempt, in this free slot.
    Grant(usize),
}

impl Lease {
    /// What the leader can do next.
    pub(super) fn leader_steps(&self, state: &State, actions: &mut Vec<Action>) {
        if state.no_leader {
            return;
        }
        if state.all_work() {
            for ask in state.asks.iter().flatten() {
                if !matches!(self.service(state, ask), Service::Hold) {
                    actions.push(Action::Serve(*ask));
                }
            }
            if self.can_expire(state) {
                actions.push(Action::Expire);
            }
        }
        if !state.no_broker && state.stream != 0 {
            actions.push(Action::Deliver);
        }
        if !state.no_broker && state.unconfirmed != 0 {
            actions.push(Action::Redeliver);
        }
        if !state.no_database {
            for w in 0..2 {
                if state.leader.heard[w].is_some() {
                    actions.push(Action::Renew(w));
                }
            }
            for number in 0..16 {
                if state.delivered & (1 << number) != 0 {
                    actions.push(Action::Ingest(number));
                }
            }
            if state.lease > TTL && self.bug != Some(Bug::TrustsFarLease) {
                actions.push(Action::Clamp);
            }
        }
    }

    /// Takes a step of the leader.
    pub(super) fn leader_step(&self, state: &mut State, action: Action) {
        match action {
            Action::Serve(ask) => self.serve(state, ask),
            Action::Renew(w) => Self::renew(state, w),
            Action::Deliver => {
                state.delivered |= state.stream;
                state.stream = 0;
            }
            Action::Redeliver => {
                state.stream |= state.unconfirmed;
                state.unconfirmed = 0;
            }
            Action::Ingest(number) => self.ingest(state, number),
            Action::Clamp => state.lease = TTL,
            Action::Expire => {
                if let Some(attempt) = state.job.leased() {
                    self.end(state, usize::from(attempt));
                }
            }
            _ => {}
        }
    }

    fn service(&self, state: &State, ask: &Ask) -> Service {
        let w = ask.worker;
        let leader = &state.leader;
        match leader.confirmed[w] {
            Some((session, newest)) if session == ask.session => {
                if ask.number < newest && self.bug != Some(Bug::OldAsksServed) {
                    return Service::Drop;
                }
            }
            _ if self.bug == Some(Bug::NoHandshake) => {}
            _ => {
                let proves = |one: &Contender| one.session == ask.session && ask.proof == one.proof;
                return match leader.contender[w].filter(proves) {
                    None => Service::Meet,
                    Some(one) if one.reports == 0 => Service::Confirm,
                    Some(_) => Service::Hold,
                };
            }
        }
        let leased = state.job.leased().map(usize::from);
        if let Some((attempt, row)) = leased.and_then(|a| Some((a, state.attempts[a]?)))
            && row.worker == w
        {
            if row.session != ask.session {
                return Service::Replace(attempt);
            }
            let unanswered = row.ask > ask.received && state.job.state == table::State::Queued;
            if unanswered && self.bug != Some(Bug::NoResend) {
                return Service::Repeat(attempt);
            }
        }
        let free = (0..SLOTS).find(|slot| state.attempts[*slot].is_none());
        let grantable = state.job.state == table::State::Ready
            || (self.bug == Some(Bug::GrantsLeased) && leased.is_some());
        match free {
            Some(slot) if grantable && state.answers.contains(&None) => Service::Grant(slot),
            _ => Service::Hold,
        }
    }

    /// Whether the leader would do something with the last request of worker `w`.
    pub(super) fn is_service_due(&self, state: &State, w: usize) -> bool {
        let me = &state.workers[w];
        state.asks.iter().flatten().any(|ask| {
            ask.worker == w
                && ask.session == me.session
                && ask.number == me.asked
                && !matches!(self.service(state, ask), Service::Hold)
        })
    }

    fn serve(&self, state: &mut State, ask: Ask) {
        let w = ask.worker;
        let mut answer = None;
        match self.service(state, &ask) {
            Service::Hold => return,
            Service::Drop => {}
            Service::Meet => {
                let reports = match self.bug {
                    Some(Bug::ReplacesBeforeDrain) => 0,
                    Some(Bug::DrainIgnoresDelivered) => state.stream,
                    _ => state.waiting(),
                };
                state.leader.contender[w] = Some(Contender {
                    session: ask.session,
                    proof: ask.number,
                    reports,
                });
                answer = Some(Content::Prove(ask.number));
            }
            Service::Confirm => {
                state.leader.confirmed[w] = Some((ask.session, ask.number));
                state.leader.contender[w] = None;
                return;
            }
            Service::Replace(attempt) => {
                self.end(state, attempt);
                return;
            }
            Service::Repeat(attempt) => answer = Some(Content::Granted(attempt)),
            Service::Grant(slot) => {
                state.job.grant(slot as u8);
                state.lease = TTL;
                state.attempts[slot] = Some(Attempt {
                    worker: w,
                    session: ask.session,
                    ask: ask.number,
                    row: rules::Attempt::default(),
                    received: false,
                    computed: false,
                });
                answer = Some(Content::Granted(slot));
            }
        }
        retain(&mut state.asks, |other| *other != ask);
        if let Some((session, newest)) = &mut state.leader.confirmed[w]
            && *session == ask.session
        {
            *newest = ask.number.max(*newest);
        }
        // Nobody waits for the answer to a process that is dead.
        if let Some(content) = answer
            && state.workers[w].session == ask.session
        {
            let answer = Answer {
                worker: w,
                number: ask.number,
                content,
            };
            insert(&mut state.answers, answer);
        }
    }

    fn renew(state: &mut State, w: usize) {
        let Some(heard) = state.leader.heard[w].take() else {
            return;
        };
        for attempt in (0..SLOTS).filter(|attempt| heard & (1 << attempt) != 0) {
            if state.job.leased() == Some(attempt as u8) {
                state.lease = TTL;
            } else if state.is_connected(w) {
                // Released: not the worker's any more.
                state.workers[w].forget(attempt);
            }
        }
    }

    fn ingest(&self, state: &mut State, number: u8) {
        let (attempt, report) = report_of(number);
        let bit = 1 << number;
        state.delivered &= !bit;
        if state.no_broker {
            // Its confirmation does not arrive: it will be delivered again.
            state.unconfirmed |= bit;
        } else {
            for contender in state.leader.contender.iter_mut().flatten() {
                contender.reports &= !bit;
            }
        }
        let Some(this) = &mut state.attempts[attempt] else {
            return;
        };
        let before = state.job;
        let is_open = this.row.outcome.is_none();
        let effect = state
            .job
            .apply(attempt as u8, &mut this.row, report, self.bug);
        // Losses are the matter of another model.
        this.row.begun = false;
        if effect == Effect::Store {
            state.stored += 1;
        }
        let has_it = before.leased() == Some(attempt as u8);
        if report == Report::Failed && is_open && has_it {
            state.own_failures += 1;
        }
        let is_result = matches!(report, Report::Result(_));
        if is_result && state.job.outcome.is_none() {
            state.wrong = Some(Wrong::Ignored);
        }
        if !has_it && !is_result && before.state != state.job.state {
            state.wrong = Some(Wrong::Stolen);
        }
        if let (true, Some(other)) = (is_result, before.leased().map(usize::from))
            && state.job.leased().is_none()
            && other != attempt
            && let Some(other) = &mut state.attempts[other]
        {
            other.row.outcome = other.row.outcome.or(Some(Outcome::Revoked));
        }
    }

    fn can_expire(&self, state: &State) -> bool {
        let hears = state.leader.hears >= TTL || self.bug == Some(Bug::NoHearing);
        let waiting = match self.bug {
            Some(Bug::ExpiresBeforeDrain) => 0,
            Some(Bug::DrainIgnoresDelivered) => state.stream,
            _ => state.waiting(),
        };
        state.job.leased().is_some() && state.lease == 0 && hears && waiting == 0
    }

    /// Ends an attempt as lost.
    fn end(&self, state: &mut State, attempt: usize) {
        if state.waiting() & reports_of(attempt, true) != 0 {
            state.wrong = Some(Wrong::Discarded);
        }
        if let Some(row) = state.attempts[attempt] {
            let worker = &state.workers[row.worker];
            let good = worker.good >= TTL || (!self.time && !worker.cut);
            if worker.session == row.session && good {
                if row.received {
                    state.wrong = Some(Wrong::Taken);
                } else if !self.is_service_due(state, row.worker) {
                    state.wrong = Some(Wrong::Untold);
                }
            }
        }
        if let Some(this) = &mut state.attempts[attempt] {
            state.job.lose(&mut this.row, self.bug);
        }
    }
}
