//! What a worker does: it asks, takes grants, works, reports, beats, and keeps final reports until it is
//! told that they are settled.

use super::{
    model::{Action, Lease},
    state::{Ask, Content, Held, Phase, State, Worker, Wrong, insert, report_bit, retain},
};
use crate::{bug::Bug, rules::Report};

impl Worker {
    fn is_busy(&self) -> bool {
        self.held
            .iter()
            .flatten()
            .any(|held| !matches!(held.phase, Phase::Ended(..)))
    }

    /// Whether it can take a job.
    pub(super) fn has_room(&self) -> bool {
        !self.is_busy() && self.held.contains(&None)
    }

    /// The attempts that it names in a heartbeat.
    fn attempts(&self) -> u8 {
        let held = self.held.iter().flatten();
        held.fold(0, |all, held| all | 1 << held.attempt)
    }

    fn set(&mut self, attempt: usize, phase: Phase) {
        for held in self.held.iter_mut().flatten() {
            if held.attempt == attempt {
                held.phase = phase;
            }
        }
        self.held.sort_unstable();
    }

    pub(super) fn forget(&mut self, attempt: usize) {
        retain(&mut self.held, |held| held.attempt != attempt);
    }
}

impl State {
    /// Whether the worker's last request, or the answer to it, is on its way.
    pub(super) fn is_answer_due(&self, w: usize) -> bool {
        let me = &self.workers[w];
        let asks = self.asks.iter().flatten();
        let mut answers = self.answers.iter().flatten();
        asks.into_iter()
            .any(|ask| ask.worker == w && ask.session == me.session && ask.number == me.asked)
            || answers.any(|answer| answer.worker == w && answer.number == me.asked)
    }
}

impl Lease {
    /// What worker `w` can do next.
    pub(super) fn worker_steps(&self, state: &State, w: usize, actions: &mut Vec<Action>) {
        let me = &state.workers[w];
        let connected = state.is_connected(w);
        if connected && me.has_room() && state.asks.contains(&None) {
            let due = me.waits && state.is_answer_due(w);
            if !due {
                actions.push(Action::Ask(w));
            } else if state.faults.late > 0 {
                actions.push(Action::AskAgain(w));
            }
        }
        for answer in state.answers.iter().flatten() {
            if answer.worker == w && !me.cut {
                actions.push(Action::Receive(w, answer.number));
            }
        }
        for held in me.held.iter().flatten() {
            self.work_steps(state, w, held, connected, actions);
        }
        let beats = if self.time {
            !me.beaten
        } else {
            state.leader.heard[w].is_none() && me.attempts() != 0
        };
        if connected && beats {
            actions.push(Action::Beat(w));
        }
    }

    fn work_steps(
        &self,
        state: &State,
        w: usize,
        held: &Held,
        connected: bool,
        actions: &mut Vec<Action>,
    ) {
        let attempt = held.attempt;
        match held.phase {
            Phase::Waiting => actions.push(Action::Begin(w, attempt)),
            Phase::AtWork(false) if connected => actions.push(Action::Send(w, attempt)),
            Phase::AtWork(_) => {
                actions.push(Action::End(w, attempt, Report::Result(0)));
                if state.faults.failure > 0 {
                    actions.push(Action::End(w, attempt, Report::Failed));
                }
            }
            Phase::Ended(..) if connected => actions.push(Action::Send(w, attempt)),
            Phase::Ended(..) => {}
        }
        if !matches!(held.phase, Phase::Ended(..)) && state.faults.hand_back > 0 {
            actions.push(Action::End(w, attempt, Report::HandedBack));
        }
    }

    /// Takes a step of worker `w`.
    pub(super) fn worker_step(&self, state: &mut State, action: Action) {
        match action {
            Action::Ask(w) | Action::AskAgain(w) => {
                let me = &mut state.workers[w];
                me.asked += 1;
                me.waits = true;
                let ask = Ask {
                    worker: w,
                    session: me.session,
                    number: me.asked,
                    received: me.received,
                    proof: me.proof,
                };
                insert(&mut state.asks, ask);
            }
            Action::Receive(w, number) => self.receive(state, w, number),
            Action::Begin(w, attempt) => {
                state.workers[w].set(attempt, Phase::AtWork(false));
            }
            Action::End(w, attempt, report) => {
                state.workers[w].set(attempt, Phase::Ended(report, false));
                if let (Report::Result(_), Some(row)) = (report, &mut state.attempts[attempt]) {
                    row.computed = true;
                }
            }
            Action::Send(w, attempt) => self.send(state, w, attempt),
            Action::Beat(w) => {
                state.workers[w].beaten = self.time;
                if !state.no_leader {
                    state.leader.heard[w] = Some(state.workers[w].attempts());
                }
            }
            _ => {}
        }
    }

    fn receive(&self, state: &mut State, w: usize, number: u8) {
        let me = &mut state.workers[w];
        let mut content = None;
        for answer in state.answers.iter().flatten() {
            if answer.worker == w && answer.number == number {
                content = Some(answer.content);
            }
        }
        retain(&mut state.answers, |answer| {
            answer.worker != w || answer.number != number
        });
        let is_current = me.waits && number == me.asked;
        if !is_current && self.bug != Some(Bug::AcceptsOldAnswers) {
            return;
        }
        if is_current {
            me.waits = false;
        }
        let attempt = match content {
            Some(Content::Granted(attempt)) => attempt,
            Some(Content::Prove(proof)) => {
                me.proof = proof;
                if self.bug == Some(Bug::ProofIsAnswer) {
                    me.received = me.received.max(number);
                }
                return;
            }
            None => return,
        };
        me.received = me.received.max(number);
        let held = Held {
            attempt,
            phase: Phase::Waiting,
        };
        if me.held.iter().flatten().any(|held| held.attempt == attempt) || !me.held.contains(&None)
        {
            return;
        }
        insert(&mut me.held, held);
        if let Some(row) = &mut state.attempts[attempt] {
            if row.received {
                state.wrong = Some(Wrong::Twice);
            }
            row.received = true;
        }
    }

    fn send(&self, state: &mut State, w: usize, attempt: usize) {
        let me = &mut state.workers[w];
        let held = me
            .held
            .iter()
            .flatten()
            .find(|held| held.attempt == attempt);
        match held.map(|held| held.phase) {
            Some(Phase::AtWork(_)) => {
                state.stream |= report_bit(attempt, Report::Started);
                me.set(attempt, Phase::AtWork(true));
            }
            Some(Phase::Ended(report, _)) => {
                state.stream |= report_bit(attempt, report);
                me.set(attempt, Phase::Ended(report, true));
                if self.bug == Some(Bug::ForgetsConfirmed) {
                    me.forget(attempt);
                }
            }
            _ => {}
        }
    }
}
