//! The recurrence of gated recurrent units (Cho et al., EMNLP 2014), as PyTorch's `GRU` computes it, in one direction
//! over sequences of different lengths.
//!
//! With a few dozen features a step is a product of a small matrix with a vector and some activations. libtorch runs
//! about thirty operators for it, and sixty on the way back, each of which takes longer to begin than to compute. Here
//! a sample's sequence is one loop, and its gates are computed again on the way back rather than kept.

use crate::{
    dispatch::{Instructions, Work},
    lanes::{LANES, Lanes},
    parallel,
};

/// Sizes, and the direction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gru {
    /// Steps of the longest sequence, T.
    pub steps: usize,
    /// Features of the hidden state, H.
    pub hidden: usize,
    /// Whether sequences are read from their last step to their first.
    pub backwards: bool,
    /// Threads that work on it.
    pub threads: usize,
}

/// What a pass reads. Gates are in PyTorch's order: reset, update, candidate.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// The steps of each sample, `[B]`, at most T; what is behind them is padding.
    pub lengths: &'a [usize],
    /// The gates' share of the inputs, with their bias, `[B, T, 3 H]`.
    pub projected: &'a [f32],
    /// From the hidden state to the gates, `[3 H, H]`.
    pub weight: &'a [f32],
    /// The gates' bias for the hidden state, `[3 H]`.
    pub bias: &'a [f32],
}

/// Where gradients go, `[B, T, 3 H]` each; those of padding are 0.
#[derive(Debug)]
pub struct Gradients<'a> {
    /// Of the gates' share of the inputs.
    pub projected: &'a mut [f32],
    /// Of the gates' share of the hidden states. Its products with the states before give the gradient of the weight,
    /// and its sum that of the bias.
    pub recurrent: &'a mut [f32],
}

impl Gru {
    /// Writes the hidden states `[B, T, H]`, those of padding as 0.
    ///
    /// # Panics
    ///
    /// If a slice has another length than the sizes say, or a sequence is too long.
    pub fn forward(&self, inputs: Inputs<'_>, output: &mut [f32]) {
        self.check(&inputs, &[output.len()], &[]);
        let weights = Weights::new(self, &inputs);
        let instructions = Instructions::detect();
        let parts = self.rows(inputs.projected, 3).zip(self.rows_mut(output, 1));
        let parts = parts.zip(inputs.lengths).collect();
        parallel::for_all(self.threads, parts, &|((projected, output), &length)| {
            instructions.run(ForwardSample {
                gru: self,
                weights: &weights,
                length,
                projected,
                output,
            });
        });
    }

    /// Writes the gradients, given the hidden states and their gradient, `[B, T, H]` both.
    ///
    /// # Panics
    ///
    /// As [`forward`](Self::forward).
    pub fn backward(
        &self,
        inputs: Inputs<'_>,
        output: &[f32],
        gradient: &[f32],
        gradients: Gradients<'_>,
    ) {
        let Gradients {
            projected,
            recurrent,
        } = gradients;
        let of_states = [output.len(), gradient.len()];
        self.check(&inputs, &of_states, &[projected.len(), recurrent.len()]);
        let weights = Weights::new(self, &inputs);
        let instructions = Instructions::detect();
        let read = self.rows(inputs.projected, 3).zip(self.rows(output, 1));
        let read = read.zip(self.rows(gradient, 1)).zip(inputs.lengths);
        let written = self.rows_mut(projected, 3).zip(self.rows_mut(recurrent, 3));
        let parts = read.zip(written).collect();
        parallel::for_all(self.threads, parts, &|(
            (((projected, output), gradient), &length),
            (of_projected, of_recurrent),
        )| {
            instructions.run(BackwardSample {
                gru: self,
                weights: &weights,
                length,
                projected,
                output,
                gradient,
                of_projected,
                of_recurrent,
            });
        });
    }

