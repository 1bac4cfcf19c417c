//! What workers report, as rows: what counts, what is rejected, and what a missing checkpoint leads to.

use crate::scene::{
    EPOCHS, SAMPLES, Scene, Worker, epoch, evaluated, evaluations, noops, policy, started, trained,
    trainings,
};
use halfheard_shared::{
    ids::AttemptId,
    wire::{CriterionResult, Failure, FailureKind, Fault, FaultKind, ResultBody},
};

fn failed(kind: FailureKind) -> ResultBody {
    ResultBody::Failed(Failure {
        chain: vec!["it \x1b[2J broke".into(); 40],
        kind,
    })
}

#[tokio::test]
async fn sweep_goes_from_training_to_results_whatever_comes_twice() {
    let mut scene = Scene::new().await;
    let train = scene.training().await;
    let eval = scene.evaluation(train, "blocked").await;
    let mut worker = Worker::new("w");
    let job = worker.train(&scene).await;
    let reports =
        [started(), epoch(1, 0.5), epoch(2, 0.4), trained("1")].map(|body| worker.says(&job, body));
    for _ in 0..2 {
        let summary = scene.ingest(&reports).await;
        assert_eq!(summary.rejected, []);
        assert_eq!(summary.ended, [("w".to_owned(), job.attempt)]);
    }
    assert_eq!(scene.is(train).await, "done");
    assert_eq!(scene.is(eval).await, "ready");
    assert_eq!(
        scene.postgres.count("SELECT count(*) FROM epoch_log").await,
        2
    );
    let peak = "SELECT peak_memory FROM attempt WHERE outcome = 'done'";
    assert_eq!(scene.postgres.count(peak).await, 1 << 30);
    let checkpoints = scene.store().checkpoints(&[train]).await.unwrap();
    assert!(!checkpoints[&train].is_empty());

    let job = worker.ask(&scene, evaluations(4)).await.remove(0);
    assert_eq!((job.job, job.train), (eval, Some(train)));
    for _ in 0..2 {
        scene.report(&worker, &job, evaluated(0.5, SAMPLES)).await;
    }
    assert_eq!(scene.is(eval).await, "done");
    assert_eq!(
        scene
            .postgres
            .count("SELECT count(*) FROM prediction")
            .await,
        1
    );
    // Another result of it: a conflict, and the first stays.
    scene.report(&worker, &job, evaluated(0.6, SAMPLES)).await;
    assert_eq!(
        scene.postgres.count("SELECT count(*) FROM conflict").await,
        1
    );
    let kept = "SELECT count(*) FROM result WHERE value = 0.5";
    assert!(scene.postgres.count(kept).await > 0);
    let leased = "SELECT count(*) FROM job WHERE lease_until IS NOT NULL";
    assert_eq!(scene.postgres.count(leased).await, 0);
}

/// A leader that dies leaves what it has fetched to be delivered again, later than what was sent after it.
#[tokio::test]
async fn where_a_training_resumed_is_kept_whenever_the_report_of_its_start_arrives() {
    let mut scene = Scene::new().await;
    let resumed = || ResultBody::Started {
        resumed_after_epoch: 1,
    };
    let result = || trained("1");
    for (place, order) in [
        vec![resumed(), epoch(2, 0.4), result()],
        vec![epoch(2, 0.4), resumed(), result()],
        vec![epoch(2, 0.4), result(), resumed()],
    ]
    .into_iter()
    .enumerate()
    {
        scene.training().await;
        let mut worker = Worker::new(&format!("w{place}"));
        let job = worker.train(&scene).await;
        for body in order {
            scene.report(&worker, &job, body).await;
        }
        let kept =
            "SELECT count(*) FROM attempt WHERE resumed_after_epoch = 1 AND outcome = 'done'";
        assert_eq!(scene.postgres.count(kept).await, place as i64 + 1);
    }
}

/// The result of an evaluation with a change.
fn changed(change: impl FnOnce(&mut Vec<CriterionResult>, &mut Vec<Vec<f32>>)) -> ResultBody {
    let mut body = evaluated(0.5, SAMPLES);
    if let ResultBody::Evaluated {
        results,
        predictions,
        ..
    } = &mut body
    {
        change(results, predictions);
    }
    body
}

