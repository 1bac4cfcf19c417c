//! Dropout of attention weights, of which long sequences have hundreds of millions per step.
//!
//! PyTorch draws 64 random bits per weight, sequentially on one core, and keeps a 32-bit factor for
//! the gradient. Here, 16 random bits decide and one byte is kept.

use tch::{Kind, Tensor};

/// The number of values of 16 bits.
const VALUES: i64 = 1 << 16;

/// The product `[N, T, D]` of attention `weights` `[N, T, S]`, each dropped with probability `p`, and
/// `values` `[N, S, D]`, scaled to the same expectation. `p` is rounded to 1/65536.
pub(crate) fn attend(weights: &Tensor, values: &Tensor, p: f64) -> Tensor {
    let below = ((p * VALUES as f64).round() as i64).clamp(0, VALUES);
    if below == 0 {
        return weights.bmm(values);
    }
    if below == VALUES {
        // Nothing remains to scale.
        return weights.bmm(values) * 0.0;
    }
    let scale = VALUES as f64 / (VALUES - below) as f64;
    weights
        .masked_fill(&dropped(weights, below), 0.0)
        .bmm(&(values * scale))
}

/// The mask of dropped entries in the shape of `like`, each set with probability `below` / 65536.
fn dropped(like: &Tensor, below: i64) -> Tensor {
    let count = like.numel() as i64;
    // All 64 bits of a number are random, and it is viewed as four numbers of 16 bits.
    Tensor::empty([(count + 3) / 4], (Kind::Int64, like.device()))
        .random_from_(i64::MIN, None)
        .view_dtype(Kind::Int16)
        .narrow(0, 0, count)
        // An integer bound: comparing with a float would copy all entries to floats first.
        .lt(below + i64::from(i16::MIN))
        .view_as(like)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

    #[test]
    fn dropped_fraction_is_p_and_the_rest_is_scaled() {
        tch::manual_seed(3);
        let weights = Tensor::full([2, 250, 401], 1.0, CPU).set_requires_grad(true);
        let values = Tensor::eye(401, CPU).expand([2, 401, 401], false);
        for p in [0.1, 0.2, 0.5] {
            let out = attend(&weights, &values, p);
            let share = out.eq(0.0).to_kind(Kind::Float).mean(Kind::Float);
            // Five standard deviations.
            let allowed = 5.0 * (p * (1.0 - p) / 200_500.0_f64).sqrt();
            assert!(
                (share.double_value(&[]) - p).abs() < allowed,
                "{p}: {share}"
            );
            let largest = out.max().double_value(&[]);
            assert!((largest - 1.0 / (1.0 - p)).abs() < 1e-4, "{p}: {largest}");
            // The four parts of a random number have equal rates, and adjacent ones are independent.
            let flat = out.detach().ne(0.0).to_kind(Kind::Float).reshape([-1, 4]);
            let parts = Vec::<f32>::try_from(flat.mean_dim(0, false, Kind::Float)).unwrap();
            for part in parts {
                assert!(
                    (f64::from(part) - 1.0 + p).abs() < 2.0 * allowed,
                    "{p}: {part}"
                );
            }
            let both = flat.select(1, 0) * flat.select(1, 1);
            let both = both.mean(Kind::Float).double_value(&[]);
            assert!((both - (1.0 - p).powi(2)).abs() < 0.02, "{p}: {both}");
            // Gradients reach exactly the kept entries.
            let mut leaf = weights.shallow_clone();
            leaf.zero_grad();
            out.sum(Kind::Float).backward();
            let difference = (weights.grad() - out.detach()).abs().max();
            assert!(difference.double_value(&[]) < 1e-4);
        }
    }

    #[test]
    fn p_of_zero_keeps_all_and_p_of_one_drops_all() {
        tch::manual_seed(4);
        let weights = Tensor::rand([2, 3, 4], CPU);
        let values = Tensor::rand([2, 4, 5], CPU);
        assert_eq!(attend(&weights, &values, 0.0), weights.bmm(&values));
        assert_eq!(
            attend(&weights, &values, 1.0),
            Tensor::zeros([2, 3, 5], CPU)
        );
    }

    #[test]
    fn equal_seeds_drop_equal_entries() {
        let weights = Tensor::ones([1, 7, 9], CPU);
        let draw = || {
            tch::manual_seed(11);
            dropped(&weights, 20_000)
        };
        assert_eq!(draw(), draw());
    }
}
