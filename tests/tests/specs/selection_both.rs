//! `selection = "both"` on a real broker, database and worker: the checkpoints of both choices, the view
//! `optimism`, and tables of it in every format.

use anyhow::{Context as _, Result, ensure};
use halfheard_e2e::{
    PATIENCE,
    programs::{Process, coord, output, worker},
    stage::Stage,
    sweeps::sweep,
    tiny::{Tiny, jobs},
};
use halfheard_shared::{
    benchmark::Benchmark,
    dataset::{Dataset, Split},
    wire::{Selection, TrainSpec},
};
use serde_json::Value;
use sqlx::Row as _;
use std::collections::BTreeMap;

const CASES: [&str; 3] = ["r=0", "r=0.5", "missing=la"];
const EPOCHS: u32 = 6;

/// By model, seed and criterion, the epoch and the hash of a checkpoint.
type Chosen = BTreeMap<(String, String), (i32, String)>;

async fn chosen(stage: &Stage, name: &str) -> Result<Chosen> {
    let rows = sqlx::query(
        "SELECT concat_ws(' ', j.method, j.seed), k.criterion, k.epoch, k.blake3
         FROM sweep s JOIN sweep_job w ON w.sweep = s.id JOIN job j ON j.id = w.job
         JOIN checkpoint k ON k.job = j.id
         WHERE s.name = $1",
    )
    .bind(name)
    .fetch_all(stage.store.pool())
    .await?;
    let rows = rows.iter();
    Ok(rows
        .map(|row| ((row.get(0), row.get(1)), (row.get(2), row.get(3))))
        .collect())
}

/// What `coord submit` notes of a dataset: its test labels, which intervals are measured against.
async fn note_labels(stage: &Stage, tiny: &Tiny) -> Result<()> {
    let blob = tiny.data()?;
    let file = Dataset::open(std::path::Path::new(&blob.path))?;
    let labels = file.split(Split::Test).labels().iter();
    let labels: Vec<u8> = labels.flat_map(|label| label.to_le_bytes()).collect();
    sqlx::query(
        "INSERT INTO dataset (blake3, name, train_samples, valid_samples, test_samples, test_labels)
         VALUES ($1, 'mosi', 1, 1, $2, $3)",
    )
    .bind(&blob.blake3)
    .bind(i32::try_from(labels.len() / 4)?)
    .bind(labels)
    .execute(stage.store.pool())
    .await?;
    Ok(())
}

/// Three sweeps of the same models, by each selection.
async fn trained(stage: &Stage) -> Result<()> {
    let tiny = Tiny::make(stage.data_dir(), 96)?;
    let each = [
        ("valid", Selection::Validation),
        ("test", Selection::Test),
        ("both", Selection::Both),
    ];
    for (name, selection) in each {
        let sweep = sweep(name, 0);
        let mut all = Vec::new();
        for (method, seed) in [
            ("lnln", 1111),
            ("lnln", 1112),
            ("almt", 1111),
            ("almt", 1112),
        ] {
            let mut spec: TrainSpec = tiny.spec(method, seed, EPOCHS)?;
            spec.protocol.selection = selection;
            all.extend(jobs(&sweep, &spec, &CASES)?);
        }
        stage.store.submit(&sweep, all).await?;
    }
    note_labels(stage, &tiny).await?;
    let coordinator = stage.serve();
    let worker = Process::spawn(worker(stage)?.args(["--slots", "2"]))?;
    for (name, _) in each {
        let progress = stage.finished(sweep(name, 0).id, PATIENCE).await?;
        assert_eq!((progress.done, progress.failed), (16, 0), "{name}");
    }
    ensure!(worker.terminate(PATIENCE)?.success());
    drop(coordinator);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn both_choices_are_kept_and_shown() -> Result<()> {
    let stage = Stage::start().await?;
    trained(&stage).await?;
    checkpoints_are_those_of_either_selection(&stage).await?;
    view_agrees_with_the_other_sweeps(&stage).await?;
    tables_show_optimism(&stage)?;
    other_sweeps_have_none(&stage)?;
    audit_and_report_know_both(&stage).await
}

async fn checkpoints_are_those_of_either_selection(stage: &Stage) -> Result<()> {
    let [valid, test, both] = [
        chosen(stage, "valid").await?,
        chosen(stage, "test").await?,
        chosen(stage, "both").await?,
    ];
    assert_eq!((valid.len(), test.len(), both.len()), (20, 20, 40));
    for ((model, criterion), checkpoint) in &valid {
        assert_eq!(
            both[&(model.clone(), criterion.clone())],
            *checkpoint,
            "{criterion}"
        );
    }
    for ((model, criterion), checkpoint) in &test {
        assert_eq!(
            both[&(model.clone(), format!("test:{criterion}"))],
            *checkpoint,
            "{criterion}"
        );
    }
    assert_ne!(valid, test, "the splits choose differently here");
    // Every criterion's own results, each distinct checkpoint predicted once.
    let name = sweep("both", 0).id.0;
    let (evaluations, predictions, hashes): (i64, i64, i64) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM evaluation v JOIN sweep_job w USING (job) WHERE w.sweep = $1),
                (SELECT count(*) FROM prediction p JOIN sweep_job w USING (job) WHERE w.sweep = $1),
                (SELECT sum(n)::bigint FROM (SELECT count(DISTINCT blake3) AS n FROM checkpoint k
                 JOIN sweep_job w USING (job) WHERE w.sweep = $1 GROUP BY job) AS each)",
    )
    .bind(name)
    .fetch_one(stage.store.pool())
    .await?;
    assert_eq!((evaluations, predictions), (12 * 10, 3 * hashes));
    Ok(())
}

