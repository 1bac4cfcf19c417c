//! What jobs took, by what they compute and on which device.

use crate::scene::{
    EPOCHS, SAMPLES, Scene, Worker, evaluated, evaluations, spec, started, trained,
};

#[tokio::test(flavor = "multi_thread")]
async fn completed_jobs_are_timed_by_device() {
    let mut scene = Scene::new().await;
    assert_eq!(scene.store().timings().await.unwrap(), []);
    let mut last = None;
    for (name, device) in [("a", "NVIDIA H100"), ("b", "NVIDIA H100"), ("c", "cpu")] {
        let train = scene.training().await;
        let mut worker = Worker::new(name);
        worker.info.device = device.to_owned();
        let job = worker.train(&scene).await;
        scene.report(&worker, &job, started()).await;
        // A training at work has taken nothing yet.
        let before = scene.store().timings().await.unwrap();
        scene.report(&worker, &job, trained("1")).await;
        assert_ne!(scene.store().timings().await.unwrap(), before);
        last = Some((train, worker));
    }
    let (train, mut worker) = last.unwrap();
    scene.evaluation(train, "ready").await;
    let job = worker.ask(&scene, evaluations(1)).await.remove(0);
    scene.report(&worker, &job, evaluated(0.5, SAMPLES)).await;

    let timings = scene.store().timings().await.unwrap();
    let said = |trains: bool, device: &str| {
        let mut timings = timings.iter();
        let found = timings.find(|timing| timing.trains == trains && timing.device == device);
        found.map(|timing| (timing.jobs, timing.seconds, timing.epochs))
    };
    let epochs = f64::from(EPOCHS);
    // Two seconds of four epochs.
    assert_eq!(said(true, "NVIDIA H100"), Some((2, 0.5, Some(epochs))));
    assert_eq!(said(true, "cpu"), Some((1, 0.5, Some(epochs))));
    assert_eq!(said(false, "cpu"), Some((1, 0.5, None)));
    assert_eq!((timings.len(), timings[0].jobs), (3, 2));
    for timing in &timings {
        assert_eq!(timing.spec, serde_json::to_value(spec()).unwrap());
    }
}
