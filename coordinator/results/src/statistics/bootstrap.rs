//! Resamples test samples and seeds (Efron's bootstrap).
//!
//! A resample has as many test samples as there are, with replacement, and as many seeds. All cells of
//! a dataset share the resamples: differences between cells are paired. With few seeds the spread over
//! seeds is somewhat small: three resampled from three vary by two thirds of the variance between
//! them.

use super::{interval, sums};
use halfheard_shared::{
    benchmark::Benchmark,
    case::{Case, CaseKind, CaseOrMean},
    results::{Evaluation, Model, Predictions},
};
use ndarray::ArrayView2;
use rand_mt::Mt64;
use std::collections::BTreeMap;

/// How to resample.
#[derive(Clone, Copy, Debug)]
pub struct BootstrapOptions {
    /// The number of resamples.
    pub resamples: usize,
    /// The seed: the same seed gives the same resamples.
    pub seed: u64,
}

impl Default for BootstrapOptions {
    fn default() -> Self {
        Self {
            resamples: 1000,
            seed: 1111,
        }
    }
}

/// The resampled metrics of each cell.
#[derive(Clone, Debug, Default)]
pub struct BootstrapSamples {
    /// By dataset, model and case.
    pub cells: BTreeMap<(Benchmark, Model, Case), SampledCell>,
}

/// The resampled metrics of one cell.
#[derive(Clone, Debug)]
pub struct SampledCell {
    /// The number of seeds.
    pub seeds: usize,
    /// By metric, in the order of `sums::ids`: the mean over seeds on the original samples.
    pub observed: Vec<f32>,
    /// By metric and resample, the mean over its seeds on its samples.
    pub samples: Vec<Vec<f32>>,
}

/// The weights of this many resamples are in memory at once.
const AT_ONCE: usize = 500;

/// Resamples every cell of `predictions`. `progress` is called with the finished share.
pub fn resample(
    predictions: &Predictions,
    options: BootstrapOptions,
    progress: impl Fn(f64),
) -> BootstrapSamples {
    let mut resampled = BootstrapSamples::default();
    let total = predictions.evaluations.len().max(1) as f64;
    let mut before = 0.0;
    for (&dataset, labels) in &predictions.labels {
        let own = predictions.evaluations.iter();
        let own: Vec<&Evaluation> = own.filter(|e| e.dataset == dataset).collect();
        let share = own.len() as f64 / total;
        resample_dataset(dataset, labels, &own, options, &mut resampled, |part| {
            progress(before + share * part);
        });
        before += share;
    }
    resampled
}

