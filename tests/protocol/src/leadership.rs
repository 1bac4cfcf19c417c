//! Who leads: two coordinators, one row with a term, transactions that begin with the fence.
//!
//! A tick is 2 s, the interval in which a leader renews its lead and a standby tries to take it. Within
//! a tick, coordinators, faults and transactions take turns in every order; a coordinator may pause
//! between any two steps, also between the fence and the commit.

use crate::{bug::Bug, explore::Protocol};
use stateright::{Model, Property};

/// A lead lasts 10 s.
const LEAD: u8 = 5;
/// A leader whose pings do not come back for 8 s resigns.
const PINGS: u8 = 4;
/// The database ends a transaction that is idle for 5 s.
const IDLE: u8 = 3;
/// Somebody leads again within 15 s (of which 7 ticks are 14).
const PATIENCE: u8 = 7;
/// A lead that ends an hour ahead, because the database's clock was set back.
const FAR: u8 = 50;

/// A coordinator and its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Coordinator {
    /// The term in which it believes to lead.
    term: Option<u8>,
    /// It is stopped, and goes on later.
    paused: bool,
    /// It cannot reach the broker.
    no_broker: bool,
    /// It cannot reach the database.
    no_database: bool,
    /// Ticks since its own ping came back.
    deaf: u8,
    /// It has renewed its lead in this tick.
    renewed: bool,
    /// The term of the transaction that it has begun.
    writing: Option<u8>,
    /// Ticks for which the database has seen nothing of that transaction, while it is open there.
    idle: Option<u8>,
}

/// Both coordinators, the row, and what the properties need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    term: u8,
    /// Ticks until the lead may be taken.
    expires: u8,
    coordinators: [Coordinator; 2],
    no_broker: bool,
    no_database: bool,
    faults: u8,
    /// Ticks without fault in which somebody could lead and nobody did.
    leaderless: u8,
    /// A write was committed in a term that had ended.
    deposed_wrote: bool,
}

/// A step of a coordinator, a fault, or its end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Action {
    /// A standby takes the lead.
    Take(usize),
    /// The leader renews it.
    Renew(usize),
    /// The leader gives it up.
    Resign(usize),
    /// The leader begins a transaction: the fence.
    Begin(usize),
    /// It writes and commits.
    Commit(usize),
    /// Stopped between two steps.
    Pause(usize),
    /// It goes on.
    Continue(usize),
    /// The process dies and is started again.
    Crash(usize),
    /// One coordinator loses the broker, or finds it again.
    Broker(usize, bool),
    /// One coordinator loses the database, or finds it again.
    Database(usize, bool),
    /// The broker stops, or starts.
    BrokerForAll(bool),
    /// The database stops, which ends all transactions, or starts.
    DatabaseForAll(bool),
    /// The database's clock is set forward.
    ClockForward,
    /// The database's clock is set back.
    ClockBack,
    /// 2 s pass.
    Tick,
}

/// The model.
#[derive(Clone, Debug)]
pub struct Leadership {
    /// How many faults happen at most.
    pub faults: u8,
    /// The rule that is left out.
    pub bug: Option<Bug>,
}

impl Leadership {
    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    fn can_take(&self, state: &State, c: usize) -> bool {
        let me = &state.coordinators[c];
        let hears = me.deaf == 0 || self.has(Bug::TakesWithoutPings);
        let over = state.expires == 0 || (state.expires > LEAD && !self.has(Bug::TrustsFarLead));
        // The term is the primary key: changing it waits for the transactions that have locked it.
        let locked = !self.has(Bug::FenceWithoutLock)
            && !self.has(Bug::NoFence)
            && state.coordinators.iter().any(|other| other.idle.is_some());
        me.term.is_none() && hears && over && !locked
    }

    fn must_resign(&self, me: &Coordinator) -> bool {
        me.deaf >= PINGS && !self.has(Bug::NeverResigns)
    }

