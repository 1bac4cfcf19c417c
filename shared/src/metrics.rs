//! The metrics, as the reference computes them (MMSA `utils/metricsTop.py`) on MOSI, MOSEI and SIMS,
//! and in the same way on own datasets: values are clipped first, rounding is half to even,
//! F1 is weighted by support, and comparisons happen in single precision. What is undefined is `None`, never NaN.

use crate::benchmark::{Benchmark, Rules, Scale};
use std::collections::BTreeMap;

/// Why predictions have no metrics.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetricsError {
    /// Nothing to measure.
    #[error("there are no predictions to measure: the split is empty")]
    Empty,
    /// Another number of predictions than of labels.
    #[error("{predictions} predictions for {labels} labels")]
    Lengths {
        /// Predictions.
        predictions: usize,
        /// Labels.
        labels: usize,
    },
    /// A prediction is NaN or infinite.
    #[error("the prediction of sample {sample} is not finite")]
    NonFinite {
        /// Position in the split.
        sample: usize,
    },
    /// A label is NaN or infinite.
    #[error("the label of sample {sample} is not finite: import the dataset from a sound file")]
    Label {
        /// Position in the split.
        sample: usize,
    },
}

/// Metric values by id; an undefined one is `None`.
pub type Metrics = BTreeMap<String, Option<f64>>;

/// All metrics of `benchmark` for the predictions and labels of a split, both `[samples]`: those that
/// [`Benchmark::metrics`] lists, by id. Accuracies, F1 and laziness are fractions; nothing is rounded.
///
/// ```
/// use halfheard_shared::{benchmark::Benchmark, metrics::evaluate};
///
/// let metrics = evaluate(Benchmark::Mosi, &[-0.5, 1.2, 2.6], &[-1.0, 0.0, 3.0])?;
/// assert_eq!(metrics["acc2_nonzero"], Some(1.0));
/// assert_eq!(metrics["acc7"], Some(1.0 / 3.0));
/// # Ok::<(), halfheard_shared::metrics::MetricsError>(())
/// ```
///
/// # Errors
///
/// When there are no samples, the sizes differ, or a value is not finite.
pub fn evaluate(
    benchmark: Benchmark,
    predictions: &[f32],
    labels: &[f32],
) -> Result<Metrics, MetricsError> {
    if predictions.len() != labels.len() {
        return Err(MetricsError::Lengths {
            predictions: predictions.len(),
            labels: labels.len(),
        });
    }
    if let Some(sample) = predictions.iter().position(|p| !p.is_finite()) {
        return Err(MetricsError::NonFinite { sample });
    }
    if let Some(sample) = labels.iter().position(|l| !l.is_finite()) {
        return Err(MetricsError::Label { sample });
    }
    if labels.is_empty() {
        return Err(MetricsError::Empty);
    }
    Ok(measured(benchmark.rules(), predictions, labels)
        .into_iter()
        .map(|(id, value)| (id.to_owned(), value))
        .collect())
}

/// How often each true fine class (row) was predicted as each (column), `[classes][classes]`, most
/// negative class first.
pub fn confusion(benchmark: Benchmark, predictions: &[f32], labels: &[f32]) -> Vec<Vec<u64>> {
    let rules = benchmark.rules();
    let class = |value| rules.fine.of(rules.clip(value));
    let count = rules.fine.count();
    let mut counts = vec![vec![0; count]; count];
    for (&prediction, &label) in predictions.iter().zip(labels) {
        counts[class(label)][class(prediction)] += 1;
    }
    counts
}