/// Computes metrics as matrix products, which are the work: first of the original samples, then chunk by
/// chunk of the resamples. The steps share a dozen values, so they stay in one function.
fn resample_dataset(
    dataset: Benchmark,
    labels: &[f32],
    evaluations: &[&Evaluation],
    options: BootstrapOptions,
    resampled: &mut BootstrapSamples,
    progress: impl Fn(f64),
) {
    let samples = labels.len();
    if samples == 0 {
        return;
    }
    let mut models: BTreeMap<&Model, BTreeMap<Case, Vec<&Evaluation>>> = BTreeMap::new();
    for evaluation in evaluations {
        // An evaluation by a worker of another version may lack a criterion: it is left out.
        let mut criteria = sums::criteria(dataset).into_iter();
        if criteria.all(|c| evaluation.by_criterion.contains_key(c)) {
            let cases = models.entry(&evaluation.model).or_default();
            cases.entry(evaluation.case).or_default().push(evaluation);
        }
    }
    let width = sums::width(dataset);
    let metrics = sums::ids(dataset).len();
    let label_rows = sums::label_statistics(dataset, labels);
    let chunks = options.resamples.div_ceil(AT_ONCE);
    let steps = (models.len() * chunks).max(1) as f64;

    // The observed values: every sample once, every seed once.
    let ones = vec![1.0f32; samples];
    for (model, cases) in &models {
        let columns = cases.values().map(Vec::len).sum::<usize>() * width;
        let rows = statistics(dataset, labels, cases, columns);
        let sums = product(&ones, 1, &rows, samples, columns);
        let label_sums = product(&ones, 1, &label_rows, samples, sums::LABEL_WIDTH);
        let mut first = 0;
        for (case, seeds) in cases {
            let mut mean = Mean::new(metrics);
            for seed in 0..seeds.len() {
                let of = &sums[(first + seed) * width..][..width];
                mean.add(dataset, of, &label_sums, samples as f64);
            }
            first += seeds.len();
            let key = (dataset, (*model).clone(), *case);
            let cell = SampledCell {
                seeds: seeds.len(),
                observed: mean.take(),
                samples: vec![Vec::with_capacity(options.resamples); metrics],
            };
            resampled.cells.insert(key, cell);
        }
    }

    for chunk in 0..chunks {
        let count = AT_ONCE.min(options.resamples - chunk * AT_ONCE);
        let mut source = Mt64::new(seed_of(options.seed, dataset, chunk as u64));
        let weights = weights(&mut source, count, samples);
        // The seeds of a resample, as shares of the number that a cell has.
        let places: Vec<[f64; SEEDS]> = (0..count)
            .map(|_| std::array::from_fn(|_| uniform(&mut source)))
            .collect();
        let label_sums = product(&weights, count, &label_rows, samples, sums::LABEL_WIDTH);
        for (number, (model, cases)) in models.iter().enumerate() {
            let columns = cases.values().map(Vec::len).sum::<usize>() * width;
            let rows = statistics(dataset, labels, cases, columns);
            let sums = product(&weights, count, &rows, samples, columns);
            let mut first = 0;
            for (case, seeds) in cases {
                let key = (dataset, (*model).clone(), *case);
                let Some(cell) = resampled.cells.get_mut(&key) else {
                    continue;
                };
                for resample in 0..count {
                    let mut mean = Mean::new(metrics);
                    for place in (0..seeds.len()).map(|i| places[resample][i % SEEDS]) {
                        let seed = ((place * seeds.len() as f64) as usize).min(seeds.len() - 1);
                        let of = &sums[resample * columns + (first + seed) * width..][..width];
                        let label_sums = &label_sums[resample * sums::LABEL_WIDTH..];
                        mean.add(dataset, of, label_sums, samples as f64);
                    }
                    for (metric, value) in mean.take().into_iter().enumerate() {
                        cell.samples[metric].push(value);
                    }
                }
                first += seeds.len();
            }
            progress((chunk * models.len() + number + 1) as f64 / steps);
        }
    }
}

/// Further seeds reuse the places of the first.
const SEEDS: usize = 16;

/// Averages metrics over seeds. A metric that is undefined for a seed is left out of the mean, as in
/// tables; one that is undefined for all seeds is NaN.
struct Mean {
    sums: Vec<f64>,
    counts: Vec<u32>,
    values: Vec<f32>,
}

impl Mean {
    fn new(metrics: usize) -> Self {
        Self {
            sums: vec![0.0; metrics],
            counts: vec![0; metrics],
            values: vec![0.0; metrics],
        }
    }

    fn add(&mut self, dataset: Benchmark, sums: &[f32], label_sums: &[f32], samples: f64) {
        sums::metrics(dataset, sums, label_sums, samples, &mut self.values);
        for (i, &value) in self.values.iter().enumerate() {
            if !value.is_nan() {
                self.sums[i] += f64::from(value);
                self.counts[i] += 1;
            }
        }
    }

    fn take(self) -> Vec<f32> {
        let pairs = self.sums.into_iter().zip(self.counts);
        pairs
            .map(|(sum, count)| (sum / f64::from(count)) as f32)
            .collect()
    }
}

/// The statistics of all evaluations of a model side by side, `[samples, columns]`.
fn statistics(
    dataset: Benchmark,
    labels: &[f32],
    cases: &BTreeMap<Case, Vec<&Evaluation>>,
    columns: usize,
) -> Vec<f32> {
    let mut rows = vec![0.0; labels.len() * columns];
    let mut first = 0;
    for evaluation in cases.values().flatten() {
        let vectors: Vec<&[f32]> = sums::criteria(dataset)
            .iter()
            .filter_map(|criterion| evaluation.by_criterion.get(*criterion))
            .map(|vector| &vector[..])
            .collect();
        sums::statistics(dataset, &vectors, labels, &mut rows[first..], columns);
        first += sums::width(dataset);
    }
    rows
}

/// How often each sample is in each resample, `[resamples, samples]`.
fn weights(source: &mut Mt64, resamples: usize, samples: usize) -> Vec<f32> {
    let mut weights = vec![0.0; resamples * samples];
    for row in weights.chunks_exact_mut(samples) {
        for _ in 0..samples {
            let sample = (uniform(source) * samples as f64) as usize;
            row[sample.min(samples - 1)] += 1.0;
        }
    }
    weights
}

