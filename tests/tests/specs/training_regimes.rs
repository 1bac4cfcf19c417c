//! Models of one sweep under regimes, faults and files of their own: what is trained, and where it is
//! said.

use anyhow::{Context as _, Result, ensure};
use halfheard_e2e::{
    PATIENCE,
    programs::{Process, output},
    site::Site,
};
use serde_json::{Value, json};
use sqlx::Row as _;

const SPEC: &str = r#"
name = "regimes"
methods = ["almt", "almt/complete", "almt/loader", "almt/fixed", "almt/aligned", "almt/switched"]
seeds = [1]
rates = [0.0, 0.5]
epochs = 2
[datasets.mosi]
file = "tiny.safetensors"
[encoders.en]
path = "tiny-encoder"
[hyper.almt]
batch_size = 8
width = 16
learning_rate = 1e-2
[method."almt/aligned"]
files = { mosi = "aligned.safetensors" }
[[variant]]
id = "almt/complete"
train_missing = "complete"
[[variant]]
id = "almt/loader"
train_missing = "lnln-loader"
[[variant]]
id = "almt/fixed"
train_missing = "fixed:0.2"
[[variant]]
id = "almt/aligned"
[[variant]]
id = "almt/switched"
faults = { repeated-numbers = false }
"#;

const SELECTION: &str = "checkpoints selected on the validation split at the missing rate 0.5 (erasure \
                         seed 1111); methods follow the reference code";
const TRAINING: &str = "trained on data erased anew in every epoch (ALMT, ALMT/aligned, ALMT/switched); \
                        complete data (ALMT/complete); data erased as by the loader of LNLN's authors \
                        (ALMT/loader); data erased once at the rate 0.2 (ALMT/fixed)";
const SWITCHED: &str = "faults of references corrected: repeated-numbers (ALMT/switched)";

#[tokio::test(flavor = "multi_thread")]
async fn regimes_faults_and_files_of_single_models_are_trained_and_said() -> Result<()> {
    let site = Site::start()?;
    halfheard_tiny::aligned(&site.folder().join("aligned.safetensors"), 48)?;
    std::fs::write(site.folder().join("regimes.toml"), SPEC)?;
    let plan = output(&mut site.coord(&["plan", "regimes.toml"])?)?;
    for line in [SELECTION, TRAINING, SWITCHED] {
        ensure!(plan.contains(line), "{plan}");
    }
    let planned = site.json(&["plan", "regimes.toml"])?;
    assert_eq!(planned["protocols"].as_array().context("a list")?.len(), 5);
    assert_eq!(planned["notes"], json!([]), "{planned}");
    // The model of the longer file is larger.
    let bytes = |model: &str| {
        let slots = planned["memory"]["slots"].as_array()?;
        slots.iter().find(|slot| slot["method"] == model)?["bytes"].as_u64()
    };
    let (plain, aligned) = (bytes("almt/complete"), bytes("almt/aligned"));
    ensure!(plain.is_some() && plain < aligned, "{planned}");

    // `--push`: both files go to the artifact store.
    output(&mut site.coord(&["submit", "regimes.toml", "--push"])?)?;
    std::fs::remove_file(site.folder().join("aligned.safetensors"))?;
    let coordinator = site.serve()?;
    let worker = Process::spawn(&mut site.worker("w")?)?;
    assert_eq!(site.finished().await?, 6 * 3);
    every_model_is_another(&site).await?;
    database_tells_them_apart(&site).await?;

    let status = output(&mut site.coord(&["status", "regimes"])?)?;
    let table = output(&mut site.coord(&["table", "9", "--sweep", "regimes"])?)?;
    for text in [&status, &table] {
        for models in [
            "(ALMT/complete)",
            "(ALMT/loader)",
            "(ALMT/fixed)",
            "(ALMT/switched)",
        ] {
            ensure!(text.contains(models), "{models}: {text}");
        }
        ensure!(
            text.contains(SELECTION) && text.contains(SWITCHED),
            "{text}"
        );
    }
    comparisons_say_what_differs_beside_the_model(&site)?;
    // It has findings, so it does not exit with 0.
    let audit = site.coord(&["audit", "regimes", "--json"])?.output()?;
    let audit: Value = serde_json::from_slice(&audit.stdout)?;
    let findings = audit["findings"].as_array().context("findings")?;
    let files = |finding: &&Value| finding["what"].to_string().contains("different files");
    let found = findings
        .iter()
        .find(files)
        .context("a finding about files")?;
    assert_eq!(found["severity"], "note", "{found}");
    ensure!(worker.terminate(PATIENCE)?.success());
    ensure!(coordinator.terminate(PATIENCE)?.success());
    Ok(())
}

