//! Attention against its definition in double precision.

use halfheard_kernels::attention::{Attention, Forward, Gradients, Inputs, Rows, RowsMut};

const BASE: Attention = Attention {
    targets: 21,
    sources: 37,
    samples: 2,
    heads: 3,
    head: 5,
    ahead: 16,
    dropout: 0.0,
    seed: 9,
    threads: 2,
};

/// Numbers in ±1.
fn random(seed: u32, count: usize) -> Vec<f32> {
    let mut x = seed.wrapping_mul(0x9e37_79b9) | 1;
    (0..count)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 17;
            x ^= x << 5;
            x as f32 / u32::MAX as f32 * 2.0 - 1.0
        })
        .collect()
}

/// Vectors one after the other, samples within steps.
fn rows<'a>(attention: &Attention, data: &'a [f32]) -> Rows<'a> {
    let width = attention.heads * attention.head;
    Rows {
        data,
        step: attention.samples * width,
        sample: width,
    }
}

fn rows_mut<'a>(attention: &Attention, data: &'a mut [f32]) -> RowsMut<'a> {
    let Rows { step, sample, .. } = rows(attention, &[]);
    RowsMut::new(data, step, sample)
}

struct Case {
    attention: Attention,
    query: Vec<f32>,
    key: Vec<f32>,
    value: Vec<f32>,
    gradient: Vec<f32>,
}

/// Outputs, then gradients of queries, keys and values.
type Results<T> = [Vec<T>; 4];

impl Case {
    fn new(attention: Attention) -> Self {
        let width = attention.samples * attention.heads * attention.head;
        let (targets, sources) = (attention.targets * width, attention.sources * width);
        Self {
            attention,
            query: random(1, targets).iter().map(|x| x * 3.0).collect(),
            key: random(2, sources),
            value: random(3, sources),
            gradient: random(4, targets),
        }
    }

    fn inputs(&self) -> Inputs<'_> {
        let rows = |data| rows(&self.attention, data);
        Inputs {
            query: rows(&self.query),
            key: rows(&self.key),
            value: rows(&self.value),
        }
    }

    fn computed(&self) -> Results<f32> {
        let attention = &self.attention;
        let mut output = vec![f32::NAN; self.query.len()];
        let mut statistics = vec![f32::NAN; attention.statistics()];
        attention.forward(
            self.inputs(),
            rows_mut(attention, &mut output),
            &mut statistics,
        );
        let [mut query, mut key, mut value] =
            [&self.query, &self.key, &self.value].map(|x| vec![f32::NAN; x.len()]);
        attention.backward(
            self.inputs(),
            Forward {
                output: rows(attention, &output),
                statistics: &statistics,
            },
            rows(attention, &self.gradient),
            Gradients {
                query: rows_mut(attention, &mut query),
                key: rows_mut(attention, &mut key),
                value: rows_mut(attention, &mut value),
            },
        );
        [output, query, key, value]
    }

    /// By definition; `kept` is what weights `[sample][head][target][source]` are multiplied by.
    fn expected(&self, kept: &dyn Fn(usize, usize, usize, usize) -> f64) -> Results<f64> {
        let a = &self.attention;
        let width = a.heads * a.head;
        let scale = (a.head as f64).powf(-0.5);
        let mut results =
            [&self.query, &self.query, &self.key, &self.value].map(|x| vec![0.0; x.len()]);
        for b in 0..a.samples {
            for h in 0..a.heads {
                let at = |step: usize, i: usize| (step * a.samples + b) * width + h * a.head + i;
                let dot = |x: &[f32], s: usize, y: &[f32], t: usize| -> f64 {
                    (0..a.head)
                        .map(|i| f64::from(x[at(s, i)]) * f64::from(y[at(t, i)]))
                        .sum()
                };
                for t in 0..a.targets {
                    let seen = (t + a.ahead + 1).min(a.sources);
                    let exp: Vec<f64> = (0..seen)
                        .map(|s| (scale * dot(&self.query, t, &self.key, s)).exp())
                        .collect();
                    let sum: f64 = exp.iter().sum();
                    let weight = |s: usize| exp[s] / sum;
                    let back = |s: usize| dot(&self.gradient, t, &self.value, s) * kept(b, h, t, s);
                    let delta: f64 = (0..seen).map(|s| weight(s) * back(s)).sum();
                    for s in 0..seen {
                        let of_score = weight(s) * (back(s) - delta) * scale;
                        for i in 0..a.head {
                            let used = weight(s) * kept(b, h, t, s);
                            results[0][at(t, i)] += used * f64::from(self.value[at(s, i)]);
                            results[1][at(t, i)] += of_score * f64::from(self.key[at(s, i)]);
                            results[2][at(s, i)] += of_score * f64::from(self.query[at(t, i)]);
                            results[3][at(s, i)] += used * f64::from(self.gradient[at(t, i)]);
                        }
                    }
                }
            }
        }
        results
    }
}

