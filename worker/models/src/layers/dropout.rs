//! Dropout. On the CPU, [`halfheard_kernels`] draws it on all cores and keeps no mask for the gradient.

use super::numbers::{numbers, numbers_mut};
use crate::numerics::threads;
use halfheard_kernels::dropout::{Bfloat16, Dropout, Number};
use halfheard_torch_shim::with_gradient;
use tch::{Device, Kind, Tensor};

/// `x` of any shape with each entry dropped with probability `p` and the others scaled to the same expectation, if
/// `train`. On the CPU it takes one number from libtorch's generator.
pub(crate) fn dropout(x: &Tensor, p: f64, train: bool) -> Tensor {
    match drawn(x, p, train) {
        Some(dropout) => {
            let of_x = move |gradient: Tensor| vec![applied(dropout, None, &gradient)];
            with_gradient(applied(dropout, None, x), &[x], of_x)
        }
        None => by_libtorch(x, p, train),
    }
}

/// `x + dropout(branch)`, of equal shapes: a residual connection.
pub(crate) fn residual(x: &Tensor, branch: &Tensor, p: f64, train: bool) -> Tensor {
    // Under autocast the branch can be of another kind.
    let alike = x.kind() == branch.kind() && x.device() == branch.device();
    let alike = alike && x.size() == branch.size();
    let here = alike.then(|| drawn(branch, p, train)).flatten();
    match here {
        Some(dropout) => {
            let sum = applied(dropout, Some(x), branch);
            with_gradient(sum, &[x, branch], move |gradient| {
                let of_branch = applied(dropout, None, &gradient);
                vec![gradient, of_branch]
            })
        }
        None => x + dropout(branch, p, train),
    }
}

/// Softmax attention `[B, heads, T, D]` of queries `[B, heads, T, D]` to keys and values `[B, heads, S, D]`; `mask`, which
/// fits `[B, heads, T, S]`, is added to the scores. Weights are dropped with probability `p`.
pub(crate) fn attention(
    [query, key, value]: [&Tensor; 3],
    mask: Option<&Tensor>,
    p: f64,
) -> Tensor {
    if p == 0.0 || query.device() != Device::Cpu {
        return Tensor::scaled_dot_product_attention(
            query, key, value, mask, p, false, None, false,
        );
    }
    // libtorch has no fused kernel with dropout for a CPU.
    let scale = (query.size()[3] as f64).powf(-0.5);
    let scores = (query * scale).matmul(&key.transpose(2, 3));
    let mut scores = scores.to_kind(Kind::Float);
    if let Some(mask) = mask {
        let _ = scores.g_add_(mask);
    }
    dropout(&scores.softmax(-1, Kind::Float), p, true).matmul(value)
}

#[expect(
    clippy::disallowed_methods,
    reason = "other devices, and nothing to draw"
)]
fn by_libtorch(x: &Tensor, p: f64, train: bool) -> Tensor {
    x.dropout(p, train)
}

/// What to drop of `x`, if the kernel does it.
fn drawn(x: &Tensor, p: f64, train: bool) -> Option<Dropout> {
    let known = matches!(x.kind(), Kind::Float | Kind::BFloat16) && x.device() == Device::Cpu;
    let some = train && p > 0.0 && p < 1.0 && x.numel() > 0;
    (known && some).then(|| Dropout {
        p,
        seed: seed(),
        threads: threads(),
    })
}

/// The next number of libtorch's generator.
pub(super) fn seed() -> u64 {
    Tensor::empty([1], (Kind::Int64, Device::Cpu))
        .random_from_(i64::MIN, None)
        .int64_value(&[0]) as u64
}

