//! The files of a zip whose content lies in it as it is: what `torch.save` writes.

use std::{collections::HashMap, ops::Range};

/// Maximum number of files in a zip.
const MAX_FILES: u64 = 100_000;

/// A record's first four bytes.
const END: &[u8] = b"PK\x05\x06";
const END_64: &[u8] = b"PK\x06\x06";
const LOCATOR_64: &[u8] = b"PK\x06\x07";
const ENTRY: &[u8] = b"PK\x01\x02";
const LOCAL: &[u8] = b"PK\x03\x04";

/// A size or offset that stands in a record of 64 bits.
const ELSEWHERE: u64 = u32::MAX as u64;

/// Where the files of a zip lie in it, by name.
pub(super) type Files = HashMap<String, Range<usize>>;

/// Little-endian numbers of a record, never beyond its end.
struct Record<'a>(&'a [u8]);

impl Record<'_> {
    fn u16(&self, at: usize) -> Option<u64> {
        let bytes = self.0.get(at..)?.first_chunk::<2>()?;
        Some(u16::from_le_bytes(*bytes).into())
    }

    fn u32(&self, at: usize) -> Option<u64> {
        let bytes = self.0.get(at..)?.first_chunk::<4>()?;
        Some(u32::from_le_bytes(*bytes).into())
    }

    fn u64(&self, at: usize) -> Option<u64> {
        let bytes = self.0.get(at..)?.first_chunk::<8>()?;
        Some(u64::from_le_bytes(*bytes))
    }
}

/// `bytes` from `at`, if there is a record that begins with `signature`.
fn record<'a>(bytes: &'a [u8], at: u64, signature: &[u8]) -> Option<Record<'a>> {
    let rest = bytes.get(usize::try_from(at).ok()?..)?;
    rest.starts_with(signature).then_some(Record(rest))
}

/// Reads the directory of the zip `bytes`.
///
/// # Errors
///
/// What is wrong with it.
pub(super) fn files(bytes: &[u8]) -> Result<Files, &'static str> {
    const CUT: &str = "has no directory at its end: it is cut off";
    const DAMAGED: &str = "has a damaged directory";
    // The end record is followed by a comment of at most 65,535 bytes.
    let tail = bytes.len().saturating_sub(22 + 65_535);
    let end = bytes
        .get(tail..)
        .and_then(|tail| tail.windows(END.len()).rposition(|window| window == END))
        .ok_or(CUT)?
        + tail;
    let (count, start) = directory(bytes, end).ok_or(DAMAGED)?;
    if count > MAX_FILES {
        return Err("has too many files");
    }
    let mut files = HashMap::new();
    let mut at = start;
    for _ in 0..count {
        let entry = record(bytes, at, ENTRY).ok_or(DAMAGED)?;
        let (name, method, range, next) = file(bytes, &entry).ok_or(DAMAGED)?;
        if method != 0 {
            return Err("is compressed, which `torch.save` never does");
        }
        files.insert(name, range);
        at = at.checked_add(next).ok_or(DAMAGED)?;
    }
    Ok(files)
}

/// How many files there are, and where the directory begins.
fn directory(bytes: &[u8], end: usize) -> Option<(u64, u64)> {
    let record_end = record(bytes, end as u64, END)?;
    let (count, start) = (record_end.u16(10)?, record_end.u32(16)?);
    if count < 0xffff && start < ELSEWHERE {
        return Some((count, start));
    }
    let locator = record(bytes, (end as u64).checked_sub(20)?, LOCATOR_64)?;
    let end_64 = record(bytes, locator.u64(8)?, END_64)?;
    Some((end_64.u64(32)?, end_64.u64(48)?))
}

/// A directory entry's name, method, place of its content, and length of the entry.
fn file(bytes: &[u8], entry: &Record<'_>) -> Option<(String, u64, Range<usize>, u64)> {
    let method = entry.u16(10)?;
    let (mut packed, mut size) = (entry.u32(20)?, entry.u32(24)?);
    let (name_length, extra_length) = (entry.u16(28)?, entry.u16(30)?);
    let comment_length = entry.u16(32)?;
    let mut local = entry.u32(42)?;
    let name = entry.0.get(46..46 + name_length as usize)?;
    let extra = entry.0.get(46 + name_length as usize..)?;
    let mut extra = extra.get(..extra_length as usize)?;
    // Numbers that do not fit stand in an extra field, in this order.
    while let (Some(kind), Some(length)) = (Record(extra).u16(0), Record(extra).u16(2)) {
        let content = Record(extra.get(4..4 + length as usize)?);
        if kind == 1 {
            let mut at = 0;
            for number in [&mut size, &mut packed, &mut local] {
                if *number == ELSEWHERE {
                    *number = content.u64(at)?;
                    at += 8;
                }
            }
        }
        extra = extra.get(4 + length as usize..)?;
    }
    // The header before the content has a name and extra fields of its own lengths.
    let header = record(bytes, local, LOCAL)?;
    let before = 30 + header.u16(26)? + header.u16(28)?;
    let from = usize::try_from(local.checked_add(before)?).ok()?;
    let to = from.checked_add(usize::try_from(packed).ok()?)?;
    if to > bytes.len() || (method == 0 && packed != size) {
        return None;
    }
    let name = String::from_utf8_lossy(name).into_owned();
    let next = 46 + name_length + extra_length + comment_length;
    Some((name, method, from..to, next))
}
