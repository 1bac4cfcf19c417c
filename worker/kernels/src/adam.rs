//! One step of Adam (Kingma & Ba, ICLR 2015) or AdamW (Loshchilov & Hutter, ICLR 2019), reading and writing each number
//! once. Written with libtorch's operators, a step passes over the weights, their gradients and moments a dozen times.

use crate::{
    dispatch::{Instructions, Work},
    lanes::{LANES, Lanes},
    parallel,
};

/// What a step does to every weight.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adam {
    /// The learning rate, divided by `1 - beta1^t` at step t.
    pub rate: f32,
    /// `1 - beta1`, below 0.5: how much of the gradient enters the first moment.
    pub first: f32,
    /// `beta2`.
    pub keep: f32,
    /// `1 - beta2`: how much of the squared gradient enters the second moment.
    pub second: f32,
    /// `sqrt(1 - beta2^t)`, by which the root of the second moment is divided.
    pub correction: f32,
    /// Added to that root.
    pub eps: f32,
    /// Times the weight, added to the gradient (Adam).
    pub coupled_decay: f32,
    /// What the weight is multiplied by first (AdamW): 1 less learning rate times decay.
    pub shrink: f32,
    /// Threads that work on it.
    pub threads: usize,
}

/// Weights with their gradients and moments, all of one length.
#[derive(Debug)]
pub struct Parameter<'a> {
    /// Updated.
    pub weight: &'a mut [f32],
    /// Read.
    pub gradient: &'a [f32],
    /// Updated.
    pub first: &'a mut [f32],
    /// Updated.
    pub second: &'a mut [f32],
}

/// Numbers that a thread takes at once: 64 KiB of each.
const PART: usize = 16 * 1024;

impl Adam {
    /// Updates weights and moments.
    ///
    /// # Panics
    ///
    /// If the lengths differ.
    pub fn step(&self, parameter: Parameter<'_>) {
        let length = parameter.weight.len();
        let Parameter {
            weight,
            gradient,
            first,
            second,
        } = parameter;
        assert!([gradient.len(), first.len(), second.len()] == [length; 3]);
        let parts: Vec<Parameter<'_>> = weight
            .chunks_mut(PART)
            .zip(gradient.chunks(PART))
            .zip(first.chunks_mut(PART).zip(second.chunks_mut(PART)))
            .map(|((weight, gradient), (first, second))| Parameter {
                weight,
                gradient,
                first,
                second,
            })
            .collect();
        let instructions = Instructions::detect();
        parallel::for_all(self.threads, parts, &|part| {
            instructions.run(Part {
                adam: self,
                parameter: part,
            });
        });
    }
}

struct Part<'a, 'b> {
    adam: &'a Adam,
    parameter: Parameter<'b>,
}

impl Work for Part<'_, '_> {
    #[inline(always)]
    fn run(self) {
        let Parameter {
            weight,
            gradient,
            first,
            second,
        } = self.parameter;
        let mut at = 0;
        while at + LANES <= weight.len() {
            let mut state = [&*weight, &*first, &*second].map(|x| Lanes::load(&x[at..]));
            update(self.adam, &mut state, Lanes::load(&gradient[at..]));
            let [w, m, v] = state;
            w.store(&mut weight[at..]);
            m.store(&mut first[at..]);
            v.store(&mut second[at..]);
            at += LANES;
        }
        let rest = weight.len() - at;
        if rest > 0 {
            let mut state = [&*weight, &*first, &*second].map(|x| Lanes::load_some(&x[at..]));
            update(self.adam, &mut state, Lanes::load_some(&gradient[at..]));
            for (to, from) in [weight, first, second].into_iter().zip(state) {
                to[at..].copy_from_slice(&from.0[..rest]);
            }
        }
    }
}

/// Weights and moments, in the order in which PyTorch rounds.
#[inline(always)]
fn update(adam: &Adam, [weight, first, second]: &mut [Lanes; 3], gradient: Lanes) {
    for i in 0..LANES {
        let w = weight.0[i] * adam.shrink;
        let g = w.mul_add(adam.coupled_decay, gradient.0[i]);
        let m = (g - first.0[i]).mul_add(adam.first, first.0[i]);
        let v = (g * adam.second).mul_add(g, second.0[i] * adam.keep);
        let root = v.sqrt() / adam.correction + adam.eps;
        weight.0[i] = w - m * adam.rate / root;
        first.0[i] = m;
        second.0[i] = v;
    }
}
