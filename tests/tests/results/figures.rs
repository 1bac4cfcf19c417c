//! Every figure is drawn from a finished sweep: what must be in it is there, the numbers are right,
//! the same results give the same bytes, and what cannot be drawn is said with what to do.
//!
//! With `HALFHEARD_FIGURES=FOLDER` the sweep is the paper's whole matrix, and the figures are left in
//! that folder, to be looked at.
#![expect(clippy::unwrap_used, reason = "a test ends where something is wrong")]

use halfheard_coordinator::{
    analysis::{self, DrawError},
    config::{ConnectionFlags, Settings},
};
use halfheard_e2e::{
    finished::{self, Matrix},
    programs::program,
    servers::Postgres,
    tiny::Tiny,
};
use halfheard_results::figures::{Figure, FigureError, Kind, Request, png};
use halfheard_shared::{
    artifacts::ArtifactStore,
    benchmark::Benchmark,
    case::Rate,
    dataset::{DataFolder, Dataset, Manifest, Source, Split},
    env,
    error::Hint as _,
    ids::SweepId,
    results::Wanted,
};
use halfheard_store::{Store, results::Snapshot};
use sqlx::Row as _;
use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::Arc,
};
use tempfile::TempDir;

/// A finished sweep with a data folder and an artifact store.
struct Stand {
    postgres: Postgres,
    store: Store,
    settings: Settings,
    folder: TempDir,
    sweep: SweepId,
    labels: Vec<String>,
}

fn show() -> Option<PathBuf> {
    std::env::var_os("HALFHEARD_FIGURES").map(PathBuf::from)
}

impl Stand {
    async fn new() -> Self {
        let postgres = Postgres::start().unwrap();
        let store = Store::connect_with_retry(&postgres.url().parse().unwrap())
            .await
            .unwrap();
        store.migrate().await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let flags = ConnectionFlags {
            data_dir: Some(folder.path().to_owned()),
            artifacts: Some(ArtifactStore::url_of(&folder.path().join("artifacts"))),
            ..ConnectionFlags::default()
        };
        let settings = Settings::resolve(&flags, &env::process).unwrap();
        let models = [("misa", ""), ("almt", ""), ("lnln", ""), ("lnln", "no-dmc")];
        let matrix = match show() {
            Some(_) => Matrix::paper("drawn"),
            None => Matrix {
                name: "drawn".to_owned(),
                models: models.map(|(m, v)| (m.to_owned(), v.to_owned())).into(),
                datasets: vec![Benchmark::Mosi, Benchmark::Sims],
                seeds: vec![1111, 1112],
            },
        };
        let labels = ["MISA", "ALMT", "LNLN"].map(str::to_owned).into();
        let sweep = finished::simulated(&store, &matrix).await.unwrap();
        Self {
            postgres,
            store,
            settings,
            folder,
            sweep,
            labels,
        }
    }

    async fn draw(&self, kind: Kind, request: &Request) -> Result<Figure, DrawError> {
        let mut snapshot = Snapshot::begin(&self.store, self.sweep).await?;
        let wanted = Wanted {
            checkpoints: true,
            ..Wanted::default()
        };
        let results = Arc::new(snapshot.results(wanted).await?);
        let sources = self.settings.sources();
        analysis::draw(&mut snapshot, &results, None, sources, kind, request).await
    }

    /// Draws a figure twice, and leaves it where it can be looked at.
    async fn good(&self, kind: Kind, request: &Request, name: &str) -> Figure {
        let figure = self.draw(kind, request).await.unwrap();
        let again = self.draw(kind, request).await.unwrap();
        assert_eq!(figure.svg, again.svg, "{name}");
        if let Some(folder) = show() {
            std::fs::create_dir_all(&folder).unwrap();
            let path = folder.join(name);
            let pixels = png::render(&figure.svg, png::SCALE).unwrap();
            std::fs::write(path.with_extension("svg"), &figure.svg).unwrap();
            std::fs::write(path.with_extension("png"), pixels).unwrap();
            println!(
                "{name}: {}. {}. {:?}",
                figure.title, figure.caption, figure.notes
            );
        }
        figure
    }

    async fn keep_features(&self) {
        let samples = if show().is_some() { 250 } else { 30 };
        let artifacts = ArtifactStore::open(&self.settings.artifacts, None)
            .await
            .unwrap();
        finished::keep_features(&self.store, &artifacts, self.sweep, samples)
            .await
            .unwrap();
    }

