//! Predictions of a model that was trained elsewhere: `coord cases export` gives it what workers give theirs, `coord
//! predictions import` puts it into tables, tests and reports beside them.

use anyhow::{Context as _, Result, ensure};
use halfheard_e2e::{
    programs::{coord, output},
    stage::Stage,
    tiny::Tiny,
    worker::{Act, ScriptedWorker},
};
use halfheard_shared::{
    benchmark::Benchmark,
    dataset::{Dataset, Split},
    hash::hash_file,
    metrics::evaluate,
};
use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(120);
const SPEC: &str = r#"
    name = "host"
    methods = ["almt"]
    seeds = [0]
    rates = [0.0, 0.5]
    missing = ["la"]
    epochs = 2
    [datasets.mosi]
    file = "tiny.safetensors"
    [encoders.en]
    path = "tiny-encoder"
    [hyper.almt]
    batch_size = 16
    width = 16
"#;
const CASES: [&str; 3] = ["r=0", "r=0.5", "missing=la"];

struct Host {
    stage: Stage,
    spec: PathBuf,
    data: Dataset,
}

/// A sweep that is submitted, and its dataset.
async fn host() -> Result<Host> {
    let stage = Stage::start().await?;
    Tiny::make(stage.data_dir(), 32)?;
    let spec = stage.data_dir().join("spec.toml");
    std::fs::write(&spec, SPEC)?;
    output(coord(&stage)?.arg("submit").arg(&spec))?;
    let data = Dataset::open(&stage.data_dir().join("tiny.safetensors"))?;
    Ok(Host { stage, spec, data })
}

impl Host {
    fn samples(&self) -> usize {
        self.data.split(Split::Test).len()
    }

    /// What a model says that errs by `error`.
    fn predictions(&self, error: f32) -> Vec<f32> {
        let labels = self.data.split(Split::Test).labels();
        labels.iter().map(|label| label * 0.5 + error).collect()
    }

    /// A CSV file with these predictions for every case, samples by their places.
    fn csv(&self, name: &str, predictions: &[f32], backwards: bool) -> Result<PathBuf> {
        let mut text = "sample,case,prediction\n".to_owned();
        for case in CASES {
            for i in 0..predictions.len() {
                let place = if backwards {
                    predictions.len() - 1 - i
                } else {
                    i
                };
                writeln!(text, "{place},{case},{}", predictions[place])?;
            }
        }
        let path = self.stage.data_dir().join(name);
        std::fs::write(&path, text)?;
        Ok(path)
    }

    fn import(&self, file: &Path, method: &str, more: &[&str]) -> Result<std::process::Output> {
        Ok(coord(&self.stage)?
            .args(["predictions", "import", "--method", method])
            .arg(file)
            .args(more)
            .output()?)
    }

    fn imported(&self, file: &Path, method: &str, more: &[&str]) -> Result<String> {
        let done = self.import(file, method, more)?;
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        ensure!(done.status.success(), "{said}");
        Ok(String::from_utf8(done.stdout)?)
    }

    fn refused(&self, file: &Path, method: &str, more: &[&str]) -> Result<String> {
        let done = self.import(file, method, more)?;
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        ensure!(!done.status.success(), "{file:?} is not refused");
        Ok(said)
    }

