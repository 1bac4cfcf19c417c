use super::*;
use crate::{
    ids::SweepId,
    matrix::{self, PlannedWork},
    wire::BlobRef,
};
use proptest::prelude::*;
use std::sync::Arc;

/// Finds everything; a dataset follows its own name's protocol.
struct Everything;

impl Files for Everything {
    fn dataset(&mut self, name: &str, spec: &DatasetSpec) -> Result<FoundDataset, String> {
        if spec.file == "gone" {
            return Err("there is no file `gone`".to_owned());
        }
        Ok(FoundDataset {
            blob: BlobRef {
                blake3: "d".repeat(64),
                path: format!("/data/{name}"),
            },
            benchmark: name.parse().unwrap_or(Benchmark::Mosi),
        })
    }

    fn encoder(&mut self, _language: &str, path: &str) -> Result<FoundEncoder, String> {
        Ok(FoundEncoder {
            blob: BlobRef {
                blake3: "e".repeat(64),
                path: path.to_owned(),
            },
        })
    }
}

const GOOD: &str = r#"
name = "small"
methods = ["almt", "lnln/no-dmc", "lnln/wide"]
seeds = [1111, 1112]
rates = [0.0, 0.3]
missing = ["la"]
epochs = 7

[datasets.mosi]
file = "dataset:mosi"

[datasets.sims]
file = "dataset:sims"

[encoders.en]
path = "encoder:en"

[encoders.zh]
path = "/models/chinese"

[hyper.lnln]
learning_rate = 1e-3
[hyper.lnln.sims]
beta = 0.5
[hyper."lnln/wide"]
max_epochs = 9

[[variant]]
id = "lnln/wide"
about = "twice as wide"
[variant.hyper]
width = 256
"#;

fn resolved(text: &str) -> ResolvedSpec {
    let spec = read("test.toml", text).unwrap();
    resolve("test.toml", text, &spec, &mut Everything).unwrap()
}

#[test]
fn nearer_settings_win() {
    let spec = resolved(GOOD);
    let hyper = |i: usize, dataset: &str| &spec.methods[i].hyper[dataset];
    assert_eq!(hyper(0, "mosi")["max_epochs"], 7);
    assert_eq!(hyper(1, "mosi")["dmc"], false);
    assert_eq!(hyper(1, "mosi")["learning_rate"], 1e-3);
    assert_eq!(hyper(1, "mosi")["beta"], 0.8);
    assert_eq!(hyper(1, "sims")["beta"], 0.5);
    assert_eq!(hyper(2, "mosi")["width"], 256);
    assert_eq!(hyper(2, "mosi")["max_epochs"], 9);
    assert_eq!(spec.cases, ["r=0", "r=0.3", "missing=la"]);
}

#[test]
fn expands_in_order_and_ids_are_stable() {
    let spec = Arc::new(resolved(GOOD));
    let id = spec.sweep_id(None);
    let jobs: Vec<_> = matrix::expand(spec.clone(), id).collect();
    let counts = matrix::counts(&spec);
    assert_eq!((counts.train, counts.eval), (12, 36));
    assert_eq!(jobs.len(), 48);
    let mut ids: Vec<_> = jobs.iter().map(|job| job.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 48, "ids differ");
    match (&jobs[0].work, &jobs[3].work) {
        (PlannedWork::Train(spec), PlannedWork::Eval { train, case, .. }) => {
            assert_eq!(
                (spec.method.as_str(), spec.seed, spec.max_epochs),
                ("almt", 1111, 7)
            );
            assert_eq!(*train, jobs[0].id);
            assert_eq!(case.to_string(), "missing=la");
        }
        other => panic!("{other:?}"),
    }
    // A change of these means that sweeps submitted by an earlier release are not recognised.
    let again: Vec<_> = matrix::expand(spec.clone(), id).map(|job| job.id).collect();
    assert_eq!(again, jobs.iter().map(|job| job.id).collect::<Vec<_>>());
    assert_ne!(spec.sweep_id(Some("2")), id);
}

#[test]
fn paths_are_hints_and_hashes_count() {
    let spec = resolved(GOOD);
    let mut moved = spec.clone();
    moved.datasets[0].data.path = "/elsewhere".to_owned();
    assert_eq!(moved.sweep_id(None), spec.sweep_id(None));
    moved.datasets[0].data.blake3 = "0".repeat(64);
    assert_ne!(moved.sweep_id(None), spec.sweep_id(None));
}

#[test]
fn the_resolved_form_survives_json() {
    let spec = resolved(GOOD);
    let text = serde_json::to_string(&spec).unwrap();
    let back: ResolvedSpec = serde_json::from_str(&text).unwrap();
    assert_eq!(back, spec);
    assert_eq!(back.sweep_id(None), spec.sweep_id(None));
}

/// Replaces a part of the good spec and gives the only problem: line, message, help.
fn problem(from: &str, to: &str) -> (Option<usize>, String, String) {
    let text = GOOD.replacen(from, to, 1);
    assert_ne!(text, GOOD, "nothing replaced");
    let error = match read("test.toml", &text) {
        Err(error) => error,
        Ok(spec) => resolve("test.toml", &text, &spec, &mut Everything).unwrap_err(),
    };
    assert_eq!(error.problems.len(), 1, "{:?}", error.problems);
    let problem = &error.problems[0];
    (
        error.line(problem),
        problem.message.clone(),
        problem.help.clone().unwrap_or_default(),
    )
}

