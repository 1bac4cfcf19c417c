//! Softmax attention with heads of a few features, as the multimodal transformer has them (Tsai et al., ACL 2019):
//! causal, with dropout of the weights.
//!
//! With five features a head, the scores have a hundred times as many entries as queries, keys and values, and general
//! kernels spend their time on moving them. Here a row of scores never leaves the cache: it is computed, becomes
//! weights, and is summed into its output, forwards and again backwards (as in Dao et al., NeurIPS 2022). Scores that
//! the mask hides are not computed. Which weights are dropped follows from a seed and their place.

use crate::{
    dispatch::{Instructions, Work},
    lanes::{LANES, Lanes},
    parallel,
    random::{Row, threshold},
};
use std::marker::PhantomData;

/// The widest head.
pub const WIDEST_HEAD: usize = 32;

/// Sizes, which sources a target sees, and dropout.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attention {
    /// Steps that attend, T.
    pub targets: usize,
    /// Steps attended to, S.
    pub sources: usize,
    /// Samples, B.
    pub samples: usize,
    /// Heads, H.
    pub heads: usize,
    /// Features of a head, at most [`WIDEST_HEAD`].
    pub head: usize,
    /// How many steps ahead of itself a target sees.
    pub ahead: usize,
    /// The probability with which a weight is dropped, below 1.
    pub dropout: f64,
    /// Decides which weights are dropped.
    pub seed: u64,
    /// Threads that work on it.
    pub threads: usize,
}

/// Vectors `[H * head]` of each step and sample, somewhere in memory.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// From the first number of the first vector on.
    pub data: &'a [f32],
    /// From a step to the next.
    pub step: usize,
    /// From a sample to the next.
    pub sample: usize,
}

/// As [`Rows`], to write to.
#[derive(Clone, Copy, Debug)]
pub struct RowsMut<'a> {
    data: *mut f32,
    len: usize,
    step: usize,
    sample: usize,
    lifetime: PhantomData<&'a mut [f32]>,
}

// SAFETY: as a mutable slice; threads write to the vectors of different samples, which do not overlap.
unsafe impl Send for RowsMut<'_> {}
// SAFETY: as above.
unsafe impl Sync for RowsMut<'_> {}

impl<'a> RowsMut<'a> {
    /// In `data`, with `step` numbers from a step to the next and `sample` from a sample to the next.
    pub fn new(data: &'a mut [f32], step: usize, sample: usize) -> Self {
        // SAFETY: nobody else has the slice.
        unsafe { Self::from_raw(data.as_mut_ptr(), data.len(), step, sample) }
    }

    /// As [`new`](Self::new), for vectors with others between them.
    ///
    /// # Safety
    ///
    /// `len` numbers from `data` on must be valid for writes, and while this lives nobody else may use those of them
    /// that belong to its vectors.
    pub unsafe fn from_raw(data: *mut f32, len: usize, step: usize, sample: usize) -> Self {
        Self {
            data,
            len,
            step,
            sample,
            lifetime: PhantomData,
        }
    }

    /// The vectors must be those of this thread's own sample.
    #[inline(always)]
    fn set(&self, step: usize, sample: usize, feature: usize, value: f32) {
        let at = step * self.step + sample * self.sample + feature;
        assert!(at < self.len);
        // SAFETY: within what is valid, and of a sample that is this thread's own.
        unsafe { *self.data.add(at) = value };
    }
}

/// The queries, keys and values.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// Of targets.
    pub query: Rows<'a>,
    /// Of sources.
    pub key: Rows<'a>,
    /// Of sources.
    pub value: Rows<'a>,
}

/// Where gradients go.
#[derive(Debug)]
pub struct Gradients<'a> {
    /// Of targets.
    pub query: RowsMut<'a>,
    /// Of sources.
    pub key: RowsMut<'a>,
    /// Of sources.
    pub value: RowsMut<'a>,
}