    /// An imported dataset whose manifest has the hash of the sweep's.
    fn import(&self, dataset: Benchmark, shares: [u64; 7]) {
        let folder = tempfile::tempdir().unwrap();
        let tiny = Tiny::make(folder.path(), 48).unwrap();
        let file = PathBuf::from(tiny.data().unwrap().path);
        let data = Dataset::open(&file).unwrap();
        let source = Source::Synthesize {
            seed: 0,
            settings: serde_json::Value::Null,
        };
        let hash = blake3::hash(dataset.id().as_bytes());
        let mut manifest = Manifest::of(&data, dataset.id(), hash, source, Vec::new());
        let sizes = dataset.split_sizes().unwrap();
        for (split, samples) in [(Split::Train, sizes[0]), (Split::Valid, sizes[1])] {
            let classes = manifest.splits.get_mut(&split).unwrap();
            let all: u64 = shares.iter().sum();
            let count = |share: &u64| share * samples as u64 / all;
            classes.label_counts = shares.iter().map(count).collect();
        }
        let prepared = DataFolder::new(self.folder.path())
            .prepare(dataset.id())
            .unwrap();
        std::fs::copy(&file, prepared.data_file()).unwrap();
        prepared.publish(&manifest, false).unwrap();
    }

    fn coord(&self, args: &[&str]) -> Output {
        Command::new(program("coord").unwrap())
            .args(args)
            .env("HALFHEARD_DATABASE_URL", self.postgres.url())
            .env("HALFHEARD_DATA_DIR", self.folder.path())
            .env("HALFHEARD_CONFIG", "/dev/null")
            .env_remove("HALFHEARD_ARTIFACTS")
            .output()
            .unwrap()
    }

    /// What a command says when it fails.
    fn refused(&self, args: &[&str]) -> String {
        let output = self.coord(args);
        assert!(!output.status.success(), "{args:?}");
        String::from_utf8(output.stderr).unwrap()
    }
}

/// The texts of a drawing, in order.
fn texts(svg: &str) -> Vec<&str> {
    let parts = svg.split("<text ").skip(1);
    parts
        .map(|part| {
            let (_, rest) = part.split_once('>').unwrap();
            rest.split_once("</text>").unwrap().0.trim()
        })
        .collect()
}

fn methods(names: &[&str]) -> Request {
    Request {
        methods: names.iter().map(|&name| name.to_owned()).collect(),
        ..Request::default()
    }
}

#[tokio::test]
async fn every_figure_is_drawn() {
    let stand = Stand::new().await;
    curves(&stand).await;
    labels(&stand).await;
    confusion(&stand).await;
    features(&stand).await;
    let ranks = stand.good(Kind::Ranks, &Request::default(), "ranks").await;
    for label in &stand.labels {
        assert!(ranks.svg.contains(label), "{label}");
    }
    assert!(ranks.caption.contains("Nemenyi"), "{}", ranks.caption);
    assert!(
        !ranks.svg.contains("no-dmc"),
        "an ablation among the methods"
    );
    let pixels = png::render(&ranks.svg, png::SCALE).unwrap();
    assert!(pixels.starts_with(b"\x89PNG"));
    assert_eq!(pixels, png::render(&ranks.svg, png::SCALE).unwrap());
    command(&stand);
}

async fn curves(stand: &Stand) {
    let published = Request {
        published: true,
        ..Request::default()
    };
    let figure = stand.good(Kind::Curves, &published, "figure-2").await;
    let found = texts(&figure.svg);
    for part in [
        "MOSI",
        "SIMS",
        "Acc-7, %",
        "MAE (label units)",
        "Corr",
        "missing rate r",
    ] {
        assert!(found.contains(&part), "{part} in {found:?}");
    }
    for part in ["range over seeds", "published"] {
        assert!(found.contains(&part), "{part} in {found:?}");
    }
    for label in &stand.labels {
        assert_eq!(
            found.iter().filter(|text| *text == label).count(),
            1,
            "{label}"
        );
    }
    let one = Request {
        datasets: vec![Benchmark::Sims],
        published: true,
        ..methods(&["almt", "lnln"])
    };
    let figure = stand.good(Kind::Curves, &one, "figure-2-sims").await;
    let found = texts(&figure.svg);
    for part in ["SIMS", "Acc-5, %", "Acc-3, %", "Acc-2, %", "F1, %", "Corr"] {
        assert!(found.contains(&part), "{part} in {found:?}");
    }
    // Errata: on SIMS the F1 of both was computed the wrong way round, so that F1 has no dashes and
    // the swapped one has.
    assert!(!found.contains(&"MOSI") && !found.contains(&"MISA"));
    let request = |metric: &str| Request {
        metrics: vec![metric.to_owned()],
        ..one.clone()
    };
    let plain = stand
        .good(Kind::Curves, &request("f1"), "figure-2-f1")
        .await;
    assert!(!texts(&plain.svg).contains(&"published"));
    assert!(
        plain.notes[1].starts_with("20 published F1"),
        "{:?}",
        plain.notes
    );
    let swapped = stand
        .good(Kind::Curves, &request("f1_swapped"), "figure-2-f1s")
        .await;
    assert!(texts(&swapped.svg).contains(&"published"));
    let error = stand
        .draw(Kind::Curves, &request("acc8"))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("did you mean `acc"), "{error}");
    let error = stand
        .draw(Kind::Curves, &request("acc7"))
        .await
        .unwrap_err();
    assert!(
        matches!(error, DrawError::Figure(FigureError::Nothing { .. })),
        "{error}"
    );
}

