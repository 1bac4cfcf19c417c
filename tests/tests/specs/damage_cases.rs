//! Every kind of case on a real broker, database and worker, by a method and by a program: rows, views,
//! tables, the reliance report, files for others, and the same numbers when all is computed again.

use anyhow::{Context as _, Result, ensure};
use halfheard_e2e::{PATIENCE, programs::output, site::Site};
use serde_json::Value;
use sqlx::Row as _;
use std::collections::{BTreeMap, BTreeSet};

const SPEC: &str = r#"
name = "cases"
methods = ["almt", "mean"]
seeds = [1, 2]
rates = [0.0, 0.5]
missing = ["l", "a", "v"]
epochs = 3
CASES
[datasets.mosi]
file = "tiny.safetensors"
[encoders.en]
path = "tiny-encoder"
[hyper.almt]
batch_size = 16
width = 16
learning_rate = 1e-2
[[external]]
id = "mean"
command = ["python3", "mean.py"]
files = ["mean.py"]
hyper = { sleep = 0.0, rate = 0.4 }
"#;

const CASES: &str = r#"
cases = [
    "r=0.5+missing=a", "mr=0.5", "l=0.7,a=0.1,v=0.3", "block=0.5", "bursts=0.5", "asr=0.8", "noise=2",
    "permuted=l", "permuted=a", "permuted=v", "averaged=a", "averaged=v", "r=0.3@7",
]
erasure_seeds = [1112]
confusions = { en = "heard.tsv" }
"#;

/// Cases of the spec, and those of them that are drawn, by the sweep's own mask.
const ALL: usize = 2 + 3 + 13;
const DRAWN: usize = 11;
/// Two methods, two seeds.
const MODELS: usize = 4;

/// A site whose encoder has a vocabulary, with a table of words that are heard as others.
fn site() -> Result<Site> {
    let site = Site::start()?;
    let special = ["[UNK]", "[CLS]", "[SEP]", "[MASK]"];
    let token = |id: usize| match id {
        0 => "[PAD]".to_owned(),
        100..=103 => special[id - 100].to_owned(),
        _ => format!("w{id}"),
    };
    let vocabulary: Vec<String> = (0..200).map(token).collect();
    let write = |name: &str, text: &str| std::fs::write(site.folder().join(name), text);
    write("tiny-encoder/vocab.txt", &(vocabulary.join("\n") + "\n"))?;
    let heard = (104..199).map(|id| format!("w{id}\tw{}\n", id + 1));
    write("heard.tsv", &heard.collect::<String>())?;
    write("mean.py", include_str!("../../data/external/mean.py"))?;
    write("cases.toml", &SPEC.replace("CASES", CASES))?;
    let plain = SPEC.replace("CASES", "").replace("\"cases\"", "\"plain\"");
    write("plain.toml", &plain)?;
    Ok(site)
}

/// By method, seed, case and metric, the value of a sweep.
type Values = BTreeMap<(String, i64, String, String), Option<f64>>;

