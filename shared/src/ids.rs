//! Identifiers derived from content: the same thing always has the same id.
//!
//! An id is the first 128 bits of a BLAKE3 hash over length-prefixed parts, kept as a UUID (version
//! 8, "custom") because Postgres has a 16-byte type for it and people can read it.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use uuid::Uuid;

/// Hashes `parts` under a `domain` so that ids of different kinds never collide.
///
/// Each part is prefixed by its length: `["ab", "c"]` and `["a", "bc"]` differ.
fn derive(domain: &str, parts: &[&[u8]]) -> Uuid {
    let mut hasher = blake3::Hasher::new();
    for part in std::iter::once(domain.as_bytes()).chain(parts.iter().copied()) {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $domain:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// The id of what `parts` describe.
            pub fn derive(parts: &[&[u8]]) -> Self {
                Self(derive($domain, parts))
            }

            /// The first eight hexadecimal digits, for people.
            pub fn short(&self) -> String {
                self.0.simple().to_string()[..8].to_owned()
            }

            /// The sixteen bytes, to derive further ids from.
            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(s: &str) -> Result<Self, Self::Err> {
                Ok(Self(s.parse()?))
            }
        }
    };
}

id!(
    /// One submitted spec, after every default, data hash and override has been filled in.
    SweepId,
    "sweep"
);
id!(
    /// One training or evaluation job, by its content: sweeps that ask for the same share it.
    JobId,
    "job"
);
id!(
    /// One delivery of a job to one worker.
    AttemptId,
    "attempt"
);

impl AttemptId {
    /// A fresh id: an attempt is an event, not content.
    pub fn fresh(job: JobId, worker: &str, delivery: u64) -> Self {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |d| d.as_nanos());
        Self::derive(&[
            job.as_bytes(),
            worker.as_bytes(),
            &delivery.to_le_bytes(),
            &now.to_le_bytes(),
            &std::process::id().to_le_bytes(),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_parts_are_delimited() {
        assert_ne!(JobId::derive(&[b"ab", b"c"]), JobId::derive(&[b"a", b"bc"]));
        assert_ne!(
            JobId::derive(&[b"x"]).0,
            SweepId::derive(&[b"x"]).0,
            "kinds do not collide"
        );
    }

    #[test]
    fn id_round_trips_through_text() {
        let id = JobId::derive(&[b"x"]);
        assert_eq!(id.to_string().parse::<JobId>().unwrap(), id);
        assert_eq!(id.short().len(), 8);
    }
}