async fn labels(stand: &Stand) {
    // Nothing is imported: the database has the test split.
    let figure = stand
        .good(Kind::Labels, &Request::default(), "figure-4-test")
        .await;
    assert!(
        figure.notes[0].contains("only the test split"),
        "{:?}",
        figure.notes
    );
    assert!(!figure.svg.contains("training"));
    stand.import(Benchmark::Mosi, [4, 12, 15, 14, 24, 22, 9]);
    if show().is_some() {
        stand.import(Benchmark::Mosei, [2, 7, 16, 34, 26, 13, 2]);
        stand.import(Benchmark::Sims, [25, 22, 14, 18, 21, 0, 0]);
    }
    let figure = stand
        .good(Kind::Labels, &Request::default(), "figure-4")
        .await;
    let found = texts(&figure.svg);
    for part in [
        "MOSI",
        "SIMS",
        "training",
        "validation",
        "test",
        "\u{2212}3",
        "weakly",
    ] {
        assert!(found.contains(&part), "{part} in {found:?}");
    }
    let sizes = "train 1,281  \u{b7}  valid 226  \u{b7}  test 686";
    assert!(found.contains(&sizes), "{found:?}");
}

async fn confusion(stand: &Stand) {
    let request = Request {
        rates: [0.0, 0.5, 0.9].map(|rate| Rate::new(rate).unwrap()).into(),
        ..methods(&["lnln"])
    };
    let mosi = Kind::Confusion(Benchmark::Mosi);
    let figure = stand.good(mosi, &request, "figure-5-lnln").await;
    let found = texts(&figure.svg);
    assert!(found.contains(&"true class"));
    // Each matrix's numbers come behind the name of its lower axis.
    let starts = found
        .iter()
        .enumerate()
        .filter(|(_, text)| **text == "predicted class");
    let starts: Vec<usize> = starts.map(|(i, _)| i + 1).collect();
    assert_eq!(starts.len(), 3);
    for (start, rate) in starts.into_iter().zip(["r=0", "r=0.5", "r=0.9"]) {
        let expected = counted(stand, rate).await;
        assert_eq!(found[start..start + 49], expected, "{rate}");
    }
    stand.good(mosi, &Request::default(), "figure-5").await;
    let all = methods(&["misa", "almt", "lnln"]);
    let figure = stand
        .good(Kind::Confusion(Benchmark::Sims), &all, "figure-7")
        .await;
    for part in [
        "MISA, r = 0.3",
        "LNLN, r = 0.9",
        "w. neg.",
        "% of the true class",
    ] {
        assert!(texts(&figure.svg).contains(&part), "{part}");
    }
    if show().is_none() {
        let mosei = Kind::Confusion(Benchmark::Mosei);
        let error = stand.draw(mosei, &Request::default()).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "MOSEI is not in the sweep: it has MOSI, SIMS"
        );
    } else {
        let all = [
            "misa", "self-mm", "mmim", "cenet", "tetfn", "tfr-net", "almt", "lnln",
        ];
        let mosei = Kind::Confusion(Benchmark::Mosei);
        stand.good(mosei, &methods(&all), "figure-6-all").await;
    }
}

/// The percentages that LNLN's matrix on MOSI must show at a case, row by row, from the stored bytes.
async fn counted(stand: &Stand, case: &str) -> Vec<String> {
    let rows = sqlx::query(
        "SELECT p.data, d.test_labels
         FROM job j
         JOIN evaluation e ON e.job = j.id AND e.criterion = 'acc7'
         JOIN prediction p ON p.job = j.id AND p.number = e.prediction
         JOIN dataset d ON d.name = 'mosi'
         WHERE j.sweep = $1 AND j.method = 'lnln' AND j.variant = '' AND j.dataset = 'mosi'
           AND j.case_id = $2",
    )
    .bind(stand.sweep.0)
    .bind(case)
    .fetch_all(stand.store.pool())
    .await
    .unwrap();
    assert!(rows.len() >= 2, "a row a seed");
    let mut counts = [[0u32; 7]; 7];
    for row in rows {
        let classes = |name: &str| -> Vec<usize> {
            let bytes: Vec<u8> = row.get(name);
            let values = bytes
                .chunks(4)
                .map(|b| f32::from_le_bytes(b.try_into().unwrap()));
            // The nearest whole number, the even one of two.
            values
                .map(|value| {
                    let candidates = [0, 6, 2, 4, 1, 3, 5];
                    let away = |class: usize| (value.clamp(-3.0, 3.0) + 3.0 - class as f32).abs();
                    let odd = |class: &usize| u8::from(class.is_multiple_of(2));
                    let mut best = candidates;
                    best.sort_by(|a, b| away(*a).total_cmp(&away(*b)).then(odd(a).cmp(&odd(b))));
                    best[0]
                })
                .collect()
        };
        for (label, predicted) in classes("test_labels").into_iter().zip(classes("data")) {
            counts[label][predicted] += 1;
        }
    }
    let percent = |row: &[u32; 7]| {
        let all: u32 = row.iter().sum();
        row.map(|count| format!("{:.0}", f64::from(count) / f64::from(all) * 100.0))
    };
    counts.iter().flat_map(percent).collect()
}

