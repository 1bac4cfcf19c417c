//! The bytes that `coord` prints and writes of a finished sweep, kept as snapshots: tables in every
//! format, comparisons, audits, figures, the report and exports. What is too long to read is kept as
//! a hash.
//!
//! `INSTA_UPDATE=always` accepts what is printed now; with `HALFHEARD_SNAPSHOTS=FOLDER` every output
//! is left in that folder, to be compared.
#![expect(clippy::unwrap_used, reason = "a test ends where something is wrong")]

use halfheard_e2e::{
    finished::{self, Matrix},
    programs::program,
    servers::Postgres,
};
use halfheard_shared::{artifacts::ArtifactStore, benchmark::Benchmark};
use halfheard_store::Store;
use std::{fmt::Write as _, path::Path, process::Command};
use tempfile::TempDir;

const FORMATS: [&str; 6] = ["text", "markdown", "latex", "html", "csv", "json"];

struct Stand {
    postgres: Postgres,
    folder: TempDir,
}

impl Stand {
    /// Methods, an ablation and a weight of LNLN on MOSI and SIMS, two seeds, with features.
    async fn new() -> Self {
        let postgres = Postgres::start().unwrap();
        let store = Store::connect_with_retry(&postgres.url().parse().unwrap())
            .await
            .unwrap();
        store.migrate().await.unwrap();
        let models = [
            ("misa", ""),
            ("cenet", ""),
            ("almt", ""),
            ("lnln", ""),
            ("lnln", "no-dmc"),
            ("lnln", "beta-0.3"),
        ];
        let matrix = Matrix {
            name: "snapshot".to_owned(),
            models: models.map(|(m, v)| (m.to_owned(), v.to_owned())).into(),
            datasets: vec![Benchmark::Mosi, Benchmark::Sims],
            seeds: vec![1111, 1112],
        };
        let sweep = finished::simulated(&store, &matrix).await.unwrap();
        // One model lacks evaluations: tables say what is missing.
        let mut connection = store.pool().acquire().await.unwrap();
        for statement in [
            "SET session_replication_role = replica",
            "UPDATE job SET state = 'failed', last_error = 'out of memory'
             WHERE kind = 'eval' AND dataset = 'sims' AND method = 'almt' AND seed = 1112
               AND case_id IN ('r=0.4', 'missing=la')",
            "UPDATE sweep SET created = '2026-03-01 12:00:00Z'",
            "SET session_replication_role = origin",
            "SELECT recount(id) FROM sweep",
        ] {
            sqlx::query(statement)
                .execute(&mut *connection)
                .await
                .unwrap();
        }
        let folder = tempfile::tempdir().unwrap();
        let url = ArtifactStore::url_of(&folder.path().join("artifacts"));
        let artifacts = ArtifactStore::open(&url, None).await.unwrap();
        finished::keep_features(&store, &artifacts, sweep, 30)
            .await
            .unwrap();
        Self { postgres, folder }
    }