    /// The samples of `[B, T, parts H]`.
    fn rows<'a>(&self, of: &'a [f32], parts: usize) -> std::slice::Chunks<'a, f32> {
        of.chunks(self.steps * parts * self.hidden)
    }

    fn rows_mut<'a>(&self, of: &'a mut [f32], parts: usize) -> std::slice::ChunksMut<'a, f32> {
        of.chunks_mut(self.steps * parts * self.hidden)
    }

    /// Before threads begin, in which a panic would end the process.
    fn check(&self, inputs: &Inputs<'_>, states: &[usize], gates: &[usize]) {
        let Self { steps, hidden, .. } = *self;
        assert!(steps > 0 && hidden > 0, "{self:?}");
        assert!(inputs.lengths.iter().all(|&length| length <= steps));
        let of_states = inputs.lengths.len() * steps * hidden;
        assert!(states.iter().all(|&length| length == of_states), "{self:?}");
        let of_gates = 3 * of_states;
        assert!(gates.iter().all(|&length| length == of_gates), "{self:?}");
        assert_eq!(inputs.projected.len(), of_gates);
        assert_eq!(inputs.weight.len(), 3 * hidden * hidden);
        assert_eq!(inputs.bias.len(), 3 * hidden);
    }

    /// The step that is computed as the `turn`-th of `length`.
    #[inline(always)]
    fn step(&self, turn: usize, length: usize) -> usize {
        match self.backwards {
            true => length - 1 - turn,
            false => turn,
        }
    }

    /// The numbers of `from` that belong to block `block` of vector `vector`, of H numbers each.
    #[inline(always)]
    fn load(&self, from: &[f32], vector: usize, block: usize) -> Lanes {
        let start = vector * self.hidden;
        Lanes::load_some(&from[start + block * LANES..start + self.hidden])
    }

    #[inline(always)]
    fn store(&self, lanes: Lanes, to: &mut [f32], vector: usize, block: usize) {
        let start = vector * self.hidden;
        let to = &mut to[start + block * LANES..start + self.hidden];
        let count = to.len().min(LANES);
        to[..count].copy_from_slice(&lanes.0[..count]);
    }

    fn blocks(&self) -> usize {
        self.hidden.div_ceil(LANES)
    }
}

/// The weight and the bias, in whole lanes.
struct Weights {
    /// By the feature of the hidden state that it multiplies, `[H, 3, padded H]`.
    columns: Vec<f32>,
    /// As it is, `[3 H, padded H]`.
    rows: Vec<f32>,
    /// `[3, padded H]`.
    bias: Vec<f32>,
    padded: usize,
}

impl Weights {
    fn new(gru: &Gru, inputs: &Inputs<'_>) -> Self {
        let (hidden, padded) = (gru.hidden, gru.blocks() * LANES);
        let mut columns = vec![0.0; hidden * 3 * padded];
        let mut rows = columns.clone();
        let mut bias = vec![0.0; 3 * padded];
        for gate in 0..3 {
            for row in 0..hidden {
                let from = gate * hidden + row;
                bias[gate * padded + row] = inputs.bias[from];
                for column in 0..hidden {
                    let weight = inputs.weight[from * hidden + column];
                    columns[(column * 3 + gate) * padded + row] = weight;
                    rows[from * padded + column] = weight;
                }
            }
        }
        Self {
            columns,
            rows,
            bias,
            padded,
        }
    }

    /// The gates' share of a hidden state. Even and odd features are summed apart, since an addition waits for the one
    /// before.
    #[inline(always)]
    fn share(&self, state: &[f32], hidden: usize, block: usize) -> [Lanes; 3] {
        let at = block * LANES;
        let mut sums = [[Lanes::splat(0.0); 3]; 2];
        for gate in 0..3 {
            sums[0][gate] = Lanes::load(&self.bias[gate * self.padded + at..]);
        }
        for feature in 0..hidden {
            let value = Lanes::splat(state[feature]);
            for gate in 0..3 {
                let weight = Lanes::load(&self.columns[(feature * 3 + gate) * self.padded + at..]);
                sums[feature % 2][gate] = value.mul_add(weight, sums[feature % 2][gate]);
            }
        }
        let [even, odd] = sums;
        [0, 1, 2].map(|gate| add(even[gate], odd[gate]))
    }
}