async fn values(site: &Site, sweep: &str) -> Result<Values> {
    let store = site.store().await?;
    let rows = sqlx::query(
        "SELECT method, seed, case_id, metric, value FROM measurement m
         WHERE m.sweep = (SELECT id FROM sweep WHERE id::text = $1 OR name = $1
                          ORDER BY created LIMIT 1) AND state = 'done'",
    )
    .bind(sweep)
    .fetch_all(store.pool())
    .await?;
    let rows = rows.iter();
    Ok(rows
        .map(|row| ((row.get(0), row.get(1), row.get(2), row.get(3)), row.get(4)))
        .collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_case_is_evaluated_shown_and_repeated() -> Result<()> {
    let site = site()?;
    let plan = output(&mut site.coord(&["plan", "cases.toml"])?)?;
    ensure!(
        plan.contains("% of the tokens of mosi's test texts can be misheard"),
        "{plan}"
    );
    let submitted = site.json(&["submit", "cases.toml"])?;
    assert_eq!(
        submitted["jobs"]["eval"],
        MODELS * (ALL + DRAWN),
        "{submitted}"
    );
    let coordinator = site.serve()?;
    let mut worker = site.worker("w")?;
    worker.args(["--slots", "2", "--allow-external"]);
    let worker = halfheard_e2e::programs::Process::spawn(&mut worker)?;
    assert_eq!(site.finished().await? as usize, MODELS * (1 + ALL + DRAWN));

    each_damage_changes_predictions(&site).await?;
    views_keep_masks_apart(&site).await?;
    tables_show_cases_masks_and_curves(&site)?;
    reliance_is_the_difference_of_cells(&site).await?;
    files_are_exported_for_every_case(&site)?;
    audit_and_report_take_every_case(&site)?;
    table_of_confusions_is_needed_data(&site).await?;

    // What a sweep without new cases asks for is done, and its tables do not know of them.
    let plain = site.json(&["submit", "plain.toml"])?;
    assert_eq!(plain["new_jobs"]["eval"], 0, "{plain}");
    assert_eq!(site.tables("cases")?, site.tables("plain")?);
    plain_sweep_says_what_is_not_measured(&site)?;

    // Everything anew.
    let first = values(&site, "cases").await?;
    let again = site.json(&["submit", "cases.toml", "--new"])?;
    site.finished().await?;
    let id = again["sweep"].as_str().context("an id")?;
    let second = values(&site, id).await?;
    assert_eq!(first.len(), MODELS * (ALL + DRAWN) * METRICS);
    assert_eq!(first, second);
    ensure!(worker.terminate(PATIENCE)?.success());
    ensure!(coordinator.terminate(PATIENCE)?.success());
    Ok(())
}

/// Of MOSI.
const METRICS: usize = 11;

/// What each case predicts differs from what the complete split does and from every other case, but where
/// the program reads no text.
async fn each_damage_changes_predictions(site: &Site) -> Result<()> {
    let store = site.store().await?;
    let rows: Vec<(String, String, Vec<u8>)> = sqlx::query_as(
        "SELECT j.method, j.case_id, p.data FROM job j
         JOIN evaluation e ON e.job = j.id AND e.criterion = 'mae'
         JOIN prediction p ON p.job = j.id AND p.number = e.prediction WHERE j.seed = 1",
    )
    .fetch_all(store.pool())
    .await?;
    let mut distinct: BTreeMap<&str, BTreeSet<&[u8]>> = BTreeMap::new();
    for (method, _, data) in &rows {
        distinct.entry(method).or_default().insert(data);
    }
    assert_eq!(rows.len(), 2 * (ALL + DRAWN));
    assert_eq!(distinct["almt"].len(), ALL + DRAWN);
    // r=0, missing=l, asr and permuted=l with their two masks are one to it.
    let unread = [
        "r=0",
        "missing=l",
        "asr=0.8",
        "asr=0.8@1112",
        "permuted=l",
        "permuted=l@1112",
    ];
    assert_eq!(distinct["mean"].len(), ALL + DRAWN - unread.len() + 1);
    let of = |case: &str| rows.iter().find(|row| row.0 == "mean" && row.1 == case);
    for case in unread {
        let (one, complete) = (of(case).context("a case")?, of("r=0").context("r=0")?);
        assert_eq!(one.2, complete.2, "{case}");
    }
    Ok(())
}

async fn views_keep_masks_apart(site: &Site) -> Result<()> {
    let store = site.store().await?;
    let cells: Vec<(String, String, Option<i64>, f64)> = sqlx::query_as(
        "SELECT case_id, kind, mask, mean FROM cell WHERE method = 'almt' AND metric = 'mae'",
    )
    .fetch_all(store.pool())
    .await?;
    let kinds: BTreeSet<&str> = cells.iter().map(|cell| cell.1.as_str()).collect();
    assert_eq!(
        Vec::from_iter(kinds),
        [
            "asr",
            "averaged",
            "block",
            "bursts",
            "l,a,v",
            "missing",
            "mr",
            "noise",
            "permuted",
            "r",
            "r+missing"
        ]
    );
    assert_eq!(
        cells.iter().filter(|cell| cell.2 == Some(1112)).count(),
        DRAWN
    );
    let mean = |case: &str| {
        let found = cells.iter().find(|cell| cell.0 == case);
        found.map(|cell| cell.3).context(case.to_owned())
    };
    let overall: f64 = sqlx::query_scalar(
        "SELECT mean FROM table_overall WHERE method = 'almt' AND metric = 'mae'",
    )
    .fetch_one(store.pool())
    .await?;
    assert_eq!(overall, (mean("r=0")? + mean("r=0.5")?) / 2.0);
    let row = sqlx::query(
        "SELECT mean, mask_std, seed_std, masks_completed, masks_expected, seeds_expected
         FROM mask_spread WHERE method = 'almt' AND metric = 'mae' AND case_id = 'block=0.5'",
    )
    .fetch_one(store.pool())
    .await?;
    let (one, other) = (mean("block=0.5")?, mean("block=0.5@1112")?);
    let close = |a: f64, b: f64| (a - b).abs() < 1e-12;
    ensure!(close(row.get(0), f64::midpoint(one, other)));
    ensure!(close(row.get(1), (one - other).abs() / 2f64.sqrt()) && one != other);
    ensure!(row.get::<f64, _>(2) > 0.0);
    let counts = [3, 4, 5].map(|column| row.get::<i64, _>(column));
    assert_eq!(counts, [2, 2, 2]);
    let rates: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM table_rate WHERE method = 'almt' AND metric = 'mae'",
    )
    .fetch_one(store.pool())
    .await?;
    assert_eq!(rates, 2);
    Ok(())
}

fn tables_show_cases_masks_and_curves(site: &Site) -> Result<()> {
    let table = site.json(&["table", "cases", "--sweep", "cases"])?;
    let blocks = table["blocks"].as_array().context("blocks")?;
    // By damage: of a mask that is listed itself, its own.
    assert_eq!(blocks.len(), ALL);
    let block = |case: &str| {
        let mut blocks = blocks.iter();
        blocks
            .find(|block| block["case"] == case)
            .context(case.to_owned())
    };
    let label = |case: &str| -> Result<Value> {
        Ok(block(case)?["rows"][0]["companions"][0]["label"].clone())
    };
    assert_eq!(label("mr=0.5")?, "over 2 masks");
    assert_eq!(label("averaged=a")?, Value::Null);
    assert_eq!(label("r=0.3@7")?, Value::Null);
    let text = output(&mut site.coord(&["table", "cases", "--sweep", "cases"])?)?;
    println!("{text}");
    ensure!(
        text.contains("permuted audio") && text.contains("l=0.7,a=0.1,v=0.3"),
        "{text}"
    );

    let curves = site.json(&["table", "curves", "--sweep", "cases"])?;
    let rows = curves["blocks"][0]["rows"].as_array().context("rows")?;
    let labels: Vec<&str> = rows
        .iter()
        .filter_map(|row| row["label"].as_str())
        .collect();
    let expected = [
        "asr 0–0.8",
        "block 0–0.5",
        "bursts 0–0.5",
        "mr 0–0.5",
        "noise 0–2",
        "r 0–0.5",
        "r+missing=a 0–0.5",
    ];
    let expected = expected
        .iter()
        .flat_map(|curve| [format!("ALMT, {curve}"), format!("mean, {curve}")]);
    assert_eq!(labels, expected.collect::<Vec<_>>());
    Ok(())
}

async fn reliance_is_the_difference_of_cells(site: &Site) -> Result<()> {
    let report = site.json(&["reliance", "cases", "--draws", "200"])?;
    assert_eq!(report["not_measured"], Value::Array(Vec::new()));
    let changes = report["changes"].as_array().context("changes")?;
    // Three modalities in three ways, but for the mean of text.
    let each = 8;
    assert_eq!(changes.len(), 2 * each * METRICS);
    let store = site.store().await?;
    let cells: BTreeMap<(String, String, String), Option<f64>> = sqlx::query_as(
        "SELECT method, case_id, metric, mean FROM cell
         WHERE sweep = (SELECT id FROM sweep WHERE name = 'cases')",
    )
    .fetch_all(store.pool())
    .await?
    .into_iter()
    .map(|(method, case, metric, mean)| ((method, case, metric), mean))
    .collect();
    for change in changes {
        let text = |key: &str| change[key].as_str().unwrap_or_default().to_owned();
        let (method, case, metric) = (text("method"), text("case"), text("metric"));
        let number = |key: &str| change[key].as_f64().context(format!("{key} of {change}"));
        let cell = |case: String| -> Result<f64> {
            let found = cells.get(&(method.clone(), case, metric.clone()));
            found.copied().flatten().context("a cell")
        };
        let masks = match case.starts_with("permuted") {
            true => vec![case.clone(), format!("{case}@1112")],
            false => vec![case.clone()],
        };
        let count = masks.len() as f64;
        let damaged = masks.into_iter().map(cell).sum::<Result<f64>>()? / count;
        let expected = damaged - cell("r=0".to_owned())?;
        ensure!((number("change")? - expected).abs() < 1e-9, "{change}");
        assert_eq!(
            (change["seeds"].as_i64(), number("masks")?),
            (Some(2), count)
        );
        let of = |i: usize| {
            change["interval"][i]
                .as_f64()
                .context(format!("no interval: {change}"))
        };
        if metric == "laziness" {
            // Not a function of sums over samples: it is not resampled.
            assert_eq!(change["interval"], Value::Null);
        } else if case.ends_with("=l") && method == "mean" {
            // It reads no text.
            assert_eq!((number("change")?, of(0)?, of(1)?), (0.0, 0.0, 0.0));
        } else if method == "mean" && metric == "mae" {
            // It has learned from both: without one of them it errs by more.
            ensure!(number("change")? > 0.0 && of(0)? < of(1)?, "{change}");
        }
    }
    let text = output(&mut site.coord(&["reliance", "cases", "--draws", "200"])?)?;
    println!("{text}");
    ensure!(
        text.contains("averaged vision") && text.contains("95 % interval"),
        "{text}"
    );
    let csv = output(&mut site.coord(&["reliance", "--format", "csv", "--draws", "200"])?)?;
    assert_eq!(csv.lines().count(), 1 + changes.len());
    Ok(())
}

/// What a program or a person is given is what the worker computes with.
fn files_are_exported_for_every_case(site: &Site) -> Result<()> {
    let args = [
        "cases",
        "export",
        "cases.toml",
        "--out",
        "files",
        "--format",
        "safetensors",
    ];
    let manifest = site.json(&args)?;
    let files = manifest["files"].as_array().context("files")?;
    // And the split that checkpoints are selected on.
    assert_eq!(files.len(), ALL + DRAWN + 1);
    let hashes: BTreeSet<&str> = files
        .iter()
        .filter_map(|file| file["blake3"].as_str())
        .collect();
    assert_eq!(hashes.len(), files.len(), "no two are alike");
    Ok(())
}

fn audit_and_report_take_every_case(site: &Site) -> Result<()> {
    let out = site.coord(&["audit", "cases", "--json"])?.output()?;
    let found: Value = serde_json::from_slice(&out.stdout)
        .with_context(|| String::from_utf8_lossy(&out.stderr).into_owned())?;
    let findings = found["findings"].as_array().context("findings")?;
    let errors = findings
        .iter()
        .filter(|finding| finding["severity"] == "error");
    assert_eq!(errors.count(), 0, "{found:#}");
    output(&mut site.coord(&["report", "cases", "--out", "report", "--draws", "100"])?)?;
    Ok(())
}

async fn table_of_confusions_is_needed_data(site: &Site) -> Result<()> {
    let store = site.store().await?;
    let tables: Vec<String> =
        sqlx::query_scalar("SELECT DISTINCT confusions FROM job WHERE confusions IS NOT NULL")
            .fetch_all(store.pool())
            .await?;
    let [table] = &tables[..] else {
        anyhow::bail!("{tables:?}");
    };
    ensure!(store.needed_data().await?.contains(table));
    ensure!(site.artifacts().join("blobs").join(table).exists());
    let others: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM job WHERE confusions IS NOT NULL AND case_id NOT LIKE 'asr=%'",
    )
    .fetch_one(store.pool())
    .await?;
    assert_eq!(others, 0);
    Ok(())
}