/// The values of either choice are those that the sweeps with one choice have.
async fn view_agrees_with_the_other_sweeps(stage: &Stage) -> Result<()> {
    let rows = sqlx::query(
        "SELECT o.metric, m.higher_is_better, o.validation_chosen, o.test_chosen, o.optimism,
                v.value AS valid, t.value AS test, o.case_id, m.criterion = m.metric AS own
         FROM optimism o
         JOIN sweep s ON s.id = o.sweep AND s.name = 'both'
         JOIN metric m USING (dataset, metric)
         JOIN measurement v ON v.sweep = (SELECT id FROM sweep WHERE name = 'valid')
          AND (v.method, v.seed, v.case_id, v.metric) = (o.method, o.seed, o.case_id, o.metric)
         JOIN measurement t ON t.sweep = (SELECT id FROM sweep WHERE name = 'test')
          AND (t.method, t.seed, t.case_id, t.metric) = (o.method, o.seed, o.case_id, o.metric)",
    )
    .fetch_all(stage.store.pool())
    .await?;
    assert_eq!(rows.len(), 4 * 3 * Benchmark::Mosi.metrics().len());
    let mut differ = 0;
    for row in rows {
        let number = |column: &str| row.get::<Option<f64>, _>(column);
        let name: String = row.get("metric");
        assert_eq!(number("validation_chosen"), number("valid"), "{name}");
        assert_eq!(number("test_chosen"), number("test"), "{name}");
        let (Some(valid), Some(test)) = (number("valid"), number("test")) else {
            assert_eq!(number("optimism"), None);
            continue;
        };
        let sign = if row.get("higher_is_better") {
            1.0
        } else {
            -1.0
        };
        let optimism = number("optimism").context("no optimism")?;
        assert_eq!(optimism, sign * (test - valid), "{name}");
        differ += i32::from(optimism != 0.0);
        // At this case the test split chose, by rounded values: nothing looks worse there.
        if row.get::<String, _>("case_id") == "r=0.5" && row.get("own") {
            assert!(optimism > -1e-4, "{name}: {optimism}");
        }
    }
    assert!(differ > 0);
    Ok(())
}

fn table(stage: &Stage, args: &[&str]) -> Result<String> {
    output(coord(stage)?.arg("table").args(args))
}

