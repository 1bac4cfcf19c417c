//! The transitions between states of a job, read from the migration whose trigger enforces them.

use std::sync::{
    LazyLock,
    atomic::{AtomicU64, Ordering},
};

const MIGRATION: &str = include_str!("../../../schemas/migrations/0002_state_machine.sql");

/// `job_state` of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// Its training job is not done.
    Blocked,
    /// It can be granted.
    Ready,
    /// A worker has it and has not begun.
    Queued,
    /// A worker has it and has begun.
    Running,
    /// A result counts.
    Done,
    /// Given up.
    Failed,
    /// Nobody asks for it.
    Cancelled,
}

/// All states, in the order of the database.
pub const STATES: [State; 7] = [
    State::Blocked,
    State::Ready,
    State::Queued,
    State::Running,
    State::Done,
    State::Failed,
    State::Cancelled,
];

impl State {
    /// Its name in the database.
    pub fn name(self) -> &'static str {
        match self {
            State::Blocked => "blocked",
            State::Ready => "ready",
            State::Queued => "queued",
            State::Running => "running",
            State::Done => "done",
            State::Failed => "failed",
            State::Cancelled => "cancelled",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        STATES.into_iter().find(|state| state.name() == name)
    }

    fn index(self) -> usize {
        self as usize
    }
}

/// A transition: the state before and the state after.
pub type Transition = (State, State);

struct Table {
    rows: Vec<(Transition, String)>,
    /// By state before and after.
    exists: [[bool; STATES.len()]; STATES.len()],
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let rows = parse(MIGRATION);
    let mut exists = [[false; STATES.len()]; STATES.len()];
    for ((before, after), _) in &rows {
        exists[before.index()][after.index()] = true;
    }
    Table { rows, exists }
});

/// One bit for each transition that a model has taken in this process.
static TAKEN: AtomicU64 = AtomicU64::new(0);

fn bit((before, after): Transition) -> u64 {
    1 << (before.index() * STATES.len() + after.index())
}

/// The rows that `INSERT INTO job_transition` of a migration lists, with their reasons.
///
/// # Panics
///
/// A row names an unknown state, or the statement is missing: the migration has changed its form.
pub fn parse(migration: &str) -> Vec<(Transition, String)> {
    let (_, list) = migration
        .split_once("INSERT INTO job_transition (before, after, reason) VALUES")
        .unwrap_or_else(|| panic!("the migration does not fill job_transition"));
    let (list, _) = list
        .split_once(';')
        .unwrap_or_else(|| panic!("the list of transitions does not end"));
    let state = |name: &str| {
        State::parse(name).unwrap_or_else(|| panic!("job_transition names the state `{name}`"))
    };
    list.lines()
        .map(str::trim)
        .filter(|line| line.starts_with('('))
        .map(|line| {
            let mut quoted = line.split('\'').skip(1).step_by(2);
            let mut next = || quoted.next().unwrap_or_default();
            let transition = (state(next()), state(next()));
            (transition, next().to_owned())
        })
        .collect()
}

/// All rows, with their reasons.
pub fn rows() -> &'static [(Transition, String)] {
    &TABLE.rows
}

/// Whether the database lets a job go from `before` to `after`. Notes that it was taken.
pub fn take(before: State, after: State) -> bool {
    let exists = TABLE.exists[before.index()][after.index()];
    if exists && TAKEN.load(Ordering::Relaxed) & bit((before, after)) == 0 {
        TAKEN.fetch_or(bit((before, after)), Ordering::Relaxed);
    }
    exists
}

/// Whether a model in this process has taken the transition.
pub fn was_taken(transition: Transition) -> bool {
    TAKEN.load(Ordering::Relaxed) & bit(transition) != 0
}