/// Reports of an evaluation that do not fit, and a part of the reason.
fn misfits() -> Vec<(ResultBody, &'static str)> {
    let metric = |name: &'static str, value: Option<f64>| {
        changed(move |results, _| {
            results[0].metrics.insert(name.into(), value);
        })
    };
    vec![
        (evaluated(0.5, SAMPLES + 1), "3 samples"),
        (evaluated(f32::NAN, SAMPLES), "not finite"),
        (trained("1"), "cannot send `trained`"),
        (failed(FailureKind::Crashed), "cannot report"),
        (
            changed(|results, _| results.truncate(1)),
            "lacks the criterion",
        ),
        (
            changed(|results, _| results[0].criterion = "\x1b[2J".into()),
            "unknown criterion",
        ),
        (
            changed(|results, _| results.push(results[0].clone())),
            "criterion twice",
        ),
        (
            changed(|results, _| results[0].predictions = 7),
            "prediction 7 of 1",
        ),
        (
            changed(|results, _| results[0].epoch = EPOCHS + 1),
            "epoch 5 of 4",
        ),
        (
            changed(|_, predictions| predictions.resize(50, vec![0.0; SAMPLES])),
            "50 prediction vectors",
        ),
        (metric("sql", None), "unknown metric"),
        (metric("mae", Some(f64::INFINITY)), "not finite"),
    ]
}

#[tokio::test]
async fn report_that_does_not_fit_is_rejected_and_ends_its_attempt() {
    let mut scene = Scene::new().await;
    let train = scene.training().await;
    for (body, why) in misfits() {
        let eval = scene.evaluation(train, "ready").await;
        let mut worker = Worker::new("w");
        let job = worker.ask(&scene, evaluations(1)).await.remove(0);
        let summary = scene.ingest(&[worker.says(&job, body)]).await;
        let reason = &summary.rejected[0].1;
        assert!(reason.contains(why), "{reason} lacks {why}");
        assert_eq!(summary.ended, [("w".to_owned(), job.attempt)]);
        let (outcome, kind) = scene.attempt(job.attempt).await;
        assert_eq!(
            (outcome.as_deref(), kind.as_deref()),
            (Some("failed"), Some("invalid"))
        );
        assert_eq!(scene.state(eval).await, ("ready".into(), 1, 0));
        scene.set(eval, "state = 'failed'").await;
    }
    let stored = "SELECT count(*) FROM evaluation";
    assert_eq!(scene.postgres.count(stored).await, 0);
}

/// The same report with what the test split chose and measured beside it.
fn with_test(body: ResultBody) -> ResultBody {
    fn both<T: Clone>(of: Vec<T>, id: impl Fn(&mut T) -> &mut String) -> Vec<T> {
        let on_test = of.iter().cloned().map(|mut one| {
            id(&mut one).insert_str(0, "test:");
            one
        });
        let on_test: Vec<T> = on_test.collect();
        [of, on_test].concat()
    }
    match body {
        ResultBody::Trained {
            checkpoints,
            epochs,
            seconds,
            peak_memory,
        } => ResultBody::Trained {
            checkpoints: both(checkpoints, |checkpoint| &mut checkpoint.criterion),
            epochs,
            seconds,
            peak_memory,
        },
        ResultBody::Evaluated {
            results,
            predictions,
            seconds,
            peak_memory,
        } => ResultBody::Evaluated {
            results: both(results, |result| &mut result.criterion),
            predictions,
            seconds,
            peak_memory,
        },
        ResultBody::Epoch(mut log) => {
            log.best_for = both(vec!["mae".to_owned()], |id| id);
            log.metrics.insert("test:mae".to_owned(), Some(0.5));
            ResultBody::Epoch(log)
        }
        other => other,
    }
}

