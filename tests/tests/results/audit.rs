//! `coord audit` on a simulated sweep: no finding on a clean one, and each planted fault found.

use anyhow::{Context as _, Result, ensure};
use halfheard_coordinator::analysis::audit;
use halfheard_e2e::{
    finished::{self, Matrix, SEEDS, measured, simulated_predictions},
    servers::Postgres,
};
use halfheard_import::import::{Request, import};
use halfheard_results::audit::{Finding, Place, Rule, Severity, classes::Splits, render};
use halfheard_shared::{
    benchmark::Benchmark,
    dataset::{DataFolder, Dataset, Kind, Split},
    ids::SweepId,
};
use halfheard_store::Store;

async fn store(postgres: &Postgres) -> Result<Store> {
    let store = Store::connect_with_retry(&postgres.url().parse()?).await?;
    store.migrate().await?;
    Ok(store)
}

fn matrix(name: &str) -> Matrix {
    let method = |id: &str| (id.to_owned(), String::new());
    Matrix {
        name: name.to_owned(),
        models: ["misa", "mmim", "almt", "lnln"].map(method).to_vec(),
        datasets: vec![Benchmark::Mosi, Benchmark::Sims],
        seeds: SEEDS.to_vec(),
    }
}

fn of(findings: &[Finding], rule: Rule) -> &Finding {
    let found = findings.iter().find(|finding| finding.rule == rule);
    found.unwrap_or_else(|| panic!("no {rule:?} among {findings:#?}"))
}

/// Runs statements that tamper with `sweep` (`$1`); each must change rows.
async fn tamper(store: &Store, sweep: SweepId, statements: &[String]) -> Result<()> {
    for statement in statements {
        let done = sqlx::query(sqlx::AssertSqlSafe(statement.clone()))
            .bind(sweep.0)
            .execute(store.pool())
            .await?;
        ensure!(done.rows_affected() > 0, "{statement}");
    }
    Ok(())
}

/// The evaluation of a seed of a method on a case of MOSI.
fn job(seed: u64, method: &str, case: &str) -> String {
    format!(
        "SELECT id FROM job WHERE sweep = $1 AND kind = 'eval' AND dataset = 'mosi'
           AND method = '{method}' AND case_id = '{case}' AND seed = {seed}"
    )
}

fn case(place: &Place) -> String {
    place.case.map(|case| case.to_string()).unwrap_or_default()
}

#[tokio::test]
async fn audit_finds_planted_results_and_nothing_in_a_clean_sweep() -> Result<()> {
    let postgres = Postgres::start()?;
    let store = store(&postgres).await?;
    let sweep = finished::simulated(&store, &matrix("clean")).await?;
    let clean = audit(&store, sweep).await?;
    let counted: Vec<&Finding> = clean.iter().filter(|finding| finding.counts()).collect();
    assert!(counted.is_empty(), "{counted:#?}");

    // A metric that differs from the predictions.
    let statement = format!(
        "UPDATE result SET value = value + 0.01
         WHERE job = ({}) AND criterion = 'acc7' AND metric = 'acc7'",
        job(1111, "misa", "r=0.3")
    );
    tamper(&store, sweep, &[statement]).await?;
    let found = audit(&store, sweep).await?;
    let wrong = of(&found, Rule::WrongResult);
    assert_eq!(wrong.severity, Severity::Error);
    assert_eq!(wrong.places.len(), 1);
    assert_eq!(case(&wrong.places[0]), "r=0.3");

    // An impossible F1, a value off its line, and a value out of range.
    let set = |value: &str, job: &str, criterion: &str, metric: &str| {
        format!(
            "UPDATE result SET value = {value}
             WHERE job IN ({job}) AND criterion = '{criterion}' AND metric = '{metric}'"
        )
    };
    let all_seeds = "SELECT id FROM job WHERE sweep = $1 AND kind = 'eval' AND dataset = 'mosi'
                       AND method = 'almt' AND case_id = 'r=0.5'";
    let statements = [
        set(
            "0.9",
            &job(1111, "mmim", "r=0.8"),
            "acc2_nonneg",
            "f1_nonneg",
        ),
        set("value + 0.4", all_seeds, "acc5", "acc5"),
        set("1.7", &job(1112, "lnln", "r=0.2"), "mae", "corr"),
    ];
    tamper(&store, sweep, &statements).await?;
    let found = audit(&store, sweep).await?;
    assert_eq!(
        of(&found, Rule::ImpossibleF1).places[0].model.method,
        "mmim"
    );
    let off = |f: &&Finding| f.rule == Rule::Trend && f.places[0].model.method == "almt";
    let trend = found.iter().find(off).context("the line is broken")?;
    assert_eq!(case(&trend.places[0]), "r=0.5");
    assert_eq!(of(&found, Rule::OutOfRange).places[0].seed, Some(1112));

    // A column of one method copied to another with its predictions: only the repetition shows it.
    let copy = |table: &str, column: &str, same: &str| {
        format!(
            "UPDATE {table} t SET {column} = o.{column}
             FROM {table} o, job a, job b
             WHERE a.sweep = $1 AND b.sweep = $1 AND a.kind = 'eval' AND b.kind = 'eval'
               AND a.dataset = 'sims' AND b.dataset = 'sims' AND a.seed = b.seed
               AND a.case_id = b.case_id AND a.method = 'lnln' AND b.method = 'almt'
               AND t.job = b.id AND o.job = a.id AND {same}"
        )
    };
    let statements = [
        copy("prediction", "data", "t.number = o.number"),
        copy(
            "result",
            "value",
            "t.criterion = o.criterion AND t.metric = o.metric",
        ),
    ];
    tamper(&store, sweep, &statements).await?;
    let found = audit(&store, sweep).await?;
    let repeated = of(&found, Rule::Repeated);
    let on_sims = |place: &Place| place.dataset == Benchmark::Sims;
    assert!(repeated.places.iter().all(on_sims), "{repeated:#?}");
    Ok(())
}

