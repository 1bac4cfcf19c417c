//! A training as the page and `coord top` read it: epochs, attempts, checkpoints, cases, siblings, and what
//! workers did lately.

use crate::scene::{
    EPOCHS, SAMPLES, Scene, Worker, epoch, evaluated, evaluations, started, trained,
};
use halfheard_shared::wire::{Failure, FailureKind, Fault, FaultKind, ResultBody};
use halfheard_store::{JobState, StoreError, job::AttemptOutcome, worker_tallies::WorkerTally};
use std::time::Duration;

/// The worker declines the training, which is told of it.
async fn declined_first(scene: &Scene, worker: &mut Worker) {
    let job = worker.train(scene).await;
    let fault = Fault::new(FaultKind::Dataset, "dataset mosi", vec!["not there".into()]);
    let declined = ResultBody::Declined {
        after_epoch: 0,
        fault,
    };
    scene.report(worker, &job, declined).await;
    let store = scene.store();
    let rows = store.declined(Some(scene.sweep), 9).await.unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(
        (
            rows[0].worker.as_str(),
            rows[0].fault.as_str(),
            rows[0].attempts
        ),
        ("w-0", "dataset", 1)
    );
    assert_eq!(rows[0].errors, ["cannot read dataset mosi", "not there"]);
    assert_eq!(store.declined(None, 9).await.unwrap(), rows);
}

#[tokio::test]
async fn training_is_read_with_all_that_became_of_it() {
    let mut scene = Scene::new().await;
    let train = scene.training().await;
    let eval = scene.evaluation(train, "blocked").await;
    let mut worker = Worker::new("w-0");
    let store = scene.store().clone();
    declined_first(&scene, &mut worker).await;

    let before = store.results_version(scene.sweep).await.unwrap();
    let job = worker.train(&scene).await;
    for body in [started(), epoch(1, 0.5), epoch(2, 0.25), trained("1")] {
        scene.report(&worker, &job, body).await;
    }
    let job = worker.ask(&scene, evaluations(4)).await.remove(0);
    scene.report(&worker, &job, evaluated(0.5, SAMPLES)).await;
    let after = store.results_version(scene.sweep).await.unwrap();
    assert_eq!((before.done, after.done), (0, 1));
    assert_eq!(store.results_version(scene.sweep).await.unwrap(), after);

    let training = store.training(train).await.unwrap();
    assert_eq!(
        (training.state, training.method.as_str()),
        (JobState::Done, "lnln")
    );
    assert_eq!(training.spec.unwrap()["max_epochs"], EPOCHS);
    assert_eq!(store.training(eval).await.unwrap().train_job, Some(train));
    let asking = store.sweeps_asking(train).await.unwrap();
    assert_eq!((asking.len(), asking[0].name.as_str()), (1, "first"));

    let epochs = store.training_epochs(&[train, eval]).await.unwrap();
    let losses: Vec<_> = epochs
        .iter()
        .map(|row| (row.epoch, row.losses["loss"]))
        .collect();
    assert_eq!(losses, [(1, Some(0.5)), (2, Some(0.25))]);
    assert_eq!(epochs[1].metrics["mae"], Some(1.0));
    assert_eq!(store.epoch_seconds(&[train]).await.unwrap()[&train], 1.0);

    let attempts = store.attempts(train).await.unwrap();
    let outcomes: Vec<_> = attempts.iter().map(|attempt| attempt.outcome).collect();
    assert_eq!(
        outcomes,
        [Some(AttemptOutcome::HandedBack), Some(AttemptOutcome::Done)]
    );
    assert_eq!(attempts[0].failure_kind.as_deref(), Some("dataset"));
    assert_eq!(attempts[1].peak_memory, Some(1 << 30));
    assert!(store.last_output(train).await.unwrap().is_none());

    let checkpoints = store.training_checkpoints(train).await.unwrap();
    assert!(
        checkpoints
            .iter()
            .any(|row| row.criterion == "mae" && row.blake3 == "1".repeat(64))
    );
    let cases = store.training_cases(&[train]).await.unwrap();
    assert_eq!(
        (cases.len(), cases[0].job, cases[0].state),
        (1, eval, JobState::Done)
    );
    assert_eq!(cases[0].metrics.get("mae"), Some(&Some(0.5)));
    let tallies = store.worker_tallies(Duration::from_secs(60)).await.unwrap();
    assert_eq!(
        tallies["w-0"],
        WorkerTally {
            done: 2,
            failed: 0,
            other: 1
        }
    );
    assert_eq!(
        store.declined(None, 9).await.unwrap(),
        [],
        "the job is done after all"
    );
}

#[tokio::test]
async fn other_seeds_and_failures_are_found() {
    let mut scene = Scene::new().await;
    let (first, second) = (scene.training().await, scene.training().await);
    scene.evaluation(first, "blocked").await;
    let store = scene.store().clone();
    let siblings = store.training_siblings(first).await.unwrap();
    assert_eq!(siblings.len(), 1, "{siblings:?}");
    assert_eq!(
        (siblings[0].job, siblings[0].state),
        (second, JobState::Ready)
    );
    assert_eq!(store.sweeps_with_failures().await.unwrap(), []);

    let mut worker = Worker::new("w-0");
    let job = worker.train(&scene).await;
    let failure = Failure {
        chain: vec!["it broke".into()],
        kind: FailureKind::Permanent,
    };
    scene
        .report(&worker, &job, ResultBody::Failed(failure))
        .await;
    let sweeps = store.sweeps_with_failures().await.unwrap();
    assert_eq!((sweeps.len(), sweeps[0].sweep), (1, scene.sweep));
    let groups = store.failures(scene.sweep, 3).await.unwrap();
    assert_eq!(groups[0].example_jobs, [job.job.0]);
    let unknown = store
        .training(halfheard_shared::ids::JobId::derive(&[b"none"]))
        .await;
    assert!(matches!(unknown, Err(StoreError::NoJob(_))), "{unknown:?}");
}