fn assert_close(got: &Results<f32>, expected: &Results<f64>, what: &str) {
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        for (j, (got, expected)) in got.iter().zip(expected).enumerate() {
            let difference = (f64::from(*got) - expected).abs();
            assert!(
                difference < 3e-6 * (1.0 + expected.abs()),
                "{what}, {i}, {j}: {got}, not {expected}"
            );
        }
    }
}

#[test]
fn outputs_and_gradients_follow_the_definition() {
    for head in [1, 2, 3, 5, 10, 15, 20, 32] {
        for (targets, sources) in [(21, 37), (37, 21), (16, 16), (1, 1), (50, 49)] {
            let attention = Attention {
                targets,
                sources,
                ahead: targets.abs_diff(sources),
                head,
                ..BASE
            };
            let case = Case::new(attention);
            let expected = case.expected(&|_, _, _, _| 1.0);
            assert_close(&case.computed(), &expected, &format!("{attention:?}"));
        }
    }
}

/// The weights that are kept, found with values that pick out one source each.
fn weights(attention: Attention) -> Vec<Vec<f32>> {
    let picking = Attention {
        heads: 1,
        head: 32,
        sources: 32,
        samples: 1,
        ..attention
    };
    let mut case = Case::new(picking);
    case.value = (0..32 * 32)
        .map(|i| f32::from(u8::from(i / 32 == i % 32)))
        .collect();
    let output = &case.computed()[0];
    output.chunks(32).map(<[f32]>::to_vec).collect()
}

#[test]
fn gradients_follow_the_dropped_weights() {
    let attention = Attention {
        targets: 30,
        ahead: 40,
        dropout: 0.3,
        heads: 1,
        head: 32,
        sources: 32,
        samples: 1,
        ..BASE
    };
    let weights = weights(attention);
    let dropped = weights.iter().flatten().filter(|&&w| w == 0.0).count();
    assert!((200..376).contains(&dropped), "{dropped} of 960");
    let case = Case::new(attention);
    let expected = case.expected(&|_, _, t, s| match weights[t][s] {
        0.0 => 0.0,
        _ => 1.0 / 0.7,
    });
    assert_close(&case.computed(), &expected, "dropout");
}

#[test]
fn share_of_dropped_weights_is_the_probability() {
    for dropout in [0.1, 0.5] {
        let weights = weights(Attention {
            targets: 5000,
            ahead: 5000,
            dropout,
            ..BASE
        });
        let dropped = weights.iter().flatten().filter(|&&w| w == 0.0).count();
        let share = dropped as f64 / 160_000.0;
        assert!((share - dropout).abs() < 0.007, "{share}");
        // What is left has the same expectation: weights of a row sum to 1.
        let mean = weights.iter().flatten().map(|&w| f64::from(w)).sum::<f64>() / 5000.0;
        assert!((mean - 1.0).abs() < 0.02, "{mean}");
    }
}

#[test]
fn results_depend_neither_on_threads_nor_on_other_samples() {
    let attention = Attention {
        samples: 5,
        dropout: 0.2,
        ..BASE
    };
    let computed = Case::new(attention).computed();
    let alone = Case::new(Attention {
        threads: 1,
        ..attention
    });
    assert_eq!(alone.computed(), computed);

    let mut changed = Case::new(attention);
    let width = attention.heads * attention.head;
    for (i, x) in changed.key.iter_mut().enumerate() {
        // Another last sample.
        *x += f32::from(u8::from(i / width % 5 == 4));
    }
    for (now, before) in changed.computed().iter().zip(&computed) {
        for (i, (now, before)) in now.iter().zip(before).enumerate() {
            assert!(i / width % 5 == 4 || now == before, "{i}");
        }
    }
    assert_ne!(changed.computed(), computed);
}

#[test]
fn seeds_drop_other_weights() {
    let attention = Attention {
        dropout: 0.2,
        ..BASE
    };
    let other = Attention {
        seed: 10,
        ..attention
    };
    assert_ne!(
        Case::new(attention).computed()[0],
        Case::new(other).computed()[0]
    );
}

#[test]
#[should_panic(expected = "head: 33")]
fn wide_heads_are_refused() {
    let attention = Attention { head: 33, ..BASE };
    let _ = Case::new(attention).computed();
}

#[test]
#[should_panic(expected = "numbers for 37 steps")]
fn short_slices_are_refused() {
    let mut case = Case::new(BASE);
    case.value.pop();
    let _ = case.computed();
}

#[test]
fn number_that_is_none_reaches_every_target_that_sees_it() {
    let mut case = Case::new(BASE);
    let width = BASE.samples * BASE.heads * BASE.head;
    // The key of the last source, first sample and head, which the last five targets see.
    case.key[36 * width] = f32::NAN;
    let output = &case.computed()[0];
    for target in 0..BASE.targets {
        let hidden = target + BASE.ahead < 36;
        assert_eq!(output[target * width].is_nan(), !hidden, "{target}");
    }
}
