//! Which implementation of cryptography TLS connections of this process use, and why one was refused.

use std::{error::Error, io};

/// Chooses the implementation for every TLS connection of this process that does not bring its
/// own: `reqwest` is built without one, and refuses to connect until one is chosen. Called before
/// every connection; only the first call has an effect.
pub fn choose() {
    // Fails where one has been chosen, and then that one serves.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// What rustls says of a connection that it did not let come about, wherever it lies below
/// `error`: waiting mends no certificate.
pub fn refusal<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(refused) = error.downcast_ref() {
            return Some(refused);
        }
        // An `io::Error` gives the causes of what it holds, and not what it holds.
        let held = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        next = match held {
            Some(held) => Some(held),
            None => error.source(),
        };
    }
    None
}
