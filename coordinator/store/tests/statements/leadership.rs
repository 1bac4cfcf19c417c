//! The lead: one coordinator has it, and one that has lost it writes nothing.

use crate::scene::{LEASE, Scene, Worker, policy, started, trainings};
use halfheard_store::{
    Store, StoreError,
    leadership::{Taken, Term},
};
use sqlx::Connection as _;

async fn take(store: &Store, holder: &str) -> Term {
    match store.take_lead(holder).await.unwrap() {
        Taken::Lead(term) => term,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn lead_is_taken_renewed_resigned_and_expires() {
    let scene = Scene::new().await;
    let store = scene.store();
    let first = take(store, "a").await;
    let other = store.take_lead("b").await.unwrap();
    assert_eq!(other, Taken::Other { holder: "a".into() });
    assert!(store.renew_lead(first).await.unwrap());
    store.resign_lead(first).await.unwrap();
    assert!(!store.renew_lead(first).await.unwrap());
    let second = take(store, "b").await;
    assert!(second > first);

    // Not renewed in time: it is lost, though nobody else has it.
    let expire = "UPDATE leadership SET expires = now() - interval '1 ms'";
    scene.execute(expire).await;
    assert!(!store.renew_lead(second).await.unwrap());
    let third = take(store, "a").await;
    // The clock was set back by an hour after it was written.
    let ahead = "UPDATE leadership SET expires = now() + interval '1 hour'";
    scene.execute(ahead).await;
    assert!(take(store, "b").await > third);
}

#[tokio::test]
async fn deposed_leader_writes_nothing() {
    let mut scene = Scene::new().await;
    let job = scene.training().await;
    let term = take(scene.store(), "a").await;
    let leader = scene.store().leading(term);
    let mut worker = Worker::new("w");
    let sweeps = [scene.sweep];
    let request = worker.request(trainings(1), &sweeps);
    let granted = leader
        .grant(&[request], LEASE, &policy())
        .await
        .unwrap()
        .answers
        .remove(0)
        .remove(0);
    scene.store().resign_lead(term).await.unwrap();
    let next = scene.store().leading(take(scene.store(), "b").await);

    let report = [worker.says(&granted, started())];
    let beats = [worker.beat(&granted, 1, true)];
    let (lease, policy) = (LEASE, policy());
    scene.pass_time().await;
    for error in [
        leader.ingest(&report, &policy).await.unwrap_err(),
        leader.renew(&beats, lease).await.unwrap_err(),
        leader.expire(lease, &policy).await.unwrap_err(),
        leader.stall(&[granted.attempt], &policy).await.unwrap_err(),
        leader.retrain(job, "why").await.unwrap_err(),
        leader.give_up(job, "why").await.unwrap_err(),
    ] {
        assert!(matches!(error, StoreError::Deposed), "{error:?}");
    }
    assert_eq!(scene.state(job).await, ("queued".into(), 0, 0));
    let begun = "SELECT count(*) FROM attempt WHERE started IS NOT NULL";
    assert_eq!(scene.postgres.count(begun).await, 0);
    next.ingest(&report, &policy).await.unwrap();
    assert_eq!(scene.postgres.count(begun).await, 1);
    assert_eq!(scene.is(job).await, "running");
}

/// A leader that stops in the middle of a transaction keeps others from leading only until the server
/// ends the transaction, and finds it ended.
#[tokio::test]
async fn takeover_waits_for_open_transaction_of_previous_leader() {
    let scene = Scene::new().await;
    let store = scene.store();
    let term = take(store, "a").await;
    let mut stopped = sqlx::PgConnection::connect_with(store.options())
        .await
        .unwrap();
    for statement in [
        "BEGIN",
        "SET LOCAL idle_in_transaction_session_timeout = '3s'",
        "SELECT FROM leadership FOR KEY SHARE",
    ] {
        sqlx::query(statement).execute(&mut stopped).await.unwrap();
    }
    // Renewing does not wait for it; taking over does.
    assert!(store.renew_lead(term).await.unwrap());
    store.resign_lead(term).await.unwrap();
    let error = store.take_lead("b").await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    take(store, "b").await;
    let write = sqlx::query("UPDATE sweep SET priority = 9").execute(&mut stopped);
    write.await.unwrap_err();
}

#[tokio::test]
async fn nobody_leads_on_read_only_database() {
    let scene = Scene::new().await;
    let term = take(scene.store(), "a").await;
    scene
        .execute("ALTER DATABASE postgres SET default_transaction_read_only = on")
        .await;
    let store = Store::connect_with(scene.store().options().clone())
        .await
        .unwrap();
    assert!(!store.renew_lead(term).await.unwrap());
    assert_eq!(store.take_lead("b").await.unwrap(), Taken::ReadOnly);
}
