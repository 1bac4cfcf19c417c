//! Sums of results in fixed point: exact, and so the same in any order.

use crate::postgres::Postgres;
use proptest::{
    prelude::*,
    strategy::ValueTree as _,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use std::mem::swap;

/// Mean and standard deviation as a sweep's tables get them: noted one by one, then added up.
async fn of(postgres: &Postgres, values: &[f64]) -> (Option<f64>, Option<f64>) {
    sqlx::query_as(
        "WITH noted AS (SELECT fixed_point(v) AS f FROM unnest($1::float8[]) AS v)
         SELECT fixed_mean(sum(f), count(*)), fixed_std(sum(f), sum(f * f), count(*)) FROM noted",
    )
    .bind(values)
    .fetch_one(postgres.store.pool())
    .await
    .unwrap()
}

fn runner() -> TestRunner {
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    TestRunner::new_with_rng(Config::default(), rng)
}

#[tokio::test]
async fn a_value_is_its_own_mean() {
    let postgres = Postgres::start().await;
    // From the least value that keeps all of its bits to the largest that a bigint's half holds.
    let exponents = -38.0..32.0f64;
    let value = (exponents, any::<bool>()).prop_map(|(exponent, negative)| {
        let value = exponent.exp2();
        if negative { -value } else { value }
    });
    let values = proptest::collection::vec(value, 2000);
    let mut values = values.new_tree(&mut runner()).unwrap().current();
    values.extend([
        0.0,
        1.0,
        -1.0,
        0.1,
        1.0 / 3.0,
        2.0f64.powi(-38),
        4_294_967_295.999_999_5,
    ]);
    let means: Vec<f64> = sqlx::query_scalar(
        "SELECT fixed_mean(fixed_point(v), 1) FROM unnest($1::float8[]) WITH ORDINALITY AS i (v, n) ORDER BY n",
    )
    .bind(&values)
    .fetch_all(postgres.store.pool())
    .await
    .unwrap();
    assert_eq!(means, values);
    // The mean of equal values is that value, and nothing deviates.
    for copies in [2, 3, 7, 10] {
        assert_eq!(
            of(&postgres, &vec![0.1; copies]).await,
            (Some(0.1), Some(0.0))
        );
    }
}

#[tokio::test]
async fn sums_do_not_depend_on_the_order() {
    let postgres = Postgres::start().await;
    let values = proptest::collection::vec(-3.0..3.0f64, 60);
    let mut values = values.new_tree(&mut runner()).unwrap().current();
    let first = of(&postgres, &values).await;
    for turn in 1..20 {
        values.rotate_left(turn);
        let (left, right) = values.split_at_mut(30);
        swap(&mut left[turn], &mut right[turn]);
        assert_eq!(of(&postgres, &values).await, first);
    }
    // As they are by definition.
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    assert!((first.0.unwrap() - mean).abs() < 1e-15, "{first:?}");
    let std = (squares / (n - 1.0)).sqrt();
    assert!((first.1.unwrap() / std - 1.0).abs() < 1e-14, "{first:?}");
}

#[tokio::test]
async fn values_of_any_size_are_summed() {
    let postgres = Postgres::start().await;
    assert_eq!(of(&postgres, &[]).await, (None, None));
    assert_eq!(of(&postgres, &[0.5]).await, (Some(0.5), None));
    // A diverged model's error, and the least that a double holds.
    let (mean, std) = of(&postgres, &[3e38, 1e38]).await;
    assert!((mean.unwrap() / 2e38 - 1.0).abs() < 1e-14, "{mean:?}");
    assert!(
        (std.unwrap() / 2f64.sqrt() / 1e38 - 1.0).abs() < 1e-14,
        "{std:?}"
    );
    let (mean, std) = of(&postgres, &[f64::MAX, f64::MIN]).await;
    assert_eq!(mean, Some(0.0));
    assert!(std.unwrap() > 1e100, "{std:?}");
    assert_eq!(
        of(&postgres, &[5e-324, -5e-324]).await,
        (Some(0.0), Some(0.0))
    );
    // Large values beside small ones: nothing is cancelled.
    let (mean, std) = of(&postgres, &[1e9 + 0.25, 1e9 + 0.75]).await;
    assert_eq!(mean, Some(1e9 + 0.5));
    assert!((std.unwrap() - 0.125f64.sqrt()).abs() < 1e-15, "{std:?}");
}