type Named = Vec<(&'static str, Option<f64>)>;

fn measured(rules: &Rules, predictions: &[f32], labels: &[f32]) -> Named {
    // On SIMS the reference clips before everything, the error and the correlation included.
    let clip = |values: &[f32]| values.iter().map(|&v| rules.clip(v)).collect::<Vec<_>>();
    let (predictions, labels) = (clip(predictions), clip(labels));
    let classes = |scale: &Scale| -> Pairs {
        let pairs = predictions.iter().zip(&labels);
        pairs.map(|(&p, &l)| (scale.of(p), scale.of(l))).collect()
    };
    let mut values = Named::new();
    for scale in &rules.scales {
        values.push((scale.accuracy, accuracy(&classes(scale))));
    }
    for binary in &rules.binaries {
        let class = |value| usize::from(binary.positive(value));
        let pairs = predictions.iter().zip(&labels);
        let pairs: Pairs = pairs
            .filter(|(_, label)| binary.counts(**label))
            .map(|(&p, &l)| (class(p), class(l)))
            .collect();
        values.push((binary.accuracy, accuracy(&pairs)));
        values.push((binary.f1, weighted_f1(&pairs)));
        values.push((binary.swapped, weighted_f1(&swapped(&pairs))));
    }
    values.push(("laziness", laziness(&classes(&rules.fine))));
    values.push(("mae", mae(&predictions, &labels)));
    values.push(("corr", correlation(&predictions, &labels)));
    values
}

/// Predicted and true class of each sample.
type Pairs = Vec<(usize, usize)>;

fn swapped(pairs: &[(usize, usize)]) -> Pairs {
    pairs.iter().map(|&(p, t)| (t, p)).collect()
}

fn accuracy(pairs: &[(usize, usize)]) -> Option<f64> {
    let right = pairs.iter().filter(|(p, t)| p == t).count();
    (!pairs.is_empty()).then(|| right as f64 / pairs.len() as f64)
}

/// The F1 of each class, weighted by how many samples truly are of it.
fn weighted_f1(pairs: &[(usize, usize)]) -> Option<f64> {
    if pairs.is_empty() {
        return None;
    }
    let mut counts: BTreeMap<usize, [usize; 3]> = BTreeMap::new();
    for &(predicted, truth) in pairs {
        counts.entry(predicted).or_default()[0] += 1;
        counts.entry(truth).or_default()[1] += 1;
        if predicted == truth {
            counts.entry(truth).or_default()[2] += 1;
        }
    }
    let sum: f64 = counts
        .values()
        .map(|&[predicted, support, right]| {
            support as f64 * 2.0 * right as f64 / (predicted + support) as f64
        })
        .sum();
    Some(sum / pairs.len() as f64)
}

/// How far the predicted classes' distribution is from the true one: the total variation distance,
/// 0 where they agree, towards 1 where a model always answers what is rarely true.
fn laziness(pairs: &[(usize, usize)]) -> Option<f64> {
    if pairs.is_empty() {
        return None;
    }
    let mut surplus: BTreeMap<usize, i64> = BTreeMap::new();
    for &(predicted, truth) in pairs {
        *surplus.entry(predicted).or_default() += 1;
        *surplus.entry(truth).or_default() -= 1;
    }
    let moved: u64 = surplus.values().map(|s| s.unsigned_abs()).sum();
    Some(moved as f64 / 2.0 / pairs.len() as f64)
}

fn mae(predictions: &[f32], labels: &[f32]) -> Option<f64> {
    let sum: f64 = predictions
        .iter()
        .zip(labels)
        .map(|(p, l)| f64::from((p - l).abs()))
        .sum();
    (!labels.is_empty()).then(|| sum / labels.len() as f64)
}

/// Pearson's correlation; undefined where either side does not vary.
fn correlation(predictions: &[f32], labels: &[f32]) -> Option<f64> {
    let varies = |values: &[f32]| values.iter().any(|v| v != &values[0]);
    if !varies(predictions) || !varies(labels) {
        return None;
    }
    let n = labels.len() as f64;
    let mean = |values: &[f32]| values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    let (mean_p, mean_l) = (mean(predictions), mean(labels));
    let (mut pp, mut ll, mut pl) = (0.0, 0.0, 0.0);
    for (&p, &l) in predictions.iter().zip(labels) {
        let (p, l) = (f64::from(p) - mean_p, f64::from(l) - mean_l);
        pp += p * p;
        ll += l * l;
        pl += p * l;
    }
    let value = pl / (pp.sqrt() * ll.sqrt());
    value.is_finite().then(|| value.clamp(-1.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::benchmark::{Kind, definition::DefinitionSpec};
    use proptest::prelude::*;

    #[test]
    fn swapped_f1_is_visible_for_constant_predictions() {
        // 69.37 % of SIMS' test split is one class: F1 is 56.82, swapped 81.91.
        let labels: Vec<f32> = (0..457).map(|i| if i < 317 { -0.5 } else { 0.5 }).collect();
        let metrics = evaluate(Benchmark::Sims, &[-0.4; 457], &labels).unwrap();
        let percent = |id: &str| (metrics[id].unwrap() * 1e4).round() / 1e2;
        assert_eq!(percent("acc2"), 69.37);
        assert_eq!(percent("f1"), 56.82);
        assert_eq!(percent("f1_swapped"), 81.91);
        assert_eq!(metrics["corr"], None);
    }

    #[test]
    fn undefined_metric_is_none() {
        let metrics = evaluate(Benchmark::Mosi, &[0.5, 0.1], &[0.0, 0.0]).unwrap();
        assert_eq!(metrics["acc2_nonzero"], None);
        assert_eq!(metrics["f1_nonzero"], None);
        assert_eq!(metrics["acc2_nonneg"], Some(1.0));
    }

    #[test]
    fn non_finite_value_is_rejected() {
        let result = evaluate(Benchmark::Mosi, &[0.5, f32::NAN], &[0.0, 0.0]);
        assert_eq!(result, Err(MetricsError::NonFinite { sample: 1 }));
        let result = evaluate(Benchmark::Mosi, &[0.5], &[0.0, 0.0]);
        assert!(matches!(result, Err(MetricsError::Lengths { .. })));
        let result = evaluate(Benchmark::Mosi, &[0.5], &[f32::INFINITY]);
        assert_eq!(result, Err(MetricsError::Label { sample: 0 }));
        assert_eq!(
            evaluate(Benchmark::Mosi, &[], &[]),
            Err(MetricsError::Empty)
        );
    }

    #[test]
    fn halves_round_to_even_after_clipping() {
        for (value, class) in [
            (0.5, 0),
            (1.5, 2),
            (2.5, 2),
            (-0.5, 0),
            (-1.5, -2),
            (-2.5, -2),
            (2.500_001, 3),
            (9.0, 3),
            (-9.0, -3),
        ] {
            let of = |id| Benchmark::Mosi.rules().scale(id).unwrap().of(value) as i8;
            assert_eq!(of("acc7") - 3, class, "{value}");
            assert_eq!(of("acc5") - 2, class.clamp(-2, 2), "{value}");
        }
    }

    #[test]
    fn sims_edges_belong_to_lower_class_in_f32() {
        for (value, two, three, five) in [
            (-1.0, 0, 0, 0),
            (-0.7, 0, 0, 0),
            (-0.69, 0, 0, 1),
            (-0.1, 0, 0, 1),
            (-0.09, 0, 1, 2),
            (0.0, 0, 1, 2),
            (0.1, 1, 1, 2),
            (0.11, 1, 2, 3),
            (0.7, 1, 2, 3),
            (0.71, 1, 2, 4),
        ] {
            let rules = Benchmark::Sims.rules();
            let of = |id| rules.scale(id).unwrap().of(value);
            let found = (
                usize::from(rules.binaries[0].positive(value)),
                of("acc3"),
                of("acc5"),
            );
            assert_eq!(found, (two, three, five), "{value}");
        }
    }

    #[test]
    fn zero_prediction_depends_on_binary_split() {
        let metrics = evaluate(Benchmark::Mosi, &[0.0, 0.0], &[1.0, 2.0]).unwrap();
        assert_eq!(metrics["acc2_nonzero"], Some(0.0));
        assert_eq!(metrics["acc2_nonneg"], Some(1.0));
    }

    #[test]
    fn confusion_matrix_rows_are_truth() {
        let counts = confusion(Benchmark::Sims, &[0.05, 0.0, -0.9], &[1.0, -2.0, -0.9]);
        assert_eq!(counts.len(), Benchmark::Sims.rules().fine.count());
        assert_eq!(counts[4], [0, 0, 1, 0, 0]);
        assert_eq!(counts[0], [1, 0, 1, 0, 0]);
        let counts = confusion(Benchmark::Mosi, &[-3.0, 2.6], &[-5.0, 0.0]);
        assert_eq!((counts[0][0], counts[3][6]), (1, 1));
        assert_eq!(counts.iter().flatten().sum::<u64>(), 2);
    }

    proptest! {
        #[test]
        fn metrics_stay_in_range_and_perfect_predictions_score_best(
            pairs in prop::collection::vec((-5.0..5.0_f32, -3.0..3.0_f32), 1..60)
        ) {
            let (predictions, labels): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
            for benchmark in Benchmark::ALL {
                let metrics = evaluate(benchmark, &predictions, &labels).unwrap();
                let perfect = evaluate(benchmark, &labels, &labels).unwrap();
                prop_assert_eq!(metrics.len(), benchmark.metrics().len());
                for metric in benchmark.metrics() {
                    let range = match metric.id {
                        "mae" => 0.0..=8.0,
                        "corr" => -1.0..=1.0,
                        _ => 0.0..=1.0,
                    };
                    let value = metrics[metric.id];
                    prop_assert!(value.is_none_or(|v| range.contains(&v)), "{}", metric.id);
                    let best = f64::from(u8::from(metric.higher_is_better));
                    let value = perfect[metric.id];
                    let is_best = value.is_none_or(|v| (v - best).abs() < 1e-9);
                    prop_assert!(is_best, "{} {:?}", metric.id, value);
                }
            }
        }
    }

    fn own(text: &str) -> Benchmark {
        let spec: DefinitionSpec = toml::from_str(text).unwrap();
        Benchmark::new("mine", Kind::own(spec.resolve().unwrap()).unwrap()).unwrap()
    }

    proptest! {
        /// A definition that says what MOSI's or SIMS' says gives their numbers, to the bit.
        #[test]
        fn definition_equal_to_builtin_gives_equal_numbers(
            pairs in prop::collection::vec((-40i32..40, -30i32..=30), 1..80)
        ) {
            let like_mosi = own("label_range = [-3, 3]\nlanguage = \"en\"\nclasses = [2, 5, 7]");
            let like_sims = own(
                "label_range = [-1, 1]\nlanguage = \"zh\"\nclasses = [2, 3, 5]\nunimodal = true",
            );
            for (mine, built_in, scale) in
                [(like_mosi, Benchmark::Mosi, 10.0), (like_sims, Benchmark::Sims, 30.0)]
            {
                // Steps of a tenth and a thirtieth: edges, halves and zeros come up.
                let scaled = |v: i32| v as f32 / scale;
                let predictions: Vec<f32> = pairs.iter().map(|&(p, _)| scaled(p)).collect();
                let labels: Vec<f32> = pairs.iter().map(|&(_, l)| scaled(l)).collect();
                let here = evaluate(mine, &predictions, &labels).unwrap();
                prop_assert_eq!(here, evaluate(built_in, &predictions, &labels).unwrap());
                let here = confusion(mine, &predictions, &labels);
                prop_assert_eq!(here, confusion(built_in, &predictions, &labels));
            }
        }

        /// Labels moved and stretched have the same accuracies under a definition that is moved and
        /// stretched as they are; the error is stretched.
        #[test]
        fn intervals_follow_the_range(
            pairs in prop::collection::vec((-40i32..40, -32i32..=32), 1..80)
        ) {
            let wide = own("label_range = [0, 64]\nlanguage = \"zh\"\nclasses = [2, 3, 5]");
            let at = |v: i32| 32.0 + v as f32;
            let predictions: Vec<f32> = pairs.iter().map(|&(p, _)| at(p)).collect();
            let labels: Vec<f32> = pairs.iter().map(|&(_, l)| at(l)).collect();
            let small = |values: &[f32]| values.iter().map(|v| (v - 32.0) / 32.0).collect::<Vec<_>>();
            let here = evaluate(wide, &predictions, &labels).unwrap();
            let sims = evaluate(Benchmark::Sims, &small(&predictions), &small(&labels)).unwrap();
            for (id, value) in &here {
                let scale = if id == "mae" { 32.0 } else { 1.0 };
                match (value, sims[id]) {
                    (Some(here), Some(there)) => {
                        prop_assert!((here - scale * there).abs() < 1e-5, "{id}");
                    }
                    (here, there) => prop_assert_eq!(*here, there),
                }
            }
        }
    }

    #[test]
    fn stars_have_metrics_of_their_classes() {
        let stars = own("label_range = [0, 5]\nlanguage = \"en\"\nclasses = [2, 6]");
        let metrics = evaluate(stars, &[4.6, 2.0, 0.2, 2.5], &[5.0, 3.0, 0.0, 2.5]).unwrap();
        assert_eq!(metrics["acc6"], Some(0.75), "2.5 rounds to 2, for both");
        // Neutral 2.5: left out, or on the side of the positive ones.
        assert_eq!(metrics["acc2_nonzero"], Some(2.0 / 3.0));
        assert_eq!(metrics["acc2_nonneg"], Some(0.75));
        assert!((metrics["mae"].unwrap() - 0.4).abs() < 1e-6);
        assert_eq!(metrics.len(), stars.metrics().len());
    }

    #[test]
    fn laziness_is_distance_of_distributions() {
        let metrics = evaluate(Benchmark::Mosi, &[1.0; 4], &[1.0, 1.0, -1.0, 2.0]).unwrap();
        assert_eq!(metrics["laziness"], Some(0.5));
    }
}
