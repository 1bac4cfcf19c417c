//! Metrics as functions of sums over samples.
//!
//! A resample only gives each sample another weight. Every metric of the paper is a function of a few
//! sums over samples (how many are right, how far predictions are off, …): thousands of resamples are
//! one matrix product, weights `[resamples, samples]` times statistics `[samples, statistics]`.

use halfheard_shared::benchmark::{Benchmark, Rules};

/// The resampled metrics, in the order of the values of [`metrics`]: those of the paper and the swapped
/// F1.
pub(super) fn ids(dataset: Benchmark) -> Vec<&'static str> {
    let rules = dataset.rules();
    let scales = rules.scales.iter().map(|scale| scale.accuracy);
    let binaries = rules.binaries.iter();
    let binaries = binaries.flat_map(|binary| [binary.accuracy, binary.f1, binary.swapped]);
    scales.chain(binaries).chain(["mae", "corr"]).collect()
}

/// The selection criterion of each prediction vector, in the order of the argument of [`statistics`].
pub(super) fn criteria(dataset: Benchmark) -> Vec<&'static str> {
    let rules = dataset.rules();
    let scales = rules.scales.iter().map(|scale| scale.accuracy);
    let binaries = rules.binaries.iter().map(|binary| binary.accuracy);
    scales.chain(binaries).chain(["mae"]).collect()
}

/// Number of statistics of one two-class accuracy.
const BINARY: usize = 4;

/// Number of statistics of the error and the correlation.
const MOMENTS: usize = 4;

/// Number of statistics of one evaluation.
pub(super) fn width(dataset: Benchmark) -> usize {
    let rules = dataset.rules();
    rules.scales.len() + BINARY * rules.binaries.len() + MOMENTS
}

/// Number of statistics of the labels alone: the label about its mean, and the square of that.
pub(super) const LABEL_WIDTH: usize = 2;

/// The statistics of the labels, `[samples, 2]`.
pub(super) fn label_statistics(dataset: Benchmark, labels: &[f32]) -> Vec<f32> {
    let centered = centered(dataset.rules(), labels);
    centered.iter().flat_map(|&t| [t, t * t]).collect()
}

/// Values about their mean, clipped first if the protocol clips: sums of squares about another value
/// would lose digits.
fn centered(rules: &Rules, values: &[f32]) -> Vec<f32> {
    let clipped = values.iter().map(|&value| rules.clip(value));
    let mean = clipped.clone().map(f64::from).sum::<f64>() / values.len().max(1) as f64;
    clipped.map(|v| (f64::from(v) - mean) as f32).collect()
}

/// The statistics of one evaluation, written to `out`, whose rows are `stride` apart:
/// `[samples, width]`. `predictions` are those of the checkpoints of [`criteria`].
pub(super) fn statistics(
    dataset: Benchmark,
    predictions: &[&[f32]],
    labels: &[f32],
    out: &mut [f32],
    stride: usize,
) {
    let rules = dataset.rules();
    let width = width(dataset);
    let one = |is: bool| if is { 1.0 } else { 0.0 };
    // True positive, false positive, false negative, true negative; zero if the sample is left out.
    let quadrants = |counts: bool, p: bool, t: bool| {
        [(true, true), (true, false), (false, true), (false, false)]
            .map(|cell| one(counts && (p, t) == cell))
    };
    let Some((by_mae, by_accuracy)) = predictions.split_last() else {
        return;
    };
    let (p_centered, t_centered) = (centered(rules, by_mae), centered(rules, labels));
    for (i, &label) in labels.iter().enumerate() {
        let row = &mut out[i * stride..][..width];
        let t = rules.clip(label);
        let (scales, rest) = row.split_at_mut(rules.scales.len());
        let (binaries, moments) = rest.split_at_mut(BINARY * rules.binaries.len());
        let mut vectors = by_accuracy.iter().map(|vector| rules.clip(vector[i]));
        for ((cell, scale), p) in scales.iter_mut().zip(&rules.scales).zip(&mut vectors) {
            *cell = one(scale.of(p) == scale.of(t));
        }
        let cells = binaries.chunks_exact_mut(BINARY);
        for ((cells, binary), p) in cells.zip(&rules.binaries).zip(vectors) {
            let (p, counted) = (binary.positive(p), binary.counts(t));
            cells.copy_from_slice(&quadrants(counted, p, binary.positive(t)));
        }
        let error = (rules.clip(by_mae[i]) - t).abs();
        let (p, c) = (p_centered[i], t_centered[i]);
        moments.copy_from_slice(&[error, p, p * p, p * c]);
    }
}

/// The metrics of [`ids`] from the sums of an evaluation's and of the labels' statistics over
/// `samples` (weighted) samples; NaN where undefined.
pub(super) fn metrics(
    dataset: Benchmark,
    sums: &[f32],
    label_sums: &[f32],
    samples: f64,
    out: &mut [f32],
) {
    let rules = dataset.rules();
    let share = |sum: f32| (f64::from(sum) / samples) as f32;
    let (hits, rest) = sums.split_at(rules.scales.len());
    for (value, hits) in out.iter_mut().zip(hits) {
        *value = share(*hits);
    }
    let (counts, moments) = rest.split_at(BINARY * rules.binaries.len());
    let mut first = hits.len();
    for counts in counts.chunks_exact(BINARY) {
        let (accuracy, f1, swapped) = binary(counts);
        out[first..first + 3].copy_from_slice(&[accuracy, f1, swapped]);
        first += 3;
    }
    out[first] = share(moments[0]);
    let [p, pp, pt] = [moments[1], moments[2], moments[3]].map(|sum| f64::from(sum) / samples);
    let [t, tt] = [label_sums[0], label_sums[1]].map(|sum| f64::from(sum) / samples);
    let (var_p, var_t) = (pp - p * p, tt - t * t);
    // Below this, single precision sums are rounding error.
    let varies = |variance: f64, square: f64| variance > 1e-6 * square;
    out[first + 1] = if varies(var_p, pp) && varies(var_t, tt) {
        ((pt - p * t) / (var_p.sqrt() * var_t.sqrt())).clamp(-1.0, 1.0) as f32
    } else {
        f32::NAN
    };
}

