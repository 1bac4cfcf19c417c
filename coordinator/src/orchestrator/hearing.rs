//! Whether this coordinator hears its workers.
//!
//! A lease expires because its worker was not heard, and that means something only while the
//! coordinator listens: it leads, the broker returns what it sends to itself, the database takes its
//! writes, and neither it nor its machine stood still. Time in which any of that failed never counts
//! against a worker.

use futures::StreamExt as _;
use halfheard_shared::broker::Broker;
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

/// How often a coordinator sends a message to itself.
const PING_EVERY: Duration = Duration::from_secs(1);
/// How often hearing is checked.
const TICK: Duration = Duration::from_millis(500);
/// A gap that interrupts hearing: the interval between heartbeats, or a worker could be missed where pings are not.
const GAP: Duration = Duration::from_secs(3);

/// Messages that this coordinator sends to itself through the broker. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Pings {
    start: Instant,
    /// When the last message that came back was sent; `None` before the first.
    returned: Arc<Mutex<Option<Instant>>>,
}

impl Pings {
    /// Returns the pings and the future that sends them for as long as it runs.
    pub(super) fn start(
        broker: Broker,
        coordinator: &str,
    ) -> (Self, impl Future<Output = ()> + use<>) {
        let pings = Self {
            start: Instant::now(),
            returned: Arc::default(),
        };
        let subject = broker.names().ping(coordinator);
        let sending = {
            let pings = pings.clone();
            async move {
                loop {
                    match broker.client().subscribe(subject.clone()).await {
                        Ok(returned) => pings.send(&broker, &subject, returned).await,
                        Err(error) => tracing::debug!(%error, "cannot subscribe to pings"),
                    }
                    tokio::time::sleep(PING_EVERY).await;
                }
            }
        };
        (pings, sending)
    }

    async fn send(&self, broker: &Broker, subject: &str, mut returned: async_nats::Subscriber) {
        let mut tick = tokio::time::interval(PING_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => {
                    let sent = self.start.elapsed().as_millis() as u64;
                    let payload = sent.to_le_bytes().to_vec().into();
                    if let Err(error) = broker.client().publish(subject.to_owned(), payload).await {
                        tracing::debug!(%error, "cannot send a ping");
                    }
                }
                message = returned.next() => {
                    let Some(message) = message else { return };
                    let Ok(sent) = <[u8; 8]>::try_from(message.payload.as_ref()) else { continue };
                    // What was buffered during an outage comes back late, and proves only when it was sent.
                    let sent = self.start + Duration::from_millis(u64::from_le_bytes(sent));
                    let mut last = self.returned.lock().unwrap_or_else(PoisonError::into_inner);
                    if sent <= Instant::now() {
                        *last = (*last).max(Some(sent));
                    }
                }
            }
        }
    }

    /// How long ago the last message that came back was sent.
    pub(super) fn age(&self) -> Duration {
        let last = *self.returned.lock().unwrap_or_else(PoisonError::into_inner);
        last.map_or(Duration::MAX, |sent| sent.elapsed())
    }
}

/// For how long this coordinator has heard its workers without interruption. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Hearing {
    pings: Pings,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    since: Option<Instant>,
    tick: Instant,
    /// The same by the clock that runs on while the machine sleeps.
    wall: SystemTime,
}

impl Hearing {
    /// Begins now, when the lead was taken.
    pub(super) fn new(pings: Pings) -> Self {
        Self {
            pings,
            state: Arc::new(Mutex::new(State {
                since: None,
                tick: Instant::now(),
                wall: SystemTime::now(),
            })),
        }
    }

    /// Checks hearing for as long as it runs.
    pub(super) async fn watch(&self) {
        loop {
            self.tick();
            tokio::time::sleep(TICK).await;
        }
    }

    fn tick(&self) {
        let deaf = self.pings.age() > GAP;
        let mut state = self.lock();
        let slept = stood_still(&state);
        if slept || deaf {
            if state.since.is_some() {
                tracing::debug!(slept, deaf, "not hearing the workers");
            }
            state.since = None;
        }
        if !deaf {
            state.since.get_or_insert_with(Instant::now);
        }
        state.tick = Instant::now();
        state.wall = SystemTime::now();
    }

    /// Starts over: the database did not take what was heard.
    pub(super) fn interrupt(&self) {
        self.lock().since = None;
    }

    /// For how long the workers have been heard.
    pub(super) fn duration(&self) -> Duration {
        let state = self.lock();
        // After a pause of this process, this may run before the next tick.
        if stood_still(&state) {
            return Duration::ZERO;
        }
        state.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether this process or its machine was stopped since the last tick. A clock that was set looks
/// like a pause, which only delays what depends on hearing.
fn stood_still(state: &State) -> bool {
    state.tick.elapsed() > GAP || state.wall.elapsed().is_ok_and(|elapsed| elapsed > GAP)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hearing(returned: Option<Instant>) -> Hearing {
        Hearing::new(Pings {
            start: Instant::now(),
            returned: Arc::new(Mutex::new(returned)),
        })
    }

    #[test]
    fn deaf_coordinator_hears_nobody() {
        let hearing = hearing(None);
        hearing.tick();
        assert_eq!(hearing.duration(), Duration::ZERO);
    }

    #[test]
    fn pause_and_failed_write_start_over() {
        let hearing = hearing(Some(Instant::now()));
        hearing.tick();
        std::thread::sleep(Duration::from_millis(5));
        assert!(hearing.duration() > Duration::ZERO);
        hearing.interrupt();
        assert_eq!(hearing.duration(), Duration::ZERO);
        hearing.tick();
        std::thread::sleep(Duration::from_millis(5));
        assert!(hearing.duration() > Duration::ZERO);
        // As if the last tick were long ago: the process was stopped, or the machine slept.
        hearing.lock().wall = SystemTime::now() - 2 * GAP;
        assert_eq!(hearing.duration(), Duration::ZERO);
        hearing.tick();
        assert!(hearing.duration() < Duration::from_millis(5));
    }
}
