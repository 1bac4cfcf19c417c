//! Cancelling, pausing, retrying and deleting sweeps that share jobs.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_stops_only_what_nobody_else_wants() {
    let postgres = Postgres::start().await;
    let store = &postgres.store;
    let wide = with("wide", |spec| spec.seeds.push(3));
    submit(store, &wide, Terms::default()).await;
    submit(store, &base(), Terms::default()).await;
    let only_wide = trainings(&wide)
        .into_iter()
        .find(|job| !trainings(&base()).contains(job))
        .unwrap();
    let taken = grant(store, only_wide, "running").await;
    grant(store, trainings(&base())[0], "running").await;
    let stopped = store.cancel(wide.sweep_id(None)).await.unwrap();
    assert_eq!(
        stopped.jobs, 8,
        "two training jobs with three evaluations each"
    );
    assert_eq!(stopped.released.len(), 1);
    assert_eq!(stopped.released[0].attempt, taken);
    assert_eq!(stopped.released[0].worker, "w");
    assert_eq!(
        postgres
            .count("SELECT count(*) FROM attempt WHERE outcome = 'revoked' AND ended IS NOT NULL")
            .await,
        1
    );
    assert_eq!(
        store.progress(base().sweep_id(None)).await.unwrap().open(),
        16
    );
    assert_eq!(postgres.count(BROKEN).await, 0);
    // Again, it has nothing to do.
    assert_eq!(store.cancel(wide.sweep_id(None)).await.unwrap().jobs, 0);
    // A result that arrives all the same is kept for whoever asks next.
    finish(store, only_wide).await;
    let stopped = store.cancel(base().sweep_id(None)).await.unwrap();
    assert_eq!((stopped.jobs, stopped.released.len()), (16, 1));
    assert_eq!(
        postgres
            .count("SELECT count(*) FROM job WHERE state <> 'cancelled'")
            .await,
        0
    );
    // Submitted again, it continues; what the other had asked for stays cancelled.
    let again = submit(store, &base(), Terms::default()).await;
    assert_eq!((again.new, again.reopened), (false, counts(4, 12)));
    assert_eq!(
        store.find_sweep("base").await.unwrap().state,
        SweepState::Running
    );
    assert_eq!(postgres.count(BROKEN).await, 0);
    let again = submit(store, &wide, Terms::default()).await;
    // Of its own two training jobs one is done.
    assert_eq!(again.reopened, counts(1, 6));
    let progress = store.progress(wide.sweep_id(None)).await.unwrap();
    assert_eq!((progress.done, progress.cancelled), (1, 0));
    assert_eq!(postgres.count(BROKEN).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn pausing_takes_back_what_has_not_begun() {
    let postgres = Postgres::start().await;
    let store = &postgres.store;
    let wide = with("wide", |spec| spec.seeds.push(3));
    submit(store, &wide, Terms::default()).await;
    submit(store, &base(), Terms::default()).await;
    let own: Vec<JobId> = trainings(&wide)
        .into_iter()
        .filter(|job| !trainings(&base()).contains(job))
        .collect();
    grant(store, own[0], "running").await;
    let queued = grant(store, own[1], "queued").await;
    let shared = grant(store, trainings(&base())[0], "queued").await;
    let id = wide.sweep_id(None);
    let released = store.pause(id, Some("too hot")).await.unwrap().unwrap();
    let attempts: Vec<AttemptId> = released.iter().map(|lease| lease.attempt).collect();
    assert_eq!(
        attempts,
        [queued],
        "the shared one ({shared:?}) goes on for the other sweep"
    );
    assert_eq!(
        store
            .find_sweep("wide")
            .await
            .unwrap()
            .stopped_because
            .as_deref(),
        Some("too hot")
    );
    let progress = store.progress(id).await.unwrap();
    assert_eq!((progress.running, progress.queued), (1, 1));
    assert_eq!(postgres.count(BROKEN).await, 0);
    assert_eq!(store.pause(id, None).await.unwrap(), None);
    assert!(store.resume(id).await.unwrap());
    assert!(!store.resume(id).await.unwrap());
    assert_eq!(
        store.find_sweep("wide").await.unwrap().stopped_because,
        None
    );
    assert_eq!(postgres.count(BROKEN).await, 0);
}

pub(crate) async fn fail(store: &Store, train: JobId) {
    sqlx::query(
        "UPDATE job SET state = 'failed', last_error = 'no', finished = now() WHERE id = $1",
    )
    .bind(train.0)
    .execute(store.pool())
    .await
    .unwrap();
    sqlx::query(
        "UPDATE job SET state = 'failed', last_error = 'training job failed: no', finished = now()
         WHERE train_job = $1 AND state = 'blocked'",
    )
    .bind(train.0)
    .execute(store.pool())
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn shared_failure_is_retried_for_all() {
    let postgres = Postgres::start().await;
    let store = &postgres.store;
    let rate = with("rate", |spec| spec.cases.push("r=0.5".into()));
    submit(store, &base(), Terms::default()).await;
    submit(store, &rate, Terms::default()).await;
    let training = trainings(&base())[0];
    grant(store, training, "running").await;
    sqlx::query("UPDATE job SET lease_until = NULL, state = 'ready' WHERE id = $1")
        .bind(training.0)
        .execute(store.pool())
        .await
        .unwrap();
    fail(store, training).await;
    // A third sweep finds the failure, and its new evaluation has failed with it.
    let third = with("third", |spec| spec.cases.push("r=0.7".into()));
    let found = submit(store, &third, Terms::default()).await;
    assert_eq!((found.fresh, found.shared.failed), (counts(0, 4), 4));
    let progress = store.progress(third.sweep_id(None)).await.unwrap();
    assert_eq!((progress.failed, progress.total()), (5, 20));
    let failures = store.failures(third.sweep_id(None), 3).await.unwrap();
    assert_eq!(failures.len(), 1, "{failures:?}");
    assert_eq!(
        (failures[0].jobs, failures[0].evaluations_not_begun),
        (1, 4)
    );
    // The sweep is paused when more fail than it allows.
    let strict = Terms {
        max_failures: Some(Some(4)),
        ..Terms::default()
    };
    assert_eq!(store.pause_failing().await.unwrap(), []);
    store
        .set_terms(third.sweep_id(None), &strict)
        .await
        .unwrap();
    let stopped = store.pause_failing().await.unwrap();
    assert_eq!(stopped.len(), 1);
    assert_eq!(stopped[0].0, third.sweep_id(None));
    assert_eq!(stopped[0].1, "5 jobs failed, more than 4");
    assert_eq!(store.pause_failing().await.unwrap(), []);
    // One retry, by the first: three evaluations of its own, one of each of the others.
    let again = store
        .reopen(base().sweep_id(None), Reopen::Failed)
        .await
        .unwrap();
    assert_eq!(again, counts(1, 5));
    assert_eq!(
        postgres
            .count("SELECT count(*) FROM job WHERE state = 'failed'")
            .await,
        0
    );
    assert_eq!(postgres.count(BROKEN).await, 0);
    fail(store, training).await;
    let again = store
        .reopen(rate.sweep_id(None), Reopen::One(training))
        .await
        .unwrap();
    assert_eq!(again, counts(1, 5));
    assert_eq!(postgres.count(BROKEN).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_leaves_what_others_ask_for() {
    let postgres = Postgres::start().await;
    let store = &postgres.store;
    let wide = with("wide", |spec| spec.seeds.push(3));
    submit(store, &wide, Terms::default()).await;
    submit(store, &base(), Terms::default()).await;
    finish_all(store, &base()).await;
    let own = *trainings(&wide)
        .iter()
        .find(|job| !trainings(&base()).contains(job))
        .unwrap();
    let attempt = grant(store, own, "running").await;
    let deleted = store.delete(wide.sweep_id(None)).await.unwrap();
    assert_eq!((deleted.jobs, deleted.kept), (8, 16));
    assert_eq!(deleted.released.len(), 1);
    assert_eq!(deleted.released[0].attempt, attempt);
    assert_eq!(
        store.progress(base().sweep_id(None)).await.unwrap().done,
        16
    );
    assert_eq!(postgres.count("SELECT count(*) FROM job").await, 16);
    assert_eq!(postgres.count("SELECT count(*) FROM attempt").await, 16);
    assert_eq!(postgres.count(BROKEN).await, 0);
    assert!(store.find_sweep("wide").await.is_err());
    // Submitted again, it finds what is there.
    let again = submit(store, &wide, Terms::default()).await;
    assert_eq!(
        (again.new, again.fresh, again.shared.done),
        (true, counts(2, 6), 16)
    );
    store.delete(base().sweep_id(None)).await.unwrap();
    let last = store.delete(wide.sweep_id(None)).await.unwrap();
    assert_eq!((last.jobs, last.kept), (24, 0));
    for table in [
        "SELECT count(*) FROM job",
        "SELECT count(*) FROM attempt",
        "SELECT count(*) FROM sweep_job",
        "SELECT count(*) FROM config",
        "SELECT count(*) FROM sweep",
    ] {
        assert_eq!(postgres.count(table).await, 0, "{table}");
    }
}
