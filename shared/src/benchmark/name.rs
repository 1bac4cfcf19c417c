//! Names of datasets.

/// Whether `name` is a valid dataset name: 1 to 64 letters, digits, `-`, `_` or `.`, not starting with
/// `.`. It is then a valid folder name everywhere, not hidden, and cannot leave its parent.
pub fn valid_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 64
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}