#[tokio::test]
async fn audit_finds_incomplete_conflicting_and_test_selected_jobs() -> Result<()> {
    let postgres = Postgres::start()?;
    let store = store(&postgres).await?;
    let sweep = finished::simulated(&store, &matrix("jobs")).await?;
    let bare = job(1113, "misa", "missing=a");
    let statements = [
        format!("DELETE FROM job WHERE id = ({})", job(1113, "misa", "missing=av")),
        format!("DELETE FROM result WHERE job = ({bare}) AND metric = 'mae'"),
        format!(
            "INSERT INTO conflict (job, attempt, what, kept, refused, content)
             SELECT job, id, 'evaluated', '\\x00', '\\x01', '{{}}' FROM attempt
             WHERE job = ({bare}) LIMIT 1"
        ),
        format!(
            "UPDATE prediction SET data = '\\x0000' WHERE job = ({})",
            job(1113, "mmim", "missing=l")
        ),
        "UPDATE dataset SET train_samples = 1000
         WHERE blake3 = (SELECT c.spec #>> '{data,blake3}' FROM job j JOIN config c ON c.id = j.config
                         WHERE j.sweep = $1 AND j.dataset = 'sims' LIMIT 1)"
            .to_owned(),
        "UPDATE config SET spec = jsonb_set(spec, '{protocol,selection}', '\"test\"')
         WHERE id IN (SELECT config FROM job WHERE sweep = $1 AND method = 'lnln')"
            .to_owned(),
    ];
    tamper(&store, sweep, &statements).await?;
    // The state machine has no transition from done to failed.
    let mut tx = store.pool().begin().await?;
    sqlx::query("SET LOCAL session_replication_role = replica")
        .execute(&mut *tx)
        .await?;
    let failed = job(1112, "mmim", "r=0.1");
    let statement = format!(
        "UPDATE job SET state = 'failed', last_error = 'out of memory' WHERE id = ({failed})"
    );
    sqlx::query(sqlx::AssertSqlSafe(statement))
        .bind(sweep.0)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;

    let found = audit(&store, sweep).await?;
    let incomplete = |f: &&Finding| f.rule == Rule::Incomplete && f.counts();
    let texts: Vec<&String> = found
        .iter()
        .filter(incomplete)
        .flat_map(|f| &f.numbers)
        .collect();
    for part in [
        "evaluation of seed 1112 r=0.1 failed: out of memory",
        "evaluation of seed 1113 on missing=av",
        "seed 1113 missing=a: 5 of 55 values, first mae by acc2_nonzero",
    ] {
        assert!(texts.iter().any(|text| *text == part), "{part}: {texts:#?}");
    }
    assert_eq!(case(&of(&found, Rule::Conflict).places[0]), "missing=a");
    assert_eq!(
        of(&found, Rule::SplitSize).places[0].dataset,
        Benchmark::Sims
    );
    let chosen = of(&found, Rule::TestSelection);
    assert!(
        chosen
            .places
            .iter()
            .all(|place| place.model.method == "lnln")
    );
    let unreadable = found.iter().find(|f| f.what.contains("cannot be read"));
    let unreadable = unreadable.context("predictions were damaged")?;
    assert_eq!(unreadable.places[0].model.method, "mmim");

    let text = render::render("x", &found, render::Format::Text, false);
    assert!(text.contains("error conflict: MOSI, MISA"), "{text}");
    assert!(!text.contains("errat"), "{text}");
    Ok(())
}

