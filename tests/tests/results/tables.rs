//! Every table of a finished sweep, in every format, beside other numbers; comparisons of models.
//! The sweep is simulated: models are known to be better or worse than each other.
#![expect(clippy::unwrap_used, reason = "a test ends where something is wrong")]

use halfheard_coordinator::analysis::resample;
use halfheard_e2e::{
    finished::{self, Matrix},
    servers::Postgres,
};
use halfheard_results::{
    statistics::{
        bootstrap::BootstrapOptions,
        compare::{Compared, Side, compare},
    },
    tables::{
        CompanionValue, Table, comparison, derived, layout, paper, protocols,
        render::{Format, render},
    },
};
use halfheard_shared::{
    benchmark::Benchmark,
    case::{Case, CaseKind},
    ids::SweepId,
    metrics,
    results::{Filter, Model, Results, Wanted},
};
use halfheard_store::{Store, results};
use std::{collections::BTreeMap, process::Command};

struct Scene {
    store: Store,
    sweep: SweepId,
    _postgres: Postgres,
}

/// Methods and all ablations of the paper on MOSI and SIMS, two seeds.
async fn scene() -> Scene {
    let postgres = Postgres::start().unwrap();
    let store = Store::connect_with_retry(&postgres.url().parse().unwrap())
        .await
        .unwrap();
    store.migrate().await.unwrap();
    let mut models = finished::paper_methods();
    for number in 4..=7 {
        for benchmark in [Benchmark::Mosi, Benchmark::Sims] {
            for model in layout::listed_rows(number, benchmark) {
                let model = (model.method, model.variant);
                if !models.contains(&model) {
                    models.push(model);
                }
            }
        }
    }
    let matrix = Matrix {
        name: "simulated".to_owned(),
        models,
        datasets: vec![Benchmark::Mosi, Benchmark::Sims],
        seeds: vec![1111, 1112],
    };
    let sweep = finished::simulated(&store, &matrix).await.unwrap();
    Scene {
        store,
        sweep,
        _postgres: postgres,
    }
}

impl Scene {
    async fn results(&self) -> Results {
        results::load(&self.store, self.sweep, Wanted::default())
            .await
            .unwrap()
    }

    async fn table(&self, number: u8) -> Table {
        let layout = layout::find(number).unwrap();
        paper::table(&self.results().await, layout, false)
    }
}

#[tokio::test]
async fn tables_comparisons_and_intervals() {
    let scene = scene().await;
    every_table_in_every_format(&scene).await;
    deviations_are_those_of_a_2(&scene).await;
    published_numbers_stand_below_ours(&scene).await;
    intervals_hold_the_means(&scene).await;
    the_better_model_is_found(&scene).await;
    tables_that_the_paper_lacks(&scene).await;
    latex_compiles(&scene).await;
    the_order_of_arrival_does_not_matter(&scene).await;
    the_notes_say_what_training_saw(&scene).await;
}

