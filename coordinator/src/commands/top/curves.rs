//! Curves as text: eight heights of a block, one column for one or several epochs.

/// The heights, lowest first.
const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The least and the greatest finite value.
pub(super) fn range<'a>(values: impl IntoIterator<Item = &'a Option<f64>>) -> Option<(f64, f64)> {
    let finite = values
        .into_iter()
        .flatten()
        .filter(|value| value.is_finite());
    finite.fold(None, |range, &value| match range {
        None => Some((value, value)),
        Some((low, high)) => Some((value.min(low), value.max(high))),
    })
}

/// A curve between `low` and `high`, one column for each `epochs`; an epoch without a value is a space. Of
/// several epochs a column shows the last one, so that its end is its newest value.
pub(super) fn sparkline(values: &[Option<f64>], (low, high): (f64, f64), epochs: usize) -> String {
    let columns = values.chunks(epochs.max(1));
    columns
        .map(|column| match column.last().copied().flatten() {
            Some(value) if value.is_finite() => {
                let share = match high > low {
                    true => ((value - low) / (high - low)).clamp(0.0, 1.0),
                    false => 0.5,
                };
                HEIGHTS[(share * 7.0).round() as usize]
            }
            Some(_) => '!',
            None => ' ',
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curve_spans_the_heights_and_ends_with_its_newest_value() {
        let values: Vec<Option<f64>> = (0..8).map(|value| Some(f64::from(value))).collect();
        let range = range(&values).unwrap_or_default();
        assert_eq!(range, (0.0, 7.0));
        assert_eq!(sparkline(&values, range, 1), "▁▂▃▄▅▆▇█");
        assert_eq!(sparkline(&values, range, 2), "▂▄▆█");
        assert_eq!(sparkline(&values[..5], range, 2), "▂▄▅");
        assert_eq!(sparkline(&[], range, 1), "");
        let odd = [Some(0.0), None, Some(f64::INFINITY), Some(7.0)];
        assert_eq!(sparkline(&odd, range, 1), "▁ !█");
        assert_eq!(sparkline(&[Some(2.0); 3], (2.0, 2.0), 1), "▅▅▅");
    }
}
