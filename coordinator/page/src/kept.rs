//! Answers of the database that viewers share.

use std::{
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// How long an answer of unknown age is shown at least before the database is asked again.
const FRESH: Duration = Duration::from_secs(1);
/// An answer that took long is shown this many times as long: the database has other work.
const SHARE: u32 = 8;
/// But not longer than this.
const LONGEST: Duration = Duration::from_secs(60);
/// Viewers do not wait for an answer that takes longer than this: they have the last one meanwhile.
const QUICK: Duration = Duration::from_millis(100);
/// But none that should have been replaced longer ago than this.
const OVERDUE: Duration = Duration::from_secs(60);

/// An answer, asked for once at a time.
#[derive(Debug)]
pub(crate) struct Kept<T>(Arc<Place<T>>);

#[derive(Debug)]
struct Place<T> {
    answer: Mutex<Option<Answer<T>>>,
    /// Held by the one who asks.
    turn: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug)]
struct Answer<T> {
    value: Arc<T>,
    at: Instant,
    /// How long the database took.
    cost: Duration,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(Arc::new(Place {
            answer: Mutex::new(None),
            turn: Arc::default(),
        }))
    }
}

impl<T: Send + Sync + 'static> Kept<T> {
    /// The last answer, or a new one of `ask` if that is old. Who comes meanwhile waits for it, unless it
    /// takes long: then it is asked for in the background.
    ///
    /// # Errors
    ///
    /// Those of `ask`.
    pub(crate) async fn get<E: Send + 'static>(
        &self,
        ask: impl Future<Output = Result<T, E>> + Send + 'static,
    ) -> Result<Arc<T>, E> {
        self.get_unless(|answer| answer.age() < FRESH.max(answer.shown()), ask)
            .await
    }

    /// The last answer if it `is_right`, or a new one of `ask`. Nobody waits for one that takes long if there
    /// is another: that one is shown although it is no longer right.
    ///
    /// # Errors
    ///
    /// Those of `ask`.
    pub(crate) async fn get_right<E: Send + 'static>(
        &self,
        is_right: impl Fn(&T) -> bool,
        ask: impl Future<Output = Result<T, E>> + Send + 'static,
    ) -> Result<Arc<T>, E> {
        let shown = |answer: &Answer<T>| {
            is_right(&answer.value) || (answer.is_slow() && answer.age() < answer.shown())
        };
        self.get_unless(shown, ask).await
    }

    /// The last answer, however old.
    pub(crate) fn last(&self) -> Option<Arc<T>> {
        self.0.value_if(|_| true)
    }

    async fn get_unless<E: Send + 'static>(
        &self,
        shown: impl Fn(&Answer<T>) -> bool,
        ask: impl Future<Output = Result<T, E>> + Send + 'static,
    ) -> Result<Arc<T>, E> {
        if let Some(value) = self.0.value_if(&shown) {
            return Ok(value);
        }
        if let Some(value) = self.0.value_if(Answer::is_shown_meanwhile) {
            if let Ok(turn) = self.0.turn.clone().try_lock_owned() {
                let place = self.0.clone();
                tokio::spawn(async move {
                    // What cannot be had now is asked for by the next viewer, who hears why.
                    *place.lock() = Answer::ask(ask).await.ok();
                    drop(turn);
                });
            }
            return Ok(value);
        }
        let _turn = self.0.turn.lock().await;
        if let Some(value) = self.0.value_if(&shown) {
            return Ok(value);
        }
        let answer = Answer::ask(ask).await?;
        let value = answer.value.clone();
        *self.0.lock() = Some(answer);
        Ok(value)
    }

    /// Replaces the answer by a new one; meanwhile viewers have the last one. Returns how long the new one
    /// is shown.
    ///
    /// # Errors
    ///
    /// Those of `ask`.
    pub(crate) async fn renew<E>(
        &self,
        ask: impl Future<Output = Result<T, E>>,
    ) -> Result<Duration, E> {
        let answer = Answer::ask(ask).await?;
        let shown = FRESH.max(answer.shown());
        *self.0.lock() = Some(answer);
        Ok(shown)
    }

    /// Forgets the answer, because the page itself changed something.
    pub(crate) async fn forget(&self) {
        // One that is being asked for may be from before the change.
        let _turn = self.0.turn.lock().await;
        *self.0.lock() = None;
    }
}

impl<T> Place<T> {
    fn lock(&self) -> MutexGuard<'_, Option<Answer<T>>> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn value_if(&self, is: impl Fn(&Answer<T>) -> bool) -> Option<Arc<T>> {
        let answer = self.lock();
        let answer = answer.as_ref().filter(|answer| is(answer))?;
        Some(answer.value.clone())
    }
}