    fn steps(&self, state: &State, c: usize, actions: &mut Vec<Action>) {
        let me = &state.coordinators[c];
        if me.paused {
            return;
        }
        if state.reaches_database(c) {
            if self.can_take(state, c) {
                actions.push(Action::Take(c));
            }
            if me.term.is_some() && me.writing.is_none() {
                if self.must_resign(me) && !me.renewed {
                    actions.push(Action::Resign(c));
                } else {
                    if !me.renewed {
                        actions.push(Action::Renew(c));
                    }
                    actions.push(Action::Begin(c));
                }
            }
        }
        if me.writing.is_some() {
            actions.push(Action::Commit(c));
        }
    }

    fn faults(&self, state: &State, actions: &mut Vec<Action>) {
        for c in 0..2 {
            let me = &state.coordinators[c];
            if !me.paused {
                actions.push(Action::Pause(c));
                actions.push(Action::Crash(c));
            }
            if !me.no_broker && !state.no_broker {
                actions.push(Action::Broker(c, false));
            }
            if !me.no_database && !state.no_database {
                actions.push(Action::Database(c, false));
            }
        }
        if !state.no_broker {
            actions.push(Action::BrokerForAll(false));
        }
        if !state.no_database {
            actions.push(Action::DatabaseForAll(false));
        }
        actions.push(Action::ClockForward);
        actions.push(Action::ClockBack);
    }

    /// A coordinator that works does what is due in every tick.
    fn may_tick(&self, state: &State) -> bool {
        (0..2).all(|c| {
            let me = &state.coordinators[c];
            if me.paused || !state.reaches_database(c) {
                return true;
            }
            let renewed = me.term.is_none() || me.renewed;
            me.writing.is_none() && renewed && !self.can_take(state, c)
        })
    }

    fn tick(&self, state: &mut State) {
        if state.expires < FAR {
            state.expires = state.expires.saturating_sub(1);
        }
        for c in 0..2 {
            let hears = state.reaches_broker(c) && !state.coordinators[c].paused;
            let me = &mut state.coordinators[c];
            me.deaf = if hears { 0 } else { (me.deaf + 1).min(PINGS) };
            me.renewed = false;
            me.idle = match me.idle {
                Some(idle) if idle + 1 >= IDLE && !self.has(Bug::NoIdleTimeout) => None,
                idle => idle.map(|idle| (idle + 1).min(IDLE)),
            };
        }
        let works = |c: usize| {
            state.reaches_broker(c) && state.reaches_database(c) && !state.coordinators[c].paused
        };
        let leads = |c: usize| works(c) && state.coordinators[c].term == Some(state.term);
        state.leaderless = if (0..2).any(works) && !(0..2).any(leads) {
            (state.leaderless + 1).min(PATIENCE + 1)
        } else {
            0
        };
    }

    fn step(&self, state: &mut State, action: Action) {
        let (term, expires) = (state.term, state.expires);
        match action {
            Action::Take(c) => {
                state.term += 1;
                state.expires = LEAD;
                state.coordinators[c].term = Some(state.term);
                state.coordinators[c].renewed = true;
            }
            Action::Renew(c) => {
                let me = &mut state.coordinators[c];
                if me.term == Some(term) {
                    me.renewed = true;
                    state.expires = LEAD;
                } else {
                    me.term = None;
                }
            }
            Action::Resign(c) => {
                if state.coordinators[c].term == Some(term) {
                    state.expires = 0;
                }
                state.coordinators[c].term = None;
            }
            Action::Begin(c) => {
                let me = &mut state.coordinators[c];
                if (me.term == Some(term) && expires > 0) || self.has(Bug::NoFence) {
                    me.writing = me.term;
                    me.idle = Some(0);
                } else {
                    me.term = None;
                }
            }
            Action::Commit(c) => {
                let me = &mut state.coordinators[c];
                // The database has ended it if it was idle for too long, or restarted.
                if me.idle.is_some() && !me.no_database && !state.no_database {
                    state.deposed_wrote |= me.writing != Some(term);
                    me.idle = None;
                }
                me.writing = None;
            }
            Action::Tick => self.tick(state),
            fault => Self::disturb(state, fault),
        }
    }

