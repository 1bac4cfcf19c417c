//! Rates and levels in thousandths: equal ones compare and hash equal.

use super::CaseError;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// A missing rate in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Rate(u16);

/// The level of noise in thousandths of a feature's standard deviation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Level(u16);

/// `number` in thousandths; `None` where it is finer, negative or more than `max` thousandths.
fn thousandths(number: f64, max: u16) -> Option<u16> {
    let scaled = number * 1000.0;
    let whole = scaled.round();
    let fits = (0.0..=f64::from(max)).contains(&whole) && (scaled - whole).abs() <= 1e-6;
    fits.then_some(whole as u16)
}

impl Rate {
    /// Nothing is missing.
    pub const ZERO: Self = Self(0);
    /// Everything is.
    pub const ONE: Self = Self(1000);

    pub(super) const fn of_thousandths(thousandths: u16) -> Self {
        Self(thousandths)
    }

    /// From a number in `[0, 1]` with at most three decimals.
    ///
    /// # Errors
    ///
    /// Another number.
    pub fn new(rate: f64) -> Result<Self, CaseError> {
        let found = thousandths(rate, Self::ONE.0);
        found
            .map(Self)
            .ok_or_else(|| CaseError::Rate(rate.to_string()))
    }

    /// In thousandths, 0 to 1000.
    pub fn thousandths(self) -> u16 {
        self.0
    }

    /// From thousandths, 0 to 1000; more is taken as 1000.
    pub fn from_thousandths(thousandths: u16) -> Self {
        Self(thousandths.min(1000))
    }

    /// The rate as the nearest double to its decimal form (0.3, not 0.30000000000000004).
    pub fn value(self) -> f64 {
        f64::from(self.0) / 1000.0
    }
}

impl Level {
    /// No noise.
    pub const ZERO: Self = Self(0);
    /// Ten standard deviations, in which nothing of a feature is left.
    const MAX: u16 = 10_000;

    /// From a number in `[0, 10]` with at most three decimals.
    ///
    /// # Errors
    ///
    /// Another number.
    pub fn new(level: f64) -> Result<Self, CaseError> {
        let found = thousandths(level, Self::MAX);
        found
            .map(Self)
            .ok_or_else(|| CaseError::Level(level.to_string()))
    }

    /// In standard deviations.
    pub fn value(self) -> f64 {
        f64::from(self.0) / 1000.0
    }
}

impl FromStr for Rate {
    type Err = CaseError;

    fn from_str(s: &str) -> Result<Self, CaseError> {
        Self::new(s.parse().map_err(|_| CaseError::Rate(s.to_owned()))?)
    }
}

impl FromStr for Level {
    type Err = CaseError;

    fn from_str(s: &str) -> Result<Self, CaseError> {
        Self::new(s.parse().map_err(|_| CaseError::Level(s.to_owned()))?)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value().fmt(f)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value().fmt(f)
    }
}
