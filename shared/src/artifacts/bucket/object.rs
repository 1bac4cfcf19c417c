//! The subjects of an object, and the list of its pieces.

use async_nats::jetstream::object_store::ObjectInfo;
use base64::{Engine as _, engine::general_purpose::URL_SAFE};
use std::collections::HashMap;
use uuid::Uuid;

/// The key of the list of sequence numbers in the metadata.
const SEQUENCES: &str = "halfheard.chunks";
/// Hexadecimal digits of an object's hash in the names of its versions.
const OWNER: usize = 24;

/// An object's place in the bucket.
pub(super) struct Object {
    bucket: String,
    name: String,
    encoded: String,
}

impl Object {
    /// The object `name` of a bucket.
    pub(super) fn of(bucket: &str, name: &str) -> Self {
        Self {
            bucket: bucket.to_owned(),
            name: name.to_owned(),
            encoded: URL_SAFE.encode(name),
        }
    }

    /// The object of a subject on which versions are described.
    pub(super) fn at(bucket: &str, subject: &str) -> Option<Self> {
        let encoded = subject.strip_prefix(&format!("$O.{bucket}.M."))?;
        let name = URL_SAFE.decode(encoded).ok()?;
        Some(Self::of(bucket, &String::from_utf8(name).ok()?))
    }

    /// The subject of its descriptions.
    pub(super) fn versions(&self) -> String {
        format!("$O.{}.M.{}", self.bucket, self.encoded)
    }

    /// The subject of a version's pieces.
    pub(super) fn chunks(&self, nuid: &str) -> String {
        format!("$O.{}.C.{nuid}", self.bucket)
    }

    /// A name for a new version: the object's hash and a random number.
    pub(super) fn fresh_nuid(&self) -> String {
        format!("{}{}", self.owner(), Uuid::new_v4().simple())
    }

    /// The description of an empty version.
    pub(super) fn info(&self, nuid: String) -> ObjectInfo {
        ObjectInfo {
            name: self.name.clone(),
            description: None,
            metadata: HashMap::new(),
            headers: None,
            options: None,
            bucket: self.bucket.clone(),
            nuid,
            size: 0,
            chunks: 0,
            modified: None,
            digest: None,
            deleted: false,
        }
    }

    /// Whether a version of this name can be one of this object. Descriptions are written by workers,
    /// and none may have the pieces of another object removed.
    pub(super) fn owns(&self, nuid: &str) -> bool {
        nuid.len() == OWNER + 32
            && nuid.starts_with(&self.owner())
            && nuid.bytes().all(|b| b.is_ascii_hexdigit())
    }

    fn owner(&self) -> String {
        let hash = blake3::hash(self.encoded.as_bytes()).to_hex();
        hash.as_str()[..OWNER].to_owned()
    }
}

/// The metadata with the sequence numbers of an object's pieces: the first, then differences.
pub(super) fn listed(sequences: &[u64]) -> HashMap<String, String> {
    let mut last = 0;
    let differences: Vec<String> = sequences
        .iter()
        .map(|sequence| {
            let difference = sequence.wrapping_sub(last);
            last = *sequence;
            difference.to_string()
        })
        .collect();
    HashMap::from([(SEQUENCES.to_owned(), differences.join(","))])
}

/// The sequence numbers of an object's pieces, in order.
pub(super) fn sequences(info: &ObjectInfo) -> Result<Vec<u64>, String> {
    let list = info.metadata.get(SEQUENCES);
    let list = list.ok_or("it was not written by this program")?;
    let mut last = 0_u64;
    let sequences: Result<Vec<u64>, _> = list
        .split(',')
        .filter(|number| !number.is_empty())
        .map(|number| {
            let difference: u64 = number.parse()?;
            last = last.wrapping_add(difference);
            Ok::<u64, std::num::ParseIntError>(last)
        })
        .collect();
    let sequences = sequences.map_err(|_| "the list of its pieces cannot be read")?;
    if sequences.len() != info.chunks {
        return Err("the list of its pieces is incomplete".to_owned());
    }
    Ok(sequences)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn empty() -> ObjectInfo {
        Object::of("B", "x").info(String::new())
    }

    #[test]
    fn pieces_are_listed_in_order() {
        for sequences in [&[][..], &[7], &[7, 8, 20, 19], &[u64::MAX, 1]] {
            let info = ObjectInfo {
                chunks: sequences.len(),
                metadata: listed(sequences),
                ..empty()
            };
            assert_eq!(super::sequences(&info).unwrap(), sequences);
        }
        for (list, chunks) in [("1,2", 3), ("1,x", 2), ("-1", 1)] {
            let info = ObjectInfo {
                chunks,
                metadata: HashMap::from([(SEQUENCES.to_owned(), list.to_owned())]),
                ..empty()
            };
            assert!(super::sequences(&info).is_err(), "{list}");
        }
        assert!(super::sequences(&empty()).is_err());
    }

    #[test]
    fn version_belongs_to_its_object() {
        let (a, b) = (Object::of("B", "checkpoints/a"), Object::of("B", "x"));
        let nuid = a.fresh_nuid();
        assert!(a.owns(&nuid) && !b.owns(&nuid));
        assert_ne!(a.fresh_nuid(), nuid);
        for hostile in [">", "*", "", &nuid[1..], &format!("{}>", &nuid[..55])] {
            assert!(!a.owns(hostile), "{hostile}");
        }
        let again = Object::at("B", &a.versions()).unwrap();
        assert!(again.owns(&nuid));
        assert!(Object::at("C", &a.versions()).is_none());
    }
}
