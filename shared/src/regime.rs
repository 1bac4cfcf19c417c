//! The training regime: what is missing of the samples that a method trains on.

mod rates;

pub use rates::Pass;

use crate::case::Rate;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{borrow::Cow, fmt, str::FromStr};

/// What is erased of the training split. Sources: docs/concepts/protocol.md, "In training".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Regime {
    /// Nothing.
    Complete,
    /// Every step of every sample with this probability, drawn once: TFR-Net's own setting is 0.2.
    Fixed(Rate),
    /// In each modality half of the samples have a rate from U(0, 1), drawn once for all epochs.
    DrawnOnce,
    /// As [`Regime::DrawnOnce`], with new rates in every epoch.
    #[default]
    Redrawn,
    /// As the data loading of LNLN's authors does: the rates are drawn once, and in every pass the
    /// samples that one of eight loading processes reads after sample 0, about one in sixteen, get new
    /// ones for that pass.
    LnlnLoader,
}

impl Regime {
    /// Whether every pass has the same erasure.
    pub fn is_constant(self) -> bool {
        matches!(self, Self::Complete | Self::Fixed(_) | Self::DrawnOnce)
    }

    /// Whether all passes of an epoch have the same erasure.
    pub fn holds_for_epoch(self) -> bool {
        self != Self::LnlnLoader
    }

    /// Whether the uniform numbers of its erasure may be drawn anew with the rates. Otherwise samples
    /// would not keep the erasure that the regime says they keep.
    pub fn redraws_numbers(self) -> bool {
        self == Self::Redrawn
    }
}

/// A text that is no training regime.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a training regime: write `complete`, `fixed:0.2` (a missing rate), `drawn-once`, \
     `redrawn` or `lnln-loader`"
)]
pub struct RegimeError(pub String);

impl fmt::Display for Regime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Complete => f.write_str("complete"),
            Self::Fixed(rate) => write!(f, "fixed:{rate}"),
            Self::DrawnOnce => f.write_str("drawn-once"),
            Self::Redrawn => f.write_str("redrawn"),
            Self::LnlnLoader => f.write_str("lnln-loader"),
        }
    }
}

impl FromStr for Regime {
    type Err = RegimeError;

    fn from_str(text: &str) -> Result<Self, RegimeError> {
        let refused = || RegimeError(text.to_owned());
        match text {
            "complete" => Ok(Self::Complete),
            "drawn-once" => Ok(Self::DrawnOnce),
            "redrawn" => Ok(Self::Redrawn),
            "lnln-loader" => Ok(Self::LnlnLoader),
            _ => {
                let rate = text.strip_prefix("fixed:").ok_or_else(refused)?;
                let rate = rate.parse().map_err(|_| refused())?;
                let rate = Rate::new(rate).map_err(|_| refused())?;
                // Of nothing there is one regime, not two.
                if rate.thousandths() == 0 {
                    return Err(refused());
                }
                Ok(Self::Fixed(rate))
            }
        }
    }
}

impl Serialize for Regime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Regime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl schemars::JsonSchema for Regime {
    fn schema_name() -> Cow<'static, str> {
        "Regime".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "What is missing of the samples that a method trains on: `complete`, \
                            `fixed:0.2`, `drawn-once`, `redrawn` or `lnln-loader`.",
            "type": "string",
            "pattern": "^(complete|drawn-once|redrawn|lnln-loader|fixed:(0\\.[0-9]{1,3}|1(\\.0{1,3})?))$"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips_and_others_are_refused() {
        for text in [
            "complete",
            "fixed:0.2",
            "fixed:1",
            "drawn-once",
            "redrawn",
            "lnln-loader",
        ] {
            let regime: Regime = text.parse().unwrap();
            assert_eq!(regime.to_string(), text);
            assert_eq!(serde_json::to_value(regime).unwrap(), text);
        }
        for text in [
            "",
            "true",
            "fixed",
            "fixed:",
            "fixed:0",
            "fixed:1.2",
            "fixed:20%",
            "Redrawn",
        ] {
            assert!(text.parse::<Regime>().is_err(), "{text}");
        }
    }
}
