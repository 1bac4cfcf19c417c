//! Answers that viewers share, by what was asked for.

use crate::kept::Kept;
use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Answers by key, at most `most`: those that were used last.
#[derive(Debug)]
pub(crate) struct Cache<K, T> {
    places: Mutex<Places<K, T>>,
    most: usize,
}

#[derive(Debug)]
struct Places<K, T> {
    all: HashMap<K, Used<T>>,
    /// Counts uses.
    clock: u64,
}

#[derive(Debug)]
struct Used<T> {
    kept: Arc<Kept<T>>,
    at: u64,
}

impl<K: Clone + Eq + Hash, T> Cache<K, T> {
    /// An empty cache.
    pub(crate) fn new(most: usize) -> Self {
        let (all, clock) = (HashMap::new(), 0);
        Self {
            places: Mutex::new(Places { all, clock }),
            most,
        }
    }

    /// Where the answer to `key` is kept.
    pub(crate) fn at(&self, key: K) -> Arc<Kept<T>> {
        let mut places = self.lock();
        places.clock += 1;
        let at = places.clock;
        if !places.all.contains_key(&key) && places.all.len() >= self.most {
            let oldest = places.all.iter().min_by_key(|(_, used)| used.at);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                places.all.remove(&oldest);
            }
        }
        let used = places.all.entry(key).or_insert_with(|| Used {
            kept: Arc::default(),
            at,
        });
        used.at = at;
        used.kept.clone()
    }

    /// Forgets all, because the page itself changed something.
    pub(crate) fn forget(&self) {
        self.lock().all.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Places<K, T>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn cache_forgets_what_was_used_longest_ago() {
        let cache = Cache::new(2);
        let get = |key: u8, value: u32| {
            let kept = cache.at(key);
            async move { *kept.get(async move { Ok::<u32, ()>(value) }).await.unwrap() }
        };
        for key in [1, 2, 1, 3] {
            get(key, key.into()).await;
        }
        assert_eq!(get(1, 50).await, 1);
        assert_eq!(get(2, 50).await, 50, "3 took its place");
        cache.forget();
        assert_eq!(get(1, 60).await, 60);
    }
}
