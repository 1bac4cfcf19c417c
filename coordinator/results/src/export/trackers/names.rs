//! Names that become paths: a method, a loss or a case may be called anything.

use super::run::Key;
use std::collections::BTreeSet;

/// The longest part of a name, in characters.
const LONGEST: usize = 80;

/// One part of a path: letters, digits, `_`, `-`, `.` and spaces stay, as the trackers allow them. Never
/// `.`, `..` or nothing.
pub(super) fn part(text: &str) -> String {
    let plain = |c: char| match c {
        c if c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ' ') => c,
        _ => '_',
    };
    let text: String = text.trim().chars().take(LONGEST).map(plain).collect();
    match text.trim_matches('.').is_empty() {
        true => format!("_{}", text.len()),
        false => text,
    }
}

/// Gives each name a path of its own; names that differ only in what a path cannot hold get numbers.
#[derive(Debug, Default)]
pub(super) struct Paths(BTreeSet<String>);

impl Paths {
    pub(super) fn path(&mut self, key: &Key) -> String {
        let parts: Vec<String> = key.iter().map(|text| part(text)).collect();
        let path = parts.join("/");
        let mut unique = path.clone();
        let mut number = 2;
        while !self.0.insert(unique.to_lowercase()) {
            unique = format!("{path}-{number}");
            number += 1;
        }
        unique
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_stay_below_their_folder_and_apart() {
        for text in [
            "..",
            ".",
            "",
            " ",
            "../../etc",
            "a/b",
            "C:\\x",
            "\u{202e}\0\n",
            "r=0.3",
        ] {
            let part = part(text);
            assert!(
                !part.is_empty() && part != "." && part != "..",
                "{text:?} → {part:?}"
            );
            assert!(
                !part.contains(['/', '\\', '\0', '\n', ':']),
                "{text:?} → {part:?}"
            );
        }
        assert_eq!(part("r=0.3"), "r_0.3");
        assert!(part(&"ü".repeat(5000)).len() <= LONGEST);
        let mut paths = Paths::default();
        let mut path = |last: &str| paths.path(&vec!["test".to_owned(), last.to_owned()]);
        assert_eq!(
            [path("a=b"), path("a:b"), path("A_B")],
            ["test/a_b", "test/a_b-2", "test/A_B-3"]
        );
    }
}
