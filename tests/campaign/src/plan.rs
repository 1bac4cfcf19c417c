//! Draws the faults of a campaign from its seed.

use crate::fault::{COORDINATORS, Fault, Need, SLOTS, WORKERS, What};
use halfheard_shared::numpy_rng::RandomState;
use std::collections::HashMap;

/// Mean seconds between the beginnings of two faults.
const GAP: f64 = 1.05;
/// Length of a phase in seconds: first slots alone, then coordinators and network, then servers and
/// disks. Only where the servers are left alone for a lease's time can anything expire.
const PHASE: f64 = 50.0;
/// Seconds at the end in which nothing begins.
const CALM: f64 = 3.0;
/// Most faults of servers at once.
const MAX_SERVERS: usize = 2;

/// The kinds by weight: those that occur in every phase, then those of the three phases.
const ALWAYS: &[(&str, u32)] = &[
    ("slot_stop", 64),
    ("slot_kill", 8),
    ("supervisor_stop", 4),
    ("supervisor_kill", 2),
    ("supervisor_term", 2),
    ("worker_clock", 3),
];
const PHASES: [&[(&str, u32)]; 3] = [
    &[],
    &[
        ("slow", 12),
        ("cut", 10),
        ("coord_stop", 6),
        ("coord_kill", 4),
        ("coord_clock", 3),
        ("store_missing", 2),
        ("data_full", 3),
    ],
    &[
        ("broker_stop", 4),
        ("broker_kill", 4),
        ("broker_lost", 1),
        ("broker_full", 1),
        ("database_stop", 4),
        ("database_kill", 3),
        ("database_restart", 2),
        ("database_read_only", 3),
        ("store_full", 3),
    ],
];

/// The faults of a campaign of so many seconds. The same seed and length give the same plan,
/// whatever this machine allows; what it does not allow is left out afterwards.
pub fn plan(seed: u32, seconds: f64) -> Vec<Fault> {
    let mut draw = Draw(RandomState::new(seed));
    let mut busy: HashMap<String, f64> = HashMap::new();
    let mut servers: Vec<f64> = Vec::new();
    let mut faults = Vec::new();
    let mut at = 1.0;
    while at < seconds - CALM {
        // A component that is busy takes no second fault: another is drawn.
        for _ in 0..8 {
            let phase = (at / PHASE) as usize % PHASES.len();
            let what = draw.what(phase);
            let lasting = draw.lasting(&what).min(seconds - CALM - at).max(0.0);
            let is_server = phase == 2 && !ALWAYS.iter().any(|(kind, _)| *kind == what.kind());
            servers.retain(|&until| until > at);
            let component = what.component();
            if busy.get(&component).is_some_and(|&until| until > at)
                || (is_server && servers.len() >= MAX_SERVERS)
            {
                continue;
            }
            // A moment to come back: a fault on what is still starting hits nothing.
            busy.insert(component, at + lasting + 1.0);
            if is_server {
                servers.push(at + lasting + 1.0);
            }
            faults.push(Fault {
                id: faults.len() as u32,
                at: (at * 1000.0).round() / 1000.0,
                seconds: (lasting * 1000.0).round() / 1000.0,
                what,
            });
            break;
        }
        at += draw.gap();
    }
    faults
}

/// Only the faults that this machine allows.
pub fn allowed(faults: Vec<Fault>, allowed: impl Fn(Need) -> bool) -> Vec<Fault> {
    let mut faults = faults;
    faults.retain(|fault| allowed(fault.what.needs()));
    faults
}

struct Draw(RandomState);

impl Draw {
    fn gap(&mut self) -> f64 {
        // Exponential: bursts and lulls.
        -GAP * (1.0 - self.0.uniform()).max(1e-9).ln()
    }

    fn one(&mut self, of: &[&str]) -> String {
        of[self.0.below(of.len())].to_owned()
    }

    /// Evenly in the logarithm.
    fn between(&mut self, low: f64, high: f64) -> f64 {
        low * (high / low).powf(self.0.uniform())
    }

    /// Mostly short; sometimes longer than a lease lasts.
    fn mostly(&mut self, low: f64, high: f64, long: f64) -> f64 {
        if self.0.uniform() < long {
            self.between(31.0, 45.0)
        } else {
            self.between(low, high)
        }
    }

    fn what(&mut self, phase: usize) -> What {
        let kinds: Vec<(&str, u32)> = [ALWAYS, PHASES[phase]].concat();
        let total: u32 = kinds.iter().map(|(_, weight)| weight).sum();
        let mut point = self.0.below(total as usize) as u32;
        let mut kind = kinds[0].0;
        for (name, weight) in kinds {
            kind = name;
            if point < weight {
                break;
            }
            point -= weight;
        }
        self.of_kind(kind)
    }