impl<T> Answer<T> {
    async fn ask<E>(ask: impl Future<Output = Result<T, E>>) -> Result<Self, E> {
        let began = Instant::now();
        let value = Arc::new(ask.await?);
        Ok(Self {
            value,
            at: Instant::now(),
            cost: began.elapsed(),
        })
    }

    fn age(&self) -> Duration {
        self.at.elapsed()
    }

    fn is_slow(&self) -> bool {
        self.cost > QUICK
    }

    /// How long it is shown for what it cost.
    fn shown(&self) -> Duration {
        (self.cost * SHARE).min(LONGEST)
    }

    fn is_shown_meanwhile(&self) -> bool {
        self.is_slow() && self.age() < self.shown() + OVERDUE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[tokio::test]
    async fn answer_is_shared_until_it_is_forgotten() {
        let kept = Kept::default();
        let ask = |value: u32| async move { Ok::<u32, ()>(value) };
        assert_eq!(kept.get(ask(1)).await.as_deref(), Ok(&1));
        assert_eq!(kept.get(ask(2)).await.as_deref(), Ok(&1), "still fresh");
        kept.forget().await;
        assert_eq!(kept.get(async { Err(()) }).await, Err(()));
        assert_eq!(
            kept.get(ask(3)).await.as_deref(),
            Ok(&3),
            "errors are not kept"
        );
    }

    #[tokio::test]
    async fn viewers_do_not_wait_for_a_slow_answer() {
        let kept = Kept::default();
        let slow = |value: Result<u32, ()>| async move {
            std::thread::sleep(QUICK + Duration::from_millis(1));
            value
        };
        assert_eq!(kept.get(slow(Ok(1))).await.as_deref(), Ok(&1));
        std::thread::sleep(FRESH.max(kept.0.lock().as_ref().unwrap().shown()));
        assert_eq!(kept.get(slow(Ok(2))).await.as_deref(), Ok(&1), "meanwhile");
        tokio::task::yield_now().await;
        assert_eq!(kept.get(slow(Ok(3))).await.as_deref(), Ok(&2));
        std::thread::sleep(FRESH.max(kept.0.lock().as_ref().unwrap().shown()));
        assert_eq!(kept.get(slow(Err(()))).await.as_deref(), Ok(&2));
        tokio::task::yield_now().await;
        assert_eq!(kept.get(slow(Err(()))).await, Err(()), "and why is heard");
    }

    #[tokio::test]
    async fn value_is_made_again_only_when_it_is_not_right() {
        let kept = Kept::default();
        let get = |right: u32, make: Result<u32, ()>| {
            let kept = &kept;
            async move {
                let value = kept.get_right(|value| *value == right, async move { make });
                value.await.map(|value| *value)
            }
        };
        assert_eq!(get(5, Err(())).await, Err(()), "errors are not kept");
        assert_eq!(get(5, Ok(5)).await, Ok(5));
        assert_eq!(get(5, Ok(6)).await, Ok(5));
        assert_eq!(get(7, Ok(7)).await, Ok(7), "at once");
        assert_eq!(kept.last().as_deref(), Some(&7));
    }

    #[tokio::test]
    async fn slow_value_is_shown_although_it_is_no_longer_right() {
        let kept = Kept::default();
        let slow = |value: u32| async move {
            std::thread::sleep(QUICK + Duration::from_millis(1));
            Ok::<u32, ()>(value)
        };
        let get = |right: u32| kept.get_right(move |value| *value == right, slow(right));
        assert_eq!(get(1).await.as_deref(), Ok(&1));
        assert_eq!(get(2).await.as_deref(), Ok(&1), "it was made just now");
        std::thread::sleep(kept.0.lock().as_ref().unwrap().shown());
        assert_eq!(get(2).await.as_deref(), Ok(&1), "meanwhile");
        tokio::task::yield_now().await;
        assert_eq!(get(2).await.as_deref(), Ok(&2));
    }

    #[tokio::test]
    async fn viewers_at_once_cost_one() {
        let kept = Kept::default();
        let made = Arc::new(AtomicU32::new(0));
        let view = || {
            let made = Arc::clone(&made);
            let make = async move {
                made.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(20)).await;
                Ok::<u32, ()>(1)
            };
            kept.get_right(|value| *value == 1, make)
        };
        let all = futures::future::join_all((0..10).map(|_| view())).await;
        assert!(all.iter().all(|value| value.as_deref() == Ok(&1)));
        assert_eq!(made.load(Ordering::Relaxed), 1);
    }
}
