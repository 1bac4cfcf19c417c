//! Published feature files, identified by their SHA-256.

use halfheard_shared::dataset::Kind;

/// A published feature file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Official {
    /// SHA-256 of the pickle, 64 hexadecimal digits.
    pub sha256: &'static str,
    /// The dataset's protocol.
    pub kind: Kind,
    /// Its publisher and its path there.
    pub name: &'static str,
}

/// All known files; `official.tsv` says where they are from.
pub fn all() -> impl Iterator<Item = Official> {
    include_str!("official.tsv")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let mut columns = line.split('\t');
            Some(Official {
                sha256: columns.next()?,
                kind: columns.next()?.parse().ok()?,
                name: columns.next()?,
            })
        })
}

/// The published file with this SHA-256.
pub fn by_sha256(sha256: &str) -> Option<Official> {
    all().find(|official| official.sha256 == sha256)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_list_is_parsed() {
        let lines = include_str!("official.tsv").lines();
        assert_eq!(all().count(), lines.filter(|l| !l.starts_with('#')).count());
        assert_eq!(all().count(), 5);
        for official in all() {
            let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
            assert!(official.sha256.len() == 64 && official.sha256.bytes().all(hex));
            assert!(
                official
                    .name
                    .to_lowercase()
                    .contains(official.kind.as_str())
            );
            assert_eq!(by_sha256(official.sha256), Some(official));
        }
        assert_eq!(by_sha256(&"0".repeat(64)), None);
    }
}
