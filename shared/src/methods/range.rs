//! What a hyper-parameter may be: one range for each, written in the method's file, so that
//! `coord plan` refuses what libtorch would stop at and what would train nothing.

use serde::Deserialize;
use serde_json::Value;
use std::fmt;

/// The most epochs a training may be given: far above what any method needs, and far below what a
/// job message can hold.
pub const MAX_EPOCHS: u32 = 1_000_000;

/// The range of a hyper-parameter, or of each entry of one that is a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Range {
    /// It is at least this.
    pub least: Option<f64>,
    /// It is above this.
    pub above: Option<f64>,
    /// It is at most this.
    pub most: Option<f64>,
    /// It is below this.
    pub below: Option<f64>,
    /// This value is allowed, too: it switches something off.
    pub or: Option<f64>,
}

/// A range as a method's file writes it: the name of a usual one, or its borders.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Named(String),
    Borders(Range),
}

/// Reads the range of one hyper-parameter.
pub(super) fn read<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<std::collections::BTreeMap<String, Range>, D::Error> {
    let written = std::collections::BTreeMap::<String, Written>::deserialize(deserializer)?;
    let range = |(key, written)| match written {
        Written::Borders(range) => Ok((key, range)),
        Written::Named(name) => match Range::named(&name) {
            Some(range) => Ok((key, range)),
            None => Err(serde::de::Error::custom(format!(
                "`{name}` is not a kind of range"
            ))),
        },
    };
    written.into_iter().map(range).collect()
}

impl Range {
    fn whole(least: u32, most: u32) -> Self {
        Self {
            least: Some(least.into()),
            most: Some(most.into()),
            ..Self::default()
        }
    }

    /// The usual ranges.
    fn named(name: &str) -> Option<Self> {
        let most = |most: f64| Self {
            most: Some(most),
            ..Self::default()
        };
        Some(match name {
            // Samples in a batch.
            "batch" => Self::whole(1, 1 << 20),
            // Of a method with a batch norm: a single sample has no variance.
            "normed_batch" => Self::whole(2, 1 << 20),
            "epochs" => Self::whole(1, MAX_EPOCHS),
            // Epochs that are waited for; 0 is never, or at once.
            "count" => Self::whole(0, MAX_EPOCHS),
            // Batches whose gradients are added up.
            "group" => Self::whole(1, 100_000),
            // The width of a layer.
            "size" => Self::whole(1, 16_384),
            "layers" => Self::whole(1, 64),
            "heads" => Self::whole(1, 128),
            // Steps that a convolution sees.
            "kernel" => Self::whole(1, 1_023),
            // Of all parameters, or of those without which nothing is learned. Adam moves every
            // weight by about the rate, so that more than 1 destroys any model.
            "rate" => Self {
                above: Some(0.0),
                ..most(1.0)
            },
            // Of a group of parameters, which 0 leaves as they are.
            "rate_or_none" => Self {
                least: Some(0.0),
                ..most(1.0)
            },
            "decay" => Self {
                least: Some(0.0),
                ..most(100.0)
            },
            // Of a part of the loss; 0 leaves the part out.
            "weight" => Self {
                least: Some(0.0),
                ..most(1e6)
            },
            "dropout" => Self {
                least: Some(0.0),
                below: Some(1.0),
                ..Self::default()
            },
            // What gradients are clipped to; -1 leaves them.
            "clip" => Self {
                above: Some(0.0),
                or: Some(-1.0),
                ..most(1e6)
            },
            _ => return None,
        })
    }

    /// Whether `value` lies in it: each entry, where it is a list. Values other than numbers have no range.
    pub fn has(&self, value: &Value) -> bool {
        match value {
            Value::Array(values) => values.iter().all(|value| self.has(value)),
            Value::Number(number) => number.as_f64().is_some_and(|x| {
                self.or == Some(x)
                    || (self.least.is_none_or(|least| x >= least)
                        && self.above.is_none_or(|above| x > above)
                        && self.most.is_none_or(|most| x <= most)
                        && self.below.is_none_or(|below| x < below))
            }),
            _ => true,
        }
    }
}

/// `1,048,576`; fractions as they are.
fn number(x: f64) -> String {
    if x.fract() != 0.0 || x.abs() < 1000.0 {
        return x.to_string();
    }
    let digits = format!("{:.0}", x.abs());
    let mut grouped = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if x < 0.0 {
        format!("-{grouped}")
    } else {
        grouped
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let low = match (self.least, self.above) {
            (Some(least), _) => Some((number(least), false)),
            (None, above) => above.map(|above| (number(above), true)),
        };
        let high = match (self.most, self.below) {
            (Some(most), _) => Some((number(most), false)),
            (None, below) => below.map(|below| (number(below), true)),
        };
        match (low, high) {
            (Some((low, false)), Some((high, false))) => write!(f, "{low} to {high}")?,
            (low, high) => {
                let low =
                    low.map(|(x, open)| format!("{} {x}", if open { "above" } else { "at least" }));
                let high =
                    high.map(|(x, open)| format!("{} {x}", if open { "below" } else { "at most" }));
                let both: Vec<String> = low.into_iter().chain(high).collect();
                f.write_str(&both.join(" and "))?;
            }
        }
        match self.or {
            Some(or) => write!(f, ", or {}", number(or)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn range_describes_accepted_values() {
        let named = |name| Range::named(name).unwrap();
        let said = |name| named(name).to_string();
        assert_eq!(said("batch"), "1 to 1,048,576");
        assert_eq!(said("rate"), "above 0 and at most 1");
        assert_eq!(said("dropout"), "at least 0 and below 1");
        assert_eq!(said("clip"), "above 0 and at most 1,000,000, or -1");
        assert_eq!(Range::named("color"), None);
        let takes = |name, value| named(name).has(&value);
        assert!(takes("dropout", json!(0.0)) && !takes("dropout", json!(1.0)));
        assert!(!takes("rate", json!(0.0)) && takes("rate", json!(1e-5)));
        assert!(takes("clip", json!(-1.0)) && !takes("clip", json!(-0.5)));
        assert!(!takes("layers", json!([1, 0, 1])) && takes("layers", json!([1, 1])));
        assert!(takes("layers", json!(true)), "only numbers have a range");
        assert!(!takes("batch", json!(u64::MAX)) && !takes("batch", json!(i64::MIN)));
    }
}
