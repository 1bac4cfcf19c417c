//! Text as Postgres can hold it.

/// `text` with every NUL replaced: Postgres' text cannot hold one.
pub(crate) fn without_nul(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}
