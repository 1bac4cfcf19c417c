//! Exported files hold what the database holds, and the example of docs/guide/export.md reads them.
#![expect(clippy::unwrap_used, reason = "a test ends where something is wrong")]

use halfheard_e2e::{
    finished::{self, Matrix},
    servers::Postgres,
};
use halfheard_results::export::{
    columns::{Page, fields},
    file::{Format, Writer},
};
use halfheard_shared::{benchmark::Benchmark, results::Export};
use halfheard_store::{
    Store,
    results::{ResultsError, export as export_rows},
};
use std::{
    path::{Path, PathBuf},
    process::Command,
};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Where set-up puts Polars, if it did.
fn polars() -> Option<PathBuf> {
    let deps = std::env::var_os("HALFHEARD_DEPS")
        .map_or_else(|| Path::new(ROOT).join(".deps"), PathBuf::from);
    let folder = deps.join("polars");
    folder.join("polars/__init__.py").exists().then_some(folder)
}

#[expect(clippy::too_many_lines, reason = "one scenario, step by step")]
#[tokio::test]
async fn exported_files_hold_what_the_database_holds() {
    let postgres = Postgres::start().unwrap();
    let store = Store::connect_with_retry(&postgres.url().parse().unwrap())
        .await
        .unwrap();
    store.migrate().await.unwrap();
    let matrix = Matrix {
        name: "exported".to_owned(),
        models: ["almt", "lnln"]
            .map(|id| (id.to_owned(), String::new()))
            .into(),
        datasets: vec![Benchmark::Mosi, Benchmark::Sims],
        seeds: vec![1111, 1112],
    };
    let id = finished::simulated(&store, &matrix).await.unwrap();
    let sweep = store.find_sweep("exported").await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let export = async |what: Export, name: &str, format| {
        let path = folder.path().join(name);
        let mut writer = Writer::new(Some(&path), format, fields(what)).unwrap();
        let mut count = 0;
        let write = |rows| -> Result<(), ResultsError> {
            let page = Page::new(&sweep.name, &rows);
            count += page.rows() as u64;
            writer.write(&page).unwrap();
            Ok(())
        };
        export_rows(&store, sweep.id, what, write).await.unwrap();
        writer.finish().unwrap();
        count
    };

    // 2 methods, 2 seeds, 16 cases; 11 metrics on MOSI, 8 on SIMS.
    let results = export(Export::Results, "results.parquet", Format::Parquet).await;
    assert_eq!(results, 2 * 2 * 16 * (11 + 8));
    let again = export(Export::Results, "results.csv", Format::Csv).await;
    assert_eq!(again, results);
    let text = std::fs::read_to_string(folder.path().join("results.csv")).unwrap();
    let header: Vec<&str> = fields(Export::Results)
        .iter()
        .map(|(name, _)| *name)
        .collect();
    assert_eq!(text.lines().next().unwrap(), header.join(","));
    assert_eq!(text.lines().count() as u64, results + 1);
    let value = header.iter().position(|name| *name == "value").unwrap();
    let sum: f64 = text
        .lines()
        .skip(1)
        .filter_map(|line| line.split(',').nth(value)?.parse::<f64>().ok())
        .sum();
    let stored: f64 = sqlx::query_scalar("SELECT sum(value) FROM measurement WHERE sweep = $1")
        .bind(id.0)
        .fetch_one(store.pool())
        .await
        .unwrap();
    assert!((sum - stored).abs() < 1e-6, "{sum} {stored}");

    // Every sample under each of five or four criteria.
    let predictions = export(Export::Predictions, "predictions.parquet", Format::Parquet).await;
    assert_eq!(predictions, 2 * 2 * 16 * (686 * 5 + 457 * 4));
    let comparison = export(Export::Comparison, "comparison.csv", Format::Csv).await;
    let expected: i64 = sqlx::query_scalar("SELECT count(*) FROM comparison WHERE sweep = $1")
        .bind(id.0)
        .fetch_one(store.pool())
        .await
        .unwrap();
    assert!(expected > 0 && comparison == expected.cast_unsigned());
    sqlx::query(
        r#"INSERT INTO epoch_log (job, epoch, attempt, losses, metrics, train_seconds, eval_seconds, best_for)
           SELECT j.id, 1, a.id, '{"loss": 0.5}', '{"mae": 1.25, "corr": null}', 2, 1, '{}'
           FROM job j JOIN attempt a ON a.job = j.id WHERE j.kind = 'train'"#,
    )
    .execute(store.pool())
    .await
    .unwrap();
    let epochs = export(Export::Epochs, "epochs.csv", Format::Csv).await;
    assert_eq!(epochs, 2 * 2 * 2 * 5);
    let text = std::fs::read_to_string(folder.path().join("epochs.csv")).unwrap();
    assert!(
        text.contains("exported,lnln,,mosi,1111,1,loss.loss,0.5\n"),
        "{text}"
    );
    assert!(
        text.contains("exported,lnln,,mosi,1111,1,corr,\n"),
        "{text}"
    );

    the_example_reads_it(&store, folder.path()).await;
}

async fn the_example_reads_it(store: &Store, folder: &Path) {
    let Some(polars) = polars() else {
        eprintln!("skipped: no Polars; `make test` lays it down");
        return;
    };
    let doc = std::fs::read_to_string(format!("{ROOT}/docs/guide/export.md")).unwrap();
    let (_, rest) = doc.split_once("```python\n").unwrap();
    let (example, _) = rest.split_once("```").unwrap();
    let output = Command::new("python3")
        .args(["-c", example])
        .env("PYTHONPATH", polars)
        .current_dir(folder)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let printed = String::from_utf8(output.stdout).unwrap();
    let mut lines = printed.lines();
    assert_eq!(lines.next().unwrap(), "method,dataset,rate,value,seeds");
    let rows: Vec<Vec<&str>> = lines.map(|line| line.split(',').collect()).collect();
    assert_eq!(rows.len(), 2 * 2 * 10);
    for row in rows {
        let mean: f64 = sqlx::query_scalar(
            "SELECT mean FROM table_rate
             WHERE method = $1 AND dataset = $2 AND rate = $3::numeric AND metric = 'mae'",
        )
        .bind(row[0])
        .bind(row[1])
        .bind(row[2])
        .fetch_one(store.pool())
        .await
        .unwrap();
        assert!(
            (row[3].parse::<f64>().unwrap() - mean).abs() < 1e-9,
            "{row:?}"
        );
        assert_eq!(row[4], "2");
    }
}