async fn features(stand: &Stand) {
    let error = stand
        .draw(Kind::Features, &Request::default())
        .await
        .unwrap_err();
    assert!(
        matches!(error, DrawError::Figure(FigureError::NoFeatures { .. })),
        "{error}"
    );
    let hint = error.hint().unwrap();
    for part in ["--artifacts", "coord submit --new"] {
        assert!(hint.contains(part), "{hint}");
    }
    assert!(error.to_string().contains("file://"), "{error}");
    stand.keep_features().await;
    let figure = stand
        .good(Kind::Features, &Request::default(), "figure-8")
        .await;
    let found = texts(&figure.svg);
    for part in ["MOSI, r = 0", "SIMS, r = 0.9", "t-SNE 1", "t-SNE 2"] {
        assert!(found.contains(&part), "{part} in {found:?}");
    }
    for part in ["language feature", "corrected dominant feature"] {
        assert!(found.contains(&part), "{part} in {found:?}");
    }
    assert!(figure.caption.contains("seed 1111"), "{}", figure.caption);
    let one = Request {
        datasets: vec![Benchmark::Mosi],
        rates: [0.0, 0.1].map(|rate| Rate::new(rate).unwrap()).into(),
        ..Request::default()
    };
    let figure = stand.good(Kind::Features, &one, "figure-8-two").await;
    assert_eq!(figure.notes, ["1 of 2 panels lack their features"]);
    let error = stand
        .draw(Kind::Features, &methods(&["almt"]))
        .await
        .unwrap_err();
    assert!(
        matches!(error, DrawError::Figure(FigureError::NotLnln(_))),
        "{error}"
    );
}

fn command(stand: &Stand) {
    let path = |name: &str| stand.folder.path().join(name).display().to_string();
    let (svg, png) = (path("a.svg"), path("a.png"));
    let output = stand.coord(&["--json", "figure", "2", "--metric", "mae", "--out", &svg]);
    assert!(output.status.success(), "{output:?}");
    let reported: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(reported["figure"], "2");
    assert_eq!(reported["file"], svg.as_str());
    assert!(std::fs::read_to_string(&svg).unwrap().starts_with("<svg"));
    let output = stand.coord(&["figure", "ranks", "--sweep", "drawn", "--out", &png]);
    assert!(output.status.success(), "{output:?}");
    assert!(std::fs::read(&png).unwrap().starts_with(b"\x89PNG"));

    let error = stand.refused(&["figure", "2", "--out", &path("a.pdf")]);
    assert!(error.contains("neither .svg nor .png"), "{error}");
    let error = stand.refused(&["figure", "3", "--out", &svg]);
    assert!(
        error.contains("known are 2, 4, 5, 6, 7, 8, confusion and ranks"),
        "{error}"
    );
    let error = stand.refused(&["figure", "2", "--method", "lnlm", "--out", &svg]);
    assert!(error.contains("did you mean `lnln`"), "{error}");
    let error = stand.refused(&["figure", "5", "--rates", "0,0.35", "--out", &svg]);
    assert!(error.contains("0.35 is not in the sweep"), "{error}");
    let error = stand.refused(&["figure", "4", "--published", "--out", &svg]);
    assert!(error.contains("leave --published out"), "{error}");
    let nowhere = path("no/such/a.svg");
    let error = stand.refused(&["figure", "ranks", "--out", &nowhere]);
    assert!(error.contains("cannot write"), "{error}");
    // Nothing half-written stays.
    let hidden = |entry: std::io::Result<std::fs::DirEntry>| {
        let name = entry.unwrap().file_name();
        name.to_string_lossy().starts_with(".coord-")
    };
    let left = std::fs::read_dir(stand.folder.path()).unwrap();
    assert_eq!(left.map(hidden).filter(|hidden| *hidden).count(), 0);
    assert!(Path::new(&svg).exists());
}