/// Where both splits select, a result has checkpoints of each; where one does, of that alone.
#[tokio::test]
async fn checkpoints_are_expected_of_each_split_that_selects() {
    for selection in ["validation", "test", "both"] {
        let mut scene = Scene::new().await;
        sqlx::query(
            "UPDATE config SET spec = jsonb_set(spec, '{protocol,selection}', to_jsonb($1::text))",
        )
        .bind(selection)
        .execute(scene.store().pool())
        .await
        .unwrap();
        for as_both in [selection != "both", selection == "both"] {
            let say = |body| if as_both { with_test(body) } else { body };
            let train = scene.training().await;
            let mut worker = Worker::new("w");
            let job = worker.train(&scene).await;
            let fits = as_both == (selection == "both");
            let epoch = worker.says(&job, say(epoch(1, 0.5)));
            let rejected = scene.ingest(&[epoch]).await.rejected.len();
            // What one split measures is a part of what both do.
            assert_eq!(rejected, usize::from(as_both && !fits), "{selection}");
            let summary = scene.ingest(&[worker.says(&job, say(trained("1")))]).await;
            assert_eq!(
                summary.rejected.is_empty(),
                fits,
                "{selection}: {:?}",
                summary.rejected
            );
            if !fits {
                scene.set(train, "state = 'failed'").await;
            }
        }
        let train = scene.training().await;
        scene.evaluation(train, "ready").await;
        let mut worker = Worker::new("e");
        let job = worker.ask(&scene, evaluations(1)).await.remove(0);
        let body = evaluated(0.5, SAMPLES);
        let body = if selection == "both" {
            with_test(body)
        } else {
            body
        };
        let summary = scene.ingest(&[worker.says(&job, body)]).await;
        assert!(
            summary.rejected.is_empty(),
            "{selection}: {:?}",
            summary.rejected
        );
    }
}

#[tokio::test]
async fn forged_reports_change_nothing() {
    let mut scene = Scene::new().await;
    let train = scene.training().await;
    scene.noop().await;
    let (mut owner, mut thief) = (Worker::new("owner"), Worker::new("thief"));
    let job = owner.train(&scene).await;
    let noop = thief.ask(&scene, noops(1)).await.remove(0);
    let mut never = job.clone();
    never.attempt = AttemptId::derive(&[b"never"]);
    let mut crossed = noop.clone();
    crossed.job = train;
    let forged = [
        thief.says(&job, failed(FailureKind::Permanent)),
        thief.says(&never, trained("1")),
        thief.says(&crossed, trained("1")),
    ];
    let summary = scene.ingest(&forged).await;
    let reasons: Vec<&str> = summary
        .rejected
        .iter()
        .map(|(_, why)| why.as_str())
        .collect();
    assert!(
        reasons[0].contains("granted to worker owner"),
        "{reasons:?}"
    );
    assert!(reasons[1].contains("never granted"), "{reasons:?}");
    assert!(reasons[2].contains("another job"), "{reasons:?}");
    assert_eq!(summary.ended, []);
    assert_eq!(scene.state(train).await, ("queued".into(), 0, 0));
    let open = "SELECT count(*) FROM attempt WHERE outcome IS NULL";
    assert_eq!(scene.postgres.count(open).await, 2);
}

#[tokio::test]
async fn failures_handbacks_and_declines_settle_attempts() {
    let mut scene = Scene::new().await;
    let train = scene.training().await;
    let mut worker = Worker::new("w");
    worker.memory = 8;
    for body in [
        ResultBody::HandedBack { after_epoch: 2 },
        ResultBody::Declined {
            after_epoch: 1,
            fault: Fault::new(FaultKind::Dataset, "dataset mosi", vec!["gone".into()]),
        },
    ] {
        let job = worker.train(&scene).await;
        let summary = scene.report(&worker, &job, body).await;
        assert_eq!(summary.ended, [("w".to_owned(), job.attempt)]);
        assert_eq!(scene.state(train).await, ("ready".into(), 0, 0));
    }
    let job = worker.train(&scene).await;
    let larger = halfheard_store::lifecycle::RetryPolicy {
        largest: 80,
        ..policy()
    };
    let report = [worker.says(&job, failed(FailureKind::OutOfMemory))];
    scene.store().ingest(&report, &larger).await.unwrap();
    assert_eq!(scene.state(train).await, ("ready".into(), 1, 0));
    assert_eq!(
        worker.ask(&scene, trainings(1)).await,
        [],
        "it needs more memory"
    );
    let errors = "SELECT count(*) FROM attempt, unnest(errors) e
                  WHERE failure_kind = 'out_of_memory' AND e NOT LIKE '%' || chr(27) || '%'";
    assert_eq!(scene.postgres.count(errors).await, 16, "cut and clean");
    worker.memory = 80;
    let job = worker.train(&scene).await;
    scene
        .report(&worker, &job, failed(FailureKind::NonFinite))
        .await;
    assert_eq!(scene.state(train).await, ("failed".into(), 2, 0));
}

