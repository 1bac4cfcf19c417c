//! Growing pauses between tries.

use std::time::Duration;

/// 100 ms, 200 ms, ... up to 5 s, until something succeeds.
#[derive(Debug, Default)]
pub struct Backoff {
    tries: u32,
}

impl Backoff {
    /// The pause before the next try.
    pub fn pause(&mut self) -> Duration {
        let pause = Duration::from_millis(100) * 2_u32.pow(self.tries.min(6));
        self.tries += 1;
        pause.min(Duration::from_secs(5))
    }

    /// Something succeeded.
    pub fn reset(&mut self) {
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_a_bound_and_starts_anew() {
        let mut backoff = Backoff::default();
        let first = backoff.pause();
        let pauses: Vec<Duration> = (0..10).map(|_| backoff.pause()).collect();
        assert!(pauses.windows(2).all(|pair| pair[0] <= pair[1]));
        assert_eq!(pauses.last(), Some(&Duration::from_secs(5)));
        backoff.reset();
        assert_eq!(backoff.pause(), first);
    }
}
