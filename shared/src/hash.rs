//! BLAKE3 hashes, by which artifacts, datasets and encoders are named.

use crate::error::Hint;
use std::{fmt, path::Path, str::FromStr};

/// A BLAKE3 hash as 64 lower-case hexadecimal digits: safe as a file name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hash(String);

impl Hash {
    /// The hash of `content`.
    pub fn of(content: &[u8]) -> Self {
        Self(blake3::hash(content).to_hex().to_string())
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<blake3::Hash> for Hash {
    fn from(hash: blake3::Hash) -> Self {
        Self(hash.to_hex().to_string())
    }
}

impl FromStr for Hash {
    type Err = InvalidHash;

    fn from_str(digits: &str) -> Result<Self, InvalidHash> {
        let ok = digits.len() == 64
            && digits
                .bytes()
                .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if ok {
            Ok(Self(digits.to_owned()))
        } else {
            Err(InvalidHash(digits.chars().take(80).collect()))
        }
    }
}

impl TryFrom<String> for Hash {
    type Error = InvalidHash;

    fn try_from(digits: String) -> Result<Self, InvalidHash> {
        digits.parse()
    }
}

impl From<Hash> for String {
    fn from(hash: Hash) -> Self {
        hash.0
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An invalid hash: not 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a BLAKE3 hash")]
pub struct InvalidHash(pub String);

impl Hint for InvalidHash {
    fn hint(&self) -> Option<String> {
        Some("a hash has 64 lowercase hexadecimal digits".to_owned())
    }
}

/// The BLAKE3 hash of a file, read through memory mapping. Blocks.
pub fn hash_file(path: &Path) -> std::io::Result<Hash> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_mmap(path)?;
    Ok(hasher.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_valid_hash_is_a_file_name() {
        assert!("../../etc/passwd".parse::<Hash>().is_err());
        assert!(Hash::of(b"x").as_str().parse::<Hash>().is_ok());
        assert!(
            Hash::of(b"x")
                .as_str()
                .to_uppercase()
                .parse::<Hash>()
                .is_err()
        );
    }
}
