//! The model: which steps there are, time, and faults.

use super::state::{Ask, FAR, Faults, Leader, SLOTS, State, TTL, Worker, Wrong, retain};
use crate::{
    bug::Bug,
    explore::Protocol,
    rules::{Job, MAX_FAILURES, Outcome, Report},
    table,
};
use stateright::{Model, Property};

/// A step, a fault, or its end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Action {
    /// The worker asks for a job.
    Ask(usize),
    /// It asks again though the answer is on its way.
    AskAgain(usize),
    /// The answer to the request with this number arrives.
    Receive(usize, u8),
    /// The worker begins an attempt.
    Begin(usize, usize),
    /// The attempt ends at the worker.
    End(usize, usize, Report),
    /// The worker sends what there is to report of the attempt, perhaps again.
    Send(usize, usize),
    /// The worker's heartbeat is heard.
    Beat(usize),
    /// The leader serves a request.
    Serve(Ask),
    /// It renews what the worker's heartbeat named, and releases what the worker has no more.
    Renew(usize),
    /// The broker delivers reports.
    Deliver,
    /// The broker will deliver again what was not confirmed.
    Redeliver,
    /// The report of this number is ingested.
    Ingest(u8),
    /// A lease that ends too far ahead is shortened.
    Clamp,
    /// The lease has ended.
    Expire,
    /// The process dies and is started again.
    Crash(usize),
    /// The worker cannot reach the broker, or reaches it again.
    Cut(usize, bool),
    /// The broker stops, or starts; requests on their way are lost or not.
    Broker(bool, bool),
    /// The database stops, or starts.
    Database(bool),
    /// The leader stops, or there is one again; it remembers nothing.
    Leader(bool),
    /// The broker's storage is empty.
    StorageLost,
    /// A request is lost.
    AskLost(Ask),
    /// The answers to a worker are lost.
    AnswerLost(usize),
    /// The database's clock is set: forward, or back.
    Clock(bool),
    /// An operator cancels the job.
    Cancel,
    /// A sweep asks for the job again, or an operator retries it.
    Reopen,
    /// Time passes.
    Tick,
}

/// The model.
#[derive(Clone, Debug)]
pub struct Lease {
    /// What it is about.
    pub about: &'static str,
    /// How many workers there are: 1 or 2.
    pub workers: usize,
    /// The faults that happen at most.
    pub faults: Faults,
    /// Attempts that have failed before.
    pub failures: u8,
    /// Whether time passes. Without time, no lease ends by itself.
    pub time: bool,
    /// Whether a worker that is cut off may stay away for ever.
    pub for_ever: bool,
    /// The rule that is left out.
    pub bug: Option<Bug>,
}

impl Lease {
    fn faults(&self, state: &State, actions: &mut Vec<Action>) {
        let left = &state.faults;
        for w in 0..self.workers {
            if left.crash > 0 {
                actions.push(Action::Crash(w));
            }
            if left.cut > 0 && !state.workers[w].cut {
                actions.push(Action::Cut(w, true));
            }
        }
        if left.outage > 0 && state.all_work() {
            actions.push(Action::Broker(false, false));
            if state.asks != [None; 3] || state.answers != [None; 3] {
                actions.push(Action::Broker(false, true));
            }
            actions.push(Action::Database(false));
            actions.push(Action::Leader(false));
        }
        if left.storage > 0 && state.waiting() != 0 {
            actions.push(Action::StorageLost);
        }
        if left.lost > 0 {
            for ask in state.asks.iter().flatten() {
                actions.push(Action::AskLost(*ask));
            }
            for w in 0..self.workers {
                if state
                    .answers
                    .iter()
                    .flatten()
                    .any(|answer| answer.worker == w)
                {
                    actions.push(Action::AnswerLost(w));
                }
            }
        }
        if left.clock > 0 && state.job.leased().is_some() {
            actions.push(Action::Clock(true));
            actions.push(Action::Clock(false));
        }
        if left.operator > 0 && !state.no_database {
            use table::State::{Cancelled, Failed, Queued, Ready, Running};
            match state.job.state {
                Ready | Queued | Running => actions.push(Action::Cancel),
                Cancelled | Failed => actions.push(Action::Reopen),
                _ => {}
            }
        }
    }

    fn ends_of_faults(&self, state: &State, actions: &mut Vec<Action>) {
        for w in 0..self.workers {
            if state.workers[w].cut {
                actions.push(Action::Cut(w, false));
            }
        }
        if state.no_broker {
            actions.push(Action::Broker(true, false));
        }
        if state.no_database {
            actions.push(Action::Database(true));
        }
        if state.no_leader {
            actions.push(Action::Leader(true));
        }
    }

