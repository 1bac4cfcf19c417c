//! Draws test samples and seeds again and again (Efron's bootstrap).
//!
//! A draw takes as many test samples as there are, with replacement, and as many seeds. All cells of
//! a dataset see the same draws, so that differences between cells are paired. With few seeds the
//! spread over seeds comes out somewhat small: three drawn from three vary by two thirds of the
//! variance between them.

use super::{interval, sums};
use halfheard_shared::benchmark::Benchmark;
use halfheard_store::predictions::{Evaluation, Predictions};
use ndarray::ArrayView2;
use rand_mt::Mt64;
use std::collections::BTreeMap;

/// How to draw.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How often.
    pub draws: usize,
    /// What the draws come from: the same number, the same draws.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            draws: 1000,
            seed: 1111,
        }
    }
}

/// A model: method and variant.
pub type Model = (String, String);

/// What was drawn for each cell.
#[derive(Clone, Debug, Default)]
pub struct Drawn {
    /// By dataset, model and case.
    pub cells: BTreeMap<(Benchmark, Model, String), Cell>,
}

/// What was drawn for one cell.
#[derive(Clone, Debug)]
pub struct Cell {
    /// How many seeds it rests on.
    pub seeds: usize,
    /// By metric, as [`sums::ids`] lists them: the mean over seeds on the samples as they are.
    pub observed: Vec<f32>,
    /// By metric, the mean over the drawn seeds on the drawn samples, one a draw.
    pub draws: Vec<Vec<f32>>,
}

/// Weights of this many draws are in memory at once.
const AT_ONCE: usize = 500;

/// Draws for every cell of `predictions`. `progress` hears the share that is done.
pub fn draw(predictions: &Predictions, options: Options, progress: impl Fn(f64)) -> Drawn {
    let mut drawn = Drawn::default();
    let total = predictions.evaluations.len().max(1) as f64;
    let mut before = 0.0;
    for (&dataset, labels) in &predictions.labels {
        let own = predictions.evaluations.iter();
        let own: Vec<&Evaluation> = own.filter(|e| e.dataset == dataset).collect();
        let share = own.len() as f64 / total;
        draw_dataset(dataset, labels, &own, options, &mut drawn, |part| {
            progress(before + share * part);
        });
        before += share;
    }
    drawn
}

fn draw_dataset(
    dataset: Benchmark,
    labels: &[f32],
    evaluations: &[&Evaluation],
    options: Options,
    drawn: &mut Drawn,
    progress: impl Fn(f64),
) {
    let samples = labels.len();
    if samples == 0 {
        return;
    }
    let mut models: BTreeMap<Model, BTreeMap<&str, Vec<&Evaluation>>> = BTreeMap::new();
    for evaluation in evaluations {
        // One that lacks a criterion, which a worker of another version may have left, is not drawn.
        let mut criteria = sums::criteria(dataset).into_iter();
        if criteria.all(|c| evaluation.by_criterion.contains_key(c)) {
            let model = (evaluation.method.clone(), evaluation.variant.clone());
            let cases = models.entry(model).or_default();
            cases.entry(&evaluation.case).or_default().push(evaluation);
        }
    }
    let width = sums::width(dataset);
    let metrics = sums::ids(dataset).len();
    let label_rows = sums::label_statistics(dataset, labels);
    let chunks = options.draws.div_ceil(AT_ONCE);
    let steps = (models.len() * chunks).max(1) as f64;

    // The first draw of a cell is no draw: every sample once, every seed once.
    let ones = vec![1.0f32; samples];
    for ((method, variant), cases) in &models {
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
            let key = (
                dataset,
                (method.clone(), variant.clone()),
                (*case).to_owned(),
            );
            let cell = Cell {
                seeds: seeds.len(),
                observed: mean.take(),
                draws: vec![Vec::with_capacity(options.draws); metrics],
            };
            drawn.cells.insert(key, cell);
        }
    }

    for chunk in 0..chunks {
        let count = AT_ONCE.min(options.draws - chunk * AT_ONCE);
        let mut source = Mt64::new(seed_of(options.seed, dataset, chunk as u64));
        let weights = weights(&mut source, count, samples);
        // Which seeds a draw takes, as shares of however many a cell has.
        let places: Vec<[f64; SEEDS]> = (0..count)
            .map(|_| std::array::from_fn(|_| uniform(&mut source)))
            .collect();
        let label_sums = product(&weights, count, &label_rows, samples, sums::LABEL_WIDTH);
        for (number, ((method, variant), cases)) in models.iter().enumerate() {
            let columns = cases.values().map(Vec::len).sum::<usize>() * width;
            let rows = statistics(dataset, labels, cases, columns);
            let sums = product(&weights, count, &rows, samples, columns);
            let mut first = 0;
            for (case, seeds) in cases {
                let key = (
                    dataset,
                    (method.clone(), variant.clone()),
                    (*case).to_owned(),
                );
                let Some(cell) = drawn.cells.get_mut(&key) else {
                    continue;
                };
                for draw in 0..count {
                    let mut mean = Mean::new(metrics);
                    for place in (0..seeds.len()).map(|i| places[draw][i % SEEDS]) {
                        let seed = ((place * seeds.len() as f64) as usize).min(seeds.len() - 1);
                        let of = &sums[draw * columns + (first + seed) * width..][..width];
                        let label_sums = &label_sums[draw * sums::LABEL_WIDTH..];
                        mean.add(dataset, of, label_sums, samples as f64);
                    }
                    for (metric, value) in mean.take().into_iter().enumerate() {
                        cell.draws[metric].push(value);
                    }
                }
                first += seeds.len();
            }
            progress((chunk * models.len() + number + 1) as f64 / steps);
        }
    }
}

