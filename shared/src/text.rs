//! Text for people: counts that agree, foreign text without control characters, commands that can be pasted into a shell.

use std::{borrow::Cow, path::Path};

/// A number with its noun, which gets an "s" unless there is one.
///
/// ```
/// use halfheard_shared::text::count;
/// assert_eq!(count(1, "job"), "1 job");
/// assert_eq!(count(0, "job"), "0 jobs");
/// ```
pub fn count(number: usize, noun: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{ending}")
}

/// `text` without control characters: names and errors come from other machines, and an escape sequence in one would run
/// in the reader's terminal. Line breaks and tabs become spaces.
///
/// ```
/// use halfheard_shared::text::plain;
/// assert_eq!(plain("gpu\x1b[31m7\n"), "gpu\u{fffd}[31m7 ");
/// ```
pub fn plain(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\t' => ' ',
            // Also those that change the writing direction, and line ends that are no controls.
            c if c.is_control()
                || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
                    | '\u{2066}'..='\u{2069}') =>
            {
                '\u{fffd}'
            }
            c => c,
        })
        .collect()
}

/// A number of bytes as people write it: `64GB`, `1.5 TB`, `512 MiB`, `1000`. `None` if it is not one.
///
/// ```
/// use halfheard_shared::text::parse_bytes;
/// assert_eq!(parse_bytes("1.5 GB"), Some(1_500_000_000));
/// assert_eq!(parse_bytes("2MiB"), Some(2 << 20));
/// assert_eq!(parse_bytes("many"), None);
/// ```
pub fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, unit) = text.split_at(digits.unwrap_or(text.len()));
    let unit: f64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        "tb" => 1e12,
        "kib" => 1024.0,
        "mib" => 1_048_576.0,
        "gib" => 1_073_741_824.0,
        "tib" => 1_099_511_627_776.0,
        _ => return None,
    };
    let bytes = number.parse::<f64>().ok()? * unit;
    // Exact up to 2^53, beyond any disk.
    (bytes.is_finite() && bytes < 9e15).then_some(bytes as u64)
}

/// `word` as one word of a shell command, quoted if necessary.
pub fn quoted(word: &str) -> Cow<'_, str> {
    // Fails only on NUL, which no path or name contains.
    shlex::try_quote(word).unwrap_or_else(|_| Cow::Owned(plain(word)))
}

/// A path, quoted like [`quoted`].
pub fn quoted_path(path: &Path) -> String {
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
        for c in [
            '\u{9b}', '\u{7f}', '\0', '\r', '\u{8}', '\u{200f}', '\u{61c}', '\u{2029}', '\u{2067}',
        ] {
            assert_eq!(plain(&format!("a{c}b")), "a\u{fffd}b", "{c:?}");
        }
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