    /// What `coord` prints on standard output. `success` 4 is for findings.
    fn coord(&self, args: &[&str]) -> String {
        let output = Command::new(program("coord").unwrap())
            .args(args)
            .env("HALFHEARD_DATABASE_URL", self.postgres.url())
            .env("HALFHEARD_DATA_DIR", self.folder.path())
            .env(
                "HALFHEARD_ARTIFACTS",
                ArtifactStore::url_of(&self.folder.path().join("artifacts")),
            )
            .env("HALFHEARD_CONFIG", "/dev/null")
            .current_dir(self.folder.path())
            .output()
            .unwrap();
        let good = matches!(output.status.code(), Some(0 | 4));
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(good, "{args:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }
}

/// Keeps outputs: some in full, all by their hash.
#[derive(Default)]
struct Outputs {
    hashes: String,
}

impl Outputs {
    fn add(&mut self, name: &str, bytes: &[u8]) {
        let hash = blake3::hash(bytes).to_hex();
        let _ = writeln!(self.hashes, "{name} {} {}", bytes.len(), &hash[..16]);
        if let Some(folder) = std::env::var_os("HALFHEARD_SNAPSHOTS") {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(Path::new(&folder).join(name), bytes).unwrap();
        }
    }

    fn full(&mut self, name: &str, text: &str) {
        self.add(name, text.as_bytes());
        let settings = insta::Settings::clone_current();
        settings.bind(|| insta::assert_snapshot!(name, text));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn printed_results_are_as_they_were() {
    let stand = Stand::new().await;
    let mut outputs = Outputs::default();
    tables(&stand, &mut outputs);
    comparisons_and_audits(&stand, &mut outputs);
    figures(&stand, &mut outputs);
    report(&stand, &mut outputs);
    for what in ["results", "comparison", "epochs", "predictions"] {
        let text = stand.coord(&["export", "snapshot", "--what", what]);
        let head: Vec<&str> = text.lines().take(5).collect();
        outputs.add(&format!("export-{what}.csv"), text.as_bytes());
        insta::assert_snapshot!(format!("export-{what}-head"), head.join("\n"));
    }
    insta::assert_snapshot!("hashes", outputs.hashes);
}

fn tables(stand: &Stand, outputs: &mut Outputs) {
    for number in 2..=14 {
        let number = number.to_string();
        for format in FORMATS {
            let plain = stand.coord(&["table", &number, "--format", format]);
            outputs.add(&format!("table-{number}.{format}"), plain.as_bytes());
            let compared = [
                "table",
                &number,
                "--compare",
                "published",
                "--laziness",
                "--format",
                format,
            ];
            let text = stand.coord(&compared);
            let name = format!("table-{number}-published.{format}");
            match (number.as_str(), format) {
                ("2" | "3" | "7" | "10", "text")
                | ("3", _)
                | ("8", "text" | "markdown" | "latex") => outputs.full(&name, &text),
                _ => outputs.add(&name, text.as_bytes()),
            }
        }
    }
    for (number, format) in [("3", "text"), ("14", "csv")] {
        let args = [
            "table",
            number,
            "--intervals",
            "--draws",
            "100",
            "--format",
            format,
        ];
        outputs.full(
            &format!("table-{number}-intervals.{format}"),
            &stand.coord(&args),
        );
    }
    let other = stand.coord(&["table", "2", "--compare", "snapshot"]);
    outputs.full("table-2-other-sweep.text", &other);
    let colored = stand.coord(&["--color", "always", "table", "3", "--compare", "published"]);
    outputs.full("table-3-color.text", &colored);
    for table in ["laziness", "robustness", "ranks"] {
        for format in FORMATS {
            let args = ["table", table, "--draws", "100", "--format", format];
            let text = stand.coord(&args);
            match format {
                "text" => outputs.full(&format!("table-{table}.{format}"), &text),
                _ => outputs.add(&format!("table-{table}.{format}"), text.as_bytes()),
            }
        }
    }
}

fn comparisons_and_audits(stand: &Stand, outputs: &mut Outputs) {
    let compare = ["compare", "lnln", "misa", "--draws", "200", "--all"];
    outputs.full("compare.text", &stand.coord(&compare));
    let json = stand.coord(&["--json", "compare", "lnln", "lnln/no-dmc", "--draws", "200"]);
    outputs.add("compare.json", json.as_bytes());
    for what in ["snapshot", "published"] {
        for format in ["text", "markdown", "json"] {
            let text = stand.coord(&["audit", what, "--format", format]);
            let name = format!("audit-{what}.{format}");
            match format {
                "text" => outputs.full(&name, &text),
                _ => outputs.add(&name, text.as_bytes()),
            }
        }
    }
}

fn figures(stand: &Stand, outputs: &mut Outputs) {
    let mut printed = String::new();
    for args in [
        &["2", "--published"][..],
        &["2", "--dataset", "sims", "--method", "lnln"],
        &["4"],
        &["5", "--method", "lnln", "--method", "misa"],
        &["7"],
        &["8"],
        &["ranks"],
    ] {
        let name = format!("figure-{}.svg", args.join("-"));
        let full = [&["figure"][..], args, &["--out", &name]].concat();
        printed.push_str(&stand.coord(&full));
        let svg = std::fs::read(stand.folder.path().join(&name)).unwrap();
        outputs.add(&name, &svg);
    }
    outputs.full("figures.text", &printed);
}

fn report(stand: &Stand, outputs: &mut Outputs) {
    stand.coord(&["report", "snapshot", "--out", "report", "--draws", "100"]);
    let read = |name: &str| std::fs::read_to_string(stand.folder.path().join("report").join(name));
    let path = stand.folder.path().display().to_string();
    let redacted = |text: String| {
        text.replace(env!("CARGO_PKG_VERSION"), "VERSION")
            .replace(&path, "FOLDER")
    };
    outputs.full("report.md", &redacted(read("report.md").unwrap()));
    outputs.add(
        "report.html",
        redacted(read("report.html").unwrap()).as_bytes(),
    );
}