/// What `dropout` leaves of `x`, added to `base` if there is one, outside of the graph.
fn applied(dropout: Dropout, base: Option<&Tensor>, x: &Tensor) -> Tensor {
    fn run<T: Number>(dropout: Dropout, base: Option<&Tensor>, x: &Tensor, out: &Tensor) {
        dropout.apply::<T>(base.map(numbers), numbers(x), numbers_mut(out));
    }
    let dense = |x: &Tensor| x.detach().contiguous();
    let (base, x) = (base.map(dense), dense(x));
    let out = x.empty_like();
    match x.kind() {
        Kind::BFloat16 => run::<Bfloat16>(dropout, base.as_ref(), &x, &out),
        _ => run::<f32>(dropout, base.as_ref(), &x, &out),
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

    fn largest(x: &Tensor) -> f64 {
        x.to_kind(Kind::Float).abs().max().double_value(&[])
    }

    #[test]
    fn share_p_is_dropped_and_gradients_reach_exactly_the_rest() {
        tch::manual_seed(3);
        for kind in [Kind::Float, Kind::BFloat16] {
            let x = Tensor::ones([250, 401], (kind, Device::Cpu)).set_requires_grad(true);
            for p in [0.1, 0.2, 0.5] {
                let mut leaf = x.shallow_clone();
                leaf.zero_grad();
                // Of another layout than the gradient.
                let out = dropout(&x.transpose(0, 1), p, true);
                assert_eq!((out.size(), out.kind()), (vec![401, 250], kind));
                let share = out.eq(0.0).to_kind(Kind::Float).mean(Kind::Float);
                // Five standard deviations.
                let allowed = 5.0 * (p * (1.0 - p) / 100_250.0_f64).sqrt();
                let share = share.double_value(&[]);
                assert!((share - p).abs() < allowed, "{p}: {share}");
                out.sum(kind).backward();
                let expected = out.detach().transpose(0, 1);
                assert_eq!(x.grad(), expected, "{p}");
            }
        }
    }

    #[test]
    fn nothing_is_drawn_without_need() {
        tch::manual_seed(4);
        let x = Tensor::rand([3, 4], CPU);
        assert_eq!(dropout(&x, 0.5, false), x);
        assert_eq!(dropout(&x, 0.0, true), x);
        let none = x.narrow(0, 0, 0);
        assert_eq!(dropout(&none, 0.5, true).size(), [0, 4]);
        let next = seed();
        tch::manual_seed(4);
        let _ = Tensor::rand([3, 4], CPU);
        assert_eq!(seed(), next);
        assert_eq!(dropout(&x, 1.0, true), x.zeros_like());
    }

    #[test]
    fn equal_seeds_drop_equal_entries_whatever_the_threads() {
        let x = Tensor::rand([300, 301], CPU);
        let threads = tch::get_num_threads();
        let draw = |count| {
            tch::set_num_threads(count);
            tch::manual_seed(11);
            (dropout(&x, 0.3, true), dropout(&x, 0.3, true))
        };
        let (first, second) = draw(1);
        assert_ne!(first, second);
        assert_eq!(draw(2), (first, second));
        tch::set_num_threads(threads);
    }

    #[test]
    fn residual_is_the_sum_with_what_is_left() {
        for kinds in [
            [Kind::Float, Kind::Float],
            [Kind::BFloat16, Kind::BFloat16],
            // As under autocast.
            [Kind::Float, Kind::BFloat16],
        ] {
            tch::manual_seed(5);
            let [x, branch] = kinds.map(|kind| {
                Tensor::randn([70, 300], CPU)
                    .to_kind(kind)
                    .set_requires_grad(true)
            });
            tch::manual_seed(6);
            let sum = residual(&x, &branch, 0.4, true);
            sum.sum(Kind::Float).backward();
            let [of_x, of_branch] = [x.grad(), branch.grad()].map(|g| g.copy());
            tch::manual_seed(6);
            let left = dropout(&branch, 0.4, true);
            // Rounded once or twice.
            assert!(largest(&(&sum - (&x + &left))) < 0.05, "{kinds:?}");
            assert_eq!(of_x, x.ones_like(), "{kinds:?}");
            let expected = left.ne(0.0).to_kind(kinds[1]) / 0.6;
            assert!(largest(&(of_branch - expected)) < 0.01, "{kinds:?}");
        }
        let x = Tensor::rand([4, 1], CPU);
        let wide = Tensor::rand([4, 3], CPU);
        assert_eq!(residual(&x, &wide, 0.5, true).size(), [4, 3]);
        assert_eq!(residual(&x, &wide, 0.5, false), &x + &wide);
    }

    /// With a `p` so small that nothing is dropped, as libtorch without dropout.
    #[test]
    fn attention_is_that_of_libtorch() {
        tch::manual_seed(7);
        let draw = |steps| {
            let x = Tensor::randn([3, 2, steps, 8], CPU);
            x.set_requires_grad(true)
        };
        let [query, key, value] = [draw(5), draw(9), draw(9)];
        let mask = Tensor::zeros([3, 1, 1, 9], CPU);
        let _ = mask.narrow(3, 7, 2).fill_(f64::from(f32::MIN));
        for mask in [None, Some(&mask)] {
            let run = |p| {
                let out = attention([&query, &key, &value], mask, p);
                let inputs = [&query, &key, &value];
                let gradients =
                    Tensor::run_backward(&[out.square().sum(Kind::Float)], &inputs, false, false);
                std::iter::once(out.detach())
                    .chain(gradients)
                    .collect::<Vec<_>>()
            };
            for (ours, theirs) in run(1e-9).iter().zip(run(0.0)) {
                assert!(largest(&(ours - theirs)) < 1e-5);
            }
            assert_ne!(run(0.5)[0], run(0.0)[0]);
        }
    }
}
