use super::*;
use proptest::prelude::*;

const ALL: Wants = Wants {
    trainings: true,
    evaluations: true,
};

fn id(number: usize) -> SweepId {
    SweepId::derive(&[&number.to_le_bytes()])
}

/// A sweep in the simulation.
#[derive(Clone, Debug)]
struct Sim {
    owner: &'static str,
    weight: f64,
    priority: i32,
    /// Jobs that are left.
    jobs: usize,
    /// Seconds that each takes.
    seconds: u32,
    max_running: Option<u32>,
    /// Worker-seconds that it got.
    had: u64,
}

fn sim(owner: &'static str, weight: f64, jobs: usize, seconds: u32) -> Sim {
    Sim {
        owner,
        weight,
        priority: 0,
        jobs,
        seconds,
        max_running: None,
        had: 0,
    }
}

/// Workers that take jobs as the schedule says, second by second.
struct Cluster {
    sweeps: Vec<Sim>,
    /// The sweep that each worker serves, and for how many more seconds.
    workers: Vec<Option<(usize, u32)>>,
    schedule: Schedule,
}

impl Cluster {
    fn new(workers: usize, sweeps: Vec<Sim>) -> Self {
        Self {
            sweeps,
            workers: vec![None; workers],
            schedule: Schedule::default(),
        }
    }

    fn holds(&self, sweep: usize) -> u32 {
        let at = self.workers.iter().flatten();
        u32::try_from(at.filter(|(at, _)| *at == sweep).count()).unwrap()
    }

    fn contenders(&self) -> Vec<Contender> {
        let with = self.sweeps.iter().enumerate().filter(|(_, s)| s.jobs > 0);
        with.map(|(i, sweep)| Contender {
            id: id(i),
            owner: sweep.owner.to_owned(),
            priority: sweep.priority,
            weight: sweep.weight,
            workers: self.holds(i),
            room: sweep.max_running.map(|max| max - self.holds(i)),
            trainings: true,
            evaluations: false,
        })
        .collect()
    }

    fn second(&mut self) {
        let contenders = self.contenders();
        let mut round = self.schedule.round(&contenders, Duration::from_secs(1));
        for worker in self.workers.iter_mut().filter(|worker| worker.is_none()) {
            let order = round.next(ALL);
            let count = self.sweeps.len();
            let next = order
                .iter()
                .filter_map(|sweep| (0..count).find(|&i| id(i) == *sweep))
                .find(|&i| self.sweeps[i].jobs > 0);
            if let Some(i) = next {
                self.sweeps[i].jobs -= 1;
                *worker = Some((i, self.sweeps[i].seconds));
            }
        }
        for worker in &mut self.workers {
            if let Some((i, left)) = worker {
                self.sweeps[*i].had += 1;
                *left -= 1;
                if *left == 0 {
                    *worker = None;
                }
            }
        }
    }

    fn run(&mut self, seconds: u32) {
        (0..seconds).for_each(|_| self.second());
    }
}

#[test]
fn higher_priority_is_served_first() {
    let mut sweeps = vec![sim("ann", 100.0, 1000, 5), sim("ann", 1.0, 1000, 5)];
    sweeps[1].priority = 1;
    let mut cluster = Cluster::new(4, sweeps);
    cluster.run(100);
    assert_eq!(cluster.sweeps[0].had, 0);
}

#[test]
fn small_sweep_does_not_wait_behind_a_million_jobs() {
    let mut cluster = Cluster::new(8, vec![sim("ann", 1.0, 1_000_000, 30)]);
    cluster.run(1000);
    cluster.sweeps.push(sim("ann", 1.0, 2, 30));
    cluster.run(31);
    assert_eq!(
        cluster.sweeps[1].jobs, 0,
        "both began with the next free workers"
    );
}

#[test]
fn many_sweeps_do_not_make_an_owner_larger() {
    let mut sweeps = vec![sim("ann", 1.0, 100_000, 7)];
    sweeps.extend((0..9).map(|_| sim("ben", 1.0, 100_000, 7)));
    let mut cluster = Cluster::new(10, sweeps);
    cluster.run(5000);
    let ann = cluster.sweeps[0].had as f64 / 5000.0;
    assert!((ann - 5.0).abs() < 1.0, "ann has {ann} of 10 workers");
}

#[test]
fn limit_of_running_jobs_is_kept_and_owes_nothing_afterwards() {
    let mut sweeps = vec![sim("ann", 1.0, 100_000, 10), sim("ann", 1.0, 100_000, 10)];
    sweeps[0].max_running = Some(1);
    let mut cluster = Cluster::new(8, sweeps);
    for _ in 0..5000 {
        cluster.second();
        assert!(cluster.holds(0) <= 1);
    }
    cluster.sweeps[0].max_running = None;
    let before = cluster.sweeps[1].had;
    cluster.run(600);
    let other = (cluster.sweeps[1].had - before) as f64 / 600.0;
    assert!(
        other > 2.0,
        "the other sweep is not starved for it: {other}"
    );
}