/// The same weights to start from and the same order of samples: only what training sees differs.
async fn every_model_is_another(site: &Site) -> Result<()> {
    let store = site.store().await?;
    let rows = sqlx::query(
        "SELECT j.variant, k.blake3 FROM checkpoint k JOIN job j ON j.id = k.job
         WHERE k.criterion = 'mae' ORDER BY 1",
    );
    let rows = rows.fetch_all(store.pool()).await?;
    let mut hashes: Vec<String> = rows.iter().map(|row| row.get(1)).collect();
    assert_eq!(hashes.len(), 6);
    hashes.sort();
    hashes.dedup();
    assert_eq!(
        hashes.len(),
        6,
        "each regime, file and switch makes another model"
    );
    store.pool().close().await;
    Ok(())
}

async fn database_tells_them_apart(site: &Site) -> Result<()> {
    let store = site.store().await?;
    let rows = sqlx::query(
        "SELECT train_missing, switched, methods, selection_rate, erasure_seed, models
         FROM sweep_protocol ORDER BY train_missing, switched",
    );
    let protocols: Vec<(String, Vec<String>, Vec<String>)> = rows
        .fetch_all(store.pool())
        .await?
        .iter()
        .map(|row| {
            assert_eq!((row.get::<f64, _>(3), row.get::<i64, _>(4)), (0.5, 1111));
            let methods: Vec<String> = row.get(2);
            assert_eq!(row.get::<i64, _>(5), methods.len() as i64);
            (row.get(0), row.get(1), methods)
        })
        .collect();
    let list = |ids: &[&str]| -> Vec<String> { ids.iter().map(ToString::to_string).collect() };
    let expected = [
        ("complete", list(&[]), list(&["almt/complete"])),
        ("fixed:0.2", list(&[]), list(&["almt/fixed"])),
        ("lnln-loader", list(&[]), list(&["almt/loader"])),
        ("redrawn", list(&[]), list(&["almt", "almt/aligned"])),
        (
            "redrawn",
            list(&["repeated-numbers"]),
            list(&["almt/switched"]),
        ),
    ];
    let expected = expected.map(|(regime, faults, methods)| (regime.to_owned(), faults, methods));
    assert_eq!(protocols, expected);
    let rows = sqlx::query(
        "SELECT variant, train_missing, switched FROM provenance
         WHERE criterion = 'mae' AND case_id = 'r=0' ORDER BY variant",
    );
    let rows = rows.fetch_all(store.pool()).await?;
    let of: Vec<(String, String, Vec<String>)> = rows
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2)))
        .collect();
    assert_eq!(of.len(), 6);
    assert_eq!(
        (of[4].0.as_str(), of[4].1.as_str()),
        ("loader", "lnln-loader")
    );
    assert_eq!(of[5].2, ["repeated-numbers"]);
    store.pool().close().await;
    Ok(())
}

fn comparisons_say_what_differs_beside_the_model(site: &Site) -> Result<()> {
    let compare = |a: &str, b: &str| site.json(&["compare", a, b, "--draws", "100"]);
    let regimes = compare("almt/complete", "almt/fixed")?;
    assert_eq!(
        regimes["differences"],
        json!([
            "trained under different regimes: A on complete data, B on data erased once at the rate 0.2"
        ])
    );
    let faults = compare("almt", "almt/switched")?;
    assert_eq!(
        faults["differences"],
        json!(["the fault repeated-numbers: A keeps it, B corrects it"])
    );
    assert_eq!(compare("almt", "almt/aligned")?["differences"], json!([]));
    let text = output(&mut site.coord(&["compare", "almt", "almt/loader", "--draws", "100"])?)?;
    ensure!(
        text.contains("note: trained under different regimes"),
        "{text}"
    );
    Ok(())
}