/// One method trained on a GPU by another version than the rest: a comparison of more than methods.
#[tokio::test]
async fn audit_finds_mixed_devices_and_versions() -> Result<()> {
    let postgres = Postgres::start()?;
    let store = store(&postgres).await?;
    let sweep = finished::simulated(&store, &matrix("mixed")).await?;
    let mixed = |found: &[Finding]| -> Vec<(Severity, String, Vec<String>)> {
        let of_rule = found.iter().filter(|f| f.rule == Rule::MixedBuilds);
        of_rule
            .map(|f| (f.severity, f.what.clone(), f.numbers.clone()))
            .collect()
    };
    assert_eq!(mixed(&audit(&store, sweep).await?), []);
    let statement = "UPDATE attempt SET device = 'NVIDIA H100', version = '1'
                     WHERE job IN (SELECT id FROM job WHERE sweep = $1 AND method = 'lnln'
                                     AND dataset = 'mosi' AND kind = 'train')";
    tamper(&store, sweep, &[statement.to_owned()]).await?;
    let found = mixed(&audit(&store, sweep).await?);
    let versions = (
        Severity::Warning,
        "its models come from different versions of the worker".to_owned(),
        vec![
            "0: 9 training jobs, 192 evaluation jobs, of all models".to_owned(),
            "1: 3 training jobs, 0 evaluation jobs, of lnln only".to_owned(),
        ],
    );
    assert!(found.contains(&versions), "{found:#?}");
    let devices = found
        .iter()
        .find(|(_, what, _)| what.contains("kinds of devices"));
    let (severity, _, numbers) = devices.context("a GPU among CPUs")?;
    assert_eq!(*severity, Severity::Warning);
    assert_eq!(
        numbers[1],
        "GPU: 3 training jobs, 0 evaluation jobs, of lnln only"
    );
    assert_eq!(found.len(), 2);

    // Numerics are a job's own.
    let statement = "UPDATE config SET spec = jsonb_set(spec, '{numerics}', '\"portable\"')
                     WHERE id IN (SELECT config FROM job WHERE sweep = $1 AND method = 'misa')";
    tamper(&store, sweep, &[statement.to_owned()]).await?;
    let found = mixed(&audit(&store, sweep).await?);
    assert!(
        found.iter().any(|(_, what, _)| what.contains("numerics")),
        "{found:#?}"
    );
    Ok(())
}

/// Constant models, and seeds without effect.
#[tokio::test]
async fn audit_finds_collapsed_models_and_identical_seeds() -> Result<()> {
    let postgres = Postgres::start()?;
    let store = store(&postgres).await?;
    let sweep = finished::fill(&store, &matrix("lazy"), |cell| {
        let mut cell = cell.clone();
        if cell.method == "mmim" {
            cell.seed = 1111;
        }
        let mut predictions = simulated_predictions(&cell, 0.5);
        if cell.method == "misa" {
            for value in &mut predictions {
                *value = 0.3 + *value * 1e-6;
            }
        }
        measured(&cell, predictions)
    })
    .await?;
    let found = audit(&store, sweep).await?;
    let collapsed: Vec<&Finding> = found.iter().filter(|f| f.rule == Rule::Collapsed).collect();
    // On each of two datasets, a warning on complete data and a note elsewhere.
    assert_eq!(collapsed.len(), 4, "{collapsed:#?}");
    assert!(
        collapsed
            .iter()
            .flat_map(|f| &f.places)
            .all(|p| p.model.method == "misa")
    );
    let same: Vec<&Finding> = found.iter().filter(|f| f.rule == Rule::SameSeeds).collect();
    assert_eq!(same.len(), 2, "{same:#?}");
    assert!(
        same.iter()
            .flat_map(|f| &f.places)
            .all(|p| p.model.method == "mmim")
    );
    assert!(same[0].numbers[0].contains("seeds 1111 and 1112 and 1113"));
    // All answers one class with nothing missing: no better than the most frequent class.
    assert_eq!(of(&found, Rule::Majority).places[0].model.method, "misa");
    Ok(())
}

/// The class counts in the audit of the published tables, on the real labels.
#[test]
fn mosi_class_counts_match_its_labels() -> Result<()> {
    let shared = std::env::var("HALFHEARD_SHARED")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared").to_owned());
    let file = std::path::Path::new(&shared).join("data/mosi_utterance_50.pkl.gz");
    if !file.is_file() {
        println!("skipped: no data/mosi_utterance_50.pkl.gz under HALFHEARD_SHARED");
        return Ok(());
    }
    let root = tempfile::tempdir()?;
    let request = Request {
        nonfinite: halfheard_import::nonfinite::NonFinite::Reference,
        reference: halfheard_import::nonfinite::Reference::Mmsa,
        file: &file,
        kind: Kind::Mosi,
        name: "mosi",
        folder: &DataFolder::new(root.path()),
        replace: false,
        max_bytes: None,
    };
    let imported = import(&request, &mut |_, _, _| ())?;
    let data = Dataset::open(&imported.path)?;
    let mut counted = Splits::default();
    counted.count(Benchmark::Mosi, data.split(Split::Test).labels());
    let published = Splits::published();
    for accuracy in ["acc2_nonzero", "acc2_nonneg"] {
        let real = counted.of(Benchmark::Mosi, accuracy);
        assert!(real.is_some());
        assert_eq!(real, published.of(Benchmark::Mosi, accuracy));
    }
    Ok(())
}
