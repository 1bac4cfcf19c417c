use super::*;
use crate::{
    benchmark::Kind,
    encoder::{EncoderFacts, TextFacts, TokenIds},
    external::HYPER_KEY,
    hash::Hash,
    matrix::{self, PlannedWork},
    wire::BlobRef,
};
use proptest::prelude::*;
use std::sync::Arc;

/// Finds everything but the file `gone`; a dataset follows its own name's protocol.
pub(super) struct Everything;

impl Files for Everything {
    fn dataset(&mut self, name: &str, spec: &DatasetSpec) -> Result<FoundDataset, String> {
        if spec.file == "gone" {
            return Err("there is no file `gone`".to_owned());
        }
        Ok(FoundDataset {
            blob: BlobRef {
                blake3: "d".repeat(64),
                path: format!("/data/{}", spec.file),
            },
            kind: spec.kind(name).unwrap_or(Kind::Mosi),
            texts: Some(TextFacts {
                length: if spec.file == "dataset:long" {
                    513
                } else {
                    512
                },
                largest: if spec.file == "dataset:foreign" {
                    30_522
                } else {
                    30_521
                },
                segments: 0,
                starts: [(101, 7)].into(),
                ends: [(102, 7)].into(),
            }),
            facts: None,
            labels: Some(Hash::of(match spec.file.as_str() {
                "dataset:others" => b"others",
                _ => b"labels",
            })),
        })
    }

    fn encoder(&mut self, _language: &str, path: &str) -> Result<FoundEncoder, String> {
        Ok(FoundEncoder {
            blob: BlobRef {
                blake3: "e".repeat(64),
                path: path.to_owned(),
            },
            shape: None,
            facts: EncoderFacts {
                vocabulary: 30_522,
                longest: 512,
                segments: 2,
                tokens: TokenIds::BERT,
            },
        })
    }

    fn program(&mut self, external: &ExternalSpec) -> Result<FoundProgram, String> {
        if external.files == ["gone.py"] {
            return Err("no file matches `gone.py`".to_owned());
        }
        let files = external.files.iter();
        Ok(FoundProgram {
            files: files
                .map(|file| (file.clone(), Hash::of(file.as_bytes())))
                .collect(),
            bundle: Hash::of(external.files.concat().as_bytes()),
        })
    }

    fn confusions(&mut self, language: &str, table: &str, path: &str) -> Result<Hash, String> {
        if table == "gone" {
            return Err("cannot read the confusion table gone".to_owned());
        }
        Ok(Hash::of(format!("{language} {table} {path}").as_bytes()))
    }
}

pub(super) const GOOD: &str = r#"
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

pub(super) fn resolved(text: &str) -> ResolvedSpec {
    let spec = read("test.toml", text).unwrap();
    resolve("test.toml", text, &spec, &mut Everything).unwrap()
}

#[test]
fn more_specific_hyper_parameters_win() {
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
    let jobs: Vec<_> = matrix::expand(spec.clone(), None).collect();
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
    let again: Vec<_> = matrix::expand(spec.clone(), None)
        .map(|job| job.id)
        .collect();
    assert_eq!(again, jobs.iter().map(|job| job.id).collect::<Vec<_>>());
    assert_ne!(spec.sweep_id(Some("2")), id);
}

/// A change of these ids means that sweeps submitted by an earlier release are not known again, and
/// that their jobs would be done anew: never change them without need. They also change when a
/// build makes serde_json keep keys in the order they came (its feature `preserve_order`).
#[test]
fn ids_match_earlier_releases() {
    let fixed = r#"{"name":"fixed","methods":[{"method":"lnln","variant":"no-dmc","hyper":{"mosi":
        {"max_epochs":3,"batch_size":64,"learning_rate":1e-4,"dmc":false,"list":[1,2.5]}}}],
        "datasets":[{"benchmark":"mosi","data":{"blake3":"aa","path":"/somewhere"},
        "encoder":{"blake3":"bb","path":"/somewhere/else"}}],"seeds":[1111,1112],
        "cases":["r=0","r=0.3","missing=la"],"protocol":{"selection":"validation",
        "train_missing":"redrawn","erasure_seed":1111,"selection_rate":500,"fidelity":"reference",
        "switched":[]}}"#;
    let spec: ResolvedSpec = serde_json::from_str(fixed).unwrap();
    let sweep = spec.sweep_id(None);
    let again = spec.sweep_id(Some("again"));
    let jobs: Vec<_> = matrix::expand(Arc::new(spec), None)
        .map(|job| job.id.to_string())
        .collect();
    assert_eq!(
        [
            &sweep.to_string(),
            &again.to_string(),
            &jobs[0],
            &jobs[2],
            &jobs[7]
        ],
        [
            "0dfa00c4-e734-87e7-b035-050cb8f017af",
            "71d1bcb5-29fe-8b19-ab68-0aadd2331c2d",
            "61fa732a-36bc-87fb-a732-0d9aab9b47e3",
            "6c5affed-c1a1-8a0d-b932-e764ac1573bf",
            "494efd11-5261-8a62-aba5-4a59a3d7def1"
        ]
    );
}

