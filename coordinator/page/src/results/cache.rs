//! What is made of results, kept until they change: ten viewers cost one.

use crate::kept::{OLDEST, QUICK};
use halfheard_store::results::ResultsVersion;
use std::{
    collections::HashMap,
    hash::Hash,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// What took long is shown this many times as long before anything is looked at again: other work has the
/// machine too.
const SHARE: u32 = 8;
/// But not longer than this.
const LONGEST: Duration = Duration::from_secs(60);

/// A value, and whether it is right for as long as the results are the same. One that says that something
/// was out of reach is not.
#[derive(Clone, Debug)]
pub(super) struct Fresh<V> {
    pub(super) value: V,
    pub(super) lasts: bool,
}

/// Values by key, at most `most`: those that were used last.
#[derive(Debug)]
pub(super) struct Cache<K, V> {
    slots: Mutex<HashMap<K, Arc<Slot<V>>>>,
    most: usize,
    clock: AtomicU64,
}

#[derive(Debug)]
struct Slot<V> {
    kept: Mutex<Option<Kept<V>>>,
    /// Held by the one who makes the value.
    turn: Arc<tokio::sync::Mutex<()>>,
    used: AtomicU64,
}

#[derive(Debug)]
struct Kept<V> {
    value: V,
    /// `None` if it does not last.
    version: Option<ResultsVersion>,
    at: Instant,
    /// How long it took.
    cost: Duration,
}

impl<V> Kept<V> {
    /// Whether it is shown without a look at the results.
    fn is_fresh(&self) -> bool {
        self.at.elapsed() < (self.cost * SHARE).min(LONGEST)
    }

    /// Whether it is shown while a new one is made.
    fn is_shown_meanwhile(&self) -> bool {
        self.cost > QUICK && self.at.elapsed() < LONGEST + OLDEST
    }
}

impl<K: Clone + Eq + Hash, V: Clone + Send + Sync + 'static> Cache<K, V> {
    /// An empty cache.
    pub(super) fn new(most: usize) -> Self {
        Self {
            slots: Mutex::default(),
            most,
            clock: AtomicU64::new(0),
        }
    }

    /// The value of `key`, made anew if the results have another `version` than those that it was made of.
    /// Nobody waits for one that takes long if there is an older one.
    ///
    /// # Errors
    ///
    /// Those of `version` and `make`; they are not kept.
    pub(super) async fn get<E: Send + 'static>(
        &self,
        key: K,
        version: impl Future<Output = Result<ResultsVersion, E>> + Send + 'static,
        make: impl Future<Output = Result<Fresh<V>, E>> + Send + 'static,
    ) -> Result<V, E> {
        let slot = self.slot(key);
        if let Some(value) = slot.value_if(Kept::is_fresh) {
            return Ok(value);
        }
        if let Some(value) = slot.value_if(Kept::is_shown_meanwhile) {
            if let Ok(turn) = slot.turn.clone().try_lock_owned() {
                tokio::spawn(async move {
                    // What cannot be made now is asked for by the next viewer, who hears why.
                    if slot.renew(version, make).await.is_err() {
                        *slot.lock() = None;
                    }
                    drop(turn);
                });
            }
            return Ok(value);
        }
        let _turn = slot.turn.lock().await;
        match slot.value_if(Kept::is_fresh) {
            Some(value) => Ok(value),
            None => slot.renew(version, make).await,
        }
    }

    fn slot(&self, key: K) -> Arc<Slot<V>> {
        let now = self.clock.fetch_add(1, Ordering::Relaxed);
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if !slots.contains_key(&key) && slots.len() >= self.most {
            let oldest = slots
                .iter()
                .min_by_key(|(_, slot)| slot.used.load(Ordering::Relaxed));
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                slots.remove(&oldest);
            }
        }
        let slot = slots.entry(key).or_insert_with(|| {
            Arc::new(Slot {
                kept: Mutex::new(None),
                turn: Arc::default(),
                used: AtomicU64::new(0),
            })
        });
        slot.used.store(now, Ordering::Relaxed);
        Arc::clone(slot)
    }
}

