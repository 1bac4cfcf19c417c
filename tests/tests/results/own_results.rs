//! Custom datasets in the database: tables, comparisons, audits and SQL find them by name, without
//! spec or dataset file. The sweeps are simulated.
#![expect(clippy::unwrap_used, reason = "a test helper")]

use halfheard_coordinator::analysis::{self, resample};
use halfheard_e2e::{
    finished::{self, Matrix},
    servers::Postgres,
};
use halfheard_results::{
    audit::{Finding, Rule},
    export::columns::Page,
    statistics::bootstrap::BootstrapOptions,
    tables::{
        Table, comparison, derived, layout, paper,
        render::{Format, render},
    },
};
use halfheard_shared::benchmark::{Benchmark, Kind, definition::DefinitionSpec};
use halfheard_shared::{
    error::Hint as _,
    results::{Export, Filter, Wanted},
};
use halfheard_store::{
    Store, StoreError,
    results::{ResultsError, export, load},
};

fn own(name: &str, text: &str) -> Benchmark {
    let spec: DefinitionSpec = serde_json::from_str(text).unwrap();
    Benchmark::new(name, Kind::own(spec.resolve().unwrap()).unwrap()).unwrap()
}

const STARS: &str = r#"{"label_range":[0,5],"language":"en","classes":[2,4,6]}"#;
const MINE: &str = r#"{"label_range":[-1,1],"language":"zh","classes":[2,3,5]}"#;

fn matrix(name: &str, datasets: Vec<Benchmark>) -> Matrix {
    let model = |(method, variant): (&str, &str)| (method.to_owned(), variant.to_owned());
    Matrix {
        name: name.to_owned(),
        models: [("almt", ""), ("lnln", ""), ("lnln", "no-dmc")]
            .map(model)
            .into(),
        datasets,
        seeds: vec![1111, 1112],
    }
}

async fn store(postgres: &Postgres) -> Store {
    let url = postgres.url().parse().unwrap();
    let store = Store::connect_with_retry(&url).await.unwrap();
    store.migrate().await.unwrap();
    store
}

async fn datasets_of(table: &Table) -> Vec<&str> {
    let mut names: Vec<&str> = table.blocks.iter().map(|b| b.dataset.as_str()).collect();
    names.dedup();
    names
}