#[tokio::test]
async fn device_broken_at_three_workers_counts_failure() {
    let mut scene = Scene::new().await;
    let train = scene.training().await;
    for (name, failures) in [("a", 0), ("a", 0), ("b", 0), ("b", 0), ("c", 1)] {
        let mut worker = Worker::new(name);
        let job = worker.train(&scene).await;
        let fault = Fault::new(FaultKind::Device, "the device", vec![]);
        let body = ResultBody::Declined {
            after_epoch: 0,
            fault,
        };
        scene.report(&worker, &job, body).await;
        assert_eq!(
            scene.state(train).await,
            ("ready".into(), failures, 0),
            "{name}"
        );
    }
}

/// A training with weights "1", an evaluation that is done if `used`, and one whose worker misses the
/// checkpoint.
async fn missing_checkpoint(scene: &mut Scene, used: bool) -> [halfheard_shared::ids::JobId; 3] {
    let train = scene.training().await;
    let mut worker = Worker::new("w");
    let job = worker.train(scene).await;
    scene.report(&worker, &job, trained("1")).await;
    let done = scene.evaluation(train, "ready").await;
    let job = worker.ask(scene, evaluations(1)).await.remove(0);
    let body = if used {
        evaluated(0.5, SAMPLES)
    } else {
        ResultBody::HandedBack { after_epoch: 0 }
    };
    scene.report(&worker, &job, body).await;
    if !used {
        scene.set(done, "not_before = now() + interval '1 h'").await;
    }
    let waits = scene.evaluation(train, "ready").await;
    let job = worker.ask(scene, evaluations(1)).await.remove(0);
    assert_eq!(job.job, waits);
    let fault = Fault::new(FaultKind::Checkpoint, "the checkpoint", vec![]);
    let declined = ResultBody::Declined {
        after_epoch: 0,
        fault,
    };
    let summary = scene.report(&worker, &job, declined).await;
    assert_eq!(summary.missing, [train]);
    [train, done, waits]
}

#[tokio::test]
async fn training_without_checkpoints_is_done_again_with_the_same_weights() {
    let mut scene = Scene::new().await;
    let [train, done, waits] = missing_checkpoint(&mut scene, true).await;
    let mut slow = Worker::new("slow");
    let old = slow.ask(&scene, evaluations(1)).await.remove(0);
    let ended = scene.store().retrain(train, "gone").await.unwrap().unwrap();
    assert_eq!(ended.len(), 1);
    assert_eq!((ended[0].job, ended[0].attempt), (waits, old.attempt));
    assert_eq!(scene.is(train).await, "ready");
    assert_eq!(scene.is(done).await, "done");
    assert_eq!(scene.is(waits).await, "blocked");
    assert!(
        scene
            .store()
            .retrain(train, "again")
            .await
            .unwrap()
            .is_none()
    );
    let mut worker = Worker::new("w2");
    let job = worker.train(&scene).await;
    scene.report(&worker, &job, trained("1")).await;
    assert_eq!(scene.is(train).await, "done");
    assert_eq!(scene.is(waits).await, "ready");
    // The slow worker had the checkpoint after all, and its result counts.
    scene.report(&slow, &old, evaluated(0.5, SAMPLES)).await;
    assert_eq!(scene.is(waits).await, "done");
    assert_eq!(
        scene.postgres.count("SELECT count(*) FROM conflict").await,
        0
    );
}

