//! A damage under a mask.

use super::{CaseError, CaseKind, Damage, MissingSet, Rate, order::order_as_text};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// One way of damaging the test split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Case {
    /// What is done to it.
    pub damage: Damage,
    /// The erasure seed that decides where; that of the sweep's protocol, if there is none. Only of
    /// damage that is drawn.
    pub mask: Option<u32>,
}

impl Case {
    /// `r=0.3`, by the sweep's own mask.
    pub fn at_rate(rate: Rate) -> Self {
        Damage::Rate(rate).into()
    }

    /// `missing=la`.
    pub fn without(set: MissingSet) -> Self {
        Damage::Missing(set).into()
    }

    /// The missing rate of `r=0.3`. `None` for other cases, also those of another mask: the tables of
    /// rates are of the sweep's own.
    pub fn rate(&self) -> Option<Rate> {
        match (self.damage, self.mask) {
            (Damage::Rate(rate), None) => Some(rate),
            _ => None,
        }
    }

    /// The missing modalities of `missing=la`; `None` for other cases.
    pub fn missing(&self) -> Option<MissingSet> {
        match self.damage {
            Damage::Missing(set) => Some(set),
            _ => None,
        }
    }

    /// The kind over which tables take means, if it is of one.
    pub fn kind(&self) -> Option<CaseKind> {
        match (self.rate(), self.missing()) {
            (Some(_), _) => Some(CaseKind::Rate),
            (_, Some(_)) => Some(CaseKind::Missing),
            _ => None,
        }
    }

    /// The seed that decides where the damage is, in a sweep whose erasure seed is `sweep`.
    pub fn seed(&self, sweep: u32) -> u32 {
        self.mask.unwrap_or(sweep)
    }
}

impl From<Damage> for Case {
    fn from(damage: Damage) -> Self {
        Self { damage, mask: None }
    }
}

order_as_text!(Case);

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.damage.fmt(f)?;
        match self.mask {
            Some(seed) => write!(f, "@{seed}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Case {
    type Err = CaseError;

    fn from_str(s: &str) -> Result<Self, CaseError> {
        let Some((damage, seed)) = s.split_once('@') else {
            return Ok(s.parse::<Damage>()?.into());
        };
        let damage: Damage = damage.parse()?;
        let mask: u32 = seed.parse().map_err(|_| CaseError::Mask(seed.to_owned()))?;
        let case = Self {
            damage,
            mask: damage.is_drawn().then_some(mask),
        };
        let canonical = case.to_string();
        if canonical == s {
            return Ok(case);
        }
        Err(CaseError::Name {
            given: s.to_owned(),
            canonical,
        })
    }
}

impl From<Case> for String {
    fn from(case: Case) -> Self {
        case.to_string()
    }
}

impl TryFrom<String> for Case {
    type Error = CaseError;

    fn try_from(text: String) -> Result<Self, CaseError> {
        text.parse()
    }
}
