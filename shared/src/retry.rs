//! Retries with exponential backoff.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);

/// The growing delays between attempts: 100 ms, 200 ms, … up to 5 s.
///
/// For loops that also wait for something else or decide by themselves when to stop; others call [`while_transient`].
#[derive(Debug, Default)]
pub struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// The delay before the next attempt.
    pub fn delay(&mut self) -> Duration {
        let delay = FIRST * 2_u32.pow(self.attempts.min(6));
        self.attempts += 1;
        delay.min(LONGEST)
    }

    /// Sleeps for the next delay.
    pub async fn wait(&mut self) {
        tokio::time::sleep(self.delay()).await;
    }

    /// Starts over with the shortest delay, after a success.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }
}

/// Repeats `action` while its error is transient. `notify` sees each error that is followed by a retry.
///
/// ```
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
/// # runtime.block_on(async {
/// use halfheard_shared::retry::while_transient;
///
/// let mut failures = 0;
/// let outcome = while_transient(
///     || { failures += 1; std::future::ready(if failures < 3 { Err("busy") } else { Ok(failures) }) },
///     |error| *error == "busy",
///     |error| eprintln!("{error}; retrying"),
/// );
/// assert_eq!(outcome.await, Ok(3));
/// # });
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
///
/// The first error that is not transient.
pub async fn while_transient<T, E, Attempt: Future<Output = Result<T, E>>>(
    mut action: impl FnMut() -> Attempt,
    is_transient: impl Fn(&E) -> bool,
    notify: impl Fn(&E),
) -> Result<T, E> {
    let mut backoff = Backoff::default();
    loop {
        match action().await {
            Err(error) if is_transient(&error) => {
                notify(&error);
                backoff.wait().await;
            }
            outcome => return outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delay_grows_to_limit_and_resets() {
        let mut backoff = Backoff::default();
        let first = backoff.delay();
        let delays: Vec<Duration> = (0..10).map(|_| backoff.delay()).collect();
        assert!(delays.windows(2).all(|pair| pair[0] <= pair[1]));
        assert_eq!(delays.last(), Some(&Duration::from_secs(5)));
        backoff.reset();
        assert_eq!(backoff.delay(), first);
    }

    #[tokio::test]
    async fn permanent_error_ends_retries() {
        let mut errors = [true, true, false].into_iter();
        let outcome = while_transient(
            || std::future::ready(Err::<(), _>(errors.next().unwrap())),
            |&transient| transient,
            |_| {},
        );
        assert_eq!(outcome.await, Err(false));
    }
}