/// What [`Attention::backward`] needs of a forward pass.
#[derive(Clone, Copy, Debug)]
pub struct Forward<'a> {
    /// The outputs.
    pub output: Rows<'a>,
    /// The statistics.
    pub statistics: &'a [f32],
}

/// Targets or sources of one sample and head with features apart, `[head][steps]`, steps padded with zeros.
#[derive(Debug, Default)]
struct Columns {
    data: Vec<f32>,
    stride: usize,
}

impl Columns {
    fn new(head: usize, steps: usize) -> Self {
        let stride = steps.next_multiple_of(LANES);
        Self {
            data: vec![0.0; head * stride],
            stride,
        }
    }

    #[inline(always)]
    fn read(&mut self, rows: Rows<'_>, (sample, first): (usize, usize), head: usize, steps: usize) {
        for step in 0..steps {
            let at = step * rows.step + sample * rows.sample + first;
            let vector = &rows.data[at..at + head];
            for (feature, &value) in vector.iter().enumerate() {
                self.data[feature * self.stride + step] = value;
            }
        }
    }

    #[inline(always)]
    fn load(&self, feature: usize, block: usize) -> Lanes {
        Lanes::load(&self.data[feature * self.stride + block * LANES..])
    }

    #[inline(always)]
    fn add(&mut self, feature: usize, block: usize, value: Lanes, factor: Lanes) {
        let at = feature * self.stride + block * LANES;
        let sum = value.mul_add(factor, Lanes::load(&self.data[at..]));
        sum.store(&mut self.data[at..]);
    }
}

/// What a thread needs for one sample and head.
struct Scratch {
    key: Columns,
    value: Columns,
    key_gradient: Columns,
    value_gradient: Columns,
    /// Scores of a row, then its weights.
    weights: Vec<f32>,
    /// Of a row, on their way back.
    score_gradient: Vec<f32>,
}

impl Scratch {
    fn new(attention: &Attention, backward: bool) -> Self {
        let columns = |wanted: bool| match wanted {
            true => Columns::new(attention.head, attention.sources),
            false => Columns::default(),
        };
        let row = attention.sources.next_multiple_of(LANES);
        Self {
            key: columns(true),
            value: columns(true),
            key_gradient: columns(backward),
            value_gradient: columns(backward),
            weights: vec![0.0; row],
            score_gradient: vec![0.0; if backward { row } else { 0 }],
        }
    }

    /// Reads keys and values of one sample and head, at `place`.
    #[inline(always)]
    fn read(&mut self, attention: &Attention, inputs: Inputs<'_>, place: (usize, usize)) {
        let columns = [(&mut self.key, inputs.key), (&mut self.value, inputs.value)];
        for (columns, rows) in columns {
            columns.read(rows, place, attention.head, attention.sources);
        }
    }
}

impl Attention {
    /// The statistics' length: the largest score and the reciprocal of the sum for each sample, head and target.
    pub fn statistics(&self) -> usize {
        2 * self.samples * self.heads * self.targets
    }

    /// Writes outputs and `statistics`.
    ///
    /// # Panics
    ///
    /// If a slice is too short for the sizes, or a head wider than [`WIDEST_HEAD`].
    pub fn forward(&self, inputs: Inputs<'_>, output: RowsMut<'_>, statistics: &mut [f32]) {
        self.check(&inputs);
        self.check_rows(output.len, (output.step, output.sample), self.targets);
        assert_eq!(statistics.len(), self.statistics());
        let statistics = RowsMut::new(statistics, 2, 2 * self.heads * self.targets);
        let instructions = Instructions::detect();
        let scratch = || Scratch::new(self, false);
        parallel::for_each(self.threads, self.samples, &scratch, &|scratch, sample| {
            instructions.run(ForwardSample {
                attention: self,
                inputs,
                output,
                statistics,
                scratch,
                sample,
            });
        });
    }