fn plain_sweep_says_what_is_not_measured(site: &Site) -> Result<()> {
    let report = site.json(&["reliance", "plain"])?;
    let named: Vec<&str> = report["not_measured"]
        .as_array()
        .context("a list")?
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let expected = [
        "permuted=l",
        "permuted=a",
        "averaged=a",
        "permuted=v",
        "averaged=v",
    ];
    assert_eq!(named, expected);
    let text = output(&mut site.coord(&["reliance", "plain"])?)?;
    ensure!(
        text.contains("add `cases = [\"permuted=l\", \"permuted=a\""),
        "{text}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn case_that_cannot_be_made_is_refused_at_plan() -> Result<()> {
    let site = site()?;
    let refused = |from: &str, to: &str| -> Result<String> {
        let text = SPEC.replace("CASES", CASES).replace(from, to);
        std::fs::write(site.folder().join("bad.toml"), text)?;
        let out = site.coord(&["plan", "bad.toml"])?.output()?;
        ensure!(!out.status.success());
        let error = String::from_utf8_lossy(&out.stderr);
        // A report breaks lines to the width of the terminal.
        Ok(error
            .split_whitespace()
            .filter(|word| *word != "│")
            .collect::<Vec<_>>()
            .join(" "))
    };
    let error = refused("heard.tsv", "gone.tsv")?;
    ensure!(error.contains("cannot read the confusion table"), "{error}");
    // The tiny vocabulary has no English words.
    let error = refused("heard.tsv", "builtin")?;
    ensure!(error.contains("none is a pair of single tokens"), "{error}");
    std::fs::remove_file(site.folder().join("tiny-encoder/vocab.txt"))?;
    let error = refused("epochs = 3", "epochs = 4")?;
    ensure!(
        error.contains("vocab.txt, vocab.json and tokenizer.json"),
        "{error}"
    );
    let error = refused("\"mr=0.5\"", "\"mr=0.9\"")?;
    ensure!(
        error.contains("one modality of each sample is kept"),
        "{error}"
    );
    Ok(())
}