    fn of_kind(&mut self, kind: &str) -> What {
        let worker = self.one(&WORKERS);
        let coordinator = self.one(&COORDINATORS);
        let slot = self.0.below(SLOTS);
        match kind {
            "slot_kill" => What::SlotKill { host: worker, slot },
            "supervisor_stop" => What::SupervisorStop { host: worker },
            "supervisor_kill" => What::SupervisorKill { host: worker },
            "supervisor_term" => What::SupervisorTerm { host: worker },
            "worker_clock" => What::WorkerClock {
                host: worker,
                shift_s: self.shift(),
            },
            "coord_clock" => What::CoordClock {
                host: coordinator,
                shift_s: self.shift(),
            },
            "coord_stop" => What::CoordStop { host: coordinator },
            "coord_kill" => What::CoordKill { host: coordinator },
            "store_missing" => What::StoreMissing { host: worker },
            "data_full" => What::DataFull { host: worker },
            "slow" => What::Slow {
                host: self.one(&["nats", "db", "c1", "c2", "w1", "w2", "w3"]),
                delay_ms: self.between(5.0, 400.0) as u32,
                jitter_ms: self.between(1.0, 200.0) as u32,
                loss: (self.0.uniform() * 0.2 * 1000.0).round() / 1000.0,
            },
            "cut" => self.cut(worker, coordinator),
            "broker_stop" => What::BrokerStop,
            "broker_kill" => What::BrokerKill,
            "broker_lost" => What::BrokerLost,
            "broker_full" => What::BrokerFull,
            "database_stop" => What::DatabaseStop,
            "database_kill" => What::DatabaseKill,
            "database_restart" => What::DatabaseRestart,
            "database_read_only" => What::DatabaseReadOnly,
            "store_full" => What::StoreFull,
            _ => What::SlotStop { host: worker, slot },
        }
    }

    fn cut(&mut self, worker: String, coordinator: String) -> What {
        let (host, other) = match self.0.below(5) {
            0 => (coordinator, Some("nats".to_owned())),
            1 => (coordinator, Some("db".to_owned())),
            2 => (coordinator, None),
            _ => (worker, None),
        };
        What::Cut {
            host,
            other,
            one_way: self.0.below(4) == 0,
        }
    }

    /// Seconds by which a clock is wrong: minutes to a day, either way.
    fn shift(&mut self) -> i64 {
        let shift = self.between(20.0, 86_400.0) as i64;
        if self.0.below(2) == 0 { shift } else { -shift }
    }

    fn lasting(&mut self, what: &What) -> f64 {
        match what {
            What::SlotKill { .. } => 0.0,
            What::SlotStop { .. } => self.mostly(0.1, 6.0, 0.03),
            What::SupervisorStop { .. } => self.mostly(0.5, 10.0, 0.1),
            What::SupervisorKill { .. } | What::SupervisorTerm { .. } => self.between(0.2, 6.0),
            What::CoordStop { .. } => self.mostly(0.5, 20.0, 0.15),
            What::CoordKill { .. } => self.between(0.2, 8.0),
            What::BrokerStop | What::BrokerKill => self.mostly(0.2, 8.0, 0.08),
            What::BrokerLost => self.between(0.1, 3.0),
            What::BrokerFull | What::DataFull { .. } => self.between(2.0, 10.0),
            What::StoreFull | What::StoreMissing { .. } => self.between(2.0, 15.0),
            What::DatabaseStop | What::DatabaseKill => self.mostly(0.2, 8.0, 0.05),
            What::DatabaseRestart => self.between(0.1, 2.0),
            What::DatabaseReadOnly => self.between(1.0, 12.0),
            What::Cut { .. } => self.mostly(0.5, 12.0, 0.1),
            What::Slow { .. } => self.between(3.0, 15.0),
            What::WorkerClock { .. } | What::CoordClock { .. } => self.between(2.0, 20.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn half_an_hour_has_more_than_a_thousand_faults_of_every_kind() {
        let faults = plan(1, 1800.0);
        assert!(faults.len() > 1300, "{}", faults.len());
        let kinds: BTreeSet<&str> = faults.iter().map(|fault| fault.what.kind()).collect();
        assert_eq!(kinds.len(), 22, "{kinds:?}");
        assert_eq!(faults, plan(1, 1800.0));
        assert_ne!(faults, plan(2, 1800.0));
    }

    #[test]
    fn one_component_has_one_fault_at_a_time() {
        let mut until: HashMap<String, f64> = HashMap::new();
        for fault in plan(3, 1800.0) {
            let component = fault.what.component();
            assert!(until.get(&component).is_none_or(|&until| until <= fault.at));
            until.insert(component, fault.at + fault.seconds);
            assert!(fault.at + fault.seconds < 1800.0);
        }
    }

    #[test]
    fn fault_is_read_from_the_line_that_was_written() {
        for fault in plan(5, 600.0) {
            let line = serde_json::to_string(&fault).unwrap();
            assert_eq!(serde_json::from_str::<Fault>(&line).unwrap(), fault);
        }
    }
}