/// Of one step and block.
struct Gates {
    reset: Lanes,
    update: Lanes,
    candidate: Lanes,
    /// The candidate's share of the hidden state, before it is reset.
    recurrent: Lanes,
}

impl Gates {
    #[inline(always)]
    fn new(gru: &Gru, weights: &Weights, state: &[f32], projected: &[f32], at: [usize; 2]) -> Self {
        let [step, block] = at;
        let share = weights.share(state, gru.hidden, block);
        let input = |gate: usize| gru.load(projected, step * 3 + gate, block);
        let reset = sigmoid(add(input(0), share[0]));
        Self {
            reset,
            update: sigmoid(add(input(1), share[1])),
            candidate: tanh(reset.mul_add(share[2], input(2))),
            recurrent: share[2],
        }
    }
}

struct ForwardSample<'a> {
    gru: &'a Gru,
    weights: &'a Weights,
    length: usize,
    projected: &'a [f32],
    output: &'a mut [f32],
}

impl Work for ForwardSample<'_> {
    #[inline(always)]
    fn run(self) {
        let gru = self.gru;
        let mut state = vec![0.0; self.weights.padded];
        let mut next = state.clone();
        self.output[self.length * gru.hidden..].fill(0.0);
        for turn in 0..self.length {
            let step = gru.step(turn, self.length);
            for block in 0..gru.blocks() {
                let gates = Gates::new(gru, self.weights, &state, self.projected, [step, block]);
                let before = Lanes::load(&state[block * LANES..]);
                let after =
                    subtract(before, gates.candidate).mul_add(gates.update, gates.candidate);
                after.store(&mut next[block * LANES..]);
                gru.store(after, self.output, step, block);
            }
            std::mem::swap(&mut state, &mut next);
        }
    }
}

struct BackwardSample<'a> {
    gru: &'a Gru,
    weights: &'a Weights,
    length: usize,
    projected: &'a [f32],
    output: &'a [f32],
    gradient: &'a [f32],
    of_projected: &'a mut [f32],
    of_recurrent: &'a mut [f32],
}

impl Work for BackwardSample<'_> {
    #[inline(always)]
    fn run(self) {
        let (gru, hidden) = (self.gru, self.gru.hidden);
        // The gradient of the state after a step, as far as it comes from later ones.
        let mut carried = vec![0.0; self.weights.padded];
        let mut before = carried.clone();
        self.of_projected[self.length * 3 * hidden..].fill(0.0);
        self.of_recurrent[self.length * 3 * hidden..].fill(0.0);
        for turn in (0..self.length).rev() {
            let step = gru.step(turn, self.length);
            match turn {
                0 => before.fill(0.0),
                _ => {
                    let start = gru.step(turn - 1, self.length) * hidden;
                    before[..hidden].copy_from_slice(&self.output[start..start + hidden]);
                }
            }
            for block in 0..gru.blocks() {
                let at = block * LANES;
                let gates = Gates::new(gru, self.weights, &before, self.projected, [step, block]);
                let own = gru.load(self.gradient, step, block);
                let of_state = add(own, Lanes::load(&carried[at..]));
                let [one, update] = [Lanes::splat(1.0), gates.update];
                let of_candidate = multiply(of_state, subtract(one, update));
                let slope = subtract(one, multiply(gates.candidate, gates.candidate));
                let of_candidate = multiply(of_candidate, slope);
                let difference = subtract(Lanes::load(&before[at..]), gates.candidate);
                let of_update = multiply(multiply(of_state, difference), slope_of(update));
                let of_reset = multiply(of_candidate, gates.recurrent);
                let of_reset = multiply(of_reset, slope_of(gates.reset));
                let of_recurrent = multiply(of_candidate, gates.reset);
                for (gate, of_gate) in [of_reset, of_update, of_candidate].into_iter().enumerate() {
                    gru.store(of_gate, self.of_projected, step * 3 + gate, block);
                }
                for (gate, of_gate) in [of_reset, of_update, of_recurrent].into_iter().enumerate() {
                    gru.store(of_gate, self.of_recurrent, step * 3 + gate, block);
                }
                multiply(of_state, update).store(&mut carried[at..]);
            }
            let of_gates = &self.of_recurrent[step * 3 * hidden..(step + 1) * 3 * hidden];
            for block in 0..gru.blocks() {
                let mut sums = [Lanes::splat(0.0); 3];
                for row in 0..hidden {
                    for gate in 0..3 {
                        let row = gate * hidden + row;
                        let at = row * self.weights.padded + block * LANES;
                        let weight = Lanes::load(&self.weights.rows[at..]);
                        sums[gate] = Lanes::splat(of_gates[row]).mul_add(weight, sums[gate]);
                    }
                }
                let kept = Lanes::load(&carried[block * LANES..]);
                let sum = add(add(add(sums[0], sums[1]), sums[2]), kept);
                sum.store(&mut carried[block * LANES..]);
            }
        }
    }
}

