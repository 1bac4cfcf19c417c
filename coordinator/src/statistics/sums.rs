//! Metrics as functions of sums over samples.
//!
//! Drawing samples anew only gives each sample another weight. Every metric of the paper is a
//! function of a few sums over samples (how many are right, how far predictions are off, …), so that
//! thousands of draws are one matrix product: weights `[draws, samples]` times statistics
//! `[samples, statistics]`.

use missbench_shared::{
    benchmark::Benchmark,
    metrics::{class5, class7, sims_class2, sims_class3, sims_class5},
};

/// The metrics that are drawn, in the order of [`metrics`]' values: those of the paper, and the
/// swapped F1.
pub fn ids(dataset: Benchmark) -> &'static [&'static str] {
    match dataset {
        Benchmark::Mosi | Benchmark::Mosei => &[
            "acc7",
            "acc5",
            "acc2_nonzero",
            "f1_nonzero",
            "f1_nonzero_swapped",
            "acc2_nonneg",
            "f1_nonneg",
            "f1_nonneg_swapped",
            "mae",
            "corr",
        ],
        Benchmark::Sims => &["acc5", "acc3", "acc2", "f1", "f1_swapped", "mae", "corr"],
    }
}

/// What each prediction vector is chosen by, in the order of [`statistics`]' argument.
pub fn criteria(dataset: Benchmark) -> &'static [&'static str] {
    match dataset {
        Benchmark::Mosi | Benchmark::Mosei => {
            &["acc7", "acc5", "acc2_nonzero", "acc2_nonneg", "mae"]
        }
        Benchmark::Sims => &["acc5", "acc3", "acc2", "mae"],
    }
}

/// Statistics of one evaluation.
pub const fn width(dataset: Benchmark) -> usize {
    match dataset {
        Benchmark::Mosi | Benchmark::Mosei => 2 + 4 + 4 + 4,
        Benchmark::Sims => 2 + 4 + 4,
    }
}

/// Statistics of the labels alone: the label and its square, about their mean.
pub const LABEL_WIDTH: usize = 2;

/// The labels' statistics, `[samples, 2]`.
pub fn label_statistics(dataset: Benchmark, labels: &[f32]) -> Vec<f32> {
    let centred = centred(dataset, labels);
    centred.iter().flat_map(|&t| [t, t * t]).collect()
}

/// Values about their mean, clipped first where the dataset's protocol clips: sums of squares
/// about something else would lose digits.
fn centred(dataset: Benchmark, values: &[f32]) -> Vec<f32> {
    let clipped = values.iter().map(|&value| clip(dataset, value));
    let mean = clipped.clone().map(f64::from).sum::<f64>() / values.len().max(1) as f64;
    clipped.map(|v| (f64::from(v) - mean) as f32).collect()
}

fn clip(dataset: Benchmark, value: f32) -> f32 {
    match dataset {
        Benchmark::Mosi | Benchmark::Mosei => value,
        Benchmark::Sims => value.clamp(-1.0, 1.0),
    }
}

/// The statistics of one evaluation, written to `out`, whose rows are `stride` apart:
/// `[samples, width]`. `predictions` are those of the checkpoints of [`criteria`].
pub fn statistics(
    dataset: Benchmark,
    predictions: &[&[f32]],
    labels: &[f32],
    out: &mut [f32],
    stride: usize,
) {
    let one = |is: bool| if is { 1.0 } else { 0.0 };
    // True and predicted positive, predicted positive only, true only, neither; zero if left out.
    let binary = |counts: bool, p: bool, t: bool| {
        [(true, true), (true, false), (false, true), (false, false)]
            .map(|cell| one(counts && (p, t) == cell))
    };
    let [.., by_mae] = predictions else { return };
    let (p_centred, t_centred) = (centred(dataset, by_mae), centred(dataset, labels));
    for (i, &t) in labels.iter().enumerate() {
        let row = &mut out[i * stride..][..width(dataset)];
        let error = (clip(dataset, by_mae[i]) - clip(dataset, t)).abs();
        let (p, c) = (p_centred[i], t_centred[i]);
        let moments = [error, p, p * p, p * c];
        match dataset {
            Benchmark::Mosi | Benchmark::Mosei => {
                row[0] = one(class7(predictions[0][i]) == class7(t));
                row[1] = one(class5(predictions[1][i]) == class5(t));
                let nonzero = binary(t != 0.0, predictions[2][i] > 0.0, t > 0.0);
                row[2..6].copy_from_slice(&nonzero);
                let nonneg = binary(true, predictions[3][i] >= 0.0, t >= 0.0);
                row[6..10].copy_from_slice(&nonneg);
                row[10..].copy_from_slice(&moments);
            }
            Benchmark::Sims => {
                let class = |f: fn(f32) -> i8, p: f32| (f(clip(dataset, p)), f(clip(dataset, t)));
                let (p5, t5) = class(sims_class5, predictions[0][i]);
                row[0] = one(p5 == t5);
                let (p3, t3) = class(sims_class3, predictions[1][i]);
                row[1] = one(p3 == t3);
                let (p2, t2) = class(sims_class2, predictions[2][i]);
                row[2..6].copy_from_slice(&binary(true, p2 > 0, t2 > 0));
                row[6..].copy_from_slice(&moments);
            }
        }
    }
}

