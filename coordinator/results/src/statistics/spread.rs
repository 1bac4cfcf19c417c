//! Means with standard deviations.

/// The mean of `values` and, of two or more, their sample standard deviation (n - 1); `None` of none.
pub fn spread(values: &[f64]) -> Option<(f64, Option<f64>)> {
    let count = values.len() as f64;
    if values.is_empty() {
        return None;
    }
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|v| (v - mean) * (v - mean)).sum();
    let std = (values.len() > 1).then(|| (squares / (count - 1.0)).sqrt());
    Some((mean, std))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_is_that_of_a_sample() {
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[2.0]), Some((2.0, None)));
        assert_eq!(spread(&[1.0, 2.0, 3.0]), Some((2.0, Some(1.0))));
    }
}
