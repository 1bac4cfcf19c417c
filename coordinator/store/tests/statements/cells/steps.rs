//! Costs, and the rules after random steps.

use super::{control::fail, *};

#[tokio::test(flavor = "multi_thread")]
async fn costs_come_from_earlier_epochs() {
    let postgres = Postgres::start().await;
    let store = &postgres.store;
    submit(store, &base(), Terms::default()).await;
    assert_eq!(
        postgres
            .count("SELECT count(*) FROM job WHERE cost > 0")
            .await,
        0
    );
    // Ten seconds an epoch; the first method has at most three.
    finish(store, trainings(&base())[0]).await;
    assert_eq!(store.estimate_costs().await.unwrap(), 1);
    assert_eq!(store.estimate_costs().await.unwrap(), 0);
    assert_eq!(
        postgres
            .count("SELECT count(*) FROM job WHERE cost = 30")
            .await,
        1
    );
    // At submission: of the same config, and of a variant of the method.
    let more = with("more", |spec| {
        spec.seeds.push(3);
        let mut variant = spec.methods[0].clone();
        variant.variant = "wide".into();
        variant
            .hyper
            .get_mut("mosi")
            .unwrap()
            .insert("max_epochs".into(), 5.into());
        spec.methods.push(variant);
    });
    submit(store, &more, Terms::default()).await;
    assert_eq!(
        postgres
            .count("SELECT count(*) FROM job WHERE cost = 30")
            .await,
        2
    );
    assert_eq!(
        postgres
            .count("SELECT count(*) FROM job WHERE cost = 50")
            .await,
        3
    );
}

#[derive(Clone, Debug)]
enum Step {
    Submit(usize, i32),
    Cancel(usize),
    Pause(usize),
    Resume(usize),
    Priority(usize, i32),
    Retry(usize),
    Finish(usize),
    Fail(usize),
    Grant(usize),
    Delete(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let sweep = || 0..4usize;
    let job = || 0..16usize;
    prop_oneof![
        3 => (sweep(), -1..3).prop_map(|(s, p)| Step::Submit(s, p)),
        2 => sweep().prop_map(Step::Cancel),
        2 => sweep().prop_map(Step::Pause),
        2 => sweep().prop_map(Step::Resume),
        2 => (sweep(), -1..3).prop_map(|(s, p)| Step::Priority(s, p)),
        1 => sweep().prop_map(Step::Retry),
        3 => job().prop_map(Step::Finish),
        1 => job().prop_map(Step::Fail),
        3 => job().prop_map(Step::Grant),
        1 => sweep().prop_map(Step::Delete),
    ]
}

async fn take(store: &Store, specs: &[ResolvedSpec], step: &Step) {
    // A training job of the widest sweep, as far as it exists and may take the step.
    let job = async |n: usize, states: &[&str]| -> Option<JobId> {
        let all = trainings(&specs[3]);
        let id = all[n % all.len()];
        let state: Option<String> = sqlx::query_scalar("SELECT state::text FROM job WHERE id = $1")
            .bind(id.0)
            .fetch_optional(store.pool())
            .await
            .unwrap();
        state
            .is_some_and(|s| states.contains(&s.as_str()))
            .then_some(id)
    };
    let id = |n: usize| specs[n].sweep_id(None);
    let exists = async |n: usize| store.is_submitted(id(n)).await.unwrap();
    match *step {
        Step::Submit(n, priority) => {
            submit(store, &specs[n], Terms::with_priority(priority)).await;
        }
        Step::Cancel(n) => drop(store.cancel(id(n)).await.unwrap()),
        Step::Pause(n) => drop(store.pause(id(n), None).await.unwrap()),
        Step::Resume(n) => {
            store.resume(id(n)).await.unwrap();
        }
        Step::Priority(n, priority) if exists(n).await => {
            let terms = Terms::with_priority(priority);
            store.set_terms(id(n), &terms).await.unwrap();
        }
        Step::Retry(n) => {
            store.reopen(id(n), Reopen::Both).await.unwrap();
        }
        Step::Finish(n) => {
            if let Some(job) = job(n, &["ready", "queued", "running", "cancelled"]).await {
                finish(store, job).await;
            }
        }
        Step::Fail(n) => {
            if let Some(job) = job(n, &["ready"]).await {
                fail(store, job).await;
            }
        }
        Step::Grant(n) => {
            if let Some(job) = job(n, &["ready"]).await {
                sqlx::query(
                    "DELETE FROM attempt WHERE job = $1 AND outcome IS DISTINCT FROM 'done'",
                )
                .bind(job.0)
                .execute(store.pool())
                .await
                .unwrap();
                grant(store, job, if n % 2 == 0 { "running" } else { "queued" }).await;
            }
        }
        Step::Delete(n) => drop(store.delete(id(n)).await.unwrap()),
        Step::Priority(..) => {}
    }
}

/// Any order of commands and events leaves every job where it belongs.
#[tokio::test(flavor = "multi_thread")]
async fn rules_hold_after_any_steps() {
    let postgres = Postgres::start().await;
    let store = &postgres.store;
    let specs = [
        base(),
        with("rate", |spec| spec.cases.push("r=0.5".into())),
        with("few", |spec| {
            spec.seeds = vec![2];
            spec.methods.truncate(1);
        }),
        with("wide", |spec| spec.seeds = vec![2, 3, 1]),
    ];
    let mut runner = TestRunner::new_with_rng(
        Config::default(),
        proptest::test_runner::TestRng::deterministic_rng(
            proptest::test_runner::RngAlgorithm::ChaCha,
        ),
    );
    let mut taken = Vec::new();
    for _ in 0..400 {
        let step = step().new_tree(&mut runner).unwrap().current();
        taken.push(step.clone());
        take(store, &specs, &step).await;
        let broken = postgres.count(BROKEN).await;
        assert_eq!(
            broken,
            0,
            "after {:?}",
            &taken[taken.len().saturating_sub(12)..]
        );
    }
    let states: Vec<String> = sqlx::query_scalar("SELECT DISTINCT state::text FROM job")
        .fetch_all(store.pool())
        .await
        .unwrap();
    assert!(!states.is_empty());
}