#[tokio::test]
async fn other_weights_fail_a_training_whose_old_ones_were_used() {
    let mut scene = Scene::new().await;
    let [train, done, waits] = missing_checkpoint(&mut scene, true).await;
    scene.store().retrain(train, "gone").await.unwrap().unwrap();
    let mut worker = Worker::new("w2");
    let job = worker.train(&scene).await;
    scene.report(&worker, &job, trained("2")).await;
    assert_eq!(scene.state(train).await.0, "failed");
    assert_eq!(scene.is(done).await, "done");
    assert_eq!(scene.is(waits).await, "failed");
    assert_eq!(
        scene.postgres.count("SELECT count(*) FROM conflict").await,
        1
    );
    let old = "SELECT count(*) FROM checkpoint WHERE blake3 LIKE '2%'";
    assert_eq!(scene.postgres.count(old).await, 0);
}

#[tokio::test]
async fn other_weights_replace_old_ones_that_were_not_used() {
    let mut scene = Scene::new().await;
    let [train, done, waits] = missing_checkpoint(&mut scene, false).await;
    let mut slow = Worker::new("slow");
    let old = slow.ask(&scene, evaluations(1)).await.remove(0);
    scene.store().retrain(train, "gone").await.unwrap().unwrap();
    let mut worker = Worker::new("w2");
    let job = worker.train(&scene).await;
    scene.report(&worker, &job, trained("2")).await;
    assert_eq!(scene.is(train).await, "done");
    let old_ones = "SELECT count(*) FROM checkpoint WHERE blake3 NOT LIKE '2%'";
    assert_eq!(scene.postgres.count(old_ones).await, 0);
    // An evaluation of the old weights does not count.
    scene.report(&slow, &old, evaluated(0.5, SAMPLES)).await;
    assert_eq!(scene.is(waits).await, "ready");
    assert_eq!(scene.is(done).await, "ready");
    assert_eq!(
        scene
            .postgres
            .count("SELECT count(*) FROM evaluation")
            .await,
        0
    );
}

#[tokio::test]
async fn job_that_cannot_be_granted_fails_with_its_evaluations() {
    let mut scene = Scene::new().await;
    let train = scene.training().await;
    let eval = scene.evaluation(train, "blocked").await;
    let mut worker = Worker::new("w");
    let job = worker.train(&scene).await;
    scene.store().give_up(train, "no config").await.unwrap();
    assert_eq!(scene.state(train).await, ("failed".into(), 1, 0));
    assert_eq!(scene.state(eval).await, ("failed".into(), 0, 0));
    assert_eq!(
        scene.attempt(job.attempt).await.0.as_deref(),
        Some("failed")
    );
}

/// The figure is printed, not asserted: machines differ.
#[tokio::test]
async fn thousands_of_noops_pass_in_large_batches() {
    let mut scene = Scene::new().await;
    scene.noop().await;
    scene
        .execute(
            "INSERT INTO job (id, sweep, position, kind, state)
             SELECT gen_random_uuid(), s.id, 1000 + n, 'noop', 'ready'
             FROM sweep s, generate_series(1, 4096) n",
        )
        .await;
    let mut workers: Vec<Worker> = (0..8).map(|i| Worker::new(&format!("w{i}"))).collect();
    let sweeps = [scene.sweep];
    let since = std::time::Instant::now();
    let mut done = 0;
    while done < 4096 {
        let requests: Vec<_> = workers
            .iter_mut()
            .map(|worker| {
                worker.received = worker.ask;
                worker.request(noops(64), &sweeps)
            })
            .collect();
        let grants = scene.grant(&requests).await;
        let mut reports = Vec::new();
        for (worker, jobs) in workers.iter().zip(&grants.answers) {
            for job in jobs {
                reports.push(worker.says(job, started()));
                reports.push(worker.says(job, ResultBody::Noop));
            }
        }
        assert!(!reports.is_empty());
        done += reports.len() / 2;
        for batch in reports.chunks(512) {
            assert_eq!(scene.ingest(batch).await.rejected, []);
        }
    }
    let rate = done as f64 / since.elapsed().as_secs_f64();
    println!("{rate:.0} no-op jobs/s granted and ingested");
    let left = "SELECT count(*) FROM job WHERE state <> 'done'";
    assert!(scene.postgres.count(left).await <= 1);
}