/// More seeds than this share their places.
const SEEDS: usize = 16;

/// Adds up metrics over seeds. A metric that is undefined with a seed is left out of the mean, as
/// the tables do; one that is undefined with all is NaN.
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

/// The statistics of all evaluations of a model beside each other, `[samples, columns]`.
fn statistics(
    dataset: Benchmark,
    labels: &[f32],
    cases: &BTreeMap<&str, Vec<&Evaluation>>,
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

/// How often each draw takes each sample, `[draws, samples]`.
fn weights(source: &mut Mt64, draws: usize, samples: usize) -> Vec<f32> {
    let mut weights = vec![0.0; draws * samples];
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

/// `a [m, k]` times `b [k, n]`, rows one after the other.
#[expect(
    clippy::expect_used,
    reason = "every caller makes matrices of the sizes it says"
)]
fn product(a: &[f32], m: usize, b: &[f32], k: usize, n: usize) -> Vec<f32> {
    let a = ArrayView2::from_shape((m, k), a).expect("m * k numbers");
    let b = ArrayView2::from_shape((k, n), b).expect("k * n numbers");
    // What `dot` makes lies row by row, without an offset.
    a.dot(&b).into_raw_vec_and_offset().0
}

impl Drawn {
    /// The datasets that there are cells of, in the paper's order, those of one's own behind.
    pub fn datasets(&self) -> Vec<Benchmark> {
        let mut datasets: Vec<Benchmark> = self.cells.keys().map(|key| key.0).collect();
        datasets.dedup();
        datasets
    }

    /// One cell.
    pub fn cell(&self, dataset: Benchmark, model: &Model, case: &str) -> Option<&Cell> {
        self.cells.get(&(dataset, model.clone(), case.to_owned()))
    }

    /// The draws of a metric in a cell.
    pub fn metric(
        &self,
        dataset: Benchmark,
        model: &Model,
        case: &str,
        metric: &str,
    ) -> Option<(f32, &[f32])> {
        let place = sums::ids(dataset).iter().position(|id| *id == metric)?;
        let cell = self.cell(dataset, model, case)?;
        Some((cell.observed[place], &cell.draws[place]))
    }

    /// The cases that a model has on a dataset and whose names begin with `kind`.
    pub fn cases(&self, dataset: Benchmark, model: &Model, kind: &str) -> Vec<&str> {
        let own = self
            .cells
            .keys()
            .filter(|(d, m, case)| *d == dataset && m == model && case.starts_with(kind));
        own.map(|(_, _, case)| case.as_str()).collect()
    }

    /// The mean of a metric over the cases whose names begin with `kind`, draw by draw.
    pub fn mean(
        &self,
        dataset: Benchmark,
        model: &Model,
        kind: &str,
        metric: &str,
    ) -> Option<(f32, Vec<f32>)> {
        let mut observed = 0.0;
        let mut draws: Vec<f32> = Vec::new();
        let cases = self.cases(dataset, model, kind);
        let share = 1.0 / cases.len() as f32;
        for case in cases {
            let (value, own) = self.metric(dataset, model, case, metric)?;
            observed += value * share;
            draws.resize(own.len(), 0.0);
            for (sum, value) in draws.iter_mut().zip(own) {
                *sum += value * share;
            }
        }
        (!draws.is_empty()).then_some((observed, draws))
    }