#[test]
fn whole_round_is_shared_out() {
    let contender = |number: usize, owner: &str| Contender {
        id: id(number),
        owner: owner.to_owned(),
        priority: 0,
        weight: 1.0,
        workers: 0,
        room: None,
        trainings: true,
        evaluations: number == 0,
    };
    let mut schedule = Schedule::default();
    let contenders = [
        contender(0, "ann"),
        contender(1, "ben"),
        contender(2, "ben"),
    ];
    let mut round = schedule.round(&contenders, Duration::ZERO);
    let mut firsts: Vec<SweepId> = (0..4).map(|_| round.next(ALL)[0]).collect();
    firsts.sort_unstable();
    let mut due = vec![id(0), id(0), id(1), id(2)];
    due.sort_unstable();
    assert_eq!(firsts, due);
    // Only what has it is named.
    let evaluations = Wants {
        trainings: false,
        evaluations: true,
    };
    assert_eq!(round.next(evaluations), [id(0)]);
}

fn any_sweeps() -> impl Strategy<Value = Vec<Sim>> {
    let owner = prop::sample::select(vec!["ann", "ben", "cem"]);
    let one = (owner, 1..=8_u32, 1..=40_u32);
    prop::collection::vec(one, 1..=5).prop_map(|sweeps| {
        sweeps
            .into_iter()
            .map(|(owner, weight, seconds)| sim(owner, f64::from(weight), usize::MAX, seconds))
            .collect()
    })
}

/// The workers that each sweep should have.
fn due(sweeps: &[Sim], workers: usize) -> Vec<f64> {
    let of = |owner: &'static str| sweeps.iter().filter(move |s| s.owner == owner);
    let heaviest = |owner: &'static str| of(owner).map(|s| s.weight).fold(0.0, f64::max);
    let mut owners: Vec<&'static str> = sweeps.iter().map(|s| s.owner).collect();
    owners.sort_unstable();
    owners.dedup();
    let all: f64 = owners.iter().map(|&owner| heaviest(owner)).sum();
    let share = |sweep: &Sim| {
        let own: f64 = of(sweep.owner).map(|s| s.weight).sum();
        heaviest(sweep.owner) / all * sweep.weight / own * workers as f64
    };
    sweeps.iter().map(share).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Over time everyone has the workers of its share, within one, whatever its jobs take; and
    /// nobody goes without.
    #[test]
    fn shares_follow_weights(sweeps in any_sweeps(), workers in 1..=12_usize) {
        let due = due(&sweeps, workers);
        let mut cluster = Cluster::new(workers, sweeps);
        cluster.run(2000);
        let settled: Vec<u64> = cluster.sweeps.iter().map(|s| s.had).collect();
        cluster.run(6000);
        for ((sweep, before), due) in cluster.sweeps.iter().zip(settled).zip(due) {
            let got = (sweep.had - before) as f64 / 6000.0;
            prop_assert!((got - due).abs() < 1.0, "{got} of {due}: {sweep:?}");
            prop_assert!(got > 0.1 * due.min(1.0), "starved: {got} of {due}: {sweep:?}");
        }
    }

    /// The order names each sweep that can be served once, higher priorities first, and is the same
    /// again for the same past.
    #[test]
    fn order_is_deterministic_and_complete(
        given in prop::collection::vec((0..3_i32, 0..3_usize, 1..5_u32, 0..4_u32, any::<bool>()), 0..12),
        elapsed in 0..1000_u64,
    ) {
        let contenders: Vec<Contender> = given
            .iter()
            .enumerate()
            .map(|(i, &(priority, owner, weight, workers, full))| Contender {
                id: id(i),
                owner: owner.to_string(),
                priority,
                weight: f64::from(weight),
                workers,
                room: full.then_some(0),
                trainings: true,
                evaluations: true,
            })
            .collect();
        let order = || {
            let mut schedule = Schedule::default();
            let elapsed = Duration::from_secs(elapsed);
            schedule.round(&contenders, elapsed).next(ALL);
            schedule.round(&contenders, elapsed).next(ALL)
        };
        let first = order();
        prop_assert_eq!(&first, &order());
        let mut named = first.clone();
        named.sort_unstable();
        let mut all: Vec<SweepId> = contenders.iter().filter(|c| c.room.is_none()).map(|c| c.id).collect();
        all.sort_unstable();
        prop_assert_eq!(named, all);
        let priority = |sweep: &SweepId| contenders.iter().find(|c| c.id == *sweep).unwrap().priority;
        prop_assert!(first.windows(2).all(|pair| priority(&pair[0]) >= priority(&pair[1])));
    }
}
