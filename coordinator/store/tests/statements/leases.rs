//! Grants, heartbeats and silence, as rows.

use crate::scene::{
    LEASE, SAMPLES, Scene, Worker, evaluated, evaluations, noops, policy, started, trained,
    trainings,
};
use halfheard_shared::ids::JobId;
use halfheard_store::{grants::GrantedJob, leases::Ended};
use std::collections::BTreeSet;

fn ids(jobs: &[GrantedJob]) -> Vec<JobId> {
    jobs.iter().map(|job| job.job).collect()
}

#[tokio::test]
async fn grants_follow_order_needs_and_limits() {
    let mut scene = Scene::new().await;
    let [short, long, large, labelled, later] = [
        scene.training().await,
        scene.training().await,
        scene.training().await,
        scene.training().await,
        scene.training().await,
    ];
    scene.set(long, "length = 100").await;
    scene.set(large, "length = 200, min_memory = 16").await;
    scene.set(labelled, "length = 200, label = 'a100'").await;
    scene
        .set(later, "length = 300, not_before = now() + interval '1 h'")
        .await;
    let mut plain = Worker::new("plain");
    assert_eq!(plain.train(&scene).await.job, long, "the longest first");
    assert_eq!(plain.train(&scene).await.job, short);
    assert_eq!(plain.ask(&scene, trainings(1)).await, []);
    let mut other = Worker::new("other");
    other.methods = vec!["almt".into()];
    (other.memory, other.labels) = (64, vec!["a100".into()]);
    assert_eq!(other.ask(&scene, trainings(1)).await, [], "another method");
    let mut big = Worker::new("big");
    (big.memory, big.labels) = (16, vec!["x".into(), "a100".into()]);
    let got = BTreeSet::from([big.train(&scene).await.job, big.train(&scene).await.job]);
    assert_eq!(got, BTreeSet::from([large, labelled]));
    assert_eq!(big.ask(&scene, trainings(1)).await, []);
    assert_eq!(scene.state(later).await.0, "ready");
}

#[tokio::test]
async fn sweeps_are_served_in_order_unless_paused_or_at_limit() {
    let mut scene = Scene::new().await;
    let first = scene.sweep;
    let mut of_first = Vec::new();
    for _ in 0..4 {
        of_first.push(scene.noop().await);
    }
    scene.sweep = scene.sweep("second").await;
    let second = scene.sweep;
    let of_second = [scene.noop().await];
    let servable = scene.store().servable().await.unwrap();
    assert_eq!(servable.len(), 2);
    assert!(
        servable
            .iter()
            .all(|sweep| sweep.ready.noop && !sweep.ready.train)
    );

    let mut worker = Worker::new("w");
    let order = [second, first];
    let got = scene.grant(&[worker.request(noops(2), &order)]).await;
    assert_eq!(ids(&got.answers[0]), [of_second[0], of_first[0]]);
    worker.received = worker.ask;
    scene
        .execute("UPDATE sweep SET max_running = 2 WHERE name = 'first'")
        .await;
    let got = scene.grant(&[worker.request(noops(9), &order)]).await;
    assert_eq!(ids(&got.answers[0]), [of_first[1]], "two at once");
    worker.received = worker.ask;
    let servable = scene.store().servable().await.unwrap();
    assert_eq!((servable[0].running.noop, servable[0].workers), (2, 1));
    scene
        .execute("UPDATE sweep SET max_running = NULL, state = 'paused'")
        .await;
    let got = scene.grant(&[worker.request(noops(9), &order)]).await;
    assert_eq!(got.answers[0], []);
    assert_eq!(scene.store().servable().await.unwrap(), []);
}

#[tokio::test]
async fn unanswered_grant_is_repeated_and_counts_against_room() {
    let mut scene = Scene::new().await;
    let mut jobs = Vec::new();
    for _ in 0..4 {
        jobs.push(scene.noop().await);
    }
    let mut worker = Worker::new("w");
    let sweeps = [scene.sweep];
    let lost = scene.grant(&[worker.request(noops(2), &sweeps)]).await;
    scene.pass_time().await;
    let again = scene.grant(&[worker.request(noops(3), &sweeps)]).await;
    let again = &again.answers[0];
    assert_eq!(again.len(), 3);
    let repeated: Vec<_> = again.iter().filter(|job| job.repeated).collect();
    let attempts =
        |jobs: &[GrantedJob]| -> BTreeSet<_> { jobs.iter().map(|job| job.attempt).collect() };
    assert_eq!(repeated.len(), 2);
    assert!(attempts(again).is_superset(&attempts(&lost.answers[0])));
    let expired = scene.store().expire(LEASE, &policy()).await.unwrap();
    assert_eq!(expired, [], "a repeated grant lasts as long as a new one");
    // What has begun or was received is not repeated.
    scene.report(&worker, &again[0], started()).await;
    let third = scene.grant(&[worker.request(noops(0), &sweeps)]).await;
    assert_eq!(third.answers[0].len(), 2);
    worker.received = worker.ask;
    let fourth = scene.grant(&[worker.request(noops(0), &sweeps)]).await;
    assert_eq!(fourth.answers[0], []);
}