/// A sweep that was trained on complete data does not look like one that was trained on erased data.
async fn the_notes_say_what_training_saw(scene: &Scene) {
    let notes = scene.table(2).await.notes.join("\n");
    let selected = "checkpoints selected on the validation split at the missing rate 0.5 (erasure seed \
                    1111); methods follow the reference code\n";
    assert!(notes.contains(selected), "{notes}");
    assert!(
        notes.contains("\ntrained on data erased anew in every epoch\n"),
        "{notes}"
    );
    assert!(!notes.contains("faults of references"), "{notes}");
    let set = |protocol: &'static str, of: &'static str| {
        let sql = format!(
            "UPDATE config SET spec = jsonb_set(spec, '{{protocol}}', spec -> 'protocol' || '{protocol}') WHERE {of}"
        );
        let pool = scene.store.pool().clone();
        async move {
            sqlx::query(sqlx::AssertSqlSafe(sql))
                .execute(&pool)
                .await
                .unwrap()
        }
    };
    set(r#"{"train_missing": "complete"}"#, "true").await;
    let notes = scene.table(2).await.notes.join("\n");
    assert!(notes.contains("\ntrained on complete data\n"), "{notes}");
    // Where methods differ, those that are otherwise are named.
    let otherwise = r#"{"train_missing": "fixed:0.2", "switched": ["grl-on-proxy"]}"#;
    set(
        otherwise,
        "spec ->> 'method' = 'lnln' AND spec ->> 'variant' = ''",
    )
    .await;
    let notes = scene.table(2).await.notes.join("\n");
    assert!(
        notes.contains("\ntrained on complete data; data erased once at the rate 0.2 (LNLN)\n"),
        "{notes}"
    );
    assert!(
        notes.contains("\nfaults of references corrected: grl-on-proxy (LNLN)\n"),
        "{notes}"
    );
    provenance_has_the_regime(scene).await;
}

async fn provenance_has_the_regime(scene: &Scene) {
    let wanted = Wanted {
        provenance: true,
        ..Wanted::default()
    };
    let results = results::load(&scene.store, scene.sweep, wanted)
        .await
        .unwrap();
    let facts: Vec<(&str, &str, bool)> = results
        .provenance
        .iter()
        .filter(|fact| fact.name.contains("regime") || fact.name.contains("faults"))
        .map(|fact| {
            (
                fact.name.as_str(),
                fact.value.as_str(),
                fact.evaluations > 0,
            )
        })
        .collect();
    assert_eq!(
        facts,
        [
            ("training regime", "complete", true),
            ("training regime", "fixed:0.2", true),
            ("switched faults", "grl-on-proxy", true),
        ]
    );
    // A comparison of two models says in what else they differ.
    let of = |id: &str| {
        let model: Model = id.parse().unwrap();
        let mut own = results.protocols.iter();
        own.find(|protocol| protocol.models.contains(&model))
            .unwrap()
    };
    let said = protocols::differences(of("lnln"), of("almt"));
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].starts_with("trained under different regimes: A on data erased once"));
    assert!(protocols::differences(of("misa"), of("almt")).is_empty());
}

async fn every_table_in_every_format(scene: &Scene) {
    for number in 2..=14 {
        let table = scene.table(number).await;
        let printed: Vec<Benchmark> = layout::find(number)
            .unwrap()
            .datasets
            .iter()
            .copied()
            .filter(|d| *d != Benchmark::Mosei)
            .collect();
        let blocks = table.blocks.iter().map(|block| block.dataset.as_str());
        let mut datasets: Vec<&str> = blocks.collect();
        datasets.dedup();
        let expected: Vec<&str> = printed.iter().map(|d| d.id()).collect();
        assert_eq!(datasets, expected, "table {number}");
        for block in &table.blocks {
            // Ablations are in their own tables only.
            if !(4..=8).contains(&number) {
                assert_eq!(block.rows.len(), 8, "table {number}");
            }
            for value in block.rows.iter().flat_map(|row| row.cells.iter().flatten()) {
                assert!(value.mean.is_some(), "table {number}");
            }
        }
        let text = render(&table, Format::Text, false);
        assert!(text.starts_with(&format!("Table {number}. ")), "{text}");
        let html = render(&table, Format::Html, false);
        assert_eq!(html.matches("<table>").count(), table.blocks.len());
        let json: serde_json::Value =
            serde_json::from_str(&render(&table, Format::Json, false)).unwrap();
        assert_eq!(json["number"], number);
        let values: usize = table
            .blocks
            .iter()
            .flat_map(|block| &block.rows)
            .map(|row| row.cells.iter().flatten().count())
            .sum();
        assert_eq!(
            render(&table, Format::Csv, false).lines().count(),
            values + 1
        );
        for format in [Format::Markdown, Format::Latex] {
            assert!(render(&table, format, false).contains(&table.title));
        }
    }
    let table = scene.table(7).await;
    let labels: Vec<&str> = table.blocks[0]
        .rows
        .iter()
        .map(|r| r.label.as_str())
        .collect();
    assert_eq!(labels[0], "α=0.9, β=0.8, γ=0.1");
    assert_eq!(labels.len(), 9);
}

