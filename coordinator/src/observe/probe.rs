//! Whether the servers behind a coordinator answer, asked every other second.

use halfheard_shared::{broker::Broker, error::chain};
use halfheard_store::Store;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(3);
/// An older probe says nothing.
const STALE: Duration = Duration::from_secs(15);

/// What was found last.
#[derive(Clone, Debug)]
pub(super) struct Probe {
    at: Instant,
    pub(super) database: Result<(), String>,
    pub(super) broker: Result<(), String>,
}

impl Probe {
    /// Before the first one.
    pub(super) fn pending() -> Self {
        let pending = Err("not asked yet".to_owned());
        Self {
            at: Instant::now(),
            database: pending.clone(),
            broker: pending,
        }
    }

    /// Asks both servers.
    pub(super) async fn new(store: &Store, broker: &Broker) -> Self {
        let database = async {
            match timeout(TIMEOUT, store.check()).await {
                Ok(checked) => checked.map_err(|error| chain(&error)),
                Err(_) => Err(no_answer("Postgres")),
            }
        };
        let broker = async {
            let asked = async {
                // A flush comes back only from a server.
                broker
                    .client()
                    .flush()
                    .await
                    .map_err(|error| chain(&error))?;
                broker
                    .results()
                    .await
                    .map(drop)
                    .map_err(|error| chain(&error))
            };
            match timeout(TIMEOUT, asked).await {
                Ok(asked) => asked,
                Err(_) => Err(no_answer("the broker")),
            }
        };
        let (database, broker) = tokio::join!(database, broker);
        Self {
            at: Instant::now(),
            database,
            broker,
        }
    }

    /// What is wrong with the servers, or that nobody has asked for long.
    pub(super) fn verdicts(&self) -> [(&'static str, Result<(), String>); 2] {
        let current = |outcome: &Result<(), String>| match self.at.elapsed() > STALE {
            true => Err(format!("not asked for {} s", self.at.elapsed().as_secs())),
            false => outcome.clone(),
        };
        [
            ("database", current(&self.database)),
            ("broker", current(&self.broker)),
        ]
    }
}

fn no_answer(who: &str) -> String {
    format!("{who} does not answer within {} s", TIMEOUT.as_secs())
}