    /// Writes the gradients of queries, keys and values, given those of the outputs.
    ///
    /// # Panics
    ///
    /// As [`forward`](Self::forward).
    pub fn backward(
        &self,
        inputs: Inputs<'_>,
        forward: Forward<'_>,
        gradient: Rows<'_>,
        gradients: Gradients<'_>,
    ) {
        self.check(&inputs);
        for rows in [forward.output, gradient] {
            self.check_rows(rows.data.len(), (rows.step, rows.sample), self.targets);
        }
        assert_eq!(forward.statistics.len(), self.statistics());
        let gradients = [gradients.query, gradients.key, gradients.value];
        for (rows, steps) in gradients
            .iter()
            .zip([self.targets, self.sources, self.sources])
        {
            self.check_rows(rows.len, (rows.step, rows.sample), steps);
        }
        let instructions = Instructions::detect();
        let scratch = || Scratch::new(self, true);
        parallel::for_each(self.threads, self.samples, &scratch, &|scratch, sample| {
            instructions.run(BackwardSample {
                attention: self,
                inputs,
                forward,
                gradient,
                gradients,
                scratch,
                sample,
            });
        });
    }

    /// Before threads begin, in which a panic would end the process.
    fn check(&self, inputs: &Inputs<'_>) {
        assert!(self.head <= WIDEST_HEAD && self.sources > 0, "{self:?}");
        assert!((0.0..1.0).contains(&self.dropout), "{self:?}");
        let Inputs { query, key, value } = inputs;
        for (rows, steps) in [
            (query, self.targets),
            (key, self.sources),
            (value, self.sources),
        ] {
            self.check_rows(rows.data.len(), (rows.step, rows.sample), steps);
        }
    }

    /// Panics unless `length` numbers hold the vectors of `steps` steps with these distances between them.
    fn check_rows(&self, length: usize, (step, sample): (usize, usize), steps: usize) {
        let last = steps.saturating_sub(1) * step + self.samples.saturating_sub(1) * sample;
        assert!(
            last + self.heads * self.head <= length,
            "{length} numbers for {steps} steps of {self:?}"
        );
    }

    /// The sources that a target sees.
    #[inline(always)]
    fn seen(&self, target: usize) -> usize {
        (target + self.ahead + 1).min(self.sources)
    }

    #[inline(always)]
    fn row(&self, sample: usize, head: usize, target: usize) -> usize {
        (sample * self.heads + head) * self.targets + target
    }

    /// The factor of scores.
    #[inline(always)]
    fn scale(&self) -> f32 {
        (1.0 / (self.head as f64).sqrt()) as f32
    }
}

/// The scaled query of a target, or another of its vectors.
#[inline(always)]
fn vector<const HEAD: usize>(rows: Rows<'_>, at: usize, head: usize, factor: f32) -> [f32; HEAD] {
    let mut vector = [0.0; HEAD];
    for (to, from) in vector.iter_mut().zip(&rows.data[at..at + head]) {
        *to = from * factor;
    }
    vector
}

/// Writes the scores of a row of which `seen` sources count, and returns the largest.
#[inline(always)]
fn scores<const HEAD: usize>(
    query: &[f32; HEAD],
    key: &Columns,
    head: usize,
    seen: usize,
    weights: &mut [f32],
) -> f32 {
    let blocks = seen.div_ceil(LANES);
    let mut largest = Lanes::splat(f32::NEG_INFINITY);
    for block in 0..blocks {
        let mut score = Lanes::splat(0.0);
        for feature in 0..HEAD {
            if feature < head {
                score = Lanes::splat(query[feature]).mul_add(key.load(feature, block), score);
            }
        }
        if (block + 1) * LANES > seen {
            for lane in seen % LANES..LANES {
                score.0[lane] = f32::NEG_INFINITY;
            }
        }
        largest = largest.with(score, |a, b| if a > b { a } else { b });
        score.store(&mut weights[block * LANES..]);
    }
    largest.max()
}

/// A pass over the heads of one sample.
trait Heads {
    /// Heads of at most `HEAD` features.
    fn heads<const HEAD: usize>(self);
}

