//! Runs for experiment trackers hold what the database holds, under names that are safe, in a folder that is
//! new. `make test-trackers` reads the same files with the trackers themselves.
#![expect(clippy::unwrap_used, reason = "a test ends where something is wrong")]

use halfheard_e2e::{
    finished::{self, Matrix},
    programs::program,
    servers::Postgres,
};
use halfheard_shared::benchmark::Benchmark;
use halfheard_store::Store;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

struct Scene {
    store: Store,
    postgres: Postgres,
    /// Where to export to; kept if the environment names a folder.
    folder: PathBuf,
    _temporary: tempfile::TempDir,
}

async fn scene() -> Scene {
    let postgres = Postgres::start().unwrap();
    let store = Store::connect_with_retry(&postgres.url().parse().unwrap())
        .await
        .unwrap();
    store.migrate().await.unwrap();
    let matrix = Matrix {
        name: "a \"night's\" sweep: ../\u{202e}ü".to_owned(),
        models: vec![
            ("almt".to_owned(), String::new()),
            ("lnln".to_owned(), "no-dmc".to_owned()),
        ],
        datasets: vec![Benchmark::Mosi],
        seeds: vec![1111, 1112],
    };
    finished::simulated(&store, &matrix).await.unwrap();
    // An external program may call a loss anything.
    for statement in [
        "UPDATE job SET started = '2026-01-31 01:00:00Z', finished = '2026-01-31 02:00:00Z'",
        r#"INSERT INTO epoch_log (job, epoch, attempt, losses, metrics, train_seconds, eval_seconds, best_for)
           SELECT j.id, e, a.id,
                  jsonb_build_object('loss', 1.0 / e, '../../up', 2, 'a/b', 3, 'A/b', 4, 'gone', null),
                  jsonb_build_object('mae', 1.5 / e, 'corr', null, 'test:mae', 0.25),
                  60, 0.5, '{}'
           FROM job j JOIN attempt a ON a.job = j.id, generate_series(1, 3) e WHERE j.kind = 'train'
           ON CONFLICT (job, epoch) DO UPDATE SET losses = excluded.losses, metrics = excluded.metrics,
               train_seconds = excluded.train_seconds, eval_seconds = excluded.eval_seconds"#,
        "DELETE FROM epoch_log WHERE epoch > 3",
    ] {
        sqlx::raw_sql(statement)
            .execute(store.pool())
            .await
            .unwrap();
    }
    let temporary = tempfile::tempdir().unwrap();
    let kept = std::env::var_os("HALFHEARD_TRACKERS").map(PathBuf::from);
    Scene {
        store,
        postgres,
        folder: kept.unwrap_or_else(|| temporary.path().to_owned()),
        _temporary: temporary,
    }
}

impl Scene {
    fn export(&self, format: &str, name: &str) -> Output {
        let sweep = "a \"night's\" sweep: ../\u{202e}ü";
        Command::new(program("coord").unwrap())
            .args(["export", sweep, "--format", format, "--out"])
            .arg(self.folder.join(name))
            .env("HALFHEARD_DATABASE_URL", self.postgres.url())
            .env("HALFHEARD_CONFIG", "/dev/null")
            .output()
            .unwrap()
    }

    fn exported(&self, format: &str, name: &str) -> PathBuf {
        let output = self.export(format, name);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{error}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("4 runs"));
        let again = self.export(format, name);
        let error = String::from_utf8_lossy(&again.stderr);
        assert!(
            !again.status.success() && error.contains("already exists"),
            "{error}"
        );
        self.folder.join(name)
    }
}

/// All files below a folder with their contents.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().display().to_string();
                found.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    found
}

#[tokio::test]
async fn runs_are_exported_for_trackers() {
    let scene = scene().await;
    let mlflow = files(&scene.exported("mlflow", "mlruns"));
    let values: Vec<(String, i64, f64)> = sqlx::query_as(
        "SELECT replace(t.id::text, '-', ''), t.seed, m.value FROM measurement m JOIN job t ON t.id = m.train_job
         WHERE m.case_id = 'r=0.3' AND m.metric = 'mae' ORDER BY 1",
    )
    .fetch_all(scene.store.pool())
    .await
    .unwrap();
    assert_eq!(values.len(), 4);
    let sweep: String = sqlx::query_scalar("SELECT replace(id::text, '-', '') FROM sweep")
        .fetch_one(scene.store.pool())
        .await
        .unwrap();
    let text = |name: &str| String::from_utf8(mlflow[&format!("{sweep}/{name}")].clone()).unwrap();
    assert!(
        text("meta.yaml").contains(r#"name: "a \"night's\" sweep: ../"#),
        "{}",
        text("meta.yaml")
    );
    for (run, seed, mae) in &values {
        let expected = format!("1769824800000 {mae} 3\n");
        assert_eq!(text(&format!("{run}/metrics/case/r_0.3/mae")), expected);
        let loss = text(&format!("{run}/metrics/train/loss"));
        let lines: Vec<&str> = loss.lines().collect();
        assert_eq!(lines[0], "1769821260500 1 1");
        assert!(lines.len() == 3 && lines[2].ends_with(" 3"), "{loss}");
        assert_eq!(text(&format!("{run}/metrics/test/mae")).lines().count(), 3);
        assert_eq!(text(&format!("{run}/params/seed")), seed.to_string());
        assert!(text(&format!("{run}/meta.yaml")).contains("status: 3\n"));
        let value = |name: &str| text(&format!("{run}/metrics/train/{name}"));
        for (name, number) in [(".._.._up", " 2 1"), ("A_b", " 4 1"), ("a_b-2", " 3 1")] {
            assert!(
                value(name).lines().next().unwrap().ends_with(number),
                "{name}"
            );
        }
        for absent in ["train/gone", "valid/corr"] {
            assert!(!mlflow.contains_key(&format!("{sweep}/{run}/metrics/{absent}")));
        }
    }
    let wandb = files(&scene.exported("wandb", "runs"));
    assert_eq!(wandb.len(), 4);
    for (run, _, mae) in &values {
        let log = &wandb[&format!("offline-run-20260131_010000-{run}/run-{run}.wandb")];
        assert!(log.starts_with(b":W&B"));
        let has = |text: &str| {
            log.windows(text.len())
                .any(|window| window == text.as_bytes())
        };
        assert!(has("case/r=0.3/mae") && has(&serde_json::json!(mae).to_string()));
        assert!(has("valid/mae") && has("train/../../up") && !has("gone"));
    }
    // Nothing is left beside them.
    let mut names: Vec<String> = fs::read_dir(&scene.folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["mlruns", "runs"]);
    let refused = scene.export("wandb", "no/such/folder");
    assert!(!refused.status.success());
}
