//! What is done to the cluster.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The machines. Their place in this list is the last part of their address.
pub const HOSTS: [&str; 8] = ["op", "db", "nats", "c1", "c2", "w1", "w2", "w3"];
/// Machines with a coordinator.
pub const COORDINATORS: [&str; 2] = ["c1", "c2"];
/// Machines with a worker.
pub const WORKERS: [&str; 3] = ["w1", "w2", "w3"];
/// Slots of each worker.
pub const SLOTS: usize = 2;

/// One fault: begun at a time, and undone some time later.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// Its number in the plan.
    pub id: u32,
    /// When it begins, in seconds since the start of the campaign.
    pub at: f64,
    /// After how many seconds it is undone; 0 for what cannot be.
    pub seconds: f64,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// The kinds of fault.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum What {
    /// SIGSTOP for one slot's process, then SIGCONT.
    SlotStop { host: String, slot: usize },
    /// SIGKILL for one slot's process.
    SlotKill { host: String, slot: usize },
    /// SIGSTOP for a supervisor alone.
    SupervisorStop { host: String },
    /// SIGKILL for a supervisor; it is started again.
    SupervisorKill { host: String },
    /// SIGTERM for a supervisor, as on a spot machine; it is started again.
    SupervisorTerm { host: String },
    /// SIGSTOP for a coordinator.
    CoordStop { host: String },
    /// SIGKILL for a coordinator; it is started again.
    CoordKill { host: String },
    /// SIGSTOP for the broker.
    BrokerStop,
    /// SIGKILL for the broker; it is started again.
    BrokerKill,
    /// SIGKILL for the broker; it is started again without its storage.
    BrokerLost,
    /// The broker's disk is full; then it is started again with room.
    BrokerFull,
    /// SIGSTOP for all processes of the database.
    DatabaseStop,
    /// SIGKILL for the database; it is started again.
    DatabaseKill,
    /// The database is shut down and started again.
    DatabaseRestart,
    /// The database takes no writes.
    DatabaseReadOnly,
    /// The artifact store is full.
    StoreFull,
    /// A worker's machine lacks the mount of the artifact store.
    StoreMissing { host: String },
    /// A worker's data folder is full.
    DataFull { host: String },
    /// No frame passes between a machine and another, or all others, in one direction or both.
    Cut {
        host: String,
        other: Option<String>,
        one_way: bool,
    },
    /// Frames from and to a machine are late, and some are lost.
    Slow {
        host: String,
        delay_ms: u32,
        jitter_ms: u32,
        loss: f64,
    },
    /// The clock of a worker's processes is wrong.
    WorkerClock { host: String, shift_s: i64 },
    /// The clock of a coordinator is wrong.
    CoordClock { host: String, shift_s: i64 },
}

impl What {
    /// Its name in the log.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::SlotStop { .. } => "slot_stop",
            Self::SlotKill { .. } => "slot_kill",
            Self::SupervisorStop { .. } => "supervisor_stop",
            Self::SupervisorKill { .. } => "supervisor_kill",
            Self::SupervisorTerm { .. } => "supervisor_term",
            Self::CoordStop { .. } => "coord_stop",
            Self::CoordKill { .. } => "coord_kill",
            Self::BrokerStop => "broker_stop",
            Self::BrokerKill => "broker_kill",
            Self::BrokerLost => "broker_lost",
            Self::BrokerFull => "broker_full",
            Self::DatabaseStop => "database_stop",
            Self::DatabaseKill => "database_kill",
            Self::DatabaseRestart => "database_restart",
            Self::DatabaseReadOnly => "database_read_only",
            Self::StoreFull => "store_full",
            Self::StoreMissing { .. } => "store_missing",
            Self::DataFull { .. } => "data_full",
            Self::Cut { .. } => "cut",
            Self::Slow { .. } => "slow",
            Self::WorkerClock { .. } => "worker_clock",
            Self::CoordClock { .. } => "coord_clock",
        }
    }

    /// What it needs beyond signals.
    pub fn needs(&self) -> Need {
        match self {
            Self::BrokerFull
            | Self::StoreFull
            | Self::StoreMissing { .. }
            | Self::DataFull { .. } => Need::Disks,
            Self::Cut { .. } | Self::Slow { .. } => Need::Network,
            Self::WorkerClock { .. } | Self::CoordClock { .. } => Need::Clocks,
            _ => Need::Nothing,
        }
    }

    /// What only one fault at a time may hold.
    pub fn component(&self) -> String {
        match self {
            Self::SlotStop { host, slot } | Self::SlotKill { host, slot } => {
                format!("{host}.{slot}")
            }
            Self::SupervisorStop { host }
            | Self::SupervisorKill { host }
            | Self::SupervisorTerm { host }
            | Self::StoreMissing { host }
            | Self::CoordStop { host }
            | Self::CoordKill { host } => host.clone(),
            Self::BrokerStop | Self::BrokerKill | Self::BrokerLost | Self::BrokerFull => {
                "broker".to_owned()
            }
            Self::DatabaseStop
            | Self::DatabaseKill
            | Self::DatabaseRestart
            | Self::DatabaseReadOnly => "database".to_owned(),
            Self::StoreFull => "store".to_owned(),
            Self::DataFull { host } => format!("data of {host}"),
            Self::Cut { host, .. } | Self::Slow { host, .. } => format!("link of {host}"),
            Self::WorkerClock { host, .. } | Self::CoordClock { host, .. } => {
                format!("clock of {host}")
            }
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.kind(), self.component())
    }
}

/// What a fault needs of the machine that the campaign runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Signals to own processes.
    Nothing,
    /// Network namespaces.
    Network,
    /// Small file systems in memory.
    Disks,
    /// A C compiler, for a library that shifts the clock.
    Clocks,
}