/// Loops over features have to end at a number that the compiler knows.
#[inline(always)]
fn with_known_width(pass: impl Heads, width: usize) {
    match width {
        0..=2 => pass.heads::<2>(),
        3..=5 => pass.heads::<5>(),
        6..=10 => pass.heads::<10>(),
        11..=20 => pass.heads::<20>(),
        _ => pass.heads::<WIDEST_HEAD>(),
    }
}

struct ForwardSample<'a, 'b> {
    attention: &'a Attention,
    inputs: Inputs<'a>,
    output: RowsMut<'a>,
    statistics: RowsMut<'a>,
    scratch: &'b mut Scratch,
    sample: usize,
}

impl Work for ForwardSample<'_, '_> {
    #[inline(always)]
    fn run(self) {
        let width = self.attention.head;
        with_known_width(self, width);
    }
}

impl Heads for ForwardSample<'_, '_> {
    #[inline(always)]
    fn heads<const HEAD: usize>(mut self) {
        let attention = self.attention;
        for head in 0..attention.heads {
            let place = (self.sample, head * attention.head);
            self.scratch.read(attention, self.inputs, place);
            for target in 0..attention.targets {
                self.row::<HEAD>(head, target);
            }
        }
    }
}

impl ForwardSample<'_, '_> {
    #[inline(always)]
    fn row<const HEAD: usize>(&mut self, head: usize, target: usize) {
        let (attention, sample) = (self.attention, self.sample);
        let Scratch {
            key,
            value,
            weights,
            ..
        } = &mut *self.scratch;
        let first = head * attention.head;
        let rows = self.inputs.query;
        let at = target * rows.step + sample * rows.sample + first;
        let query = vector::<HEAD>(rows, at, attention.head, attention.scale());
        let seen = attention.seen(target);
        let largest = scores(&query, key, attention.head, seen, weights);

        let row = attention.row(sample, head, target);
        let random = Row::new(attention.seed, row as u64);
        let dropped = threshold(attention.dropout);
        let mut sum = Lanes::splat(0.0);
        let mut outputs = [Lanes::splat(0.0); HEAD];
        for block in 0..seen.div_ceil(LANES) {
            let at = block * LANES;
            let score = Lanes::load(&weights[at..]);
            let weight = score.map(|score| score - largest).exp_of_negative();
            sum = sum.with(weight, |a, b| a + b);
            let weight = kept(weight, random, at, dropped);
            for feature in 0..HEAD {
                if feature < attention.head {
                    outputs[feature] = weight.mul_add(value.load(feature, block), outputs[feature]);
                }
            }
        }
        let reciprocal = 1.0 / sum.sum();
        let factor = reciprocal * (1.0 / (1.0 - attention.dropout)) as f32;
        for (feature, lanes) in outputs.iter().enumerate().take(attention.head) {
            self.output
                .set(target, sample, first + feature, lanes.sum() * factor);
        }
        let place = head * attention.targets + target;
        self.statistics.set(place, sample, 0, largest);
        self.statistics.set(place, sample, 1, reciprocal);
    }
}

/// Weights with the dropped ones at 0.
#[inline(always)]
fn kept(weight: Lanes, random: Row, start: usize, dropped: u32) -> Lanes {
    if dropped == 0 {
        return weight;
    }
    let bits = random.bits(start);
    let mut kept = weight;
    for (kept, bits) in kept.0.iter_mut().zip(bits) {
        *kept = if bits < dropped { 0.0 } else { *kept };
    }
    kept
}