/// Over seeds at each rate, then the mean of the ten: computed here from the predictions.
async fn deviations_are_those_of_a_2(scene: &Scene) {
    let filter = Filter {
        methods: vec!["misa".to_owned()],
        datasets: vec![Benchmark::Mosi],
        cases: Vec::new(),
    };
    let predictions = scene.store.predictions(scene.sweep, &filter).await.unwrap();
    let labels = &predictions.labels[&Benchmark::Mosi];
    let mut by_rate: BTreeMap<Case, Vec<f64>> = BTreeMap::new();
    for evaluation in &predictions.evaluations {
        if evaluation.case.kind() == Some(CaseKind::Rate) {
            let vector = evaluation.of_metric("acc7").unwrap();
            let metrics = metrics::evaluate(Benchmark::Mosi, vector, labels).unwrap();
            let values = by_rate.entry(evaluation.case).or_default();
            values.push(metrics["acc7"].unwrap());
        }
    }
    assert_eq!(by_rate.len(), 10);
    // Of two seeds the sample deviation is their distance over the root of two.
    let deviations = by_rate.values().map(|v| (v[0] - v[1]).abs() / 2f64.sqrt());
    let expected = deviations.sum::<f64>() / 10.0;
    let table = scene.table(8).await;
    let row = &table.blocks[0].rows[0];
    assert_eq!(row.model, Model::new("misa", ""));
    assert!((row.cells[0][0].std.unwrap() - expected).abs() < 1e-12);
    let text = render(&table, Format::Text, false);
    assert!(text.contains('±'), "{text}");
}

async fn published_numbers_stand_below_ours(scene: &Scene) {
    let layout = layout::find(2).unwrap();
    let mut table = scene.table(2).await;
    let results = scene.results().await;
    comparison::published(&mut table, &results.cells, layout);
    let row = |label: &str| {
        let mut rows = table.blocks[0].rows.iter();
        rows.find(|row| row.label == label).unwrap()
    };
    let lnln = row("LNLN");
    assert_eq!(
        lnln.companions[0].cells[0][0],
        CompanionValue::Other(0.3426, None)
    );
    let ours = lnln.cells[0][0].mean.unwrap();
    assert_eq!(
        lnln.companions[1].cells[0][0],
        CompanionValue::Difference(ours - 0.3426)
    );
    // CENET's Acc-5 is corrected: the difference is to the right value.
    let cenet = row("CENET");
    assert_eq!(
        cenet.companions[0].cells[1][0],
        CompanionValue::Erratum(Some(0.3362))
    );
    assert_eq!(
        cenet.companions[1].cells[1][0],
        CompanionValue::Difference(cenet.cells[1][0].mean.unwrap() - 0.3362)
    );
    let text = render(&table, Format::Text, false);
    assert!(text.contains("33.62†"), "{text}");
    assert!(
        text.contains("† CENET on MOSI: in print Acc-5 37.25"),
        "{text}"
    );

    // F1 of SIMS' details was swapped: it is compared with our swapped one.
    let layout = layout::find(10).unwrap();
    let mut table = scene.table(10).await;
    let results = scene.results().await;
    comparison::published(&mut table, &results.cells, layout);
    let block = &table.blocks[0];
    let column = block.columns.iter().position(|c| c.name == "F1").unwrap();
    let lnln = block.rows.iter().find(|row| row.label == "LNLN").unwrap();
    let CompanionValue::Erratum(Some(printed)) = lnln.companions[0].cells[column][0] else {
        panic!("{:?}", lnln.companions[0]);
    };
    let swapped = results
        .cells
        .get(
            Benchmark::Sims,
            &lnln.model,
            block.case.unwrap().into(),
            "f1_swapped",
        )
        .unwrap();
    assert_eq!(
        lnln.companions[1].cells[column][0],
        CompanionValue::Difference(swapped.mean.unwrap() - printed)
    );

    // Another sweep: here the same, so that all differences are nothing.
    let layout = layout::find(3).unwrap();
    let mut table = scene.table(3).await;
    let results = scene.results().await;
    comparison::sweep(&mut table, &results.cells, layout, "other");
    for row in &table.blocks[0].rows {
        assert_eq!(row.companions[1].label, "difference");
        for cell in row.companions[1].cells.iter().flatten() {
            assert_eq!(*cell, CompanionValue::Difference(0.0));
        }
    }
}

