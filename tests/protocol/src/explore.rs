//! Exploration: every reachable state by stateright, and whether the work can end from each of them.

use stateright::{Checker, HasDiscoveries, Model, Path};
use std::{
    collections::HashMap,
    fmt::{Debug, Write},
    hash::{Hash, Hasher},
    time::Instant,
};

/// A model of a part of the protocol.
pub trait Protocol: Model<State: Bounds, Action: Steps> + Clone + Send + Sync + 'static {
    /// Its name, with its bounds.
    fn name(&self) -> String;
    /// Whether the action is a fault, which may never come again.
    fn is_fault(&self, action: &Self::Action) -> bool;
    /// Whether the work has ended as it should.
    fn is_finished(&self, state: &Self::State) -> bool;
}

/// What exploring needs of a state.
pub trait Bounds: Clone + Debug + PartialEq + Eq + Hash + Send + Sync + 'static {}
impl<T: Clone + Debug + PartialEq + Eq + Hash + Send + Sync + 'static> Bounds for T {}

/// What exploring needs of an action.
pub trait Steps: Clone + Debug + PartialEq {}
impl<T: Clone + Debug + PartialEq> Steps for T {}

/// A property that does not hold, and the shortest way there.
#[derive(Debug)]
pub struct Counterexample {
    /// The property.
    pub property: &'static str,
    /// One line for each action.
    pub steps: Vec<String>,
}

impl Counterexample {
    fn new<M: Protocol>(property: &'static str, path: Path<M::State, M::Action>) -> Self {
        let path = path.into_vec();
        let mut steps: Vec<String> = path
            .iter()
            .filter_map(|(_, action)| action.as_ref().map(|action| format!("{action:?}")))
            .collect();
        if let Some((last, _)) = path.last() {
            steps.push(format!("→ {last:?}"));
        }
        Self { property, steps }
    }
}

impl std::fmt::Display for Counterexample {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "\"{}\" does not hold, in {} steps:",
            self.property,
            self.steps.len() - 1
        )?;
        for (number, step) in self.steps.iter().enumerate() {
            writeln!(f, "{:>4}  {step}", number + 1)?;
        }
        Ok(())
    }
}

/// Looks for a state in which a property does not hold: the shortest way to one, if there is any.
/// Prints how many states there are.
///
/// # Panics
///
/// There are too many.
pub fn counterexample<M: Protocol>(model: &M) -> Option<Counterexample> {
    search(model, HasDiscoveries::AnyFailures)
}

/// Looks for the shortest way to a state in which this property does not hold.
///
/// # Panics
///
/// There are too many states.
pub fn counterexample_of<M: Protocol>(model: &M, property: &'static str) -> Option<Counterexample> {
    search(model, HasDiscoveries::AnyOf([property].into()))
        .filter(|found| found.property == property)
}

fn search<M: Protocol>(model: &M, until: HasDiscoveries) -> Option<Counterexample> {
    let began = Instant::now();
    let wanted = match &until {
        HasDiscoveries::AnyOf(properties) => properties.iter().next().copied(),
        _ => None,
    };
    let checker = model
        .clone()
        .checker()
        .finish_when(until)
        .target_state_count(MAX_TRANSITIONS)
        .spawn_bfs()
        .join();
    let mut found: Vec<Counterexample> = checker
        .discoveries()
        .into_iter()
        .filter(|(property, _)| wanted.is_none_or(|wanted| wanted == *property))
        .map(|(property, path)| Counterexample::new::<M>(property, path))
        .collect();
    found.sort_by_key(|found| (found.steps.len(), found.property));
    println!(
        "{}: {} states, {} transitions, at most {} steps deep, {:.1} s",
        model.name(),
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        began.elapsed().as_secs_f64()
    );
    assert!(
        !found.is_empty() || checker.state_count() < MAX_TRANSITIONS,
        "{} has too many states",
        model.name()
    );
    found.into_iter().next()
}

/// Checks that the properties hold in every state, and that from every state the work can end without
/// a further fault.
///
/// # Panics
///
/// They do not: with the shortest counterexample.
pub fn verify<M: Protocol>(model: &M) {
    if let Some(found) = counterexample(model) {
        panic!("{}: {found}", model.name());
    }
    if let Some(found) = trap(model) {
        panic!("{}: {found}", model.name());
    }
}

/// Looks for a state from which the work cannot end without a further fault. If there is none, the work
/// ends whenever faults do, as long as every step that stays possible is taken at some time.
///
/// # Panics
///
/// There are too many states.
pub fn trap<M: Protocol>(model: &M) -> Option<Counterexample> {
    let graph = Graph::explore(model);
    let ends = graph.can_end();
    let first = ends.iter().position(|ends| !ends)?;
    Some(Counterexample {
        property: "the work can end",
        steps: graph.path_to(model, first),
    })
}

/// A model with more states would take minutes and gigabytes.
const MAX_STATES: usize = 4_000_000;
/// See [`MAX_STATES`].
const MAX_TRANSITIONS: usize = 8 * MAX_STATES;

