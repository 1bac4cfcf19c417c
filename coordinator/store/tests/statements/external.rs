//! External programs: who is granted their jobs, what they wrote, and what of them is needed.

use crate::scene::{
    SAMPLES, Scene, Worker, evaluated, evaluations, noops, started, trained, trainings,
};
use halfheard_shared::{
    external::{METHOD, OUTPUT_TAIL},
    ids::{AttemptId, JobId},
    results::Wanted,
    wire::{Failure, FailureKind, ResultBody},
};
use halfheard_store::{
    StoreError,
    imported::{ImportError, ImportedModel},
    output::KeptOutput,
    results,
};
use std::collections::BTreeMap;

fn wrote(tail: &str, bytes: u64, stored: bool) -> ResultBody {
    ResultBody::Output {
        tail: tail.to_owned(),
        bytes,
        stored,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_external_programs_go_to_workers_that_run_them() {
    let mut scene = Scene::new().await;
    let train = scene.training().await;
    let eval = scene.evaluation(train, "ready").await;
    for job in [train, eval] {
        scene.set(job, "method = 'my-model'").await;
    }
    sqlx::query("SELECT recount(id) FROM sweep")
        .execute(scene.store().pool())
        .await
        .unwrap();
    let noop = scene.noop().await;
    let open = scene.store().open_externals().await.unwrap();
    assert_eq!(open, [("my-model".to_owned(), 2)]);
    // It has the registry, and would do anything else.
    let mut plain = Worker::new("plain");
    assert_eq!(plain.ask(&scene, trainings(1)).await, []);
    assert_eq!(plain.ask(&scene, evaluations(4)).await, []);
    assert_eq!(plain.ask(&scene, noops(1)).await[0].job, noop);
    // A method of the registry that it lacks is no external program.
    let registry = scene.training().await;
    scene.set(registry, "method = 'almt', cost = 9").await;
    let mut allowing = Worker::new("allowing");
    allowing.methods.push(METHOD.to_owned());
    assert_eq!(allowing.train(&scene).await.job, train);
    assert_eq!(allowing.ask(&scene, evaluations(4)).await[0].job, eval);
    assert_eq!(scene.is(registry).await, "ready");
    assert_eq!(scene.store().open_externals().await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn output_of_an_attempt_is_kept_and_the_last_report_counts() {
    let mut scene = Scene::new().await;
    let train = scene.training().await;
    let mut worker = Worker::new("w");
    let first = worker.train(&scene).await;
    scene.report(&worker, &first, started()).await;
    let long = "x".repeat(OUTPUT_TAIL) + "\r\n\0end";
    let both = [wrote("begun", 5, false), wrote(&long, 1 << 40, true)];
    let summary = scene
        .ingest(&both.map(|body| worker.says(&first, body)))
        .await;
    assert_eq!(summary.rejected, []);
    let failure = Failure {
        chain: vec!["it broke".to_owned()],
        kind: FailureKind::Permanent,
    };
    scene
        .report(&worker, &first, ResultBody::Failed(failure))
        .await;
    scene
        .set(train, "state = 'ready', not_before = '-infinity'")
        .await;
    let second = worker.train(&scene).await;

    let attempts = scene.store().logged_attempts(train).await.unwrap();
    let ids: Vec<AttemptId> = attempts.iter().map(|one| one.attempt).collect();
    assert_eq!(ids, [first.attempt, second.attempt]);
    let kept = attempts[0].output.as_ref().unwrap();
    assert_eq!(
        (kept.bytes, kept.stored, kept.tail.len()),
        (1 << 40, true, OUTPUT_TAIL)
    );
    assert!(kept.tail.ends_with("x\r\n?end"), "as it was, but for NUL");
    assert_eq!(attempts[0].errors, ["it broke"]);
    assert_eq!(attempts[1].output, None);
    // What comes late, after the end of its attempt, is kept, too.
    scene.report(&worker, &first, wrote("late", 4, false)).await;
    let attempts = scene.store().logged_attempts(train).await.unwrap();
    let late = KeptOutput {
        tail: "late".to_owned(),
        bytes: 4,
        stored: false,
    };
    assert_eq!(attempts[0].output, Some(late));
    assert_eq!(
        scene.is(train).await,
        "queued",
        "it says nothing of the job"
    );
    // Of an attempt of another worker it is not.
    let other = Worker::new("other");
    let summary = scene
        .ingest(&[other.says(&first, wrote("no", 2, false))])
        .await;
    assert_eq!(summary.rejected.len(), 1);
    // With the job goes all that was written.
    scene.execute("DELETE FROM sweep_job").await;
    scene.execute("DELETE FROM job").await;
    assert_eq!(
        scene
            .postgres
            .count("SELECT count(*) FROM attempt_output")
            .await,
        0
    );
    let known = scene.store().known_attempts(&ids).await.unwrap();
    assert!(known.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn job_is_found_by_the_first_digits_of_its_id() {
    let mut scene = Scene::new().await;
    let (one, two) = (scene.training().await, scene.training().await);
    let found = scene.store().find_job(&one.short()).await.unwrap();
    assert_eq!((found.id, found.method.as_str()), (one, "lnln"));
    let upper = two.to_string().to_uppercase();
    assert_eq!(scene.store().find_job(&upper).await.unwrap().id, two);
    let unknown = JobId::derive(&[b"unknown"]).to_string();
    for text in [unknown.as_str(), "", "abc", "lnln", &format!("{one}0")] {
        let error = scene.store().find_job(text).await.unwrap_err();
        assert!(matches!(error, StoreError::NoJob(_)), "{text}: {error}");
    }
    // Ids that begin alike.
    scene.execute("DELETE FROM sweep_job").await;
    scene
        .execute("UPDATE job SET id = ('aaaa0000-0000-8000-8000-00000000000' || position)::uuid")
        .await;
    let error = scene.store().find_job("aaaa-0").await.unwrap_err();
    assert!(matches!(error, StoreError::AmbiguousJob(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn program_of_a_config_is_needed_and_named_in_results() {
    let mut scene = Scene::new().await;
    let bundle = "c".repeat(64);
    assert!(!scene.store().needed_data().await.unwrap().contains(&bundle));
    let train = scene.training().await;
    let mut worker = Worker::new("w");
    let job = worker.train(&scene).await;
    scene.report(&worker, &job, trained("1")).await;
    let eval = scene.evaluation(train, "ready").await;
    let external = "SELECT count(*) FROM provenance WHERE external";
    let job = worker.ask(&scene, evaluations(1)).await.remove(0);
    assert_eq!(job.job, eval);
    scene.report(&worker, &job, evaluated(0.5, SAMPLES)).await;
    let all = scene
        .postgres
        .count("SELECT count(*) FROM provenance WHERE NOT external")
        .await;
    assert!(all > 0);
    assert_eq!(scene.postgres.count(external).await, 0);
    // As trainings are given it: JSON within a text.
    scene
        .execute(
            r#"UPDATE config SET spec = jsonb_set(spec, '{hyper}', to_jsonb(
                   '{"width": 8, "program": {"bundle": "' || repeat('c', 64) || '"}}'::text))"#,
        )
        .await;
    assert_eq!(scene.postgres.count(external).await, all);
    let needed = scene.store().needed_data().await.unwrap();
    assert!(needed.contains(&bundle) && needed.contains(&"a".repeat(64)));
    let results = results::load(scene.store(), scene.sweep, Wanted::default())
        .await
        .unwrap();
    assert_eq!(results.external, [("lnln".to_owned(), bundle)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn predictions_are_not_imported_under_the_name_of_a_program() {
    let mut scene = Scene::new().await;
    let train = scene.training().await;
    scene.set(train, "method = 'my-model'").await;
    let cases = BTreeMap::from([("r=0.9".parse().unwrap(), vec![0.5; SAMPLES])]);
    let import = |method| {
        let model = ImportedModel {
            method,
            variant: "",
            seed: 1,
            dataset: "mosi",
            source: "predictions.npz",
            host: "host",
            cases: &cases,
        };
        let (scene, sweep) = (&scene, scene.sweep);
        async move { scene.store().import_predictions(sweep, &model).await }
    };
    let error = import("my-model").await.unwrap_err();
    assert!(matches!(error, ImportError::Trained(_)), "{error}");
    let error = import("another").await.unwrap_err();
    assert!(matches!(error, ImportError::Cases { .. }), "{error}");
}
