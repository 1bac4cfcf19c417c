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

/// Not an amount of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an amount of bytes such as 16GB or 512MiB")]
pub struct NotBytes;

/// Parses an amount of bytes: `16GB`, `1.5 GiB`, `4096B`. A kB has 1000 bytes, a KiB 1024.
///
/// # Errors
///
/// Another form, or more than 2^63 bytes.
///
/// ```
/// use halfheard_shared::text::parse_bytes;
/// assert_eq!(parse_bytes("16GB"), Ok(16_000_000_000));
/// assert_eq!(parse_bytes("1.5 KiB"), Ok(1536));
/// ```
pub fn parse_bytes(text: &str) -> Result<u64, NotBytes> {
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, unit) = text.split_at(at.ok_or(NotBytes)?);
    let unit = unit.strip_prefix(' ').unwrap_or(unit);
    let factor: u64 = match unit {
        "B" => 1,
        "kB" | "KB" => 1000,
        "MB" => 1000_u64.pow(2),
        "GB" => 1000_u64.pow(3),
        "TB" => 1000_u64.pow(4),
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return Err(NotBytes),
    };
    if number.starts_with('.') || number.ends_with('.') || number.len() > 20 {
        return Err(NotBytes);
    }
    let bytes = number.parse::<f64>().map_err(|_| NotBytes)? * factor as f64;
    if bytes >= (1_u64 << 63) as f64 {
        return Err(NotBytes);
    }
    Ok(bytes.round() as u64)
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
    fn only_amounts_of_bytes_are_parsed() {
        assert_eq!(parse_bytes("0B"), Ok(0));
        assert_eq!(parse_bytes("80GiB"), Ok(80 << 30));
        for bad in [
            "",
            "16",
            "GB",
            "16 parsecs",
            "16gb",
            "-1GB",
            "1.GB",
            ".5GB",
            "1e9B",
            "9999999TiB",
            "1..2GB",
            "16  GB",
            "nanGB",
        ] {
            assert_eq!(parse_bytes(bad), Err(NotBytes), "{bad}");
        }
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
