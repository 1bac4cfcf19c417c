//! Whether something changed: a cheap stamp of the database and of the heartbeats, looked at once a
//! second while somebody listens.

use crate::board::Board;
use halfheard_shared::{broker::heartbeats::Heartbeats, error::chain};
use halfheard_store::Store;
use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
    time::Duration,
};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;

/// How often the stamp is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The most pages that listen at once.
const MAX_LISTENERS: usize = 128;

/// Counts changes. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Changes {
    count: watch::Receiver<u64>,
    places: Arc<Semaphore>,
    somebody: Arc<Notify>,
}

/// One who listens, until it is dropped.
#[derive(Debug)]
pub(crate) struct Listener {
    count: watch::Receiver<u64>,
    _place: OwnedSemaphorePermit,
}

/// What the database and the workers say, as short as possible. `None` where nothing can be said.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    database: Option<String>,
    workers: u64,
}

impl Changes {
    /// Looks for changes until `stop`; then listeners hear the end.
    pub(crate) fn watch(
        store: Store,
        heartbeats: Heartbeats,
        board: Arc<Board>,
        stop: CancellationToken,
    ) -> Self {
        let (sender, count) = watch::channel(0);
        let changes = Self {
            count,
            places: Arc::new(Semaphore::new(MAX_LISTENERS)),
            somebody: Arc::default(),
        };
        let (places, somebody) = (changes.places.clone(), changes.somebody.clone());
        tokio::spawn(async move {
            let look = async {
                let mut last = None;
                loop {
                    if places.available_permits() == MAX_LISTENERS {
                        somebody.notified().await;
                    }
                    let mut pause = LOOK_EVERY;
                    let stamp = Stamp::of(&store, &heartbeats).await;
                    if last.as_ref() != Some(&stamp) {
                        // All who hear of it ask at once: they shall not wait for the counts.
                        if let Ok(shown) = board.renew(&store).await {
                            pause = pause.max(shown);
                        }
                        sender.send_modify(|count| *count += 1);
                        last = Some(stamp);
                    }
                    tokio::time::sleep(pause).await;
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = look => {}
            }
        });
        changes
    }

    /// Listens from now on; `None` if too many do.
    pub(crate) fn listen(&self) -> Option<Listener> {
        let place = self.places.clone().try_acquire_owned().ok()?;
        let mut count = self.count.clone();
        count.mark_unchanged();
        self.somebody.notify_one();
        Some(Listener {
            count,
            _place: place,
        })
    }
}

impl Listener {
    /// Waits for a change. Returns its number; `None` at the end.
    pub(crate) async fn change(&mut self) -> Option<u64> {
        self.count.changed().await.ok()?;
        Some(*self.count.borrow_and_update())
    }
}

impl Stamp {
    async fn of(store: &Store, heartbeats: &Heartbeats) -> Self {
        let database = match store.change_stamp().await {
            Ok(stamp) => Some(stamp),
            Err(error) => {
                tracing::debug!(error = chain(&error), "cannot look for changes");
                None
            }
        };
        let mut hasher = DefaultHasher::new();
        for beat in heartbeats.heard() {
            (&beat.worker.name, beat.at_ms).hash(&mut hasher);
        }
        Self {
            database,
            workers: hasher.finish(),
        }
    }
}
