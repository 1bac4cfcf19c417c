//! `coord status` on rows as workers' reports leave them: the remaining time with bundled evaluations, and failures by
//! cause.
#![expect(clippy::unwrap_used, reason = "a test ends where something is wrong")]

use halfheard_coordinator::{
    analysis,
    commands::failures,
    commands::watch::{Forecast, Snapshot},
};
use halfheard_e2e::{
    finished::{self, Cell, Matrix},
    servers::Postgres,
};
use halfheard_shared::{
    benchmark::Benchmark,
    ids::SweepId,
    wire::{Heartbeat, WorkerInfo},
};
use halfheard_store::Store;
use std::time::Duration;

struct Scene {
    store: Store,
    sweep: SweepId,
    _postgres: Postgres,
}

/// Two methods, two seeds. LF-DNN always predicts 1.5, ALMT the truth.
async fn scene() -> Scene {
    let postgres = Postgres::start().unwrap();
    let store = Store::connect_with_retry(&postgres.url().parse().unwrap())
        .await
        .unwrap();
    store.migrate().await.unwrap();
    let matrix = Matrix {
        name: "status".to_owned(),
        models: ["almt", "lf-dnn"]
            .map(|m| (m.to_owned(), String::new()))
            .to_vec(),
        datasets: vec![Benchmark::Mosi],
        seeds: vec![1, 2],
    };
    let answer = |cell: &Cell<'_>| {
        let constant = cell.method == "lf-dnn" && cell.seed == 2;
        let predictions = match constant {
            true => vec![1.5; cell.labels.len()],
            false => cell.labels.to_vec(),
        };
        finished::measured(cell, predictions)
    };
    let sweep = finished::fill(&store, &matrix, answer).await.unwrap();
    Scene {
        store,
        sweep,
        _postgres: postgres,
    }
}

impl Scene {
    async fn run(&self, statement: &'static str) {
        sqlx::query(statement)
            .execute(self.store.pool())
            .await
            .unwrap();
    }

    async fn snapshot(&self, workers: usize) -> Snapshot {
        let mut snapshot = Snapshot::load(&self.store, None, self.sweep).await.unwrap();
        snapshot.workers = (0..workers).map(|_| idle()).collect();
        snapshot
    }
}

fn idle() -> Heartbeat {
    let mut beat: Heartbeat = serde_json::from_value(serde_json::json!({
           "worker": WorkerInfo {
               name: "w".into(), host: "h".into(), device: "cpu".into(), version: "0".into(),
    processor: String::new(),
           },
           "pid": 1, "at_ms": 0, "memory_bytes": 0, "doing": null,
       }))
    .unwrap();
    beat.doing = None;
    beat
}

#[tokio::test]
async fn remaining_time_counts_an_evaluation_bundle_once() {
    let scene = scene().await;
    scene
        .run("ALTER TABLE job DISABLE TRIGGER job_state_changes")
        .await;
    // Each of the sixteen cases of a model has the 160 s of their bundle.
    scene
        .run(
            "UPDATE attempt SET started = '2026-01-01 00:00:00Z', ended = '2026-01-01 00:02:40Z',
                    worker = 'w' || (SELECT seed FROM job WHERE job.id = attempt.job)",
        )
        .await;
    scene
        .run(
            "UPDATE job SET state = 'ready'
             WHERE kind = 'eval' AND method = 'almt' AND seed = 2",
        )
        .await;
    let left = Forecast::new(scene.sweep)
        .left(&scene.store, &scene.snapshot(1).await)
        .await
        .unwrap();
    assert_eq!(left, Duration::from_secs(160), "not sixteen times that");
    // Two workers share them; without workers there is no estimate.
    let mut forecast = Forecast::new(scene.sweep);
    let both = forecast.left(&scene.store, &scene.snapshot(2).await).await;
    assert_eq!(both, Some(Duration::from_secs(80)));
    let mut forecast = Forecast::new(scene.sweep);
    assert_eq!(
        forecast.left(&scene.store, &scene.snapshot(0).await).await,
        None
    );
}

#[tokio::test]
async fn status_groups_failures_by_cause_and_names_collapsed_models() {
    let scene = scene().await;
    assert_eq!(failures::load(&scene.store, scene.sweep).await.unwrap(), []);
    let collapsed = analysis::collapsed(&scene.store, scene.sweep)
        .await
        .unwrap();
    assert_eq!(collapsed, ["lf-dnn on mosi (seed 2)"]);

    scene
        .run("ALTER TABLE job DISABLE TRIGGER job_state_changes")
        .await;
    // Both training jobs of ALMT failed for one reason in two epochs, one of them three times, and their evaluations with
    // them. One evaluation of LF-DNN failed on its own, another will be retried.
    scene
        .run(
            "UPDATE job SET state = 'failed', failures = CASE WHEN seed = 1 THEN 3 ELSE 1 END,
                    last_error = 'x' WHERE method = 'almt' AND kind = 'train'",
        )
        .await;
    scene
        .run(
            "UPDATE job SET state = 'failed', last_error = 'training job failed'
             WHERE method = 'almt' AND kind = 'eval'",
        )
        .await;
    scene
        .run(
            "UPDATE job SET state = CASE WHEN case_id = 'r=0' THEN 'failed' ELSE 'ready' END::job_state,
                    failures = 1
             WHERE method = 'lf-dnn' AND seed = 1 AND case_id IN ('r=0', 'missing=l')",
        )
        .await;
    scene
        .run(
            "UPDATE attempt SET outcome = 'failed', failure_kind = 'permanent',
                    errors = CASE WHEN j.kind = 'train'
                        THEN ARRAY['training', 'the loss is not finite at epoch ' || j.seed]
                        ELSE ARRAY['no such\u{1b}[31m checkpoint'] END
             FROM job j WHERE j.id = attempt.job AND j.failures > 0",
        )
        .await;
    scene
        .run("DELETE FROM attempt a USING job j WHERE j.id = a.job AND j.method = 'almt' AND j.kind = 'eval'")
        .await;
    let groups = failures::load(&scene.store, scene.sweep).await.unwrap();
    let reported: Vec<(i64, i64, i64, bool)> = groups
        .iter()
        .map(|g| (g.jobs, g.attempts, g.evaluations_not_begun, g.given_up))
        .collect();
    assert_eq!(
        reported,
        [(2, 4, 32, true), (1, 1, 0, true), (1, 1, 0, false)],
        "{groups:#?}"
    );
    let text = groups[0].describe();
    assert!(
        text.contains("train almt on mosi, seed 1; train almt on mosi, seed 2"),
        "{text}"
    );
    assert!(
        text.contains("32 evaluation jobs of these models could not start"),
        "{text}"
    );
    let text = groups[1].describe();
    assert!(text.contains("eval lf-dnn on mosi, seed 1, r=0"), "{text}");
    assert!(
        !text.contains('\u{1b}'),
        "an escape sequence reaches the terminal: {text:?}"
    );
    assert!(groups[2].describe().contains("will be retried"));
}
