//! What workers say of themselves, read as from a stranger: bounded, and without characters that
//! would drive the terminal on which it is shown.

use super::{Ask, Heartbeat, WorkerInfo};
use crate::text::{plain, valid_worker};

/// The longest request or heartbeat in bytes. One attempt that a worker holds takes about 200.
const MAX_BYTES: usize = 512 << 10;
/// Characters of a name, a device, a label.
const NAME: usize = 200;
/// Characters of a sentence.
const SENTENCE: usize = 2000;
/// Entries of a list of names.
const NAMES: usize = 200;
/// Entries of an error chain.
const CAUSES: usize = 16;

/// Why a request or heartbeat cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// More than a worker has to say.
    #[error("it has {0} bytes, over the limit of {MAX_BYTES}")]
    TooLarge(usize),
    /// Not what it should be.
    #[error("it cannot be read")]
    Json(#[from] serde_json::Error),
    /// A name that the broker would not have let it speak under.
    #[error("its worker's name is not one")]
    Name,
}

impl Ask {
    /// Reads a request.
    ///
    /// # Errors
    ///
    /// See [`Unusable`].
    pub fn read(bytes: &[u8]) -> Result<Self, Unusable> {
        let mut ask: Self = json(bytes)?;
        worker(&mut ask.worker)?;
        names(&mut ask.methods);
        names(&mut ask.labels);
        if let Some(store) = &mut ask.store {
            *store = bounded(store, NAME);
        }
        Ok(ask)
    }
}

impl Heartbeat {
    /// Reads a heartbeat.
    ///
    /// # Errors
    ///
    /// See [`Unusable`].
    pub fn read(bytes: &[u8]) -> Result<Self, Unusable> {
        let mut beat: Self = json(bytes)?;
        worker(&mut beat.worker)?;
        names(&mut beat.methods);
        names(&mut beat.labels);
        if let Some(doing) = &mut beat.doing {
            doing.what = bounded(&doing.what, SENTENCE);
        }
        if let Some(trouble) = &mut beat.trouble {
            let fault = &mut trouble.fault;
            fault.what = bounded(&fault.what, SENTENCE);
            fault.chain.truncate(CAUSES);
            for cause in &mut fault.chain {
                *cause = bounded(cause, SENTENCE);
            }
        }
        Ok(beat)
    }
}

fn json<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, Unusable> {
    if bytes.len() > MAX_BYTES {
        return Err(Unusable::TooLarge(bytes.len()));
    }
    Ok(serde_json::from_slice(bytes)?)
}

fn worker(info: &mut WorkerInfo) -> Result<(), Unusable> {
    if !valid_worker(&info.name) {
        return Err(Unusable::Name);
    }
    let WorkerInfo {
        name: _,
        host,
        device,
        version,
        processor,
    } = info;
    for text in [host, device, version, processor] {
        *text = bounded(text, NAME);
    }
    Ok(())
}

fn names(list: &mut Vec<String>) {
    list.truncate(NAMES);
    for name in list {
        *name = bounded(name, NAME);
    }
}

fn bounded(text: &str, most: usize) -> String {
    let end = text
        .char_indices()
        .nth(most)
        .map_or(text.len(), |(at, _)| at);
    plain(&text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{JobId, SweepId};
    use crate::wire::{Doing, Fault, FaultKind, Trouble};

    const EVIL: &str = "a\u{1b}]0;owned\u{7}\u{1b}[2J\u{9b}31m\u{202e}b\r\n";

    fn info(name: &str) -> WorkerInfo {
        WorkerInfo {
            name: name.to_owned(),
            host: EVIL.to_owned(),
            device: EVIL.to_owned(),
            version: EVIL.to_owned(),
            processor: EVIL.to_owned(),
        }
    }

    fn beat(name: &str) -> Heartbeat {
        Heartbeat {
            worker: info(name),
            pid: 1,
            session: uuid::Uuid::nil(),
            holds: Vec::new(),
            at_ms: 0,
            memory_bytes: 0,
            doing: Some(Doing {
                sweep: SweepId::derive(&[b"s"]),
                job: JobId::derive(&[b"j"]),
                what: EVIL.repeat(1000),
                epoch: 0,
                max_epochs: 0,
                step: 0,
                steps: 0,
                loss: None,
                case: 0,
                cases: 0,
            }),
            trouble: Some(Trouble {
                fault: Fault {
                    kind: FaultKind::Store,
                    what: EVIL.to_owned(),
                    chain: vec![EVIL.to_owned(); 100],
                },
                since_ms: 0,
                times: 1,
                next_try_ms: None,
                sits_out: true,
            }),
            wire: 4,
            methods: vec![EVIL.to_owned(); 1000],
            labels: vec![EVIL.to_owned()],
            device_memory: 0,
        }
    }

    #[test]
    fn escape_sequences_of_workers_are_taken_out() {
        let json = serde_json::to_vec(&beat("gpu7-0")).unwrap();
        let read = Heartbeat::read(&json).unwrap();
        let shown = format!("{read:#?}");
        // `Debug` writes what it escapes as `\u{..}`.
        assert!(!shown.contains("\\u{1b}") && !shown.contains("\\u{9b}") && !shown.contains("\\r"));
        assert!(!shown.contains("\\u{202e}") && shown.contains("owned"));
        assert!(read.methods.len() <= NAMES);
        assert_eq!(read.trouble.unwrap().fault.chain.len(), CAUSES);
        assert!(read.doing.unwrap().what.chars().count() <= SENTENCE);
    }

    #[test]
    fn unusable_heartbeat_is_refused() {
        for name in ["", "a b", "a\u{1b}[2J", "a.b.c", ">"] {
            let json = serde_json::to_vec(&beat(name)).unwrap();
            assert!(
                matches!(Heartbeat::read(&json), Err(Unusable::Name)),
                "{name}"
            );
        }
        assert!(matches!(Heartbeat::read(b"{"), Err(Unusable::Json(_))));
        let long = vec![b' '; MAX_BYTES + 1];
        assert!(matches!(Heartbeat::read(&long), Err(Unusable::TooLarge(_))));
        assert!(matches!(Ask::read(&long), Err(Unusable::TooLarge(_))));
    }
}
