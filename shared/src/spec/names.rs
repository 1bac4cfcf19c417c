//! Names that a spec gives, and lists without repetitions.

use super::place::{Checker, Step};
use std::{collections::BTreeSet, fmt::Display};

/// Valid characters of names. ASCII only: names are parts of paths, ids and commands.
pub(super) const NAME: &str = "1 to 64 of the letters a to z and A to Z, digits, `-`, `_` and `.`";

pub(super) fn plain_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    !name.is_empty() && name.len() <= 64 && name.chars().all(plain)
}

/// A valid name that keeps as much of `name` as possible; `otherwise` with a number if nothing is
/// left.
pub(super) fn safe_name(name: &str, otherwise: &str) -> String {
    let mut safe = String::new();
    for c in name.chars() {
        if c.is_ascii_alphanumeric() || "_.".contains(c) {
            safe.push(c);
        } else if !safe.is_empty() && !safe.ends_with('-') {
            safe.push('-');
        }
        if safe.len() == 64 {
            break;
        }
    }
    let safe = safe.trim_matches(|c: char| "-_.".contains(c));
    if safe.chars().any(|c| c.is_ascii_alphabetic()) {
        safe.to_owned()
    } else if safe.is_empty() {
        format!("{otherwise}-1")
    } else {
        format!("{otherwise}-{safe}")
    }
}

/// Reports each repeated value.
pub(super) fn duplicates<T: Ord + Display>(
    values: &[T],
    key: &str,
    what: &str,
    checker: &mut Checker<'_>,
) {
    let mut seen = BTreeSet::new();
    for (i, value) in values.iter().enumerate() {
        if !seen.insert(value) {
            checker.problem(
                &[Step::Key(key), Step::Index(i)],
                format!("the {what} {value} is listed twice"),
                "again",
                Some("remove one".to_owned()),
            );
        }
    }
}