/// Uniform in [0, 1), 53 bits.
fn uniform(source: &mut Mt64) -> f64 {
    (source.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

fn seed_of(seed: u64, dataset: Benchmark, chunk: u64) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.update(dataset.id().as_bytes());
    hasher.update(&chunk.to_le_bytes());
    let hash = *hasher.finalize().as_bytes();
    let [a, b, c, d, e, f, g, h, ..] = hash;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// `a [m, k]` times `b [k, n]`, row by row.
#[expect(
    clippy::expect_used,
    reason = "every caller passes matrices of these sizes"
)]
fn product(a: &[f32], m: usize, b: &[f32], k: usize, n: usize) -> Vec<f32> {
    let a = ArrayView2::from_shape((m, k), a).expect("m * k numbers");
    let b = ArrayView2::from_shape((k, n), b).expect("k * n numbers");
    // The product is row by row, without an offset.
    a.dot(&b).into_raw_vec_and_offset().0
}

impl BootstrapSamples {
    /// The datasets of the cells: the paper's in its order, then custom ones.
    pub fn datasets(&self) -> Vec<Benchmark> {
        let mut datasets: Vec<Benchmark> = self.cells.keys().map(|key| key.0).collect();
        datasets.dedup();
        datasets
    }

    /// One cell.
    pub fn cell(&self, dataset: Benchmark, model: &Model, case: Case) -> Option<&SampledCell> {
        self.cells.get(&(dataset, model.clone(), case))
    }

    /// The observed value and the samples of a metric in a cell.
    pub fn metric(
        &self,
        dataset: Benchmark,
        model: &Model,
        case: Case,
        metric: &str,
    ) -> Option<(f32, &[f32])> {
        let place = sums::ids(dataset).iter().position(|id| *id == metric)?;
        let cell = self.cell(dataset, model, case)?;
        Some((cell.observed[place], &cell.samples[place]))
    }

    /// The cases that a model has on a dataset.
    pub fn cases(&self, dataset: Benchmark, model: &Model) -> Vec<Case> {
        let own = self.cells.keys();
        let own = own.filter(|(d, m, _)| *d == dataset && m == model);
        own.map(|(_, _, case)| *case).collect()
    }

    /// Those of a kind.
    pub fn cases_of(&self, dataset: Benchmark, model: &Model, kind: CaseKind) -> Vec<Case> {
        let mut cases = self.cases(dataset, model);
        cases.retain(|case| case.kind() == Some(kind));
        cases
    }

    /// The mean of a metric over the cases of a kind, resample by resample.
    pub fn mean(
        &self,
        dataset: Benchmark,
        model: &Model,
        kind: CaseKind,
        metric: &str,
    ) -> Option<(f32, Vec<f32>)> {
        let mut observed = 0.0;
        let mut samples: Vec<f32> = Vec::new();
        let cases = self.cases_of(dataset, model, kind);
        let share = 1.0 / cases.len() as f32;
        for case in cases {
            let (value, own) = self.metric(dataset, model, case, metric)?;
            observed += value * share;
            samples.resize(own.len(), 0.0);
            for (sum, value) in samples.iter_mut().zip(own) {
                *sum += value * share;
            }
        }
        (!samples.is_empty()).then_some((observed, samples))
    }

