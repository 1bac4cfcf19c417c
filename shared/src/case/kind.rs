//! Kinds of cases.

/// The two kinds of cases over which the paper's tables take means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CaseKind {
    /// A set of missing modalities.
    Missing,
    /// A missing rate.
    Rate,
}

impl CaseKind {
    /// As in the text form of a case and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            CaseKind::Rate => "r",
            CaseKind::Missing => "missing",
        }
    }
}