impl<V: Clone> Slot<V> {
    fn lock(&self) -> MutexGuard<'_, Option<Kept<V>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn value_if(&self, is: impl Fn(&Kept<V>) -> bool) -> Option<V> {
        let kept = self.lock();
        kept.as_ref()
            .filter(|kept| is(kept))
            .map(|kept| kept.value.clone())
    }

    /// Makes the value, if the results are others than before.
    async fn renew<E>(
        &self,
        version: impl Future<Output = Result<ResultsVersion, E>>,
        make: impl Future<Output = Result<Fresh<V>, E>>,
    ) -> Result<V, E> {
        let began = Instant::now();
        // Before anything is read: what changes meanwhile is noticed next time.
        let version = version.await?;
        let (value, lasts) = match self.value_if(|kept| kept.version == Some(version)) {
            Some(same) => (same, true),
            None => {
                let fresh = make.await?;
                (fresh.value, fresh.lasts)
            }
        };
        *self.lock() = Some(Kept {
            value: value.clone(),
            version: lasts.then_some(version),
            at: Instant::now(),
            cost: began.elapsed(),
        });
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn get(cache: &Cache<u8, u32>, key: u8, done: i64, make: Option<u32>) -> Option<u32> {
        // Longer than what was made in no time is shown.
        tokio::time::sleep(Duration::from_millis(2)).await;
        let version = async move { Ok(ResultsVersion { done, changed: 0 }) };
        let fresh = async move {
            make.map(|value| Fresh {
                value,
                lasts: value < 100,
            })
            .ok_or(())
        };
        cache.get(key, version, fresh).await.ok()
    }

    #[tokio::test]
    async fn value_is_made_again_only_when_results_changed() {
        let cache = Cache::new(2);
        assert_eq!(get(&cache, 1, 0, None).await, None, "errors are not kept");
        assert_eq!(get(&cache, 1, 0, Some(5)).await, Some(5));
        assert_eq!(get(&cache, 1, 0, Some(6)).await, Some(5));
        assert_eq!(get(&cache, 1, 1, Some(7)).await, Some(7));
        assert_eq!(get(&cache, 1, 1, Some(8)).await, Some(7));
        assert_eq!(get(&cache, 2, 1, Some(100)).await, Some(100));
        assert_eq!(
            get(&cache, 2, 1, Some(9)).await,
            Some(9),
            "the first did not last"
        );
    }

    #[tokio::test]
    async fn cache_forgets_what_was_used_longest_ago() {
        let cache = Cache::new(2);
        for key in [1, 2, 1, 3] {
            get(&cache, key, 0, Some(key.into())).await;
        }
        assert_eq!(get(&cache, 1, 0, Some(50)).await, Some(1));
        assert_eq!(get(&cache, 2, 0, Some(50)).await, Some(50));
    }

    #[tokio::test]
    async fn viewers_at_once_cost_one() {
        let cache = Cache::new(1);
        let made = Arc::new(AtomicU64::new(0));
        let view = || {
            let made = Arc::clone(&made);
            let version = async {
                Ok::<_, ()>(ResultsVersion {
                    done: 0,
                    changed: 0,
                })
            };
            let make = async move {
                made.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(20)).await;
                Ok(Fresh {
                    value: 1,
                    lasts: true,
                })
            };
            cache.get(1, version, make)
        };
        let all = futures::future::join_all((0..10).map(|_| view())).await;
        assert!(all.iter().all(|value| *value == Ok(1)));
        assert_eq!(made.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn viewers_do_not_wait_for_a_slow_value() {
        let cache = Cache::new(1);
        let slow = |done: i64, value: Option<u32>| {
            let version = async move {
                std::thread::sleep(QUICK);
                Ok(ResultsVersion { done, changed: 0 })
            };
            let make = async move { value.map(|value| Fresh { value, lasts: true }).ok_or(()) };
            cache.get(1, version, make)
        };
        let outdated = || std::thread::sleep((QUICK + Duration::from_millis(10)) * SHARE);
        assert_eq!(slow(0, Some(1)).await, Ok(1));
        outdated();
        assert_eq!(slow(1, Some(2)).await, Ok(1), "meanwhile");
        tokio::task::yield_now().await;
        assert_eq!(slow(1, None).await, Ok(2));
        outdated();
        assert_eq!(slow(2, None).await, Ok(2));
        tokio::task::yield_now().await;
        assert_eq!(slow(2, None).await, Err(()), "and why is heard");
    }
}