    /// The interval of a metric at a case, or of its mean over cases.
    pub fn interval(
        &self,
        dataset: Benchmark,
        model: &Model,
        case: CaseOrMean,
        metric: &str,
        level: f64,
    ) -> Option<(f64, f64)> {
        match case {
            CaseOrMean::Case(case) => interval(self.metric(dataset, model, case, metric)?.1, level),
            CaseOrMean::Mean(kind) => interval(&self.mean(dataset, model, kind, metric)?.1, level),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use halfheard_shared::{ids::JobId, metrics};
    use std::sync::Arc;

    /// `good` is nearer to the truth than `bad` at every sample, and both lose at the higher rate.
    fn predictions() -> Predictions {
        let mut source = Mt64::new(7);
        let mut normal = || (0..12).map(|_| uniform(&mut source)).sum::<f64>() as f32 - 6.0;
        let labels: Arc<[f32]> = (0..200).map(|_| normal().clamp(-3.0, 3.0)).collect();
        let mut evaluations = Vec::new();
        for (method, noise) in [("bad", 1.5), ("good", 0.5)] {
            for (case, loss) in [("r=0", 1.0), ("r=0.5", 1.5)] {
                for seed in 0..3 {
                    let values: Arc<[f32]> =
                        labels.iter().map(|l| l + noise * loss * normal()).collect();
                    let criteria = sums::criteria(Benchmark::Mosi);
                    evaluations.push(Evaluation {
                        job: JobId::derive(&[method.as_bytes(), case.as_bytes(), &[seed]]),
                        dataset: Benchmark::Mosi,
                        model: model(method),
                        seed: u64::from(seed),
                        case: at(case),
                        by_criterion: criteria
                            .iter()
                            .map(|c| ((*c).to_owned(), Arc::clone(&values)))
                            .collect(),
                    });
                }
            }
        }
        Predictions {
            labels: [(Benchmark::Mosi, labels)].into(),
            evaluations,
        }
    }

    fn model(name: &str) -> Model {
        Model::new(name, "")
    }

    fn at(case: &str) -> Case {
        case.parse().unwrap()
    }

    const OPTIONS: BootstrapOptions = BootstrapOptions {
        resamples: 600,
        seed: 1,
    };

    #[test]
    fn observed_value_is_the_mean_over_seeds_of_the_protocols_metric() {
        let predictions = predictions();
        let resampled = resample(&predictions, OPTIONS, |_| {});
        assert_eq!(resampled.cells.len(), 4);
        for metric in sums::ids(Benchmark::Mosi) {
            let own = predictions.evaluations.iter();
            let values: Vec<f64> = own
                .filter(|e| e.model == model("good") && e.case == at("r=0.5"))
                .map(|e| {
                    let vector = e.of_metric(metric).unwrap();
                    let labels = &predictions.labels[&Benchmark::Mosi];
                    metrics::evaluate(Benchmark::Mosi, vector, labels).unwrap()[metric].unwrap()
                })
                .collect();
            let mean = values.iter().sum::<f64>() / 3.0;
            let (observed, samples) = resampled
                .metric(Benchmark::Mosi, &model("good"), at("r=0.5"), metric)
                .unwrap();
            assert!((f64::from(observed) - mean).abs() < 1e-4, "{metric}");
            assert_eq!(samples.len(), 600);
            let (low, high) = interval(samples, 0.95).unwrap();
            assert!(low < mean && mean < high, "{metric}: {low} {mean} {high}");
        }
    }

    /// The binomial spread is computed by none of our code.
    #[test]
    fn spread_of_an_accuracy_is_near_the_binomial_one() {
        let mut predictions = predictions();
        predictions.evaluations.retain(|e| e.seed == 0);
        let resampled = resample(&predictions, OPTIONS, |_| {});
        let (p, samples) = resampled
            .metric(Benchmark::Mosi, &model("bad"), at("r=0"), "acc7")
            .unwrap();
        let mean = samples.iter().sum::<f32>() / samples.len() as f32;
        let square = |v: &f32| (v - mean) * (v - mean);
        let spread = (samples.iter().map(square).sum::<f32>() / samples.len() as f32).sqrt();
        let binomial = (p * (1.0 - p) / 200.0).sqrt();
        assert!(
            (spread / binomial - 1.0).abs() < 0.15,
            "{spread} {binomial}"
        );
    }

    #[test]
    fn resamples_depend_on_the_seed_alone() {
        let predictions = predictions();
        let first = |options| {
            let resampled = resample(&predictions, options, |_| {});
            resampled.cells.into_values().next().unwrap().samples
        };
        assert_eq!(first(OPTIONS), first(OPTIONS));
        assert_ne!(
            first(OPTIONS),
            first(BootstrapOptions { seed: 2, ..OPTIONS })
        );
    }

    #[test]
    fn constant_prediction_has_no_interval_for_its_correlation() {
        let mut predictions = predictions();
        for evaluation in &mut predictions.evaluations {
            for vector in evaluation.by_criterion.values_mut() {
                *vector = vec![0.4; vector.len()].into();
            }
        }
        let resampled = resample(&predictions, OPTIONS, |_| {});
        let of = |metric| {
            resampled.interval(
                Benchmark::Mosi,
                &model("good"),
                at("r=0").into(),
                metric,
                0.95,
            )
        };
        assert_eq!(of("corr"), None);
        assert!(of("acc2_nonzero").is_some());
    }
}
