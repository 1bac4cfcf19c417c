//! Takes arguments of opcodes off the input, never beyond its end.

use super::{
    PickleErrorKind as Kind, Value,
    error::{Step, malformed},
};

/// A place in the input.
pub(super) struct Cursor<'a> {
    pub(super) bytes: &'a [u8],
    /// Where the next byte is read.
    pub(super) at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn take(&mut self, count: u64, what: &'static str) -> Step<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        match usize::try_from(count)
            .ok()
            .filter(|&count| count <= rest.len())
        {
            Some(count) => {
                self.at += count;
                Ok(&rest[..count])
            }
            None => Err(Kind::Truncated(what)),
        }
    }

    pub(super) fn array<const N: usize>(&mut self) -> Step<[u8; N]> {
        match self.bytes[self.at..].first_chunk::<N>() {
            Some(chunk) => {
                self.at += N;
                Ok(*chunk)
            }
            None => Err(Kind::Truncated("an argument")),
        }
    }

    pub(super) fn u8(&mut self) -> Step<u8> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn u32(&mut self) -> Step<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Step<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A line of a text protocol, without its end.
    pub(super) fn line(&mut self) -> Step<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        match rest.iter().position(|&b| b == b'\n') {
            Some(end) => {
                self.at += end + 1;
                Ok(&rest[..end])
            }
            None => Err(Kind::Truncated("a line")),
        }
    }

    pub(super) fn text_line(&mut self) -> Step<&'a str> {
        match std::str::from_utf8(self.line()?) {
            Ok(line) => Ok(line),
            Err(_) => malformed("a line that is not UTF-8"),
        }
    }

    pub(super) fn utf8(&mut self, count: u64) -> Step<Value<'a>> {
        let bytes = self.take(count, "a text")?;
        Ok(match std::str::from_utf8(bytes) {
            Ok(text) => Value::Str(text),
            // Python writes so what it could not decode when it read it (surrogates).
            Err(_) => Value::BrokenStr(bytes),
        })
    }
}

/// Python's `raw-unicode-escape`: Latin-1 with `\uXXXX` and `\UXXXXXXXX`.
pub(super) fn raw_unicode_escape(line: &[u8]) -> Step<String> {
    let mut text = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((&byte, after)) = rest.split_first() {
        let digits = match after.first() {
            Some(b'u') if byte == b'\\' => 4,
            Some(b'U') if byte == b'\\' => 8,
            _ => {
                text.push(char::from(byte));
                rest = after;
                continue;
            }
        };
        let code = after
            .get(1..1 + digits)
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u32::from_str_radix(hex, 16).ok())
            .and_then(char::from_u32);
        match code {
            Some(c) => text.push(c),
            None => return malformed("a text with a broken escape"),
        }
        rest = &after[1 + digits..];
    }
    Ok(text)
}

/// A string as Python 2 wrote it with protocol 0: quoted, with backslash escapes.
pub(super) fn python2_string(line: &[u8]) -> Step<Vec<u8>> {
    let line = line.trim_ascii_end();
    let inner = match line {
        [first @ (b'\'' | b'"'), inner @ .., last] if first == last => inner,
        _ => return malformed("a string without its quotes"),
    };
    let mut out = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while let Some((&byte, after)) = rest.split_first() {
        if byte != b'\\' {
            out.push(byte);
            rest = after;
            continue;
        }
        let Some((&escape, after)) = after.split_first() else {
            return malformed("a string with a broken escape");
        };
        rest = after;
        out.push(match escape {
            b'\\' | b'\'' | b'"' => escape,
            b'a' => 7,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 11,
            b'x' => {
                let code = rest
                    .get(..2)
                    .and_then(|hex| std::str::from_utf8(hex).ok())
                    .and_then(|hex| u8::from_str_radix(hex, 16).ok());
                rest = rest.get(2..).unwrap_or_default();
                match code {
                    Some(code) => code,
                    None => return malformed("a string with a broken escape"),
                }
            }
            _ => return malformed("a string with an unknown escape"),
        });
    }
    Ok(out)
}