#[test]
fn every_mistake_is_told_with_its_line_and_a_remedy() {
    let cases = [
        ("seeds =", "seed =", 4, "unknown field `seed`", "`seeds`"),
        ("\"almt\"", "\"amlt\"", 3, "no method `amlt`", "`almt`"),
        (
            "lnln/no-dmc",
            "lnln/no-dcm",
            3,
            "no method `lnln/no-dcm`",
            "`lnln/no-dmc`",
        ),
        ("1112", "1111", 4, "seed 1111 is named twice", "away"),
        ("[1111, 1112]", "[]", 4, "no seed", ""),
        ("0.3", "1.3", 5, "no missing rate", ""),
        ("[\"la\"]", "[\"lav\"]", 6, "no set of modalities", ""),
        ("epochs = 7", "epochs = 0", 7, "at least one epoch", ""),
        (
            "learning_rate = 1e-3",
            "learning_rat = 1e-3",
            22,
            "no hyper-parameter `learning_rat`",
            "`learning_rate`",
        ),
        (
            "beta = 0.5",
            "beta = \"x\"",
            24,
            "`beta` of lnln is a number",
            "",
        ),
        (
            "[hyper.lnln.sims]",
            "[hyper.lnln.smis]",
            24,
            "no dataset `smis`",
            "`sims`",
        ),
        ("width = 256", "width = 2.5", 32, "a whole number", ""),
        (
            "id = \"lnln/wide\"",
            "id = \"lnln/no-dmc\"",
            29,
            "already",
            "another name",
        ),
        ("dataset:sims", "gone", 13, "no file `gone`", ""),
        (
            "[encoders.zh]",
            "[encoders.xx]",
            12,
            "text encoder for `zh`",
            "[encoders.zh]",
        ),
    ];
    for (from, to, line, message, help) in cases {
        // Some mistakes have company; the first is the one.
        let text = GOOD.replacen(from, to, 1);
        let error = match read("test.toml", &text) {
            Err(error) => error,
            Ok(spec) => resolve("test.toml", &text, &spec, &mut Everything).unwrap_err(),
        };
        let found = error.problems.iter().find(|p| p.message.contains(message));
        let found = found.unwrap_or_else(|| panic!("{to}: {:?}", error.problems));
        assert!(
            found.help.clone().unwrap_or_default().contains(help),
            "{to}: {found:?}"
        );
        let near = error.line(found).unwrap_or_default();
        assert!(near.abs_diff(line) <= 1, "{to}: line {near}, not {line}");
    }
}

#[test]
fn several_mistakes_are_told_at_once() {
    let text = GOOD.replace("\"almt\"", "\"amlt\"").replace("0.3", "7");
    assert_eq!(read("test.toml", &text).unwrap_err().problems.len(), 2);
}

#[test]
fn another_hash_than_the_files_is_refused() {
    let wrong = format!("file = \"dataset:mosi\"\nblake3 = \"{}\"", "a".repeat(64));
    let (line, message, _) = problem("file = \"dataset:mosi\"", &wrong);
    assert!(message.contains(&"d".repeat(64)), "{message}");
    assert_eq!(line, Some(11));
}

#[test]
fn too_many_jobs_are_refused() {
    let seeds: Vec<String> = (0..60_000).map(|s| s.to_string()).collect();
    let rates: Vec<String> = (0..20)
        .map(|r| format!("{}", f64::from(r) / 100.0))
        .collect();
    let text = GOOD
        .replace("1111, 1112", &seeds.join(", "))
        .replace("0.0, 0.3", &rates.join(", "));
    let error = read("test.toml", &text).unwrap_err();
    assert!(error.problems[0].message.contains("over the limit"));
}

#[test]
fn a_million_evaluations_expand_without_being_kept() {
    let mut spec = resolved(GOOD);
    spec.seeds = (0..60_000).collect();
    spec.cases = (0..6).map(|r| format!("r=0.{r}")).collect();
    spec.cases[0] = "r=0".to_owned();
    spec.datasets.truncate(1);
    let id: SweepId = spec.sweep_id(None);
    let counts = matrix::counts(&spec);
    assert_eq!(counts.eval, 1_080_000);
    let jobs = matrix::expand(Arc::new(spec), id).count();
    assert_eq!(jobs, counts.train + counts.eval);
}

#[test]
fn the_schema_in_the_repository_is_this_one() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../schemas/benchmark.schema.json"
    );
    let now = serde_json::to_string_pretty(&json_schema()).unwrap() + "\n";
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        std::fs::write(path, &now).unwrap();
    }
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        kept == now,
        "schemas/benchmark.schema.json is stale: run the tests with UPDATE_SCHEMA=1"
    );
}

fn deployed(name: &str) -> ResolvedSpec {
    let path = format!("{}/../deploy/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap();
    let spec = match read(name, &text) {
        Ok(spec) => spec,
        Err(error) => panic!("{:?}", error.problems),
    };
    resolve(name, &text, &spec, &mut Everything).unwrap()
}

#[test]
fn the_papers_matrix_has_its_size() {
    let spec = deployed("benchmark.toml");
    let counts = matrix::counts(&spec);
    assert_eq!((counts.train, counts.eval), (72, 1152));
}

#[test]
fn the_other_specs_read() {
    for name in ["demo.toml", "real-mosi.toml"] {
        assert_eq!(deployed(name).cases.len(), 16, "{name}");
    }
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC{0,200}") {
        let _ = read("test.toml", &text);
    }

    #[test]
    fn no_damage_panics(at in 0..GOOD.len(), junk in "[\\[\\]{}=\"'0-9a-z./,\\n -]{0,8}") {
        let mut text = GOOD.to_owned();
        if text.is_char_boundary(at) {
            text.insert_str(at, &junk);
        }
        if let Ok(spec) = read("test.toml", &text) {
            let _ = resolve("test.toml", &text, &spec, &mut Everything);
        }
    }
}
