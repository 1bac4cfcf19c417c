//! Adam against its definition in double precision.

use halfheard_kernels::adam::{Adam, Parameter};

const BASE: Adam = Adam {
    rate: 0.01,
    first: 0.1,
    keep: 0.999,
    second: 0.001,
    correction: 0.3,
    eps: 1e-8,
    coupled_decay: 0.0,
    shrink: 1.0,
    threads: 2,
};

/// Weights, gradients, first and second moments.
type State = [Vec<f32>; 4];

fn state(count: usize) -> State {
    let at = |i: usize, k: usize| ((i * 7 + k * 13) % 31) as f32 / 10.0 - 1.5;
    let numbers = |k: usize| (0..count).map(|i| at(i, k)).collect();
    let mut state: State = [0, 1, 2, 3].map(numbers);
    for second in &mut state[3] {
        *second = second.abs();
    }
    state
}

fn stepped(adam: &Adam, mut state: State) -> State {
    let [weight, gradient, first, second] = &mut state;
    adam.step(Parameter {
        weight,
        gradient,
        first,
        second,
    });
    state
}

#[test]
fn steps_follow_the_definition() {
    let decayed = Adam {
        coupled_decay: 0.05,
        ..BASE
    };
    let shrunk = Adam {
        shrink: 0.9,
        ..BASE
    };
    for adam in [BASE, decayed, shrunk] {
        // Whole lanes, a rest, several parts.
        for count in [1, 16, 37, 40_000] {
            let before = state(count);
            let after = stepped(&adam, before.clone());
            assert_eq!(after[1], before[1]);
            for i in 0..count {
                let [w, g, m, v] = [0, 1, 2, 3].map(|k: usize| f64::from(before[k][i]));
                let w = w * f64::from(adam.shrink);
                let g = g + w * f64::from(adam.coupled_decay);
                let m = m + f64::from(adam.first) * (g - m);
                let v = v * f64::from(adam.keep) + f64::from(adam.second) * g * g;
                let root = v.sqrt() / f64::from(adam.correction) + f64::from(adam.eps);
                let expected = [w - f64::from(adam.rate) * m / root, m, v];
                for (k, expected) in [0, 2, 3].into_iter().zip(expected) {
                    let got = f64::from(after[k][i]);
                    assert!(
                        (got - expected).abs() < 1e-6 * (1.0 + expected.abs()),
                        "{adam:?} {i} {k}: {got}, not {expected}"
                    );
                }
            }
        }
    }
}

#[test]
fn threads_change_no_bit() {
    let alone = Adam { threads: 1, ..BASE };
    assert_eq!(
        stepped(&alone, state(100_003)),
        stepped(&BASE, state(100_003))
    );
}