#[test]
fn variant_inherits_from_its_base() {
    let text = GOOD
        .replacen("\"lnln/wide\"]", "\"lnln/wide\", \"lnln/wider\"]", 1)
        .replacen("about = ", "base = \"lnln/no-dmc\"\nabout = ", 1)
        + "heads = 4\n[[variant]]\nid = \"lnln/wider\"\nbase = \"lnln/wide\"\n\
           [variant.hyper]\nwidth = 512\n";
    let spec = resolved(&text);
    let hyper = |i: usize| &spec.methods[i].hyper["mosi"];
    assert_eq!(
        (&hyper(2)["dmc"], &hyper(2)["width"]),
        (&false.into(), &256.into())
    );
    assert_eq!(
        (&hyper(3)["dmc"], &hyper(3)["width"]),
        (&false.into(), &512.into())
    );
    assert_eq!(hyper(3)["heads"], 4);
    assert_eq!(
        hyper(3)["max_epochs"],
        7,
        "settings of the base's id are its own"
    );
}

#[test]
fn resources_and_priority_do_not_affect_ids() {
    let plain = resolved(GOOD);
    let more = GOOD.replacen(
        "epochs = 7",
        "epochs = 7\npriority = 5\nresources = { workers = 4, device = \"cuda:1\", share_gpus = true }",
        1,
    );
    assert_eq!(resolved(&more).sweep_id(None), plain.sweep_id(None));
    let read = read("test.toml", &more).unwrap();
    assert_eq!((read.priority, read.resources.workers), (5, Some(4)));
}

#[test]
fn id_depends_on_hashes_not_paths() {
    let spec = resolved(GOOD);
    let mut moved = spec.clone();
    moved.datasets[0].data.path = "/elsewhere".to_owned();
    assert_eq!(moved.sweep_id(None), spec.sweep_id(None));
    moved.datasets[0].data.blake3 = "0".repeat(64);
    assert_ne!(moved.sweep_id(None), spec.sweep_id(None));
}

#[test]
fn resolved_spec_round_trips_through_json() {
    let spec = resolved(GOOD);
    let text = serde_json::to_string(&spec).unwrap();
    let back: ResolvedSpec = serde_json::from_str(&text).unwrap();
    assert_eq!(back, spec);
    assert_eq!(back.sweep_id(None), spec.sweep_id(None));
}