/// Accuracy, F1 weighted by true classes, F1 weighted by predicted ones.
fn binary(counts: &[f32]) -> (f32, f32, f32) {
    let [tp, fp, fn_, tn] = [0, 1, 2, 3].map(|i| f64::from(counts[i]));
    let all = tp + fp + fn_ + tn;
    if all <= 0.0 {
        return (f32::NAN, f32::NAN, f32::NAN);
    }
    let f1 = |right: f64, wrong: f64| {
        if right > 0.0 {
            2.0 * right / (2.0 * right + wrong)
        } else {
            0.0
        }
    };
    let (of_positive, of_negative) = (f1(tp, fp + fn_), f1(tn, fp + fn_));
    let weighted =
        |positives: f64| ((positives * of_positive + (all - positives) * of_negative) / all) as f32;
    (
        ((tp + tn) / all) as f32,
        weighted(tp + fn_),
        weighted(tp + fp),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use halfheard_shared::{
        benchmark::{Kind, definition::DefinitionSpec},
        metrics::evaluate,
    };
    use proptest::prelude::*;

    fn own(text: &str) -> Benchmark {
        let spec: DefinitionSpec = toml::from_str(text).unwrap();
        Benchmark::new("mine", Kind::own(spec.resolve().unwrap()).unwrap()).unwrap()
    }

    /// With every sample counted once, every metric is that of the protocol.
    fn agrees(dataset: Benchmark, pairs: &[(f32, f32)]) -> Result<(), TestCaseError> {
        let (predictions, labels): (Vec<f32>, Vec<f32>) = pairs.iter().copied().unzip();
        let width = width(dataset);
        let vectors: Vec<&[f32]> = criteria(dataset).iter().map(|_| &predictions[..]).collect();
        let mut rows = vec![0.0; labels.len() * width];
        statistics(dataset, &vectors, &labels, &mut rows, width);
        let sum = |rows: &[f32], width: usize| -> Vec<f32> {
            (0..width)
                .map(|c| rows.iter().skip(c).step_by(width).sum())
                .collect()
        };
        let label_sums = sum(&label_statistics(dataset, &labels), LABEL_WIDTH);
        let mut values = vec![0.0; ids(dataset).len()];
        let samples = labels.len() as f64;
        metrics(
            dataset,
            &sum(&rows, width),
            &label_sums,
            samples,
            &mut values,
        );
        let expected = evaluate(dataset, &predictions, &labels)
            .map_err(|error| TestCaseError::fail(error.to_string()))?;
        for (id, value) in ids(dataset).into_iter().zip(values) {
            match expected[id] {
                // Correlations of nearly constant values depend on the last digits.
                None => prop_assert!(value.is_nan() || id == "corr", "{id}: {value}"),
                Some(expected) => prop_assert!(
                    (f64::from(value) - expected).abs() < 1e-3 || (id == "corr" && value.is_nan()),
                    "{id}: {value}, {expected}"
                ),
            }
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn sums_give_the_metrics_of_the_protocol(
            // Steps of a tenth: exact zeros and halves occur.
            pairs in proptest::collection::vec((-35i32..35, -30i32..=30), 2..60),
        ) {
            let scaled = |by: f32| -> Vec<(f32, f32)> {
                pairs.iter().map(|&(p, t)| (p as f32 / by, t as f32 / by)).collect()
            };
            agrees(Benchmark::Mosi, &scaled(10.0))?;
            agrees(Benchmark::Sims, &scaled(30.0))?;
            // Stars from 0 to 5 about 2.5, and three classes by custom edges.
            let stars = own("label_range = [0, 5]\nlanguage = \"en\"\nclasses = [2, 4, 6]");
            let moved: Vec<(f32, f32)> =
                pairs.iter().map(|&(p, t)| (p as f32 / 12.0 + 2.5, t as f32 / 12.0 + 2.5)).collect();
            agrees(stars, &moved)?;
            let edges = own("label_range = [-1, 1]\nlanguage = \"zh\"\nclasses = [[-0.5, 0.25]]");
            agrees(edges, &scaled(30.0))?;
        }
    }

    #[test]
    fn constant_predictions_have_no_correlation() {
        let labels = [0.3, -1.2, 2.0, 0.0];
        let constant: &[f32] = &[0.7; 4];
        let width = width(Benchmark::Mosi);
        let mut rows = vec![0.0; 4 * width];
        statistics(Benchmark::Mosi, &[constant; 5], &labels, &mut rows, width);
        let sums: Vec<f32> = (0..width)
            .map(|c| rows.iter().skip(c).step_by(width).sum())
            .collect();
        let mut out = [0.0; 10];
        let rows = label_statistics(Benchmark::Mosi, &labels);
        let label_sums = [0, 1].map(|c| rows.iter().skip(c).step_by(2).sum());
        metrics(Benchmark::Mosi, &sums, &label_sums, 4.0, &mut out);
        assert!(out[9].is_nan());
        assert_eq!(out[2], 2.0 / 3.0);
    }
}
