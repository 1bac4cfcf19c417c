//! Text of workers as it may be stored: Postgres' text cannot hold a NUL, and what is stored will be
//! printed on somebody's terminal.

use halfheard_shared::text::plain;

/// Most characters of a name.
pub(crate) const NAME: usize = 200;
/// Most characters of one entry of an error chain.
const CAUSE: usize = 2000;
/// Most entries of an error chain that are kept.
const CAUSES: usize = 16;

/// `text` without control characters, cut after `most` characters.
pub(crate) fn bounded(text: &str, most: usize) -> String {
    let end = text.char_indices().nth(most).map_or(text.len(), |(i, _)| i);
    plain(&text[..end])
}

/// A worker's error and its causes, cut where they are endless.
pub(crate) fn causes<'a>(chain: impl IntoIterator<Item = &'a String>) -> Vec<String> {
    chain
        .into_iter()
        .take(CAUSES)
        .map(|text| bounded(text, CAUSE))
        .collect()
}

/// The last bytes of what a program wrote, at most `most`. Line breaks and all else stays but NUL.
pub(crate) fn tail(text: &str, most: usize) -> String {
    let excess = text.len().saturating_sub(most);
    let from = (excess..text.len()).find(|&at| text.is_char_boundary(at));
    // Of the same length as what it stands for: the limit holds.
    text[from.unwrap_or(text.len())..].replace('\0', "?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endless_hostile_chain_is_cut_and_cleaned() {
        let chain = vec!["ü\x1b[2J\0".repeat(5000); 100];
        let kept = causes(&chain);
        assert_eq!(kept.len(), CAUSES);
        assert!(kept.iter().all(|text| text.chars().count() == CAUSE));
        assert!(!kept[0].contains(char::is_control));
    }

    #[test]
    fn tail_ends_as_the_text_does_without_nul() {
        assert_eq!(tail("line\r\nä\0end", 5), "?end");
        assert_eq!(tail("line\n\0", 100), "line\n?");
        assert_eq!(tail("ä", 1), "");
    }
}
