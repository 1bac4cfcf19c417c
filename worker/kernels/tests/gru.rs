//! Gated recurrent units against their definition in double precision.

use halfheard_kernels::gru::{Gradients, Gru, Inputs};

/// Inputs, a state's gradient, and what they belong to.
struct Case {
    gru: Gru,
    lengths: Vec<usize>,
    projected: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    gradient: Vec<f32>,
}

impl Case {
    fn new(hidden: usize, lengths: &[usize], backwards: bool) -> Self {
        let steps = 7;
        let numbers = |count: usize, k: usize, scale: f32| {
            let at = |i: usize| ((i * 37 + k * 13) % 61) as f32 / 30.0 - 1.0;
            (0..count).map(|i| at(i) * scale).collect::<Vec<f32>>()
        };
        let states = lengths.len() * steps * hidden;
        Self {
            gru: Gru {
                steps,
                hidden,
                backwards,
                threads: 1,
            },
            lengths: lengths.to_vec(),
            projected: numbers(3 * states, 1, 2.0),
            weight: numbers(3 * hidden * hidden, 2, 1.5 / (hidden as f32).sqrt()),
            bias: numbers(3 * hidden, 3, 0.5),
            gradient: numbers(states, 4, 1.0),
        }
    }

    fn inputs(&self) -> Inputs<'_> {
        Inputs {
            lengths: &self.lengths,
            projected: &self.projected,
            weight: &self.weight,
            bias: &self.bias,
        }
    }

    fn states(&self, threads: usize) -> Vec<f32> {
        let mut output = vec![f32::NAN; self.gradient.len()];
        let gru = Gru {
            threads,
            ..self.gru
        };
        gru.forward(self.inputs(), &mut output);
        output
    }

    /// Of what inputs and states contribute.
    fn gradients(&self, threads: usize) -> [Vec<f32>; 2] {
        let mut gradients = [0, 1].map(|_| vec![f32::NAN; self.projected.len()]);
        let [projected, recurrent] = &mut gradients;
        let gru = Gru {
            threads,
            ..self.gru
        };
        let output = self.states(threads);
        let gradients_of = Gradients {
            projected,
            recurrent,
        };
        gru.backward(self.inputs(), &output, &self.gradient, gradients_of);
        gradients
    }

    /// The states by definition, in double precision, with the share of the states moved by `moved` at one place.
    fn expected(&self, projected: &[f64], moved: Option<(usize, f64)>) -> Vec<f64> {
        let Gru { steps, hidden, .. } = self.gru;
        let mut output = vec![0.0; self.gradient.len()];
        for (sample, &length) in self.lengths.iter().enumerate() {
            let mut state = vec![0.0; hidden];
            for turn in 0..length {
                let step = if self.gru.backwards {
                    length - 1 - turn
                } else {
                    turn
                };
                let first = (sample * steps + step) * 3 * hidden;
                let share: Vec<f64> = (0..3 * hidden)
                    .map(|row| {
                        let weights = &self.weight[row * hidden..(row + 1) * hidden];
                        let products = weights.iter().zip(&state).map(|(w, s)| f64::from(*w) * s);
                        let here = moved.filter(|(at, _)| *at == first + row);
                        f64::from(self.bias[row])
                            + products.sum::<f64>()
                            + here.map_or(0.0, |m| m.1)
                    })
                    .collect();
                let logistic = |x: f64| 1.0 / (1.0 + (-x).exp());
                for i in 0..hidden {
                    let [r, z, n] = [0, 1, 2].map(|gate| projected[first + gate * hidden + i]);
                    let reset = logistic(r + share[i]);
                    let update = logistic(z + share[hidden + i]);
                    let candidate = (n + reset * share[2 * hidden + i]).tanh();
                    state[i] = (1.0 - update) * candidate + update * state[i];
                }
                let at = (sample * steps + step) * hidden;
                output[at..at + hidden].copy_from_slice(&state);
            }
        }
        output
    }

    /// What the gradient is that of.
    fn loss(&self, projected: &[f64], moved: Option<(usize, f64)>) -> f64 {
        let states = self.expected(projected, moved);
        states
            .iter()
            .zip(&self.gradient)
            .map(|(s, g)| s * f64::from(*g))
            .sum()
    }
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    // Less than a vector, one, more, several.
    for hidden in [1, 5, 16, 20, 36] {
        for backwards in [false, true] {
            cases.push(Case::new(hidden, &[7, 4, 1, 0], backwards));
        }
    }
    cases
}

#[test]
fn states_follow_the_definition_and_padding_is_zero() {
    for case in cases() {
        let projected: Vec<f64> = case.projected.iter().map(|&x| f64::from(x)).collect();
        let expected = case.expected(&projected, None);
        for (i, (got, expected)) in case.states(1).iter().zip(expected).enumerate() {
            let error = (f64::from(*got) - expected).abs();
            assert!(error < 1e-6, "{:?} {i}: {got}, not {expected}", case.gru);
        }
    }
}

#[test]
fn gradients_are_those_of_small_moves() {
    const MOVE: f64 = 1e-5;
    for case in cases() {
        let projected: Vec<f64> = case.projected.iter().map(|&x| f64::from(x)).collect();
        let [of_projected, of_recurrent] = case.gradients(1);
        for at in (0..projected.len()).step_by(7) {
            let slope = |by: &dyn Fn(f64) -> f64| (by(MOVE) - by(-MOVE)) / (2.0 * MOVE);
            let expected = slope(&|by| {
                let mut moved = projected.clone();
                moved[at] += by;
                case.loss(&moved, None)
            });
            let got = f64::from(of_projected[at]);
            assert!(
                (got - expected).abs() < 1e-5,
                "{:?} {at}: {got}, not {expected}",
                case.gru
            );
            let expected = slope(&|by| case.loss(&projected, Some((at, by))));
            let got = f64::from(of_recurrent[at]);
            assert!(
                (got - expected).abs() < 1e-5,
                "{:?} {at}: {got}, not {expected}",
                case.gru
            );
        }
    }
}

#[test]
fn neither_threads_nor_other_samples_change_a_bit() {
    for case in cases() {
        let (states, gradients) = (case.states(1), case.gradients(1));
        assert_eq!(case.states(3), states);
        assert_eq!(case.gradients(3), gradients);
        // The second sample alone.
        let states_of = case.gru.steps * case.gru.hidden;
        let alone = Case {
            lengths: case.lengths[1..2].to_vec(),
            projected: case.projected[3 * states_of..6 * states_of].to_vec(),
            gradient: case.gradient[states_of..2 * states_of].to_vec(),
            weight: case.weight.clone(),
            bias: case.bias.clone(),
            gru: case.gru,
        };
        assert_eq!(alone.states(2), states[states_of..2 * states_of]);
        let [of_projected, of_recurrent] = alone.gradients(2);
        assert_eq!(of_projected, gradients[0][3 * states_of..6 * states_of]);
        assert_eq!(of_recurrent, gradients[1][3 * states_of..6 * states_of]);
    }
}

#[test]
#[should_panic(expected = "lengths")]
fn sequence_longer_than_its_steps_is_refused() {
    let mut case = Case::new(5, &[7, 4], false);
    case.lengths[1] = 8;
    case.states(1);
}