struct BackwardSample<'a, 'b> {
    attention: &'a Attention,
    inputs: Inputs<'a>,
    forward: Forward<'a>,
    gradient: Rows<'a>,
    gradients: [RowsMut<'a>; 3],
    scratch: &'b mut Scratch,
    sample: usize,
}

impl Work for BackwardSample<'_, '_> {
    #[inline(always)]
    fn run(self) {
        let width = self.attention.head;
        with_known_width(self, width);
    }
}

impl Heads for BackwardSample<'_, '_> {
    #[inline(always)]
    fn heads<const HEAD: usize>(mut self) {
        let attention = self.attention;
        for head in 0..attention.heads {
            let place = (self.sample, head * attention.head);
            self.scratch.read(attention, self.inputs, place);
            self.scratch.key_gradient.data.fill(0.0);
            self.scratch.value_gradient.data.fill(0.0);
            for target in 0..attention.targets {
                self.row::<HEAD>(head, target);
            }
            let written = [
                (&self.scratch.key_gradient, &self.gradients[1]),
                (&self.scratch.value_gradient, &self.gradients[2]),
            ];
            for (columns, rows) in written {
                for source in 0..attention.sources {
                    for feature in 0..attention.head {
                        let value = columns.data[feature * columns.stride + source];
                        rows.set(source, self.sample, place.1 + feature, value);
                    }
                }
            }
        }
    }
}

impl BackwardSample<'_, '_> {
    #[inline(always)]
    fn row<const HEAD: usize>(&mut self, head: usize, target: usize) {
        let (attention, sample) = (self.attention, self.sample);
        let Scratch {
            key,
            value,
            key_gradient,
            value_gradient,
            weights,
            score_gradient,
        } = &mut *self.scratch;
        let first = head * attention.head;
        let place = |rows: Rows<'_>| target * rows.step + sample * rows.sample + first;
        let rows = self.inputs.query;
        let query = vector::<HEAD>(rows, place(rows), attention.head, attention.scale());
        let seen = attention.seen(target);
        scores(&query, key, attention.head, seen, weights);

        let row = attention.row(sample, head, target);
        let (largest, reciprocal) = (
            self.forward.statistics[2 * row],
            self.forward.statistics[2 * row + 1],
        );
        let random = Row::new(attention.seed, row as u64);
        let dropped = threshold(attention.dropout);
        let rows = self.forward.output;
        let output = vector::<HEAD>(rows, place(rows), attention.head, 1.0);
        let rows = self.gradient;
        let gradient = vector::<HEAD>(rows, place(rows), attention.head, 1.0);
        let mut delta = 0.0;
        for (output, gradient) in output.iter().zip(&gradient) {
            delta = f32::mul_add(*output, *gradient, delta);
        }
        let kept_scale = (1.0 / (1.0 - attention.dropout)) as f32;
        let gradient = gradient.map(|g| g * kept_scale);

        let mut query_gradient = [Lanes::splat(0.0); HEAD];
        for block in 0..seen.div_ceil(LANES) {
            let at = block * LANES;
            let score = Lanes::load(&weights[at..]);
            let weight = score
                .map(|score| score - largest)
                .exp_of_negative()
                .map(|weight| weight * reciprocal);
            let mut from_values = Lanes::splat(0.0);
            for feature in 0..HEAD {
                if feature < attention.head {
                    let gradient = Lanes::splat(gradient[feature]);
                    from_values = gradient.mul_add(value.load(feature, block), from_values);
                }
            }
            let from_values = kept(from_values, random, at, dropped);
            let of_score = weight.with(from_values, |w, g| w * (g - delta));
            of_score.store(&mut score_gradient[at..]);
            kept(weight, random, at, dropped).store(&mut weights[at..]);
        }
        for feature in 0..HEAD {
            if feature < attention.head {
                let query = Lanes::splat(query[feature]);
                let gradient = Lanes::splat(gradient[feature]);
                for block in 0..seen.div_ceil(LANES) {
                    let of_score = Lanes::load(&score_gradient[block * LANES..]);
                    let weight = Lanes::load(&weights[block * LANES..]);
                    query_gradient[feature] =
                        of_score.mul_add(key.load(feature, block), query_gradient[feature]);
                    key_gradient.add(feature, block, of_score, query);
                    value_gradient.add(feature, block, weight, gradient);
                }
            }
        }
        let scale = attention.scale();
        for (feature, lanes) in query_gradient.iter().enumerate().take(attention.head) {
            self.gradients[0].set(target, sample, first + feature, lanes.sum() * scale);
        }
    }
}