#[test]
fn spec_with_too_many_jobs_is_rejected() {
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
fn million_evaluations_expand_in_constant_memory() {
    let mut spec = resolved(GOOD);
    spec.seeds = (0..60_000).collect();
    spec.cases = (0..6).map(|r| format!("r=0.{r}")).collect();
    spec.cases[0] = "r=0".to_owned();
    spec.datasets.truncate(1);
    let counts = matrix::counts(&spec);
    assert_eq!(counts.eval, 1_080_000);
    let jobs = matrix::expand(Arc::new(spec), None);
    // Every id, hashed in order: all are made, none is kept.
    let mut hasher = blake3::Hasher::new();
    let count = jobs
        .inspect(|job| {
            hasher.update(job.id.as_bytes());
        })
        .count();
    assert_eq!(count, counts.train + counts.eval);
}

#[test]
fn schema_in_repository_is_current() {
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
fn paper_matrix_has_published_size() {
    let spec = deployed("benchmark.toml");
    let counts = matrix::counts(&spec);
    assert_eq!((counts.train, counts.eval), (72, 1152));
}

/// What benchmark.toml shows in comments works when it is taken in.
#[test]
fn commented_example_specs_are_valid() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/benchmark.toml");
    let text = std::fs::read_to_string(path).unwrap();
    let code = |line: &&str| {
        line.starts_with('[')
            || line
                .split_once(" = ")
                .is_some_and(|(key, _)| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
    };
    let uncommented: String = text
        .lines()
        .map(|line| line.strip_prefix("# ").filter(code).unwrap_or(line))
        .map(|line| format!("{line}\n"))
        .collect();
    let uncommented = uncommented.replacen(
        "\"lnln\"]",
        "\"lnln\", \"my-model\", \"lnln/wide-no-dmc\"]",
        1,
    );
    let spec = read("benchmark.toml", &uncommented).unwrap_or_else(|e| panic!("{:?}", e.problems));
    assert_eq!(spec.epochs, Some(50));
    assert_eq!(spec.resources.workers, Some(2));
    let resolved = resolved(&uncommented);
    let wide = resolved.methods.last().unwrap();
    assert_eq!(wide.variant, "wide-no-dmc");
    assert_eq!(
        (&wide.hyper["sims"]["beta"], &wide.hyper["mosi"]["dmc"]),
        (&0.6.into(), &false.into())
    );
    assert_eq!(wide.hyper["mosi"]["width"], 256);
    let program = &resolved.methods[resolved.methods.len() - 2];
    assert_eq!(program.hyper["mosi"]["learning_rate"], 1e-4);
    assert!(program.hyper["mosi"].contains_key(HYPER_KEY));
    let mine = resolved
        .datasets
        .iter()
        .find(|d| d.benchmark.id() == "mine");
    let definition = mine.unwrap().benchmark.kind().definition();
    assert_eq!(
        (definition.label_range, definition.unimodal),
        ([-1.0, 1.0], false)
    );
}

#[test]
fn shipped_specs_are_valid() {
    for name in ["demo.toml", "real-mosi.toml", "eight-mosi.toml"] {
        assert_eq!(deployed(name).cases.len(), 16, "{name}");
    }
    assert_eq!(deployed("lf-dnn.toml").cases.len(), 3);
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,200}") {
        let _ = read("test.toml", &text);
    }

    /// Lines of the good spec in any order, some left out, some twice: TOML that says odd things.
    #[test]
    fn shuffled_lines_never_panic(order in proptest::collection::vec(0..GOOD.lines().count(), 0..60)) {
        let lines: Vec<&str> = GOOD.lines().collect();
        let text: String = order.iter().map(|&i| format!("{}\n", lines[i])).collect();
        if let Ok(spec) = read("test.toml", &text) {
            let _ = resolve("test.toml", &text, &spec, &mut Everything);
        }
    }

    /// Any value at any key.
    #[test]
    fn arbitrary_value_never_panics(
        line in 0..GOOD.lines().count(),
        value in "(-?[0-9]{1,25}(\\.[0-9]{1,3})?|nan|inf|true|\"\\PC{0,5}\"|\\[[0-9,. -]{0,9}\\]|\\{ a = 1 \\}|1979-05-27)",
    ) {
        let lines = GOOD.lines().enumerate().map(|(i, text)| match text.split_once(" = ") {
            Some((key, _)) if i == line => format!("{key} = {value}\n"),
            _ => format!("{text}\n"),
        });
        let text: String = lines.collect();
        if let Ok(spec) = read("test.toml", &text)
            && let Ok(resolved) = resolve("test.toml", &text, &spec, &mut Everything)
        {
            let _ = resolved.sweep_id(None);
            matrix::expand(Arc::new(resolved), None).take(10).for_each(drop);
        }
    }

    #[test]
    fn damaged_spec_never_panics(at in 0..GOOD.len(), junk in "[\\[\\]{}=\"'0-9a-z./,\\n -]{0,8}") {
        let mut text = GOOD.to_owned();
        if text.is_char_boundary(at) {
            text.insert_str(at, &junk);
        }
        if let Ok(spec) = read("test.toml", &text) {
            let _ = resolve("test.toml", &text, &spec, &mut Everything);
        }
    }
}

