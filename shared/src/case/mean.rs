//! Means over cases.

use super::{Case, CaseError, CaseKind, Rate, order::order_as_text};
use serde::{Serialize, Serializer};
use std::{fmt, str::FromStr};

/// One case, or the mean over all cases of a kind: `r=0.3`, `r=mean`, `missing=mean`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CaseOrMean {
    /// One case.
    Case(Case),
    /// The mean over all cases of the kind.
    Mean(CaseKind),
}

impl CaseOrMean {
    /// The kind of the case, if it is of one, or of the cases.
    pub fn kind(self) -> Option<CaseKind> {
        match self {
            CaseOrMean::Case(case) => case.kind(),
            CaseOrMean::Mean(kind) => Some(kind),
        }
    }

    /// The case, unless it is a mean.
    pub fn case(self) -> Option<Case> {
        match self {
            CaseOrMean::Case(case) => Some(case),
            CaseOrMean::Mean(_) => None,
        }
    }

    /// The missing rate of a case that is one.
    pub fn rate(self) -> Option<Rate> {
        self.case()?.rate()
    }
}

impl From<Case> for CaseOrMean {
    fn from(case: Case) -> Self {
        CaseOrMean::Case(case)
    }
}

impl fmt::Display for CaseOrMean {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CaseOrMean::Case(case) => case.fmt(f),
            CaseOrMean::Mean(kind) => write!(f, "{}=mean", kind.as_str()),
        }
    }
}

impl FromStr for CaseOrMean {
    type Err = CaseError;

    fn from_str(s: &str) -> Result<Self, CaseError> {
        match s {
            "r=mean" => Ok(CaseOrMean::Mean(CaseKind::Rate)),
            "missing=mean" => Ok(CaseOrMean::Mean(CaseKind::Missing)),
            case => Ok(CaseOrMean::Case(case.parse()?)),
        }
    }
}

impl Serialize for CaseOrMean {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

order_as_text!(CaseOrMean);