/// The metrics of [`ids`] from the sums of an evaluation's and of the labels' statistics over
/// `samples` (weighted) samples; NaN where undefined.
pub fn metrics(
    dataset: Benchmark,
    sums: &[f32],
    label_sums: &[f32],
    samples: f64,
    out: &mut [f32],
) {
    let share = |sum: f32| (f64::from(sum) / samples) as f32;
    out[0] = share(sums[0]);
    out[1] = share(sums[1]);
    let (first, moments) = match dataset {
        Benchmark::Mosi | Benchmark::Mosei => {
            let (accuracy, f1, swapped) = binary(&sums[2..6]);
            out[2..5].copy_from_slice(&[accuracy, f1, swapped]);
            let (accuracy, f1, swapped) = binary(&sums[6..10]);
            out[5..8].copy_from_slice(&[accuracy, f1, swapped]);
            (8, &sums[10..14])
        }
        Benchmark::Sims => {
            let (accuracy, f1, swapped) = binary(&sums[2..6]);
            out[2..5].copy_from_slice(&[accuracy, f1, swapped]);
            (5, &sums[6..10])
        }
    };
    out[first] = share(moments[0]);
    let [p, pp, pt] = [moments[1], moments[2], moments[3]].map(|sum| f64::from(sum) / samples);
    let [t, tt] = [label_sums[0], label_sums[1]].map(|sum| f64::from(sum) / samples);
    let (var_p, var_t) = (pp - p * p, tt - t * t);
    // Below this, what is left of single precision sums is rounding.
    let varies = |variance: f64, square: f64| variance > 1e-6 * square;
    out[first + 1] = if varies(var_p, pp) && varies(var_t, tt) {
        ((pt - p * t) / (var_p.sqrt() * var_t.sqrt())).clamp(-1.0, 1.0) as f32
    } else {
        f32::NAN
    };
}

/// Accuracy, F1 weighted by true classes, F1 weighted by predicted ones.
fn binary(counts: &[f32]) -> (f32, f32, f32) {
    let [tp, fp, missed, tn] = [0, 1, 2, 3].map(|i| f64::from(counts[i]));
    let all = tp + fp + missed + tn;
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
    let (of_positive, of_negative) = (f1(tp, fp + missed), f1(tn, fp + missed));
    let weighted =
        |positives: f64| ((positives * of_positive + (all - positives) * of_negative) / all) as f32;
    (
        ((tp + tn) / all) as f32,
        weighted(tp + missed),
        weighted(tp + fp),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use missbench_shared::metrics::evaluate;
    use proptest::prelude::*;

    /// Every metric of every sample counted once is what the protocol computes.
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
        for (id, value) in ids(dataset).iter().zip(values) {
            match expected[*id] {
                // Correlations of all but constant values hang on the last digits.
                None => prop_assert!(value.is_nan() || *id == "corr", "{id}: {value}"),
                Some(expected) => prop_assert!(
                    (f64::from(value) - expected).abs() < 1e-3 || (*id == "corr" && value.is_nan()),
                    "{id}: {value}, {expected}"
                ),
            }
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn sums_give_the_metrics_of_the_protocol(
            // Steps of a tenth: labels of exactly zero and halves come up.
            pairs in proptest::collection::vec((-35i32..35, -30i32..=30), 2..60),
        ) {
            let scaled = |by: f32| -> Vec<(f32, f32)> {
                pairs.iter().map(|&(p, t)| (p as f32 / by, t as f32 / by)).collect()
            };
            agrees(Benchmark::Mosi, &scaled(10.0))?;
            agrees(Benchmark::Sims, &scaled(30.0))?;
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
