//! What jobs need of a worker: measured on earlier ones, and said of those that wait.

use crate::scene::{Scene, Worker, started, trained, trainings};
use halfheard_store::measured_needs::OpenNeed;

const GIB: i64 = 1 << 30;

#[tokio::test(flavor = "multi_thread")]
async fn memory_of_waiting_jobs_follows_measurements() {
    let mut scene = Scene::new().await;
    let mut worker = Worker::new("large");
    worker.memory = 16 * GIB as u64;
    let first = scene.training().await;
    let waiting = scene.training().await;
    let asked = scene.training().await;
    scene
        .set(asked, &format!("min_memory = {}", 12 * GIB))
        .await;
    assert_eq!(scene.store().estimate_needs().await.unwrap(), 0);
    scene.set(first, "cost = 1").await;
    let job = worker.train(&scene).await;
    assert_eq!(job.job, first);
    scene.report(&worker, &job, started()).await;
    scene.report(&worker, &job, trained("c")).await;
    // It took 1 GiB: a fifth more is asked for, unless more is asked for already.
    assert_eq!(scene.store().estimate_needs().await.unwrap(), 1);
    let need = |memory, jobs| OpenNeed {
        memory,
        label: None,
        jobs,
    };
    assert_eq!(
        scene.store().open_needs().await.unwrap(),
        [need(GIB + GIB / 5, 1), need(12 * GIB, 1)]
    );
    // Once is enough.
    assert_eq!(scene.store().estimate_needs().await.unwrap(), 0);
    let mut small = Worker::new("small");
    small.memory = GIB as u64;
    assert_eq!(small.ask(&scene, trainings(1)).await, []);
    let mut fitting = Worker::new("fitting");
    fitting.memory = 2 * GIB as u64;
    assert_eq!(fitting.train(&scene).await.job, waiting);
}

#[tokio::test(flavor = "multi_thread")]
async fn measured_memory_never_exceeds_a_device_that_did_the_job() {
    let mut scene = Scene::new().await;
    let mut worker = Worker::new("full");
    // Nine tenths of it are used.
    worker.memory = (GIB + GIB / 10) as u64;
    let first = scene.training().await;
    let job = worker.train(&scene).await;
    assert_eq!(job.job, first);
    scene.report(&worker, &job, started()).await;
    scene.report(&worker, &job, trained("c")).await;
    let second = scene.training().await;
    assert_eq!(scene.store().estimate_needs().await.unwrap(), 1);
    assert_eq!(worker.train(&scene).await.job, second);
    let mut smaller = Worker::new("smaller");
    smaller.memory = GIB as u64;
    let third = scene.training().await;
    assert_eq!(scene.store().estimate_needs().await.unwrap(), 1);
    assert_eq!(smaller.ask(&scene, trainings(1)).await, []);
    assert_eq!(scene.is(third).await, "ready");
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_of_waiting_jobs_are_counted() {
    let mut scene = Scene::new().await;
    for _ in 0..2 {
        let job = scene.training().await;
        scene.set(job, "label = 'a100'").await;
    }
    scene.training().await;
    let open = scene.store().open_needs().await.unwrap();
    assert_eq!(open.len(), 1);
    assert_eq!((open[0].label.as_deref(), open[0].jobs), (Some("a100"), 2));
    let mut worker = Worker::new("plain");
    let plain = worker.train(&scene).await;
    assert_eq!(worker.ask(&scene, trainings(1)).await, [], "{plain:?}");
    worker.labels = vec!["a100".into()];
    worker.train(&scene).await;
    // A paused sweep needs nothing.
    scene.execute("UPDATE sweep SET state = 'paused'").await;
    assert_eq!(scene.store().open_needs().await.unwrap(), []);
}