    fn shown(&self, args: &[&str]) -> Result<String> {
        output(coord(&self.stage)?.args(args))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn imported_predictions_stand_in_tables_with_the_metrics_of_the_protocol() -> Result<()> {
    let host = host().await?;
    let predictions = host.predictions(0.1);
    let file = host.csv("mine.csv", &predictions, false)?;
    let said = host.imported(&file, "my-model", &["--seed", "7"])?;
    let expected = format!(
        "my-model, seed 7, on mosi: 3 cases of {} samples imported into host",
        host.samples()
    );
    ensure!(said.starts_with(&expected), "{said}");

    // The metrics are those of the predictions.
    let labels = host.data.split(Split::Test).labels();
    for (metric, expected) in evaluate(Benchmark::Mosi, &predictions, labels)? {
        let (mean, seeds): (Option<f64>, i64) = sqlx::query_as(
            "SELECT mean, seeds_completed FROM cell
             WHERE method = 'my-model' AND case_id = 'missing=la' AND metric = $1",
        )
        .bind(&metric)
        .fetch_one(host.stage.store.pool())
        .await?;
        assert_eq!((mean, seeds), (expected, 1), "{metric}");
    }
    let table = host.shown(&["table", "9"])?;
    ensure!(
        table.contains("my-model")
            && table
                .contains("imported predictions of models that were trained elsewhere: my-model"),
        "{table}"
    );

    // In another order it is the same: nothing changes.
    let same = host.csv("same.csv", &predictions, true)?;
    let said = host.imported(&same, "my-model", &["--seed", "7"])?;
    assert_eq!(
        said.trim(),
        "my-model, seed 7, on mosi: nothing new; 3 cases unchanged"
    );
    // Other values are refused, all of them.
    let other = host.csv("other.csv", &host.predictions(0.2), false)?;
    let said = host.refused(&other, "my-model", &["--seed", "7"])?;
    ensure!(
        said.contains(
            "other predictions of my-model with seed 7 on mosi are stored for missing=la, r=0, r=0.5"
        ) && said.contains("coord predictions delete"),
        "{said}"
    );
    let stored = "SELECT count(*) FROM prediction";
    assert_eq!(host.stage.count(stored).await?, 3);
    // Another seed is another model.
    host.imported(&other, "my-model", &["--seed", "8"])?;
    assert_eq!(host.stage.count(stored).await?, 6);

    // Everything that says where numbers are from says it.
    let imported = "SELECT count(DISTINCT job) FROM provenance
                    WHERE imported AND evaluated_with LIKE 'mine.csv, BLAKE3 %'";
    assert_eq!(host.stage.count(imported).await?, 3);
    let report = host.stage.data_dir().join("report");
    output(
        coord(&host.stage)?
            .arg("report")
            .arg("--out")
            .arg(&report)
            .arg("host"),
    )?;
    let page = std::fs::read_to_string(report.join("report.html"))?;
    ensure!(page.contains("imported predictions") && page.contains("mine.csv"));
    let audit = coord(&host.stage)?.args(["audit", "host"]).output()?;
    let audit = String::from_utf8_lossy(&audit.stdout).into_owned();
    ensure!(!audit.contains("versions of the worker"), "{audit}");

    let gone = host.shown(&[
        "predictions",
        "delete",
        "--method",
        "my-model",
        "--seed",
        "8",
        "--yes",
    ])?;
    ensure!(gone.starts_with("my-model deleted from host"), "{gone}");
    assert_eq!(host.stage.count(stored).await?, 3);
    let counted = "SELECT train_jobs * 1000 + eval_jobs FROM sweep";
    assert_eq!(host.stage.count(counted).await?, 2 * 1000 + 6);
    Ok(())
}

/// A sweep with imported predictions is worked on and finished like any other, and two sweeps share an imported model.
#[tokio::test(flavor = "multi_thread")]
async fn sweep_with_imported_predictions_is_computed_like_any_other() -> Result<()> {
    let host = host().await?;
    let file = host.csv("mine.csv", &host.predictions(0.1), false)?;
    host.imported(&file, "my-model", &[])?;
    let _coordinator = host.stage.serve();
    let _worker = ScriptedWorker::start(&host.stage.broker, "w", Arc::new(|_, _| Act::Complete));
    let sweep = host.stage.store.find_sweep("host").await?;
    let progress = host.stage.finished(sweep.id, PATIENCE).await?;
    assert_eq!((progress.done, progress.failed), (8, 0));
    let compared = host.shown(&["compare", "my-model", "almt", "--draws", "100"])?;
    ensure!(compared.contains("my-model"), "{compared}");

    // Another sweep with the same data and protocol: the same results, once.
    let second = host.stage.data_dir().join("second.toml");
    std::fs::write(
        &second,
        SPEC.replace("\"host\"", "\"second\"")
            .replace("[0]", "[0, 1]"),
    )?;
    output(coord(&host.stage)?.arg("submit").arg(&second))?;
    let said = host.imported(&file, "my-model", &["--sweep", "second"])?;
    ensure!(said.contains("nothing new; 3 cases unchanged"), "{said}");
    let second = host.stage.store.find_sweep("second").await?;
    let progress = host.stage.finished(second.id, PATIENCE).await?;
    assert_eq!((progress.done, progress.failed), (12, 0));
    assert_eq!(
        host.stage
            .count("SELECT count(*) FROM job WHERE method = 'my-model'")
            .await?,
        4
    );
    // Deleted from the one, it stays in the other.
    host.shown(&[
        "predictions",
        "delete",
        "--method",
        "my-model",
        "--sweep",
        "host",
        "--yes",
    ])?;
    let left = "SELECT count(*) FROM sweep_job w JOIN job j ON j.id = w.job
                WHERE j.method = 'my-model' AND j.sweep = w.sweep";
    assert_eq!(host.stage.count(left).await?, 4);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn predictions_that_do_not_fit_are_refused_whole() -> Result<()> {
    let host = host().await?;
    let folder = host.stage.data_dir().to_owned();
    let n = host.samples();
    let refused = |name: &str, text: &str, more: &[&str]| -> Result<String> {
        let path = folder.join(name);
        std::fs::write(&path, text)?;
        host.refused(&path, "my-model", more)
    };
    let rows = |case: &str, skip: usize| -> String {
        let rows = (0..n).filter(|i| *i != skip);
        rows.map(|i| format!("{i},{case},0.5\n")).collect()
    };
    let head = "sample,case,prediction\n";
    let said = refused("a.csv", &format!("{head}{}", rows("r=0", 3)), &[])?;
    ensure!(
        said.contains(&format!("1 of {n} samples are missing")),
        "{said}"
    );
    let said = refused(
        "b.csv",
        &format!("{head}{}{n},r=0,1\n", rows("r=0", n)),
        &[],
    )?;
    ensure!(said.contains(&format!("unknown sample `{n}`")), "{said}");
    let said = refused("c.csv", &format!("{head}{}", rows("r=0.9", n)), &[])?;
    ensure!(
        said.contains("does not evaluate r=0.9 on mosi; its cases are r=0, r=0.5, missing=la"),
        "{said}"
    );
    let all = format!("{head}{}", rows("r=0", n));
    let said = refused("d.csv", &all.replace("0.5\n", "nan\n"), &[])?;
    ensure!(said.contains("not a finite number"), "{said}");
    let said = refused("e.csv", &all, &["--dataset", "sims"])?;
    ensure!(
        said.contains("no jobs on a dataset `sims`; it has mosi"),
        "{said}"
    );
    let said = refused("f.txt", &all, &[])?;
    ensure!(said.contains("name it .csv, .parquet or .npz"), "{said}");
    let known = host.refused(&folder.join("a.csv"), "lnln", &[])?;
    ensure!(known.contains("`lnln` is LNLN"), "{known}");
    assert_eq!(
        host.stage.count("SELECT count(*) FROM prediction").await?,
        0
    );
    assert_eq!(host.stage.count("SELECT count(*) FROM job").await?, 4);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn exported_cases_are_listed_with_their_hashes() -> Result<()> {
    let host = host().await?;
    let out = host.stage.data_dir().join("cases");
    let spec = host.spec.display().to_string();
    let out_text = out.display().to_string();
    let json = host.shown(&["cases", "export", &spec, "--out", &out_text, "--json"])?;
    let said: serde_json::Value = serde_json::from_str(&json)?;
    let manifest: serde_json::Value =
        serde_json::from_slice(&std::fs::read(out.join("manifest.json"))?)?;
    assert_eq!(said, manifest);
    let files = manifest["files"].as_array().context("files")?;
    // Three cases of the test split and one of the validation split, in two formats.
    assert_eq!(files.len(), 8);
    for file in files {
        let path = out.join(file["path"].as_str().context("a path")?);
        assert_eq!(
            hash_file(&path)?.as_str(),
            file["blake3"].as_str().context("a hash")?
        );
    }
    // Never among other files, and only what there is.
    for (args, wrong) in [
        (vec!["--out", &out_text], "is not empty"),
        (
            vec!["--out", "x", "--case", "r=0.7"],
            "the spec has no case r=0.7",
        ),
        (
            vec!["--out", "x", "--dataset", "sims"],
            "the spec has no dataset `sims`",
        ),
    ] {
        let refused = coord(&host.stage)?
            .args(["cases", "export", &spec])
            .args(args)
            .output()?;
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        ensure!(
            refused.status.code() == Some(1) && said.contains(wrong),
            "{said}"
        );
    }
    Ok(())
}
