//! The order of text forms: the database and everything printed are in it.

use std::{
    cmp::Ordering,
    fmt::{self, Write as _},
};

/// Longer than any case: `l=0.125,a=0.125,v=0.125@4294967295` has 34 bytes.
const LONGEST: usize = 48;

/// A text of bounded length, without a heap allocation: cases are keys of large maps.
struct Text {
    bytes: [u8; LONGEST],
    length: usize,
}

impl Text {
    fn of(value: &impl fmt::Display) -> Self {
        let mut text = Self {
            bytes: [0; LONGEST],
            length: 0,
        };
        let written = write!(text, "{value}");
        debug_assert!(written.is_ok(), "{value} is longer than any case");
        text
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        let end = self.length + s.len();
        let place = self.bytes.get_mut(self.length..end).ok_or(fmt::Error)?;
        place.copy_from_slice(s.as_bytes());
        self.length = end;
        Ok(())
    }
}

/// Compares text forms, byte by byte. Values are equal where these are: each has its own.
pub(super) fn compare<T: fmt::Display + PartialEq>(a: &T, b: &T) -> Ordering {
    if a == b {
        return Ordering::Equal;
    }
    let (a, b) = (Text::of(a), Text::of(b));
    a.bytes[..a.length].cmp(&b.bytes[..b.length])
}

/// Orders types as their text forms.
macro_rules! order_as_text {
    ($($type:ty),+) => {$(
        impl Ord for $type {
            fn cmp(&self, other: &Self) -> std::cmp::Ordering {
                $crate::case::order::compare(self, other)
            }
        }

        impl PartialOrd for $type {
            fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
                Some(self.cmp(other))
            }
        }
    )+};
}

pub(super) use order_as_text;
