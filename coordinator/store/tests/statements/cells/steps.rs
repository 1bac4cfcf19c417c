//! Costs, counts, and the rules after random steps.

use super::{control::fail, *};
use halfheard_shared::results::{JobOutcome, Results, Wanted};
use halfheard_store::results;

/// Sums of a cell whose evaluations [`evaluate`] made.
const SUMS: i64 = 4;

#[tokio::test(flavor = "multi_thread")]
async fn costs_come_from_earlier_trainings() {
    let postgres = Postgres::start().await;
    let store = &postgres.store;
    submit(store, &base(), Terms::default()).await;
    assert_eq!(
        postgres
            .count("SELECT count(*) FROM job WHERE cost > 0")
            .await,
        0
    );
    // Two of at most three epochs, ten seconds each.
    finish(store, trainings(&base())[0]).await;
    assert_eq!(store.estimate_costs().await.unwrap(), 1);
    assert_eq!(store.estimate_costs().await.unwrap(), 0);
    assert_eq!(
        postgres
            .count("SELECT count(*) FROM job WHERE cost = 20 AND length = 20")
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
            .count("SELECT count(*) FROM job WHERE cost = 20")
            .await,
        2
    );
    assert_eq!(
        postgres
            .count("SELECT count(*) FROM job WHERE round(cost) = 33 AND length = cost")
            .await,
        3
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn longest_by_operations_is_first_while_nothing_was_measured() {
    let postgres = Postgres::start().await;
    let store = &postgres.store;
    let spec = base();
    let mut sweep = sweep_of(&spec, None, Terms::default());
    let flop = [1e12, 4e12];
    for (method, flop) in spec.methods.iter().zip(flop) {
        let own = spec.train_spec(method, &spec.datasets[0], 0);
        sweep.flop.insert(matrix::config_id(&own), flop);
    }
    let jobs = || matrix::expand(Arc::new(spec.clone()), None);
    store.submit(&sweep, jobs()).await.unwrap();
    let lengths = async || -> Vec<(String, f32, f32)> {
        sqlx::query_as(
            "SELECT DISTINCT method, cost, length FROM job
             WHERE kind = 'train' AND state = 'ready' ORDER BY length DESC",
        )
        .fetch_all(store.pool())
        .await
        .unwrap()
    };
    let first = lengths().await;
    assert_eq!(first[0].0, "almt");
    assert!(
        first.iter().all(|(_, cost, _)| *cost == 0.0),
        "a guess is no measurement"
    );
    assert_eq!(first[0].2, 4.0 * first[1].2);
    // What was measured says how fast this installation is: two of three epochs took 20 s.
    finish(store, trainings(&spec)[0]).await;
    store.estimate_costs().await.unwrap();
    let then = lengths().await;
    let near = |value: f32, other: f32| (value - other).abs() < 0.01 * other;
    assert!(near(then[0].2, 120.0) && then[0].1 == 0.0, "{then:?}");
    assert_eq!(then[1], ("lnln".to_owned(), 20.0, 20.0));
    // Who submits the same without counting takes nothing away.
    sweep.flop.clear();
    store.submit(&sweep, jobs()).await.unwrap();
    store.estimate_costs().await.unwrap();
    assert_eq!(lengths().await, then);
}

#[tokio::test(flavor = "multi_thread")]
async fn notes_of_many_changes_are_folded() {
    let postgres = Postgres::start().await;
    let store = &postgres.store;
    submit(store, &base(), Terms::default()).await;
    let id = base().sweep_id(None);
    let rows = "SELECT count(*) FROM tally";
    for _ in 0..20 {
        store.cancel(id).await.unwrap();
        submit(store, &base(), Terms::default()).await;
    }
    let before = postgres.count(rows).await;
    assert!(before > 100, "{before} rows");
    assert_eq!(store.fold_tallies().await.unwrap().cast_signed(), before);
    // Two methods, ready training jobs and blocked evaluations of each on three cases.
    assert_eq!(postgres.count(rows).await, 8);
    assert_eq!(postgres.count(BROKEN).await, 0);
    assert_eq!(
        store.fold_tallies().await.unwrap(),
        0,
        "few rows are left alone"
    );
    // Sums of results: MAE and the correlation, from the checkpoints of MAE on two splits.
    for training in trainings(&base()) {
        finish(store, training).await;
    }
    for evaluation in evaluations(&base()) {
        evaluate(store, evaluation).await;
    }
    let sums = "SELECT count(*) FROM tally_metric";
    let (notes, cells) = (postgres.count(sums).await, 2 * 3 * SUMS);
    assert_eq!(notes, 2 * cells, "of two seeds each");
    sqlx::query(
        "INSERT INTO tally_metric
         SELECT sweep, method, variant, dataset, config, case_id, metric, on_test, trained, evaluated,
                0, 0, 0, NULL, NULL
         FROM tally_metric, generate_series(1, 9)",
    )
    .execute(store.pool())
    .await
    .unwrap();
    let few = postgres.count(rows).await;
    store.fold_tallies().await.unwrap();
    assert_eq!(postgres.count(sums).await, cells);
    // Behind the store's back: what nobody has goes too.
    sqlx::query("DELETE FROM sweep")
        .execute(store.pool())
        .await
        .unwrap();
    assert_eq!(
        store.fold_tallies().await.unwrap().cast_signed(),
        few + cells
    );
    assert_eq!(postgres.count(rows).await + postgres.count(sums).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_very_large_sweep_results_are_read_as_counts() {
    let postgres = Postgres::start().await;
    let store = &postgres.store;
    let large = with("large", |spec| {
        spec.methods.truncate(1);
        spec.cases.truncate(1);
        spec.seeds = (1..=10_001).collect();
    });
    submit(store, &large, Terms::default()).await;
    let id = large.sweep_id(None);
    finish(store, trainings(&large)[0]).await;
    evaluate(store, evaluations(&large)[0]).await;
    let read = async |wanted| results::load(store, id, wanted).await.unwrap();
    let counted = read(Wanted::default()).await;
    assert!(counted.jobs.is_none());
    assert_eq!(counted.seeds(|_, _| true), 10_001);
    let tally = |counted: &Results, outcome| -> Vec<u64> {
        let tallies = counted.tally.iter();
        let tallies = tallies.filter(|tally| tally.outcome == outcome);
        tallies.map(|tally| tally.jobs).collect()
    };
    // One training, and one evaluation of its model.
    assert_eq!(tally(&counted, JobOutcome::Done), [1, 1]);
    assert_eq!(tally(&counted, JobOutcome::Open), [10_000, 10_000]);
    assert_eq!(counted.processors, ["made-of-brass"]);
    assert_eq!(counted.evaluated().len(), 1);
    // An audit looks at each of them.
    let wanted = Wanted {
        audit: true,
        ..Wanted::default()
    };
    assert_eq!(read(wanted).await.each_job().len(), 20_002);
    // A small one's jobs are read: tables name the seeds that are incomplete.
    submit(store, &base(), Terms::default()).await;
    let small = results::load(store, base().sweep_id(None), Wanted::default());
    assert_eq!(small.await.unwrap().each_job().len(), 16);
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
    Evaluate(usize),
    Fail(usize),
    Grant(usize),
    Delete(usize),
    Fold,
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
        3 => job().prop_map(Step::Evaluate),
        1 => job().prop_map(Step::Fail),
        3 => job().prop_map(Step::Grant),
        1 => sweep().prop_map(Step::Delete),
        1 => Just(Step::Fold),
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
        Step::Fold => drop(store.fold_tallies().await.unwrap()),
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
        Step::Evaluate(n) => {
            let all = evaluations(&specs[3]);
            let id = all[n % all.len()];
            let open = "SELECT count(*) FROM job WHERE id = $1 AND state = 'ready'";
            let open = sqlx::query_scalar::<_, i64>(open).bind(id.0);
            if open.fetch_one(store.pool()).await.unwrap() == 1 {
                grant(store, id, "running").await;
                evaluate(store, id).await;
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
