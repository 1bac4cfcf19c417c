//! Numbers as tables print them.

/// A metric in a column.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct ColumnMetric {
    /// The metric's id.
    pub id: String,
    /// Whether higher values are better.
    pub higher_is_better: bool,
    /// Whether it is printed in percent.
    pub percent: bool,
}

impl ColumnMetric {
    /// Prints a value with the paper's decimals: two in percent, three otherwise.
    pub fn print(&self, value: f64) -> String {
        if self.percent {
            format!("{:.2}", value * 100.0)
        } else {
            format!("{value:.3}")
        }
    }
}

/// A number of a table.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Value {
    /// The mean; `None` while results are missing or where it is undefined.
    pub mean: Option<f64>,
    /// The standard deviation over seeds, averaged over cases where the mean is over cases; `None`
    /// with fewer than two seeds.
    pub std: Option<f64>,
    /// Results behind it.
    pub completed: i64,
    /// Results that the spec asks for.
    pub expected: i64,
    /// Its rank in the column.
    pub rank: Rank,
}

/// The rank of a value in its column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Rank {
    /// The best.
    Best,
    /// The second best.
    Second,
    /// Neither.
    Other,
}

impl Value {
    /// A value without results.
    pub const MISSING: Value = Value {
        mean: None,
        std: None,
        completed: 0,
        expected: 0,
        rank: Rank::Other,
    };

    /// As printed: percent with two decimals, others with three; `…` while results are missing and
    /// `–` where it is undefined.
    pub fn text(&self, metric: &ColumnMetric) -> String {
        match self.mean {
            Some(mean) => metric.print(mean),
            None if self.completed < self.expected || self.expected == 0 => "…".to_owned(),
            None => "–".to_owned(),
        }
    }

    /// As printed with its standard deviation: `71.49±1.00`.
    pub fn text_with_std(&self, metric: &ColumnMetric) -> String {
        let text = self.text(metric);
        match (self.mean, self.std) {
            (Some(_), Some(std)) => format!("{text}±{}", metric.print(std)),
            (Some(_), None) => format!("{text}±–"),
            (None, _) => text,
        }
    }
}

/// A number below one of ours.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CompanionValue {
    /// No number.
    Nothing,
    /// Of another source, with its standard deviation where that is printed.
    Other(f64, Option<f64>),
    /// A published number with an erratum; corrected where the right value is known.
    Erratum(Option<f64>),
    /// Ours minus the other.
    Difference(f64),
    /// An interval around ours.
    Interval(f64, f64),
}

impl CompanionValue {
    /// As printed, in the unit and with the decimals of `metric`.
    pub fn text(&self, metric: &ColumnMetric) -> String {
        match *self {
            CompanionValue::Nothing => String::new(),
            CompanionValue::Other(value, None) => metric.print(value),
            CompanionValue::Other(value, Some(std)) => {
                format!("{}±{}", metric.print(value), metric.print(std))
            }
            CompanionValue::Erratum(Some(value)) => format!("{}†", metric.print(value)),
            CompanionValue::Erratum(None) => "†".to_owned(),
            CompanionValue::Difference(value) => {
                let text = metric.print(value.abs());
                // A difference that rounds to zero has no sign.
                let zero = text.bytes().all(|b| matches!(b, b'0' | b'.'));
                match (zero, value < 0.0) {
                    (true, _) => text,
                    (false, true) => format!("-{text}"),
                    (false, false) => format!("+{text}"),
                }
            }
            CompanionValue::Interval(low, high) => {
                // Next to a minus, a dash would look like another.
                let between = if low < 0.0 { " to " } else { "–" };
                format!("{}{between}{}", metric.print(low), metric.print(high))
            }
        }
    }
}