fn tables_show_optimism(stage: &Stage) -> Result<()> {
    let read = |args: &[&str]| -> Result<Value> {
        let json = table(
            stage,
            &[args, &["--sweep", "both", "--format", "json"]].concat(),
        )?;
        Ok(serde_json::from_str(&json)?)
    };
    let cells = |value: &Value, at: &str| {
        value
            .pointer(at)
            .cloned()
            .with_context(|| format!("{at} of {value}"))
    };
    let row = "/blocks/0/rows/0";
    for number in [
        "2",
        "9",
        "13",
        "laziness",
        "cases",
        "curves",
        "ranks",
        "robustness",
    ] {
        let ours = read(&[number])?;
        let on_test = read(&[number, "--selection", "test"])?;
        let both = read(&[number, "--optimism"])?;
        assert_eq!(
            cells(&ours, &format!("{row}/cells"))?,
            cells(&both, &format!("{row}/cells"))?
        );
        let notes = both["notes"].to_string();
        assert!(notes.contains("optimism: by how much"), "{number}: {notes}");
        let companions = cells(&both, &format!("{row}/companions"))?;
        let companions = companions.as_array().context("no list")?;
        let label = |label: &str| companions.iter().find(|one| one["label"] == label);
        let (chosen, optimism) = (label("chosen on test"), label("optimism"));
        let (chosen, optimism) = (
            chosen.context("no values")?,
            optimism.context("no optimism")?,
        );
        let columns = both.pointer("/blocks/0/columns").and_then(Value::as_array);
        for (c, column) in columns.context("no columns")?.iter().enumerate() {
            let at = format!("{row}/cells/{c}/0/mean");
            let (Some(valid), Some(test)) =
                (cells(&ours, &at)?.as_f64(), cells(&on_test, &at)?.as_f64())
            else {
                continue;
            };
            assert_eq!(
                chosen["cells"][c][0]["other"][0].as_f64(),
                Some(test),
                "{number} {c}"
            );
            let higher = column["metrics"][0]["higher_is_better"]
                .as_bool()
                .unwrap_or(false);
            let expected = if higher { test - valid } else { valid - test };
            let found = optimism["cells"][c][0]["difference"].as_f64();
            assert_eq!(found, Some(expected), "{number} {c}");
        }
    }
    // With the notes of a sweep that selects on the test split.
    let notes = read(&["2", "--selection", "test"])?["notes"].to_string();
    assert!(notes.contains("selected on the test split"), "{notes}");
    for format in ["text", "markdown", "latex", "csv", "html"] {
        let printed = table(
            stage,
            &["2", "--sweep", "both", "--optimism", "--format", format],
        )?;
        assert!(
            printed.contains("optimism") && printed.contains("chosen on test"),
            "{printed}"
        );
    }
    Ok(())
}

/// The audit misses what an evaluation lacks of either choice; the report has the optimism.
async fn audit_and_report_know_both(stage: &Stage) -> Result<()> {
    let folder = stage.data_dir().join("report");
    output(
        coord(stage)?
            .args(["report", "both", "--draws", "100", "--out"])
            .arg(&folder),
    )?;
    let page = std::fs::read_to_string(folder.join("report.html"))?;
    assert!(page.contains("chosen on test") && page.contains("optimism"));
    let audit = || -> Result<String> {
        let out = coord(stage)?.args(["audit", "both"]).output()?;
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    };
    let missing = "some of their results are missing";
    let whole = audit()?;
    assert!(
        !whole.contains(missing) && !whole.contains("test-selection"),
        "{whole}"
    );
    sqlx::query("DELETE FROM result WHERE criterion = 'test:mae' AND metric = 'corr'")
        .execute(stage.store.pool())
        .await?;
    let part = audit()?;
    assert!(
        part.contains(missing) && part.contains("corr by test:mae"),
        "{part}"
    );
    Ok(())
}

fn other_sweeps_have_none(stage: &Stage) -> Result<()> {
    for flags in [&["--optimism"][..], &["--selection", "test"]] {
        let out = coord(stage)?
            .args(["table", "2", "--sweep", "valid"])
            .args(flags)
            .output()?;
        let error = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(
            !out.status.success() && error.contains("selection = \"both\""),
            "{error}"
        );
    }
    let out = coord(stage)?
        .args(["table", "2", "--optimism", "--selection", "test"])
        .output()?;
    assert!(!out.status.success(), "one or the other");
    Ok(())
}