async fn intervals_hold_the_means(scene: &Scene) {
    let options = BootstrapOptions {
        resamples: 200,
        ..BootstrapOptions::default()
    };
    let filter = Filter {
        methods: vec!["lnln".to_owned(), "misa".to_owned()],
        datasets: vec![Benchmark::Sims],
        cases: Vec::new(),
    };
    let predictions = scene.store.predictions(scene.sweep, &filter).await.unwrap();
    let samples = resample(predictions, options).await.unwrap();
    for number in [3, 10, 14] {
        let layout = layout::find(number).unwrap();
        let mut table = scene.table(number).await;
        comparison::intervals(&mut table, &samples, layout, options);
        for row in table.blocks.iter().flat_map(|block| &block.rows) {
            let drawn = ["LNLN", "MISA"].contains(&row.label.as_str());
            assert_eq!(row.companions.len(), usize::from(drawn), "{}", row.label);
            let Some(line) = row.companions.first() else {
                continue;
            };
            for (value, beside) in row.cells.iter().flatten().zip(line.cells.iter().flatten()) {
                let CompanionValue::Interval(low, high) = *beside else {
                    panic!("{beside:?}");
                };
                let mean = value.mean.unwrap();
                // A percentile interval need not hold the mean, but one that is far off is wrong.
                let width = high - low;
                assert!(width > 0.0 && width < 0.2, "{low} {high}");
                assert!(
                    low - width < mean && mean < high + width,
                    "{low} {mean} {high}"
                );
            }
        }
    }
}

async fn the_better_model_is_found(scene: &Scene) {
    let filter = Filter {
        methods: vec!["lnln".to_owned(), "misa".to_owned()],
        datasets: vec![Benchmark::Mosi],
        cases: ["r=0", "r=0.1"].map(|case| case.parse().unwrap()).into(),
    };
    let predictions = scene.store.predictions(scene.sweep, &filter).await.unwrap();
    let options = BootstrapOptions {
        resamples: 2000,
        ..BootstrapOptions::default()
    };
    let samples = resample(predictions, options).await.unwrap();
    // The simulated LNLN has less noise than MISA.
    let model = |method: &str| Model::new(method, "");
    let found = compare(
        &samples,
        &model("lnln"),
        &model("misa"),
        Compared::Cases,
        0.05,
        |m| m == "mae" || m == "corr",
    );
    assert_eq!(found.len(), 4);
    for difference in &found {
        assert_eq!(difference.better, Some(Side::A), "{difference:?}");
    }
    // A model against itself is never better.
    let found = compare(
        &samples,
        &model("lnln"),
        &model("lnln"),
        Compared::Cases,
        0.05,
        |_| true,
    );
    assert!(found.iter().all(|d| d.better.is_none() && d.p == 1.0));
}

