//! The paper's details, as if a sweep had measured them: what this system makes of them must be
//! what the paper prints, except where its errata say so.

use halfheard_e2e::{finished, servers::Postgres};
use halfheard_shared::published::{self, Number};
use halfheard_store::Store;
use sqlx::Row as _;

/// By how much our mean may differ from the printed one: half a unit of its last digit, and half a
/// unit of the details' last digit, which were rounded, too.
fn tolerance(number: &Number) -> f64 {
    let unit = if published::percent(number.dataset, number.metric) {
        0.01
    } else {
        1.0
    };
    unit * 10f64.powi(-(number.decimals() as i32)) + 1e-12
}

#[tokio::test]
async fn overall_tables_follow_from_the_details_except_for_the_errata() {
    let postgres = Postgres::start().unwrap();
    let store = Store::connect_with_retry(&postgres.url().parse().unwrap())
        .await
        .unwrap();
    store.migrate().await.unwrap();
    let sweep = finished::published(&store, "published").await.unwrap();

    let rows = sqlx::query(
        "SELECT table_number, dataset, method, case_id, metric, reproduced, published
         FROM comparison WHERE sweep = $1 AND table_number IN (2, 3, 11, 12)",
    )
    .bind(sweep.0)
    .fetch_all(store.pool())
    .await
    .unwrap();
    let overall: Vec<&Number> = published::numbers()
        .iter()
        .filter(|n| [2, 3, 11, 12].contains(&n.table))
        .collect();
    // A swapped F1 is compared with our swapped one, which the paper does not print.
    let mut differing = Vec::new();
    for number in &overall {
        let Some(row) = rows.iter().find(|row| {
            row.get::<i32, _>("table_number") == i32::from(number.table)
                && row.get::<&str, _>("dataset") == number.dataset.id()
                && row.get::<&str, _>("method") == number.method
                && row.get::<&str, _>("metric") == number.metric
        }) else {
            panic!("{number:?} is not reproduced");
        };
        let ours: Option<f64> = row.get("reproduced");
        let follows = ours.is_some_and(|ours| (ours - number.value).abs() <= tolerance(number));
        if !follows {
            differing.push((*number, ours));
        }
    }
    assert_eq!(overall.len(), 8 * (2 * 8 + 6) * 2);
    for (number, ours) in &differing {
        assert!(
            number.erratum().is_some(),
            "{number:?} does not follow from its details, which give {ours:?}"
        );
    }
    println!(
        "{} of {} numbers do not follow, all of them errata",
        differing.len(),
        overall.len()
    );
}
