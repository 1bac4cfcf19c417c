//! Answers of the database that viewers share.

use std::{
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// How long an answer is shown at least before the database is asked again.
const FRESH: Duration = Duration::from_secs(1);
/// An answer that took long is shown this many times as long: the database has other work.
const SHARE: u32 = 8;
/// Viewers do not wait for an answer that takes longer than this: they have the last one meanwhile.
pub(crate) const QUICK: Duration = Duration::from_millis(100);
/// But none that is older than this.
pub(crate) const OLDEST: Duration = Duration::from_secs(60);

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
        if let Some(value) = self.fresh() {
            return Ok(value);
        }
        if let Some(value) = self.shown_meanwhile() {
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
        if let Some(value) = self.fresh() {
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
        let shown = answer.shown();
        *self.0.lock() = Some(answer);
        Ok(shown)
    }

    /// Forgets the answer, because the page itself changed something.
    pub(crate) async fn forget(&self) {
        // One that is being asked for may be from before the change.
        let _turn = self.0.turn.lock().await;
        *self.0.lock() = None;
    }

    fn fresh(&self) -> Option<Arc<T>> {
        let answer = self.0.lock();
        let answer = answer.as_ref()?;
        (answer.at.elapsed() < answer.shown()).then(|| answer.value.clone())
    }

    fn shown_meanwhile(&self) -> Option<Arc<T>> {
        let answer = self.0.lock();
        let answer = answer.as_ref()?;
        (answer.cost > QUICK && answer.at.elapsed() < OLDEST).then(|| answer.value.clone())
    }
}

impl<T> Place<T> {
    fn lock(&self) -> MutexGuard<'_, Option<Answer<T>>> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
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

    fn shown(&self) -> Duration {
        FRESH.max(self.cost * SHARE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        std::thread::sleep(kept.0.lock().as_ref().unwrap().shown());
        assert_eq!(kept.get(slow(Ok(2))).await.as_deref(), Ok(&1), "meanwhile");
        tokio::task::yield_now().await;
        assert_eq!(kept.get(slow(Ok(3))).await.as_deref(), Ok(&2));
        std::thread::sleep(kept.0.lock().as_ref().unwrap().shown());
        assert_eq!(kept.get(slow(Err(()))).await.as_deref(), Ok(&2));
        tokio::task::yield_now().await;
        assert_eq!(kept.get(slow(Err(()))).await, Err(()), "and why is heard");
    }
}
