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
            c if c.is_control() || turns(c) => '\u{fffd}',
            c => c,
        })
        .collect()
}

/// `text` as it may go to a terminal, whoever wrote parts of it: line breaks, tabs and colors stay,
/// every other control character is replaced.
///
/// ```
/// use halfheard_shared::text::printable;
/// assert_eq!(printable("\x1b[32mgreen\x1b[0m\n"), "\x1b[32mgreen\x1b[0m\n");
/// assert_eq!(printable("\x1b]0;title\x07\x1b[2J"), "\u{fffd}]0;title\u{fffd}\u{fffd}[2J");
/// ```
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(drives) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(drives) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(length) = color(rest) {
            out.push_str(&rest[..length]);
            rest = &rest[length..];
        } else {
            out.push('\u{fffd}');
            rest = &rest[rest.chars().next().map_or(1, char::len_utf8)..];
        }
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// JSON as it may go to a terminal: what JSON leaves as it is and a terminal would not is escaped.
pub fn printable_json(json: &str) -> Cow<'_, str> {
    let escaped = |c: char| drives(c) && !c.is_ascii_control() || c == '\u{7f}';
    if !json.contains(escaped) {
        return Cow::Borrowed(json);
    }
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if escaped(c) {
            // All of them are in the first plane.
            out.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// Whether a terminal does something with a character other than to show it. Line breaks and tabs are
/// not among them.
fn drives(c: char) -> bool {
    (c.is_control() && c != '\n' && c != '\t') || turns(c)
}

/// Whether a character changes the writing direction, or ends a line without being a control
/// character.
fn turns(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2066}'..='\u{2069}')
}

/// The length of the sequence at the start of `text` that sets a color, bold or dim. Those that make
/// text blink or invisible are not among them.
fn color(text: &str) -> Option<usize> {
    let inside = text.strip_prefix("\x1b[")?;
    let end = inside.find('m').filter(|&end| end <= 20)?;
    let allowed = inside[..end].split(';').all(|code| {
        matches!(
            code.parse::<u8>(),
            Ok(0..=4 | 9 | 22..=24 | 29..=49 | 90..=97 | 100..=107)
        ) || code.is_empty()
    });
    // An indexed color has any number behind it.
    let number = |text: &str| text.parse::<u8>().is_ok();
    let indexed = ["38;5;", "48;5;"]
        .iter()
        .any(|start| inside[..end].strip_prefix(start).is_some_and(number));
    (allowed || indexed).then_some("\x1b[".len() + end + "m".len())
}

/// A writer to a terminal or log that lets through what [`printable`] does. Each call must bring whole
/// lines, as those of a log do.
#[derive(Debug)]
pub struct Printable<W>(pub W);

impl<W: std::io::Write> std::io::Write for Printable<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        self.0.write_all(printable(&text).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
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

/// A name of letters, digits, hyphens and underscores, with hyphens for all else, of at most `longest` characters.
pub fn token(name: &str, longest: usize) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    name.chars()
        .take(longest)
        .map(|c| if allowed(c) { c } else { '-' })
        .collect()
}

/// The longest name of a worker, in bytes.
pub const MAX_WORKER: usize = 128;

/// Whether this may be a worker's name: one token, or two with a dot between them, each of letters,
/// digits, hyphens and underscores.
pub fn valid_worker(name: &str) -> bool {
    let token = |token: &str| {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        !token.is_empty() && token.bytes().all(allowed)
    };
    name.len() <= MAX_WORKER
        && match name.split_once('.') {
            Some((team, worker)) => token(team) && token(worker),
            None => token(name),
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_have_no_other_characters_and_an_end() {
        assert_eq!(token("gpu7.cluster\u{e9}_A", 100), "gpu7-cluster-_A");
        assert_eq!(token("../etc", 4), "---e");
    }

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
    fn only_colors_reach_the_terminal() {
        let fine = "\x1b[1m\x1b[38;5;208mbold\x1b[0m\tdim\n数据";
        assert_eq!(printable(fine), fine);
        for (evil, shown) in [
            ("\x1b[2J", "\u{fffd}[2J"),
            ("\x1b[8mhidden\x1b[5m", "\u{fffd}[8mhidden\u{fffd}[5m"),
            ("\x1b[38;5;1;8m", "\u{fffd}[38;5;1;8m"),
            ("\x1b]8;;http://x\x1b\\", "\u{fffd}]8;;http://x\u{fffd}\\"),
            ("\u{9b}31m", "\u{fffd}31m"),
            ("\x1bP\x1b[", "\u{fffd}P\u{fffd}["),
            ("over\rwritten\u{8}", "over\u{fffd}written\u{fffd}"),
            ("\u{202e}txt", "\u{fffd}txt"),
        ] {
            assert_eq!(printable(evil), shown, "{evil:?}");
        }
        let mut log = Printable(Vec::new());
        std::io::Write::write_all(&mut log, b"line \x1b[31mred\x1b[0m \x1b[2J \xff\n").unwrap();
        assert_eq!(
            String::from_utf8(log.0).unwrap(),
            "line \x1b[31mred\x1b[0m \u{fffd}[2J \u{fffd}\n"
        );
    }

    #[test]
    fn json_keeps_its_value() {
        let value = serde_json::json!({ "a": "\x1b[2J\u{9b}x\u{7f}\u{202e}\u{2028}数" });
        let json = serde_json::to_string_pretty(&value).unwrap();
        let shown = printable_json(&json);
        assert!(!shown.contains(drives), "{shown:?}");
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&shown).unwrap(),
            value
        );
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