#[inline(always)]
fn add(a: Lanes, b: Lanes) -> Lanes {
    a.with(b, |a, b| a + b)
}

#[inline(always)]
fn subtract(a: Lanes, b: Lanes) -> Lanes {
    a.with(b, |a, b| a - b)
}

#[inline(always)]
fn multiply(a: Lanes, b: Lanes) -> Lanes {
    a.with(b, |a, b| a * b)
}

/// The slope of the logistic function where it has this value.
#[inline(always)]
fn slope_of(value: Lanes) -> Lanes {
    value.map(|value| value * (1.0 - value))
}

/// The logistic function.
#[inline(always)]
fn sigmoid(x: Lanes) -> Lanes {
    let power = x.map(|x| -x.abs()).exp_of_negative();
    x.with(power, |x, power| {
        let share = 1.0 / (1.0 + power);
        if x >= 0.0 { share } else { power * share }
    })
}

/// The hyperbolic tangent.
#[inline(always)]
fn tanh(x: Lanes) -> Lanes {
    let power = x.map(|x| -2.0 * x.abs()).exp_of_negative();
    x.with(power, |x, power| {
        // Of small numbers, whose powers are close to 1, a polynomial (Cephes, Moshier 1989).
        let square = x * x;
        let p = -5.704_988_7e-3_f32;
        let p = p.mul_add(square, 2.063_909e-2);
        let p = p.mul_add(square, -5.373_971_6e-2);
        let p = p.mul_add(square, 1.333_144_2e-1);
        let p = p.mul_add(square, -3.333_328e-1);
        let small = (p * square).mul_add(x, x);
        let large = ((1.0 - power) / (1.0 + power)).copysign(x);
        if x.abs() < 0.625 { small } else { large }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn activations_are_right_to_the_last_bits() {
        let mut x = -20.0_f32;
        while x < 20.0 {
            let lanes = Lanes::splat(x);
            let exact = f64::from(x);
            let expected = 1.0 / (1.0 + (-exact).exp());
            let error = (f64::from(sigmoid(lanes).0[3]) - expected).abs() / expected;
            assert!(error < 4e-7, "{x}: {error}");
            let error = (f64::from(tanh(lanes).0[5]) - exact.tanh()).abs();
            assert!(error <= 3e-7 * exact.tanh().abs(), "{x}: {error}");
            x += 0.000_7 + x.abs() * 1e-3;
        }
        for x in [f32::INFINITY, f32::NEG_INFINITY, 0.0] {
            assert_eq!(tanh(Lanes::splat(x)).0[0], x.tanh());
        }
        assert_eq!(sigmoid(Lanes::splat(f32::INFINITY)).0[0], 1.0);
        assert_eq!(sigmoid(Lanes::splat(f32::NEG_INFINITY)).0[0], 0.0);
        assert!(sigmoid(Lanes::splat(f32::NAN)).0[0].is_nan());
        assert!(tanh(Lanes::splat(f32::NAN)).0[0].is_nan());
    }
}
