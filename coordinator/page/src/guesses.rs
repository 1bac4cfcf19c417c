//! How often each address may guess the token.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Wrong guesses before an address has to wait.
const MAX_GUESSES: u32 = 10;
/// How long wrong guesses count.
const WINDOW: Duration = Duration::from_secs(60);
/// The most addresses that are remembered.
const MAX_ADDRESSES: usize = 4096;

/// The wrong guesses of the last minute.
#[derive(Debug, Default)]
pub(crate) struct Guesses(Mutex<HashMap<IpAddr, (Instant, u32)>>);

impl Guesses {
    /// Whether this address may guess. Even the right token is refused then: otherwise there would be
    /// no limit.
    pub(crate) fn may(&self, address: IpAddr) -> bool {
        let mut all = self.lock();
        all.retain(|_, (since, _)| since.elapsed() < WINDOW);
        // An attacker with that many addresses is not stopped by forgetting some.
        let known = all.get(&network(address));
        all.len() < MAX_ADDRESSES && known.is_none_or(|(_, wrong)| *wrong < MAX_GUESSES)
    }

    /// A guess was wrong.
    pub(crate) fn wrong(&self, address: IpAddr) {
        let mut all = self.lock();
        let (_, wrong) = all
            .entry(network(address))
            .or_insert_with(|| (Instant::now(), 0));
        *wrong += 1;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<IpAddr, (Instant, u32)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The address, or for IPv6 the network of which one customer has all addresses.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_guesses_block_their_network_only() {
        let guesses = Guesses::default();
        let address: IpAddr = "2001:db8::1".parse().unwrap();
        for _ in 0..MAX_GUESSES {
            assert!(guesses.may(address));
            guesses.wrong(address);
        }
        assert!(!guesses.may("2001:db8::2".parse().unwrap()));
        assert!(guesses.may("2001:db8:0:1::1".parse().unwrap()));
        assert!(guesses.may("127.0.0.1".parse().unwrap()));
    }
}
