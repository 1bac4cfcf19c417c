//! Drained workers, as rows: what they have is taken back by slot, worker and machine, and counts for nothing.

use crate::scene::{Scene, Worker, started, trainings};

#[tokio::test]
async fn drained_names_are_kept_once_and_forgotten_on_demand() {
    let scene = Scene::new().await;
    let store = scene.store();
    assert!(store.drain("gpu7-1", "ann").await.unwrap());
    assert!(!store.drain("gpu7-1", "bob").await.unwrap());
    assert!(store.drain("host:gpu9", "bob").await.unwrap());
    let drained = store.drained().await.unwrap();
    let names: Vec<(&str, &str, bool)> = drained
        .iter()
        .map(|name| (name.worker.as_str(), name.by.as_str(), name.at_once))
        .collect();
    assert_eq!(
        names,
        [("gpu7-1", "ann", false), ("host:gpu9", "bob", false)]
    );
    assert_eq!(
        store.take_back_drained().await.unwrap(),
        0,
        "none is drained at once"
    );
    assert!(store.undrain("gpu7-1").await.unwrap());
    assert!(!store.undrain("gpu7-1").await.unwrap());
    let left = "SELECT count(*) FROM drained_worker";
    assert_eq!(scene.postgres.count(left).await, 1);
}

#[tokio::test]
async fn jobs_are_taken_back_uncounted_and_only_from_those_who_are_meant() {
    for name in ["w-1-0", "w-1", "host:host"] {
        let mut scene = Scene::new().await;
        let [begun, queued, other] = [
            scene.training().await,
            scene.training().await,
            scene.training().await,
        ];
        scene.set(begun, "cost = 3").await;
        scene.set(queued, "cost = 2").await;
        let (mut worker, mut bystander) = (Worker::new("w-1-0"), Worker::new("w-10-0"));
        bystander.info.host = "elsewhere".into();
        let first = worker.train(&scene).await;
        scene.report(&worker, &first, started()).await;
        let second = worker.train(&scene).await;
        let third = bystander.train(&scene).await;
        assert_eq!((first.job, second.job, third.job), (begun, queued, other));

        let store = scene.store();
        store.drain(name, "ann").await.unwrap();
        assert_eq!(store.take_back(name).await.unwrap(), 2, "{name}");
        for (job, attempt) in [(begun, first.attempt), (queued, second.attempt)] {
            assert_eq!(scene.state(job).await, ("ready".to_owned(), 0, 0));
            let revoked = (Some("revoked".to_owned()), None);
            assert_eq!(scene.attempt(attempt).await, revoked);
        }
        assert_eq!(scene.is(other).await, "queued");
        // The state of what was at work is saved first.
        let got = bystander.train(&scene).await;
        assert_eq!(got.job, queued);
        assert_eq!(bystander.ask(&scene, trainings(1)).await, []);
        // A grant that was on its way is taken back by the leader's next round.
        scene.set(begun, "not_before = '-infinity'").await;
        assert_eq!(worker.train(&scene).await.job, begun);
        assert_eq!(store.take_back_drained().await.unwrap(), 1);
        assert_eq!(scene.is(begun).await, "ready");
    }
}

/// Else the leader would take them in between, and the operator be told that nothing was taken.
#[tokio::test]
async fn leader_does_not_hear_of_it_before_the_jobs_are_taken() {
    let mut scene = Scene::new().await;
    let job = scene.training().await;
    let mut worker = Worker::new("w-0");
    assert_eq!(worker.train(&scene).await.job, job);
    let store = scene.store();
    store.drain("w-0", "ann").await.unwrap();

    let mut held = store.pool().begin().await.unwrap();
    sqlx::query("SELECT FROM job FOR UPDATE")
        .execute(&mut *held)
        .await
        .unwrap();
    let asked = store.clone();
    let taking = tokio::spawn(async move { asked.take_back("w-0").await });
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    while scene.postgres.count(waiting).await == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(store.take_back_drained().await.unwrap(), 0);
    held.commit().await.unwrap();
    assert_eq!(taking.await.unwrap().unwrap(), 1);
}
