//! Losses that compare two sets of representations.

use tch::{Kind, Tensor};

/// Central moment discrepancy between the rows of `x` and `y`, `[B, D]` both, up to the moment of
/// order `moments` (Zellinger et al. 2017, equation 2, without the division by the interval): the
/// distance of the means plus the distances of the central moments.
pub(crate) fn cmd(x: &Tensor, y: &Tensor, moments: i64) -> Tensor {
    discrepancy(x, y, moments, 0.0)
}

/// As [`cmd`], with a tiny number under each root for a finite gradient at equal sets (TFR-Net).
pub(crate) fn cmd_smooth(x: &Tensor, y: &Tensor, moments: i64) -> Tensor {
    discrepancy(x, y, moments, 1e-12)
}

fn discrepancy(x: &Tensor, y: &Tensor, moments: i64, tiny: f64) -> Tensor {
    // A power rather than a root, since their gradients round differently.
    let distance = |a: &Tensor, b: &Tensor| {
        let squares = (a - b).square().sum(Kind::Float);
        if tiny == 0.0 { squares } else { squares + tiny }.pow_tensor_scalar(0.5)
    };
    let mean = |t: &Tensor| t.mean_dim(0, false, Kind::Float);
    let (mean_x, mean_y) = (mean(x), mean(y));
    let (central_x, central_y) = (x - &mean_x, y - &mean_y);
    // The central moments of one sample are zero, and so are the odd ones of two, where a root has no finite gradient: the
    // reference's weights become NaN in such a batch.
    let vanishes = |order: i64| match x.size()[0] {
        0 | 1 => true,
        2 => order % 2 == 1 && tiny == 0.0,
        _ => false,
    };
    let orders = (2..=moments).filter(|&order| !vanishes(order));
    orders.fold(distance(&mean_x, &mean_y), |sum, order| {
        let moment = |t: &Tensor| mean(&t.pow_tensor_scalar(order));
        sum + distance(&moment(&central_x), &moment(&central_y))
    })
}

/// Soft orthogonality of `x` and `y`, `[B, D]` both: the mean square of the product of the centered
/// and row-normalized matrices (MISA, equation 9). The norms take no part in the gradient, as in
/// the reference.
pub(crate) fn difference(x: &Tensor, y: &Tensor) -> Tensor {
    let normalized = |t: &Tensor| {
        // Gradients of the following operations add up here before those of other uses of `t`.
        let t = t.view([t.size()[0], -1]);
        let centered = &t - t.mean_dim(0, true, Kind::Float);
        let norm = centered.norm_scalaropt_dim(2.0, 1, true).detach();
        centered / (norm + 1e-6)
    };
    normalized(x)
        .tr()
        .matmul(&normalized(y))
        .square()
        .mean(Kind::Float)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn cmd_is_zero_for_equal_sets_and_detects_a_shift() {
        tch::manual_seed(3);
        let x = Tensor::rand([16, 4], (Kind::Float, Device::Cpu));
        assert!(cmd(&x, &x, 5).double_value(&[]).abs() < 1e-6);
        let shifted = cmd(&x, &(&x + 1.0), 5).double_value(&[]);
        assert!(
            (shifted - 2.0).abs() < 1e-4,
            "four means moved by one: {shifted}"
        );
    }

    #[test]
    fn cmd_of_one_and_of_two_samples_has_finite_gradients() {
        // Distances of the means; of two samples also of the second and fourth moments, 1 each.
        for (samples, expected) in [(1, 5f64.sqrt()), (2, 13f64.sqrt() + 2.0 * 2f64.sqrt())] {
            let x = Tensor::from_slice(&[1.0f32, 2.0, 3.0, 4.0])
                .narrow(0, 0, 2 * samples)
                .view([samples, 2])
                .set_requires_grad(true);
            let zeros = Tensor::zeros([samples, 2], (Kind::Float, Device::Cpu));
            let loss = cmd(&x, &zeros, 5);
            let value = loss.double_value(&[]);
            assert!((value - expected).abs() < 1e-5, "{samples}: {value}");
            loss.backward();
            assert_eq!(x.grad().isfinite().all().int64_value(&[]), 1, "{samples}");
        }
    }

    #[test]
    fn difference_is_zero_for_orthogonal_columns() {
        let x = Tensor::from_slice(&[1.0f32, 0.0, -1.0, 0.0, 1.0, 0.0, -1.0, 0.0]).view([4, 2]);
        let y = Tensor::from_slice(&[1.0f32, 0.0, 1.0, 0.0, -1.0, 0.0, -1.0, 0.0]).view([4, 2]);
        assert!(difference(&x, &y).double_value(&[]) < 1e-12);
        assert!(difference(&x, &x).double_value(&[]) > 0.1);
    }
}