/// Two datasets with protocols of their own, and one more that follows MOSI's.
const OWN: &str = r#"
name = "own"
methods = ["lnln", "self-mm", "tetfn"]
seeds = [1]
rates = [0.0]
[datasets.mosi]
file = "dataset:mosi"
[datasets.mosi-aligned]
file = "dataset:aligned"
benchmark = "mosi"
[datasets.mine]
file = "dataset:mine"
benchmark = { label_range = [-1, 1], language = "zh", classes = [2, 3, 5], unimodal = false }
hyper_like = "sims"
[datasets.stars]
file = "dataset:stars"
benchmark = { label_range = [0, 5], language = "en", classes = [2, 6] }
[encoders.en]
path = "encoder:en"
[encoders.zh]
path = "/models/chinese"
[hyper.lnln.mosi]
beta = 0.3
[hyper.lnln.mosi-aligned]
alpha = 0.2
[hyper.lnln.stars]
beta = 0.1
[hyper.tetfn]
label_bound = 2.0
"#;

#[test]
fn own_datasets_keep_their_names_in_results() {
    let spec = resolved(OWN);
    let names: Vec<&str> = spec.datasets.iter().map(|d| d.benchmark.id()).collect();
    assert_eq!(
        names,
        ["mosi", "mine", "mosi-aligned", "stars"],
        "the paper's first"
    );
    let train: std::collections::BTreeSet<_> = matrix::expand(Arc::new(spec.clone()), None)
        .filter_map(|job| match job.work {
            PlannedWork::Train(spec) => Some((spec.dataset.id(), spec.dataset.kind())),
            PlannedWork::Eval { .. } | PlannedWork::Noop => None,
        })
        .collect();
    assert_eq!(train.len(), 4);
    assert!(train.contains(&("mosi-aligned", Kind::Mosi)));
    // As the database keeps it, definitions and all.
    let text = serde_json::to_string(&spec).unwrap();
    let back: ResolvedSpec = serde_json::from_str(&text).unwrap();
    assert_eq!(back, spec);
    // Another definition is another sweep, and nothing is trained twice for it elsewhere.
    let other = resolved(&OWN.replace("classes = [2, 6]", "classes = [2, 4, 6]"));
    assert_ne!(other.sweep_id(None), spec.sweep_id(None));
}

#[test]
fn own_dataset_starts_from_hyper_like() {
    let spec = resolved(OWN);
    let hyper = |method: usize, dataset: &str| &spec.methods[method].hyper[dataset];
    let lnln = crate::methods::find("lnln").unwrap();
    // As SIMS', where the spec says so; else what the method has for all datasets.
    assert_eq!(
        hyper(0, "mine")["beta"],
        lnln.hyper_by_dataset["sims"]["beta"]
    );
    assert_eq!(hyper(0, "stars")["alpha"], lnln.hyper["alpha"]);
    assert_eq!(hyper(0, "stars")["beta"], 0.1);
    // What is said for a protocol is said for all that follow it, the nearer more.
    assert_eq!(
        (
            &hyper(0, "mosi-aligned")["beta"],
            &hyper(0, "mosi-aligned")["alpha"]
        ),
        (&0.3.into(), &0.2.into())
    );
    assert_eq!(hyper(0, "mosi")["beta"], 0.3);
    assert_eq!(hyper(0, "mosi")["alpha"], lnln.hyper["alpha"]);
    // Labels that a method makes stay within the range, whose middle models are trained about.
    assert_eq!(hyper(1, "mine")["label_bound"], 1.0);
    assert_eq!(hyper(1, "stars")["label_bound"], 2.5);
    assert_eq!(hyper(1, "mosi")["label_bound"], 3.0);
    assert_eq!(hyper(2, "stars")["label_bound"], 2.0, "the spec says so");
}

#[test]
fn no_method_needs_unimodal_labels() {
    // Self-MM and TETFN make their own; were one to read them, it would say so here.
    assert!(
        crate::methods::all()
            .iter()
            .all(|method| method.needs.is_empty())
    );
    let text = "name = \"x\"\npaper = \"\"\nneeds = [\"unimodal_labels\"]\n[hyper]\n[ranges]\n";
    let needy: crate::methods::MethodInfo = toml::from_str(text).unwrap();
    assert_eq!(needy.lacks(Kind::Sims), None);
    assert_eq!(
        needy.lacks(Kind::Mosi),
        Some("labels for text, audio and vision alone")
    );
}