    fn disturb(state: &mut State, action: Action) {
        state.leaderless = 0;
        match action {
            Action::Pause(c) => state.coordinators[c].paused = true,
            Action::Continue(c) => state.coordinators[c].paused = false,
            Action::Crash(c) => {
                let me = &mut state.coordinators[c];
                let (no_broker, no_database) = (me.no_broker, me.no_database);
                // If the host cannot be reached, the database does not notice.
                let idle = me.idle.filter(|_| no_database);
                *me = Coordinator {
                    no_broker,
                    no_database,
                    idle,
                    deaf: 1,
                    ..Coordinator::default()
                };
            }
            Action::Broker(c, found) => state.coordinators[c].no_broker = !found,
            Action::Database(c, found) => state.coordinators[c].no_database = !found,
            Action::BrokerForAll(found) => state.no_broker = !found,
            Action::DatabaseForAll(found) => {
                state.no_database = !found;
                for me in &mut state.coordinators {
                    me.idle = None;
                }
            }
            Action::ClockForward => state.expires = 0,
            Action::ClockBack => state.expires = FAR,
            _ => {}
        }
    }
}

impl State {
    fn reaches_broker(&self, c: usize) -> bool {
        !self.no_broker && !self.coordinators[c].no_broker
    }

    fn reaches_database(&self, c: usize) -> bool {
        !self.no_database && !self.coordinators[c].no_database
    }
}

impl Model for Leadership {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            term: 0,
            expires: 0,
            coordinators: [Coordinator::default(); 2],
            no_broker: false,
            no_database: false,
            faults: self.faults,
            leaderless: 0,
            deposed_wrote: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for c in 0..2 {
            self.steps(state, c, actions);
            let me = &state.coordinators[c];
            if me.paused {
                actions.push(Action::Continue(c));
            }
            if me.no_broker {
                actions.push(Action::Broker(c, true));
            }
            if me.no_database {
                actions.push(Action::Database(c, true));
            }
        }
        if state.no_broker {
            actions.push(Action::BrokerForAll(true));
        }
        if state.no_database {
            actions.push(Action::DatabaseForAll(true));
        }
        if state.faults > 0 {
            self.faults(state, actions);
        }
        if self.may_tick(state) {
            actions.push(Action::Tick);
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = *state;
        if self.is_fault(&action) {
            next.faults -= 1;
        }
        self.step(&mut next, action);
        Some(next)
    }

    fn within_boundary(&self, state: &State) -> bool {
        state.term <= 6
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("a deposed leader never writes", |_, state: &State| {
                !state.deposed_wrote
            }),
            Property::always("somebody leads within 15 s", |_, state: &State| {
                state.leaderless <= PATIENCE
            }),
        ]
    }
}

impl Protocol for Leadership {
    fn name(&self) -> String {
        format!("leadership, 2 coordinators, {} faults", self.faults)
    }

    fn is_fault(&self, action: &Action) -> bool {
        matches!(
            action,
            Action::Pause(_)
                | Action::Crash(_)
                | Action::Broker(_, false)
                | Action::Database(_, false)
                | Action::BrokerForAll(false)
                | Action::DatabaseForAll(false)
                | Action::ClockForward
                | Action::ClockBack
        )
    }

    fn is_finished(&self, state: &State) -> bool {
        (0..2).any(|c| {
            let me = &state.coordinators[c];
            me.term == Some(state.term)
                && !me.paused
                && state.expires > 0
                && state.expires <= LEAD
                && me.writing.is_some()
                && me.idle.is_some()
        })
    }
}
