//! Why a pickle is refused.

/// Why a pickle is refused, and where. Offsets count bytes of the pickle itself: of the expanded
/// stream when the file is compressed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at byte {offset}: {kind}")]
pub struct PickleError {
    /// Where the opcode begins that is refused.
    pub offset: usize,
    /// Why.
    pub kind: PickleErrorKind,
}

/// Why a pickle is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PickleErrorKind {
    /// An opcode that needs something beside the file.
    #[error("the pickle uses `{0}`, which is not in this file")]
    Opcode(&'static str),
    /// A byte that is not an opcode.
    #[error("0x{0:02x} is not a pickle opcode: the file is damaged there, or not a pickle")]
    NoOpcode(u8),
    /// The end came too early.
    #[error("the file ends inside {0}: it is cut off, copy it again")]
    Truncated(&'static str),
    /// A bound was reached.
    #[error("over the limit of {limit} {what}")]
    Limit {
        /// Of what.
        what: &'static str,
        /// How many are allowed.
        limit: u64,
    },
    /// What NumPy or Python could not have written.
    #[error("malformed: {0}")]
    Malformed(String),
    /// Legal, but of no use for data.
    #[error("not supported: {0}")]
    Unsupported(String),
}

/// A name out of a file for a message: escaped and not too long.
pub(super) fn shown(name: &str) -> String {
    let mut short: String = name
        .chars()
        .take(120)
        .flat_map(char::escape_debug)
        .collect();
    if name.chars().nth(120).is_some() {
        short.push('…');
    }
    short
}

/// The result of one step of the machine.
pub(super) type Step<T = ()> = Result<T, PickleErrorKind>;

pub(super) fn malformed<T>(what: impl Into<String>) -> Step<T> {
    Err(PickleErrorKind::Malformed(what.into()))
}