/// All states, with the transitions that are no faults, backwards.
struct Graph<S> {
    /// In the order in which they were found: breadth first.
    states: Vec<S>,
    /// The state from which each was found first.
    parents: Vec<u32>,
    /// For each transition that is not a fault: before, after.
    steps: Vec<(u32, u32)>,
    /// Which states are an end.
    finished: Vec<bool>,
}

impl<S: Bounds> Graph<S> {
    fn explore<M: Protocol + Model<State = S>>(model: &M) -> Self {
        let mut numbers: HashMap<u128, u32> = HashMap::new();
        let mut graph = Self {
            states: Vec::new(),
            parents: Vec::new(),
            steps: Vec::new(),
            finished: Vec::new(),
        };
        for state in model.init_states() {
            graph.number(model, &mut numbers, state, 0);
        }
        let mut actions = Vec::new();
        let mut next = 0;
        while next < graph.states.len() {
            assert!(next < MAX_STATES, "{} has too many states", model.name());
            let state = graph.states[next].clone();
            model.actions(&state, &mut actions);
            for action in actions.drain(..) {
                let is_fault = model.is_fault(&action);
                let Some(after) = model.next_state(&state, action) else {
                    continue;
                };
                if !model.within_boundary(&after) {
                    continue;
                }
                let before = next as u32;
                let after = graph.number(model, &mut numbers, after, before);
                if !is_fault && after != before {
                    graph.steps.push((after, before));
                }
            }
            next += 1;
        }
        graph
    }

    /// # Panics
    ///
    /// The model has grown beyond [`MAX_STATES`].
    fn number<M: Protocol + Model<State = S>>(
        &mut self,
        model: &M,
        numbers: &mut HashMap<u128, u32>,
        state: S,
        parent: u32,
    ) -> u32 {
        *numbers.entry(fingerprint(&state)).or_insert_with(|| {
            self.finished.push(model.is_finished(&state));
            self.states.push(state);
            self.parents.push(parent);
            (self.states.len() - 1) as u32
        })
    }

    /// For each state whether an end can be reached without a fault.
    fn can_end(&self) -> Vec<bool> {
        let mut starts = vec![0_usize; self.states.len() + 1];
        for (after, _) in &self.steps {
            starts[*after as usize + 1] += 1;
        }
        for state in 0..self.states.len() {
            starts[state + 1] += starts[state];
        }
        let mut filled = starts.clone();
        let mut before = vec![0_u32; self.steps.len()];
        for (after, from) in &self.steps {
            before[filled[*after as usize]] = *from;
            filled[*after as usize] += 1;
        }
        let mut ends = self.finished.clone();
        let mut pending: Vec<usize> = (0..ends.len()).filter(|state| ends[*state]).collect();
        while let Some(state) = pending.pop() {
            for from in &before[starts[state]..starts[state + 1]] {
                if !ends[*from as usize] {
                    ends[*from as usize] = true;
                    pending.push(*from as usize);
                }
            }
        }
        ends
    }

    fn path_to<M: Protocol + Model<State = S>>(&self, model: &M, state: usize) -> Vec<String> {
        let mut way = vec![state];
        while let Some(&first) = way.last() {
            let parent = self.parents[first] as usize;
            if parent == first {
                break;
            }
            way.push(parent);
        }
        way.reverse();
        let mut lines: Vec<String> = way
            .windows(2)
            .map(|pair| {
                model
                    .next_steps(&self.states[pair[0]])
                    .into_iter()
                    .find(|(_, after)| *after == self.states[pair[1]])
                    .map(|(action, _)| format!("{action:?}"))
                    .unwrap_or_default()
            })
            .collect();
        let mut last = String::new();
        // Writing to a string cannot fail.
        let _ = write!(last, "→ {:?}", self.states[state]);
        lines.push(last);
        lines
    }
}

/// Two hashes of 64 bits: with a hundred million states, the odds of one collision are below one in 10^20.
fn fingerprint<S: Hash>(state: &S) -> u128 {
    let mut mixer = Mixer(0x2545_f491_4f6c_dd1d, 0x9e37_79b9_7f4a_7c15);
    state.hash(&mut mixer);
    (u128::from(mixer.finish()) << 64) | u128::from(Mixer(mixer.1, mixer.0).finish())
}

/// A quick hash of many small numbers: two folded multiplications.
struct Mixer(u64, u64);

impl Mixer {
    fn mix(value: u64, factor: u64) -> u64 {
        let product = u128::from(value) * u128::from(factor);
        (product as u64) ^ ((product >> 64) as u64)
    }
}

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        Self::mix(self.0 ^ 0x5851_f42d_4c95_7f2d, 0xd6e8_feb8_6659_fd93)
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u8(&mut self, number: u8) {
        self.write_u64(u64::from(number));
    }

    fn write_u16(&mut self, number: u16) {
        self.write_u64(u64::from(number));
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }

    fn write_isize(&mut self, number: isize) {
        self.write_u64(number as u64);
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = Self::mix(
            self.0 ^ number ^ 0xa076_1d64_78bd_642f,
            0xe703_7ed1_a0b4_28db,
        );
        self.1 = Self::mix(
            self.1 ^ number ^ 0x8ebc_6af0_9c88_c6e3,
            0x5899_65cc_7537_4cc3,
        );
    }
}