#[expect(clippy::too_many_lines, reason = "one scenario, step by step")]
#[tokio::test]
async fn custom_datasets_are_found_by_name() {
    let postgres = Postgres::start().unwrap();
    let store = store(&postgres).await;
    let (stars, mine) = (own("stars", STARS), own("mine", MINE));
    let aligned = Benchmark::new("mosi-aligned", Kind::Mosi).unwrap();
    let all = vec![Benchmark::Mosi, stars, mine, aligned];
    let matrix_ = matrix("various", all.clone());
    let sweep = finished::simulated(&store, &matrix_).await.unwrap();
    let table = async |number| {
        let layout = layout::find(number).unwrap();
        let results = load(&store, sweep, Wanted::default()).await.unwrap();
        paper::table(&results, layout, false)
    };

    // The database returns what was stored, and the built-in protocols.
    let known = store.benchmarks().await.unwrap();
    for dataset in &all {
        assert_eq!(known.get(dataset.id()), Some(*dataset));
    }
    let rows: Vec<(String, serde_json::Value)> =
        sqlx::query_as("SELECT name, definition FROM benchmark WHERE follows = name")
            .fetch_all(store.pool())
            .await
            .unwrap();
    assert_eq!(rows.len(), 3);
    for (name, definition) in rows {
        let built_in: Benchmark = name.parse().unwrap();
        let rust = serde_json::to_value(built_in.kind().definition()).unwrap();
        assert_eq!(definition, rust, "{name}");
    }

    // Blocks with the columns of their classes, and ablations.
    let two = table(2).await;
    assert_eq!(datasets_of(&two).await, ["mosi", "mosi-aligned", "stars"]);
    let names: Vec<&str> = two.blocks[2]
        .columns
        .iter()
        .map(|c| c.name.as_str())
        .collect();
    assert_eq!(names, ["Acc-6", "Acc-4", "Acc-2", "F1", "MAE", "Corr"]);
    let values = two
        .blocks
        .iter()
        .flat_map(|b| &b.rows)
        .flat_map(|r| r.cells.iter().flatten());
    assert!(values.clone().count() > 0 && values.clone().all(|v| v.mean.is_some()));
    assert!(
        two.title.ends_with("on MOSI, mosi-aligned and stars"),
        "{}",
        two.title
    );
    assert_eq!(datasets_of(&table(3).await).await, ["mine"]);
    let four = table(4).await;
    assert_eq!(
        datasets_of(&four).await,
        ["mosi", "mine", "mosi-aligned", "stars"]
    );
    assert!(
        four.blocks
            .iter()
            .all(|b| b.rows.iter().any(|r| r.model.variant == "no-dmc"))
    );
    assert_eq!(table(10).await.blocks.len(), 10);
    for format in [
        Format::Text,
        Format::Latex,
        Format::Markdown,
        Format::Csv,
        Format::Html,
    ] {
        let text = render(&two, format, false);
        assert!(text.contains("stars") && !text.contains("STARS"), "{text}");
    }

    // Published numbers of a protocol are shown for datasets that follow it; others get a note.
    let layout_two = layout::find(2).unwrap();
    let mut compared = table(2).await;
    let results = load(&store, sweep, Wanted::default()).await.unwrap();
    comparison::published(&mut compared, &results.cells, layout_two);
    let beside = |i: usize| {
        let rows = compared.blocks[i].rows.iter();
        rows.map(|row| row.companions.len()).sum::<usize>()
    };
    assert_eq!((beside(0), beside(1), beside(2)), (4, 4, 0));
    let said = |note: &String| note.contains("nothing is published for stars");
    assert!(compared.notes.iter().any(said), "{:?}", compared.notes);
    let layout_three = layout::find(3).unwrap();
    let mut three = table(3).await;
    comparison::published(&mut three, &results.cells, layout_three);
    assert!(
        three
            .notes
            .iter()
            .any(|note| note.contains("nothing is published for mine"))
    );
    assert!(
        !three
            .notes
            .iter()
            .any(|note| note.starts_with("published:")),
        "{:?}",
        three.notes
    );

    // Intervals, robustness, laziness, ranks.
    let predictions = store.predictions(sweep, &Filter::default()).await.unwrap();
    let options = BootstrapOptions {
        resamples: 100,
        ..BootstrapOptions::default()
    };
    let samples = resample(predictions, options).await.unwrap();
    let mut two = table(2).await;
    comparison::intervals(&mut two, &samples, layout_two, options);
    assert!(
        two.blocks
            .iter()
            .flat_map(|b| &b.rows)
            .all(|row| row.companions.len() == 1)
    );
    assert_eq!(
        datasets_of(&derived::robustness_table(&samples)).await,
        ["mosi", "mine", "mosi-aligned", "stars"]
    );
    let laziness = derived::laziness(&results.cells);
    assert_eq!(
        datasets_of(&laziness).await,
        ["mosi", "mine", "mosi-aligned", "stars"]
    );
    let ranks = derived::ranks_table(&derived::measurements(&results.cells));
    let names: Vec<&str> = ranks.blocks[0]
        .columns
        .iter()
        .map(|c| c.name.as_str())
        .collect();
    assert_eq!(names, ["MOSI", "mine", "mosi-aligned", "stars", "all"]);

    // SQL: every evaluation has the metrics of its dataset, and published numbers where they apply.
    let counts: Vec<(String, i64)> = sqlx::query_as(
        "SELECT dataset, count(DISTINCT metric) FROM measurement WHERE value IS NOT NULL
         GROUP BY dataset ORDER BY dataset",
    )
    .fetch_all(store.pool())
    .await
    .unwrap();
    let expected: Vec<(String, i64)> = [mine, Benchmark::Mosi, aligned, stars]
        .map(|d| (d.id().to_owned(), d.metrics().len() as i64))
        .into();
    assert_eq!(counts, expected);
    let compared: Vec<(String, i64)> = sqlx::query_as(
        "SELECT dataset, count(*) FROM comparison WHERE sweep = $1 GROUP BY 1 ORDER BY 1",
    )
    .bind(sweep.0)
    .fetch_all(store.pool())
    .await
    .unwrap();
    assert_eq!(compared.len(), 2, "{compared:?}");
    assert_eq!(
        (compared[0].0.as_str(), compared[1].0.as_str()),
        ("mosi", "mosi-aligned")
    );
    assert_eq!(compared[0].1, compared[1].1);

    // Predictions are exported, and the stored metrics are those of the stored predictions.
    let mut exported = 0;
    export(&store, sweep, Export::Predictions, |rows| {
        exported += Page::new("various", &rows).rows();
        Ok::<_, ResultsError>(())
    })
    .await
    .unwrap();
    assert!(exported > 0);
    let findings = analysis::audit(&store, sweep).await.unwrap();
    let wrong = |f: &&Finding| matches!(f.rule, Rule::WrongResult | Rule::OutOfRange);
    assert_eq!(findings.iter().find(wrong), None);
    // Nothing is published for the two custom protocols: a note, and not a finding that counts.
    let sizes: Vec<_> = findings
        .iter()
        .filter(|f| f.rule == Rule::SplitSize)
        .collect();
    assert_eq!(sizes.len(), 2, "{sizes:?}");
    assert!(
        sizes
            .iter()
            .all(|f| !f.counts() && f.what.contains("nothing is published"))
    );
}

#[tokio::test]
async fn dataset_name_keeps_one_protocol() {
    let postgres = Postgres::start().unwrap();
    let store = store(&postgres).await;
    let first = matrix("first", vec![own("mine", MINE)]);
    finished::simulated(&store, &first).await.unwrap();
    // The same definition under the same name is the same dataset.
    let again = matrix("again", vec![own("mine", MINE)]);
    finished::simulated(&store, &again).await.unwrap();
    let other = matrix("other", vec![own("mine", STARS)]);
    let error = finished::simulated(&store, &other).await.unwrap_err();
    let error = error.downcast::<StoreError>().unwrap();
    assert!(matches!(error, StoreError::OtherProtocol { .. }), "{error}");
    let text = format!("{error}; hint: {}", error.hint().unwrap_or_default());
    for part in ["`mine`", "labels -1 to 1", "labels 0 to 5", "another name"] {
        assert!(text.contains(part), "{text}");
    }
    let sweeps = store.sweeps().await.unwrap();
    assert_eq!(sweeps.len(), 2, "nothing was submitted");
    // An unused name is free again.
    for sweep in sweeps {
        store.delete(sweep.id).await.unwrap();
    }
    finished::simulated(&store, &other).await.unwrap();
    let known = store.benchmarks().await.unwrap();
    assert_eq!(known.get("mine"), Some(own("mine", STARS)));
    let metrics: Vec<String> =
        sqlx::query_scalar("SELECT metric FROM metric WHERE dataset = 'mine' ORDER BY position")
            .fetch_all(store.pool())
            .await
            .unwrap();
    let expected: Vec<&str> = own("mine", STARS).metrics().iter().map(|m| m.id).collect();
    assert_eq!(metrics, expected);
}