    /// The interval of a cell, or of the mean over a kind of cases (`case` `None`).
    pub fn interval(
        &self,
        dataset: Benchmark,
        model: &Model,
        case: Option<&str>,
        kind: &str,
        metric: &str,
        level: f64,
    ) -> Option<(f64, f64)> {
        match case {
            Some(case) => interval(self.metric(dataset, model, case, metric)?.1, level),
            None => interval(&self.mean(dataset, model, kind, metric)?.1, level),
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
                        method: method.to_owned(),
                        variant: String::new(),
                        seed: u64::from(seed),
                        case: case.to_owned(),
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
        (name.to_owned(), String::new())
    }

    const OPTIONS: Options = Options {
        draws: 600,
        seed: 1,
    };

    #[test]
    fn what_is_observed_is_the_mean_over_seeds_of_the_protocols_metrics() {
        let predictions = predictions();
        let drawn = draw(&predictions, OPTIONS, |_| {});
        assert_eq!(drawn.cells.len(), 4);
        for metric in sums::ids(Benchmark::Mosi) {
            let own = predictions.evaluations.iter();
            let values: Vec<f64> = own
                .filter(|e| e.method == "good" && e.case == "r=0.5")
                .map(|e| {
                    let vector = e.of_metric(metric).unwrap();
                    let labels = &predictions.labels[&Benchmark::Mosi];
                    metrics::evaluate(Benchmark::Mosi, vector, labels).unwrap()[metric].unwrap()
                })
                .collect();
            let mean = values.iter().sum::<f64>() / 3.0;
            let (observed, draws) = drawn
                .metric(Benchmark::Mosi, &model("good"), "r=0.5", metric)
                .unwrap();
            assert!((f64::from(observed) - mean).abs() < 1e-4, "{metric}");
            assert_eq!(draws.len(), 600);
            let (low, high) = interval(draws, 0.95).unwrap();
            assert!(low < mean && mean < high, "{metric}: {low} {mean} {high}");
        }
    }

    /// The spread of a drawn accuracy is near the binomial one, which no code of ours computes.
    #[test]
    fn the_spread_of_an_accuracy_is_the_binomial_one() {
        let mut predictions = predictions();
        predictions.evaluations.retain(|e| e.seed == 0);
        let drawn = draw(&predictions, OPTIONS, |_| {});
        let (p, draws) = drawn
            .metric(Benchmark::Mosi, &model("bad"), "r=0", "acc7")
            .unwrap();
        let mean = draws.iter().sum::<f32>() / draws.len() as f32;
        let square = |v: &f32| (v - mean) * (v - mean);
        let spread = (draws.iter().map(square).sum::<f32>() / draws.len() as f32).sqrt();
        let binomial = (p * (1.0 - p) / 200.0).sqrt();
        assert!(
            (spread / binomial - 1.0).abs() < 0.15,
            "{spread} {binomial}"
        );
    }

    #[test]
    fn the_same_seed_draws_the_same_and_another_does_not() {
        let predictions = predictions();
        let first = |options| {
            let drawn = draw(&predictions, options, |_| {});
            drawn.cells.into_values().next().unwrap().draws
        };
        assert_eq!(first(OPTIONS), first(OPTIONS));
        assert_ne!(first(OPTIONS), first(Options { seed: 2, ..OPTIONS }));
    }

    #[test]
    fn a_constant_prediction_has_no_interval_for_its_correlation() {
        let mut predictions = predictions();
        for evaluation in &mut predictions.evaluations {
            for vector in evaluation.by_criterion.values_mut() {
                *vector = vec![0.4; vector.len()].into();
            }
        }
        let drawn = draw(&predictions, OPTIONS, |_| {});
        let of = |metric| {
            drawn.interval(
                Benchmark::Mosi,
                &model("good"),
                Some("r=0"),
                "r=",
                metric,
                0.95,
            )
        };
        assert_eq!(of("corr"), None);
        assert!(of("acc2_nonzero").is_some());
    }
}