    /// In a tick without a gap, what works has done what is due.
    fn may_tick(&self, state: &State) -> bool {
        if !state.all_work() || state.gap {
            return true;
        }
        if state.lease > TTL && self.bug != Some(Bug::TrustsFarLease) {
            return false;
        }
        (0..self.workers).all(|w| {
            let me = &state.workers[w];
            if me.cut {
                return state.leader.heard[w].is_none();
            }
            let asks = !me.has_room() || (me.waits && state.is_answer_due(w));
            let answered = !state
                .answers
                .iter()
                .flatten()
                .any(|answer| answer.worker == w);
            me.beaten
                && state.leader.heard[w].is_none()
                && asks
                && answered
                && !self.is_service_due(state, w)
        })
    }

    fn tick(&self, state: &mut State) {
        if state.lease > TTL && state.all_work() && !state.gap {
            state.wrong = Some(Wrong::Endless);
        }
        if state.lease < FAR {
            state.lease = state.lease.saturating_sub(1);
        }
        for worker in &mut state.workers[..self.workers] {
            worker.beaten = false;
            worker.good = if worker.cut {
                0
            } else {
                (worker.good + 1).min(TTL)
            };
        }
        let is_away = !state.all_work();
        let gap = is_away || (state.gap && self.bug != Some(Bug::ForgivesShortGaps));
        state.leader.hears = if gap {
            0
        } else {
            (state.leader.hears + 1).min(TTL)
        };
        state.gap = is_away;
    }

    fn disturb(state: &mut State, action: Action) {
        match action {
            Action::Crash(w) => {
                let me = &mut state.workers[w];
                *me = Worker {
                    session: me.session + 1,
                    cut: me.cut,
                    ..Worker::default()
                };
                retain(&mut state.answers, |answer| answer.worker != w);
            }
            Action::Cut(w, cut) => {
                state.workers[w].cut = cut;
                state.workers[w].good = 0;
            }
            Action::Broker(found, lost) => {
                state.no_broker = !found;
                state.gap = true;
                if lost {
                    state.asks = [None; 3];
                    state.answers = [None; 3];
                }
            }
            Action::Database(found) => {
                state.no_database = !found;
                state.gap = true;
            }
            Action::Leader(found) => {
                state.no_leader = !found;
                Self::depose(state);
            }
            Action::StorageLost => {
                state.stream = 0;
                state.delivered = 0;
                state.unconfirmed = 0;
                for contender in state.leader.contender.iter_mut().flatten() {
                    contender.reports = 0;
                }
            }
            Action::AskLost(ask) => retain(&mut state.asks, |other| *other != ask),
            Action::AnswerLost(w) => retain(&mut state.answers, |answer| answer.worker != w),
            Action::Clock(forward) => {
                state.lease = if forward { 0 } else { FAR };
                // The lead has ended too.
                Self::depose(state);
            }
            _ => {}
        }
    }

    /// Another process leads, or the same one again.
    fn depose(state: &mut State) {
        state.leader = Leader::default();
        state.gap = true;
        state.unconfirmed |= state.delivered;
        state.delivered = 0;
    }

    fn operate(state: &mut State, action: Action) {
        use table::State::{Cancelled, Done, Ready};
        match action {
            Action::Cancel => {
                if let Some(attempt) = state.job.leased()
                    && let Some(this) = &mut state.attempts[usize::from(attempt)]
                {
                    this.row.outcome = this.row.outcome.or(Some(Outcome::Revoked));
                }
                state.job.go(Cancelled);
            }
            Action::Reopen => {
                state.job.failures = 0;
                state.own_failures = 0;
                state.job.go(if state.job.outcome.is_some() {
                    Done
                } else {
                    Ready
                });
            }
            _ => {}
        }
    }

    fn pay(faults: &mut Faults, action: &Action) -> bool {
        let left = match action {
            Action::Crash(_) => &mut faults.crash,
            Action::Cut(_, true) => &mut faults.cut,
            Action::Broker(false, _) | Action::Database(false) | Action::Leader(false) => {
                &mut faults.outage
            }
            Action::StorageLost => &mut faults.storage,
            Action::AskLost(_) | Action::AnswerLost(_) => &mut faults.lost,
            Action::AskAgain(_) => &mut faults.late,
            Action::End(_, _, Report::Failed) => &mut faults.failure,
            Action::End(_, _, Report::HandedBack) => &mut faults.hand_back,
            Action::Cancel | Action::Reopen => &mut faults.operator,
            Action::Clock(_) => &mut faults.clock,
            _ => return false,
        };
        *left = left.saturating_sub(1);
        true
    }
}

