//! Trouble that lasts is told once, not at every try.

use std::{
    fmt::Display,
    time::{Duration, Instant},
};

/// How often lasting trouble is told again.
const REMIND: Duration = Duration::from_secs(60);

/// What does not go through at present, for the log.
#[derive(Debug)]
pub struct Trouble {
    what: &'static str,
    since: Option<Instant>,
    told: Option<(Instant, String)>,
    tries: u64,
}

impl Trouble {
    /// None yet. `what` is to be said of it: `dispatch waits`.
    pub fn new(what: &'static str) -> Self {
        Self {
            what,
            since: None,
            told: None,
            tries: 0,
        }
    }

    /// It did not go through: told where that is news, and every minute. `about`: how much waits.
    pub fn met(&mut self, error: &dyn Display, about: usize) {
        let now = Instant::now();
        self.since.get_or_insert(now);
        self.tries += 1;
        let error = error.to_string();
        let known = self
            .told
            .as_ref()
            .is_some_and(|(at, before)| *before == error && at.elapsed() < REMIND);
        if known {
            tracing::debug!(error, tries = self.tries, "{}", self.what);
            return;
        }
        match about {
            0 => tracing::warn!(error, tries = self.tries, "{}", self.what),
            waiting => tracing::warn!(error, tries = self.tries, waiting, "{}", self.what),
        }
        self.told = Some((now, error));
    }

    /// It went through.
    pub fn over(&mut self) {
        if let Some(since) = self.since.take() {
            let seconds = since.elapsed().as_secs();
            tracing::info!(seconds, tries = self.tries, "{}: no longer", self.what);
            self.told = None;
            self.tries = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_trouble_is_news_once() {
        let mut trouble = Trouble::new("it waits");
        trouble.met(&"away", 3);
        let first = trouble.told.clone();
        trouble.met(&"away", 3);
        assert_eq!(trouble.told, first, "told a second time");
        trouble.met(&"refused", 3);
        assert_ne!(trouble.told, first, "another error is news");
        assert_eq!(trouble.tries, 3);
        trouble.over();
        assert!(trouble.told.is_none() && trouble.since.is_none());
        trouble.over();
    }
}
