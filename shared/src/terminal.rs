//! Text for a terminal: what came from elsewhere without control characters, commands as they can be
//! pasted into a shell.

use std::borrow::Cow;

/// `text` without control characters: names and errors come from other machines, and an escape
/// sequence in one would run in the reader's terminal. Line breaks and tabs become spaces.
pub fn plain(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\t' => ' ',
            // Also those that turn the direction of writing round.
            c if c.is_control()
                || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') =>
            {
                '\u{fffd}'
            }
            c => c,
        })
        .collect()
}

/// `word` as one word of a shell's command line, quoted where it has to be.
pub fn quoted(word: &str) -> Cow<'_, str> {
    // Fails for a NUL only, which no path or name of ours has.
    shlex::try_quote(word).unwrap_or_else(|_| Cow::Owned(plain(word)))
}

/// A path as [`quoted`].
pub fn quoted_path(path: &std::path::Path) -> String {
    quoted(&path.display().to_string()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_do_not_reach_the_terminal() {
        assert_eq!(
            plain("a\x1b[31mb\nc\u{202e}d\te"),
            "a\u{fffd}[31mb c\u{fffd}d e"
        );
        assert_eq!(plain("数据 ü"), "数据 ü");
    }

    #[test]
    fn printed_commands_can_be_pasted() {
        assert_eq!(quoted("plain-1.toml"), "plain-1.toml");
        for word in ["my stuff/mü 数据", "it's", "$HOME", "a;b", ""] {
            let line = format!("coord status {}", quoted(word));
            assert_eq!(shlex::split(&line).unwrap(), ["coord", "status", word]);
        }
    }
}
