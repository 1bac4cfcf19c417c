//! Words and numbers of printed sentences.

/// `1 seed`, `2 seeds`.
pub(crate) fn plural(count: usize, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        count => format!("{count} {noun}s"),
    }
}
