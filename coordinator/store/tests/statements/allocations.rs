//! The work that is left for allocations, and the right to submit them.

use crate::scene::{EPOCHS, Scene, Worker, epoch, started};
use halfheard_store::allocation::OpenWork;
use std::time::Duration;
use uuid::Uuid;

fn work(parallel: i64, seconds: f64, unknown: i64) -> OpenWork {
    OpenWork {
        parallel,
        seconds,
        unknown,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn open_work_counts_what_is_left_for_these_workers() {
    let mut scene = Scene::new().await;
    let labels = ["a100".to_owned()];
    let left = async |scene: &Scene, named| scene.store().open_work(&[], named).await.unwrap();
    assert_eq!(left(&scene, true).await, work(0, 0.0, 0));
    let first = scene.training().await;
    let second = scene.training().await;
    let labeled = scene.training().await;
    scene.set(labeled, "label = 'a100'").await;
    assert_eq!(left(&scene, true).await, work(2, 0.0, 2));
    let with_label = scene.store().open_work(&labels, true).await.unwrap();
    assert_eq!(with_label, work(3, 0.0, 3));
    scene.set(first, "cost = 100").await;
    scene.set(second, "cost = 40").await;
    assert_eq!(left(&scene, true).await, work(2, 140.0, 0));

    // What a worker elsewhere has counts only if workers cannot be told apart; what is trained is subtracted.
    let mut elsewhere = Worker::new("tiny-7-0");
    let job = elsewhere.train(&scene).await;
    assert_eq!(job.job, first);
    scene.report(&elsewhere, &job, started()).await;
    scene.report(&elsewhere, &job, epoch(1, 0.5)).await;
    let trained = 100.0 / f64::from(EPOCHS);
    assert_eq!(left(&scene, true).await, work(1, 40.0, 0));
    assert_eq!(left(&scene, false).await, work(2, 140.0 - trained, 0));
    // That of an allocation counts.
    let place = ("tiny", "gpu");
    scene.store().add_allocation(place, 7, "log").await.unwrap();
    scene.store().add_allocation(place, 7, "log").await.unwrap();
    assert_eq!(left(&scene, true).await, work(2, 140.0 - trained, 0));
    let [allocation] = &scene.store().allocations().await.unwrap()[..] else {
        panic!("recorded once");
    };
    let began = allocation.submitted;
    let granted = async |name: &str| scene.store().was_granted_a_job(name, began).await.unwrap();
    assert!(!granted("tiny-70").await);

    scene.execute("UPDATE sweep SET state = 'paused'").await;
    assert_eq!(left(&scene, false).await, work(0, 0.0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_process_at_a_time_submits_to_a_partition() {
    let scene = Scene::new().await;
    let store = scene.store();
    let (a, b) = (Uuid::new_v4(), Uuid::new_v4());
    let minute = Duration::from_secs(60);
    let take = async |partition, holder, session, lease| {
        let place = ("tiny", partition);
        store
            .take_feed(place, holder, session, lease)
            .await
            .unwrap()
    };
    assert_eq!(take("gpu", "a", a, minute).await, Ok(()));
    assert_eq!(take("gpu", "a", a, minute).await, Ok(()), "renewed");
    assert_eq!(take("gpu", "b", b, minute).await, Err("a".to_owned()));
    assert_eq!(take("cpu", "b", b, minute).await, Ok(()));
    store.leave_feed(a).await.unwrap();
    assert_eq!(take("gpu", "b", b, Duration::ZERO).await, Ok(()));
    assert_eq!(take("gpu", "a", a, minute).await, Ok(()), "it ran out");
}
