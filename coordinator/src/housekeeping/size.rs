//! Sizes for people.

use halfheard_shared::artifacts::Amount;
use std::fmt;

/// Bytes as `6.4 GB`.
pub(crate) struct Bytes(pub(crate) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
        if self.0 < 1000 {
            return f.pad(&format!("{} B", self.0));
        }
        let mut value = self.0 as f64 / 1000.0;
        let mut unit = 0;
        // As printed, 999.95 would be 1000.0.
        while value >= 999.95 && unit + 1 < UNITS.len() {
            value /= 1000.0;
            unit += 1;
        }
        f.pad(&format!("{value:.1} {}", UNITS[unit]))
    }
}

/// A number of artifacts with their size: `12 (1.3 GB)`.
pub(crate) fn amount(amount: Amount) -> String {
    match amount.count {
        0 => "-".to_owned(),
        count => format!("{count} ({})", Bytes(amount.bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_the_unit_that_fits() {
        let shown = |bytes| Bytes(bytes).to_string();
        assert_eq!(shown(0), "0 B");
        assert_eq!(shown(999), "999 B");
        assert_eq!(shown(1000), "1.0 kB");
        assert_eq!(shown(999_960), "1.0 MB");
        assert_eq!(shown(6_400_000_000), "6.4 GB");
        assert_eq!(shown(u64::MAX), "18446.7 PB");
    }
}
