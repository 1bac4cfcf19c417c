use crate::{
    external::{ExternalTraining, HYPER_KEY},
    hash::Hash,
    matrix::{self, PlannedWork},
    spec::{read, tests::resolved},
};
use std::sync::Arc;

/// Two programs, one of which only a variant runs.
pub(in crate::spec) const EXTERNAL: &str = r#"
name = "external"
methods = ["lnln", "my-model", "my-model/wide", "other/slow"]
seeds = [1]
rates = [0.0]
[datasets.mosi]
file = "dataset:mosi"
[datasets.mosei]
file = "dataset:mosei"
[encoders.en]
path = "encoder:en"
[hyper.my-model]
learning_rate = 1
[hyper.my-model.mosei]
layers = [8]
[[external]]
id = "my-model"
command = ["python", "train.py"]
needs = ["torch"]
files = ["train.py"]
[external.hyper]
learning_rate = 1e-4
layers = [64, 64]
label_bound = 3
max_epochs = 20
[[external]]
id = "other"
command = ["./other"]
files = ["other"]
[[external]]
id = "unused"
command = ["./unused"]
files = ["gone.py"]
[[variant]]
id = "my-model/wide"
hyper = { layers = [128, 128, 128] }
needs = { label = "a100" }
[[variant]]
id = "other/slow"
hyper = { max_epochs = 200 }
"#;

#[test]
fn external_programs_are_methods_like_others() {
    let spec = resolved(EXTERNAL);
    let hyper = |i: usize, dataset: &str, key: &str| spec.methods[i].hyper[dataset][key].clone();
    assert_eq!(spec.methods[0].hyper["mosi"].get(HYPER_KEY), None);
    assert_eq!(
        hyper(1, "mosi", "learning_rate"),
        1.0,
        "a whole number is a number"
    );
    assert_eq!(hyper(1, "mosi", "max_epochs"), 20);
    assert_eq!(hyper(1, "mosei", "layers"), serde_json::json!([8]));
    assert_eq!(
        hyper(2, "mosi", "layers"),
        serde_json::json!([128, 128, 128])
    );
    assert_eq!(spec.methods[2].needs.label.as_deref(), Some("a100"));
    assert_eq!(hyper(3, "mosi", "max_epochs"), 200);
    // What trainings get of it is what the worker reads.
    let training = spec.train_spec(&spec.methods[1], &spec.datasets[0], 1);
    let external = ExternalTraining::of(&training).unwrap().expect("a program");
    assert_eq!(external.program.command, ["python", "train.py"]);
    assert_eq!(external.program.needs, ["torch"]);
    assert_eq!(
        external.program.files,
        [("train.py".to_owned(), Hash::of(b"train.py"))].into()
    );
    assert_eq!(external.hyper["layers"], serde_json::json!([64, 64]));
    let registry = spec.train_spec(&spec.methods[0], &spec.datasets[0], 1);
    assert_eq!(ExternalTraining::of(&registry).unwrap(), None);
    // Epochs of the spec count for programs, too.
    let epochs = resolved(&EXTERNAL.replacen("seeds = [1]", "seeds = [1]\nepochs = 3", 1));
    assert_eq!(epochs.methods[1].hyper["mosi"]["max_epochs"], 3);
    // Without a word of them there are fifty.
    let plain = resolved(&EXTERNAL.replacen("max_epochs = 20\n", "", 1));
    assert_eq!(plain.methods[1].hyper["mosi"]["max_epochs"], 50);
    // A hyper-parameter that a method of the registry has under this name is its own affair.
    let own = EXTERNAL.replace("\"lnln\", ", "").replacen(
        "[datasets.mosi]",
        "[datasets.mine]\nbenchmark = { label_range = [-1, 1], language = \"en\", classes = [2] }",
        1,
    );
    assert_eq!(resolved(&own).methods[0].hyper["mine"]["label_bound"], 3);
}

#[test]
fn ids_of_external_trainings_depend_on_the_program() {
    let jobs = |text: &str| -> Vec<_> {
        matrix::expand(Arc::new(resolved(text)), None)
            .filter_map(|job| match &job.work {
                PlannedWork::Train(spec) => Some((spec.method.clone(), job.id)),
                _ => None,
            })
            .collect()
    };
    let before = jobs(EXTERNAL);
    assert_eq!(before, jobs(EXTERNAL));
    let file = EXTERNAL.replacen(
        "files = [\"train.py\"]",
        "files = [\"train.py\", \"model.py\"]",
        1,
    );
    let command = EXTERNAL.replacen("\"train.py\"]\nneeds", "\"train.py\", \"-v\"]\nneeds", 1);
    for changed in [file, command] {
        assert_ne!(changed, EXTERNAL);
        for ((method, id), (_, new)) in before.iter().zip(jobs(&changed)) {
            assert_eq!(*id != new, method == "my-model", "{method}");
        }
    }
}

#[test]
fn programs_are_not_made_to_compute_in_bfloat16() {
    let with = |numerics: &str| {
        let text = format!("{EXTERNAL}[protocol]\nnumerics = \"{numerics}\"\n");
        read("test.toml", &text)
    };
    assert!(with("machine").is_ok());
    let error = format!("{:?}", with("bf16").unwrap_err());
    let expected = "`my-model` is a program of your own";
    assert!(error.contains(expected), "{error}");
}