#[tokio::test]
async fn new_session_ends_leases_of_the_old_one() {
    let mut scene = Scene::new().await;
    let train = scene.training().await;
    let mut worker = Worker::new("w");
    let old = worker.train(&scene).await;
    scene.report(&worker, &old, started()).await;
    let mut restarted = Worker::new("w");
    let sweeps = [scene.sweep];
    let grants = scene
        .grant(&[restarted.request(trainings(1), &sweeps)])
        .await;
    let ended = Ended {
        job: train,
        attempt: old.attempt,
        worker: "w".into(),
        gave_up: false,
    };
    assert_eq!(grants.ended, [ended]);
    assert_eq!(ids(&grants.answers[0]), [train]);
    assert_eq!(scene.state(train).await, ("queued".into(), 0, 1));
    assert_eq!(scene.attempt(old.attempt).await.0.as_deref(), Some("lost"));
    // The dead process's reports do not disturb the new one, but its result counts.
    scene.report(&worker, &old, started()).await;
    assert_eq!(scene.is(train).await, "queued");
    let summary = scene.report(&worker, &old, trained("1")).await;
    assert_eq!(scene.is(train).await, "done");
    let revoked = grants.answers[0][0].attempt;
    assert_eq!(scene.attempt(revoked).await.0.as_deref(), Some("revoked"));
    assert_eq!(summary.ended.len(), 2, "both are told");
}

#[tokio::test]
async fn heartbeats_renew_what_rows_still_name() {
    let mut scene = Scene::new().await;
    let (one, two) = (scene.noop().await, scene.training().await);
    let mut worker = Worker::new("w");
    let noop = worker.ask(&scene, noops(1)).await.remove(0);
    let train = worker.train(&scene).await;
    scene.report(&worker, &train, started()).await;
    scene.pass_time().await;
    let store = scene.store();
    let mut other = worker.beat(&noop, 0, false);
    other.worker = "x";
    let mut restarted = worker.beat(&noop, 0, false);
    restarted.session = uuid::Uuid::new_v4();
    let held = [other, restarted, worker.beat(&train, 50, true)];
    assert_eq!(store.renew(&held, LEASE).await.unwrap(), [train.attempt]);
    let expired = store.expire(LEASE, &policy()).await.unwrap();
    assert_eq!(expired.len(), 1);
    assert_eq!((expired[0].job, expired[0].gave_up), (one, false));
    let still = store.still_leased(&[noop.attempt, train.attempt]).await;
    assert_eq!(still.unwrap(), [train.attempt]);
    assert!(
        store
            .renew(&[worker.beat(&noop, 0, false)], LEASE)
            .await
            .unwrap()
            .is_empty()
    );
    // It advanced: losing it counts nothing.
    scene.set(two, "losses = 3").await;
    scene.pass_time().await;
    store.expire(LEASE, &policy()).await.unwrap();
    assert_eq!(scene.state(two).await, ("ready".into(), 0, 0));
    assert_eq!(
        scene.postgres.count("SELECT max(progress) FROM job").await,
        50
    );
}

/// Each attempt stores a state and is killed before its next heartbeat, so that only the next one says
/// how far it got.
#[tokio::test]
async fn training_that_advances_unheard_is_never_given_up() {
    let mut scene = Scene::new().await;
    let train = scene.training().await;
    for number in 1..=8 {
        let mut worker = Worker::new(&format!("w{number}"));
        let job = worker.train(&scene).await;
        scene.report(&worker, &job, started()).await;
        // It began from what the attempt before has stored.
        let beat = worker.beat(&job, 100 * number, false);
        scene.store().renew(&[beat], LEASE).await.unwrap();
        scene.pass_time().await;
        let ended = scene.store().expire(LEASE, &policy()).await.unwrap();
        assert!(!ended[0].gave_up);
        assert_eq!(scene.state(train).await, ("ready".into(), 0, 1));
    }
}