async fn tables_that_the_paper_lacks(scene: &Scene) {
    let results = scene.results().await;
    let table = derived::laziness(&results.cells);
    let block = &table.blocks[0];
    assert_eq!(block.columns.len(), 10 + 1 + 6 + 1);
    let lnln = block.rows.iter().find(|row| row.label == "LNLN").unwrap();
    let at = |column: usize| lnln.cells[column][0].mean.unwrap();
    // The simulated models shrink to the middle as data goes missing.
    assert!(at(9) > at(0), "{} {}", at(0), at(9));

    let measurements = derived::measurements(&results.cells);
    let table = derived::ranks_table(&measurements);
    let rows = &table.blocks[0].rows;
    assert_eq!(rows.len(), 8);
    let rank = |label: &str| {
        let row = rows.iter().find(|row| row.label == label).unwrap();
        row.cells.last().unwrap()[0].mean.unwrap()
    };
    assert!(rank("LNLN") < rank("MISA"));
    let sum: f64 = rows.iter().map(|row| row.cells[0][0].mean.unwrap()).sum();
    assert!((sum - 36.0).abs() < 1e-9, "ranks of eight sum to 36");

    let filter = Filter {
        methods: vec!["lnln".to_owned()],
        ..Filter::default()
    };
    let predictions = scene.store.predictions(scene.sweep, &filter).await.unwrap();
    let options = BootstrapOptions {
        resamples: 100,
        ..BootstrapOptions::default()
    };
    let samples = resample(predictions, options).await.unwrap();
    let table = derived::robustness_table(&samples);
    for block in &table.blocks {
        for row in &block.rows {
            for (column, cell) in block.columns.iter().zip(&row.cells) {
                let share = cell[0].mean.unwrap();
                let falls = column.name != "MAE";
                assert_eq!(share < 1.0, falls, "{}: {share}", column.name);
            }
        }
    }
}

/// If LaTeX is installed.
async fn latex_compiles(scene: &Scene) {
    if Command::new("pdflatex").arg("--version").output().is_err() {
        eprintln!("skipped: no pdflatex");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut document = String::from(
        "\\documentclass{article}\n\\usepackage[T1]{fontenc}\\usepackage{booktabs,graphicx}\n\\begin{document}\n",
    );
    for number in [2, 7, 8, 13] {
        let layout = layout::find(number).unwrap();
        let mut table = scene.table(number).await;
        let results = scene.results().await;
        comparison::published(&mut table, &results.cells, layout);
        document.push_str(&render(&table, Format::Latex, false));
        document.push_str("\\clearpage\n");
    }
    document.push_str("\\end{document}\n");
    std::fs::write(folder.path().join("tables.tex"), document).unwrap();
    let output = Command::new("pdflatex")
        .args(["-interaction=nonstopmode", "-halt-on-error", "tables.tex"])
        .current_dir(&folder)
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{log}");
    assert!(folder.path().join("tables.pdf").exists());
}

/// The same results in another order in the database give the same means and deviations to the bit.
async fn the_order_of_arrival_does_not_matter(scene: &Scene) {
    let numbers = async || -> Vec<String> {
        sqlx::query_scalar(
            "SELECT concat_ws(' ', method, variant, dataset, case_id, metric, mean, std)
             FROM reproduced WHERE sweep = $1 ORDER BY 1",
        )
        .bind(scene.sweep.0)
        .fetch_all(scene.store.pool())
        .await
        .unwrap()
    };
    let before = numbers().await;
    assert!(before.len() > 1000);
    let mut tx = scene.store.pool().begin().await.unwrap();
    for statement in [
        "CREATE TEMPORARY TABLE other ON COMMIT DROP AS
         SELECT * FROM result ORDER BY md5(job::text), metric DESC",
        "TRUNCATE result",
        "INSERT INTO result SELECT * FROM other",
        "SELECT recount(id) FROM sweep",
        // An update puts the row at the end.
        "UPDATE job SET started = started WHERE seed = 1111 AND md5(id::text) < '8'",
    ] {
        sqlx::query(statement).execute(&mut *tx).await.unwrap();
    }
    tx.commit().await.unwrap();
    let after = numbers().await;
    let changed = before.iter().zip(&after).filter(|(b, a)| b != a).count();
    assert_eq!(changed, 0, "of {}", before.len());
}