impl Model for Lease {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut job = Job::new(table::State::Ready);
        job.failures = self.failures;
        vec![State {
            job,
            lease: 0,
            attempts: [None; SLOTS],
            workers: [Worker::default(); 2],
            asks: [None; 3],
            answers: [None; 3],
            stream: 0,
            delivered: 0,
            unconfirmed: 0,
            leader: Leader::default(),
            no_leader: false,
            no_broker: false,
            no_database: false,
            gap: false,
            faults: self.faults,
            stored: 0,
            own_failures: self.failures,
            wrong: None,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.is_over() {
            return;
        }
        for w in 0..self.workers {
            self.worker_steps(state, w, actions);
        }
        self.leader_steps(state, actions);
        self.ends_of_faults(state, actions);
        self.faults(state, actions);
        if self.time && self.may_tick(state) {
            actions.push(Action::Tick);
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = *state;
        Self::pay(&mut next.faults, &action);
        match action {
            Action::Tick => self.tick(&mut next),
            Action::Cancel | Action::Reopen => Self::operate(&mut next, action),
            Action::Serve(_)
            | Action::Renew(_)
            | Action::Deliver
            | Action::Redeliver
            | Action::Ingest(_)
            | Action::Clamp
            | Action::Expire => self.leader_step(&mut next, action),
            Action::Ask(_)
            | Action::AskAgain(_)
            | Action::Receive(..)
            | Action::Begin(..)
            | Action::End(..)
            | Action::Send(..)
            | Action::Beat(_) => self.worker_step(&mut next, action),
            fault => Self::disturb(&mut next, fault),
        }
        next.normalize();
        next.check();
        (next != *state).then_some(next)
    }

    fn within_boundary(&self, state: &State) -> bool {
        state.stored <= 2 && state.workers.iter().all(|worker| worker.asked <= 8)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let never = |wrong: &'static str, condition| Property::always(wrong, condition);
        vec![
            never(
                "the database allows every transition",
                |_, state: &State| state.job.refused.is_none(),
            ),
            never("a result is stored once", |_, state: &State| {
                state.stored <= 1
            }),
            never("a job has one open attempt", |_, state: &State| {
                let open = state.attempts.iter().flatten();
                open.filter(|one| one.row.outcome.is_none()).count() <= 1
            }),
            never("a job fails by its own fault only", |_, state: &State| {
                state.job.state != table::State::Failed || state.own_failures >= MAX_FAILURES
            }),
            never(
                "a worker that can be heard keeps its job",
                |_, state: &State| state.wrong != Some(Wrong::Taken),
            ),
            never(
                "a worker hears of what it was granted",
                |_, state: &State| state.wrong != Some(Wrong::Untold),
            ),
            never(
                "a report that waits is read before its attempt is lost",
                |_, state: &State| state.wrong != Some(Wrong::Discarded),
            ),
            never("a process is given an attempt once", |_, state: &State| {
                state.wrong != Some(Wrong::Twice)
            }),
            never(
                "only reports of the attempt that has the job end it",
                |_, state: &State| state.wrong != Some(Wrong::Stolen),
            ),
            never("a result that arrives counts", |_, state: &State| {
                state.wrong != Some(Wrong::Ignored)
            }),
            never("a lease ends", |_, state: &State| {
                state.wrong != Some(Wrong::Endless)
            }),
            never("a result of a living worker is kept", |_, state: &State| {
                state.wrong != Some(Wrong::ResultLost)
            }),
        ]
    }
}

impl State {
    /// Whether nothing can happen any more that matters.
    fn is_over(&self) -> bool {
        self.job.state == table::State::Done
            && self.waiting() == 0
            && self.answers == [None; 3]
            && self.workers.iter().all(|worker| worker.held == [None; 2])
    }

    /// Whether a result that was computed is somewhere.
    fn check(&mut self) {
        let Some(attempt) = self.job.leased().map(usize::from) else {
            return;
        };
        let Some(row) = &self.attempts[attempt] else {
            return;
        };
        let worker = &self.workers[row.worker];
        let held = worker
            .held
            .iter()
            .flatten()
            .any(|held| held.attempt == attempt);
        let waits = self.waiting() & super::state::reports_of(attempt, true) != 0;
        if row.computed && worker.session == row.session && !held && !waits {
            self.wrong = Some(Wrong::ResultLost);
        }
    }
}

impl Protocol for Lease {
    fn name(&self) -> String {
        let workers = if self.workers == 1 {
            "1 worker"
        } else {
            "2 workers"
        };
        format!(
            "{}, 1 job, {workers}, faults {{ {} }}",
            self.about, self.faults
        )
    }

    fn is_fault(&self, action: &Action) -> bool {
        Self::pay(&mut Faults::default(), action)
            || (self.for_ever && matches!(action, Action::Cut(_, false)))
    }

    fn is_finished(&self, state: &State) -> bool {
        use table::State::{Cancelled, Done, Failed};
        matches!(state.job.state, Done | Failed | Cancelled)
            && state.waiting() == 0
            && state
                .workers
                .iter()
                .all(|worker| worker.held == [None; 2] || (self.for_ever && worker.cut))
    }
}