#[tokio::test]
async fn training_that_crashes_five_workers_fails_with_its_evaluations() {
    let mut scene = Scene::new().await;
    let train = scene.training().await;
    let waiting = scene.evaluation(train, "blocked").await;
    let mut last = None;
    for number in 1..=5 {
        let mut worker = Worker::new(&format!("w{number}"));
        let job = worker.train(&scene).await;
        assert_eq!(job.losses, number - 1);
        scene.report(&worker, &job, started()).await;
        let ended = if number % 2 == 0 {
            let attempts = [job.attempt];
            scene.store().stall(&attempts, &policy()).await.unwrap()
        } else {
            scene.pass_time().await;
            scene.store().expire(LEASE, &policy()).await.unwrap()
        };
        assert_eq!((ended.len(), ended[0].gave_up), (1, number == 5));
        last = Some((worker, job));
    }
    assert_eq!(scene.state(train).await, ("failed".into(), 0, 5));
    assert_eq!(scene.is(waiting).await, "failed");
    let (worker, job) = last.unwrap();
    let (outcome, kind) = scene.attempt(job.attempt).await;
    assert_eq!(
        (outcome.as_deref(), kind.as_deref()),
        (Some("lost"), Some("crashed"))
    );
    // It was alive after all.
    scene.report(&worker, &job, trained("1")).await;
    assert_eq!(scene.is(train).await, "done");
    assert_eq!(scene.is(waiting).await, "ready");
}

#[tokio::test]
async fn evaluation_at_which_a_worker_was_lost_is_granted_alone() {
    let mut scene = Scene::new().await;
    let train = scene.training().await;
    let mut jobs = Vec::new();
    for _ in 0..3 {
        jobs.push(scene.evaluation(train, "ready").await);
    }
    let mut dead = Worker::new("dead");
    let held = dead.ask(&scene, evaluations(16)).await;
    assert_eq!(held.len(), 3);
    // Two had begun.
    for job in &held[..2] {
        scene.report(&dead, job, started()).await;
    }
    scene.pass_time().await;
    scene.store().expire(LEASE, &policy()).await.unwrap();
    let mut worker = Worker::new("w");
    let alone = worker.ask(&scene, evaluations(16)).await;
    assert_eq!((alone.len(), alone[0].losses), (1, 1));
    assert_eq!(
        worker.ask(&scene, evaluations(16)).await,
        [],
        "nothing beside"
    );
    scene
        .report(&worker, &alone[0], evaluated(0.5, SAMPLES))
        .await;
    let alone = worker.ask(&scene, evaluations(16)).await;
    assert_eq!((alone.len(), alone[0].losses), (1, 1));
    let mut other = Worker::new("other");
    let rest = other.ask(&scene, evaluations(16)).await;
    assert_eq!((rest.len(), rest[0].losses), (1, 0));
}

/// Two leaders at once cannot be; two connections of one can.
#[tokio::test]
async fn concurrent_grants_give_no_job_twice() {
    let mut scene = Scene::new().await;
    for _ in 0..200 {
        scene.noop().await;
    }
    let sweeps = [scene.sweep];
    let mut workers: Vec<Worker> = (0..8).map(|i| Worker::new(&format!("w{i}"))).collect();
    let requests: Vec<_> = workers
        .iter_mut()
        .map(|worker| [worker.request(noops(20), &sweeps)])
        .collect();
    let grants = futures::future::join_all(requests.iter().map(|one| scene.grant(one))).await;
    let jobs: Vec<JobId> = grants
        .iter()
        .flat_map(|grants| &grants.answers[0])
        .map(|job| job.job)
        .collect();
    let distinct: BTreeSet<JobId> = jobs.iter().copied().collect();
    assert_eq!((jobs.len(), distinct.len()), (160, 160));
    let rows =
        "SELECT count(*) FROM job j JOIN attempt a ON a.id = j.attempt AND a.worker = j.worker
                WHERE j.state = 'queued'";
    assert_eq!(scene.postgres.count(rows).await, 160);
}

#[tokio::test]
async fn lease_ahead_of_the_clock_is_shortened() {
    let mut scene = Scene::new().await;
    let job = scene.noop().await;
    let mut worker = Worker::new("w");
    worker.ask(&scene, noops(1)).await;
    scene
        .set(job, "lease_until = now() + interval '1 day'")
        .await;
    assert_eq!(scene.store().expire(LEASE, &policy()).await.unwrap(), []);
    let seconds = "SELECT extract(epoch FROM lease_until - now())::bigint FROM job";
    assert!(scene.postgres.count(seconds).await <= 30);
}
