//! How single methods and variants are trained: precedence, inputs, notes.

use super::{
    tests::{Everything, GOOD, resolved},
    *,
};
use crate::{
    methods::faults::{Fault, Faults},
    regime::Regime,
    results,
    wire::Protocol,
};

/// The notes about a spec.
fn notes(text: &str) -> Vec<String> {
    let spec = read("test.toml", text).unwrap_or_else(|e| panic!("{:?}", e.problems));
    let mut notes = Vec::new();
    resolve_noting("test.toml", text, &spec, &mut Everything, &mut notes)
        .unwrap_or_else(|e| panic!("{:?}", e.problems));
    let messages = notes.into_iter().map(|note| note.message);
    // What the good spec is noted for anyway.
    messages
        .filter(|message| !message.starts_with("`beta` of lnln/no-dmc"))
        .collect()
}

/// The good spec with tables behind it.
fn with(more: &str) -> String {
    format!("{GOOD}\n{more}")
}

fn protocols(text: &str) -> Vec<Protocol> {
    let spec = resolved(text);
    let methods = spec.methods.iter();
    methods
        .map(|method| spec.protocol_of(method).clone())
        .collect()
}

#[test]
fn nearer_settings_of_training_win() {
    let text = GOOD.replacen("\"lnln/wide\"]", "\"lnln/wide\", \"lnln/wider\"]", 1)
        + r#"
[[variant]]
id = "lnln/wider"
base = "lnln/wide"
faults = { warm-up-from-zero = false }
[protocol]
train_missing = "drawn-once"
faults = { grl-on-proxy = false, in-place-residual = false }
[method.lnln]
train_missing = "lnln-loader"
faults = { in-place-residual = true }
[method."lnln/wider"]
train_missing = "fixed:0.2"
"#;
    let text = text.replacen("about = ", "train_missing = \"complete\"\nabout = ", 1);
    let of = protocols(&text);
    let regimes: Vec<String> = of.iter().map(|p| p.train_missing.to_string()).collect();
    // ALMT has the sweep's, a built-in variant its method's, `wide` its own, `wider` what its id says.
    assert_eq!(
        regimes,
        ["drawn-once", "lnln-loader", "complete", "fixed:0.2"]
    );
    let switched: Vec<_> = of.iter().map(|p| p.switched.clone()).collect();
    assert_eq!(
        switched[0],
        [Fault::InPlaceResidual],
        "ALMT has no reversed gradient"
    );
    assert_eq!(
        switched[1],
        [Fault::GrlOnProxy],
        "the method keeps what the sweep corrects"
    );
    assert_eq!(switched[2], switched[1]);
    assert_eq!(switched[3], [Fault::WarmUpFromZero, Fault::GrlOnProxy]);
    // A variant of `wide` without a word of its own has what `wide` has.
    let inherits = text.replacen(
        "[method.\"lnln/wider\"]\ntrain_missing = \"fixed:0.2\"",
        "",
        1,
    );
    assert_eq!(protocols(&inherits)[3].train_missing, Regime::Complete);
}

#[test]
fn corrected_bundle_keeps_single_faults() {
    let of = protocols(&with(
        "[protocol]\nfidelity = \"corrected\"\n[method.lnln]\nfaults = { grl-on-proxy = true }\n",
    ));
    assert_eq!(of[0].faults(), Faults::CORRECTED);
    let lnln = of[1].faults();
    assert!(lnln.keeps(Fault::GrlOnProxy) && !lnln.keeps(Fault::InPlaceResidual));
}

#[test]
fn only_what_a_training_depends_on_is_in_its_identity() {
    let plain = resolved(GOOD);
    let id = |more: &str| resolved(&with(more)).sweep_id(None);
    // Of a method that is not run, or as it is anyway.
    assert_eq!(
        id("[method.misa]\ntrain_missing = \"complete\"\n"),
        plain.sweep_id(None)
    );
    assert_eq!(
        id("[method.lnln]\ntrain_missing = \"redrawn\"\n"),
        plain.sweep_id(None)
    );
    assert_eq!(
        id("[method.lnln]\nfaults = { grl-on-proxy = true }\n"),
        plain.sweep_id(None)
    );
    for changed in [
        "[protocol]\ntrain_missing = \"drawn-once\"\n",
        "[protocol]\nfaults = { repeated-numbers = false }\n",
        "[method.lnln]\ntrain_missing = \"complete\"\n",
        "[method.\"lnln/wide\"]\nfaults = { grl-on-proxy = false }\n",
    ] {
        assert_ne!(id(changed), plain.sweep_id(None), "{changed}");
    }
}

#[test]
fn ablation_without_erasure_trains_on_complete_inputs_whatever_the_sweep_says() {
    let text = GOOD.replacen("\"lnln/no-dmc\"", "\"lnln/no-train-missing\"", 1);
    let spec = resolved(&text);
    let training = spec.train_spec(&spec.methods[1], &spec.datasets[0], 1);
    assert_eq!(training.protocol.train_missing, Regime::Complete);
    let other = spec.train_spec(&spec.methods[2], &spec.datasets[0], 1);
    assert_eq!(other.protocol.train_missing, Regime::Redrawn);
    // On one dataset only.
    let text = with("[hyper.almt]\n[method.almt]\n").replacen(
        "[hyper.lnln.sims]\nbeta = 0.5",
        "[hyper.lnln.sims]\nbeta = 0.5\ntrain_missing = false",
        1,
    );
    let protocols = results::Protocol::of_spec(&resolved(&text));
    let said: Vec<_> = protocols
        .iter()
        .map(|p| {
            let models: Vec<String> = p.models.iter().map(ToString::to_string).collect();
            (p.train_missing.to_string(), models.join(" "))
        })
        .collect();
    let said: Vec<_> = said.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    assert_eq!(
        said,
        [
            ("redrawn", "almt lnln/no-dmc lnln/wide"),
            ("complete", "lnln/no-dmc lnln/wide")
        ]
    );
}

#[test]
fn methods_read_their_own_files_and_encoders() {
    let spec = resolved(&with(
        r#"
[method.almt]
files = { mosi = "dataset:aligned" }
encoders = { en = { path = "/models/other" } }
[method.lnln.encoders.zh]
path = "/models/roberta"
[method."lnln/wide".encoders.zh]
path = "/models/wide"
"#,
    ));
    let read = |method: usize, dataset: usize| {
        let (data, encoder, _) = spec.inputs_of(&spec.methods[method], &spec.datasets[dataset]);
        (data.path.as_str(), encoder.path.as_str())
    };
    let names: Vec<&str> = spec.datasets.iter().map(|d| d.benchmark.id()).collect();
    assert_eq!(names, ["mosi", "sims"]);
    assert_eq!(read(0, 0), ("/data/dataset:aligned", "/models/other"));
    assert_eq!(read(0, 1), ("/data/dataset:sims", "/models/chinese"));
    assert_eq!(read(1, 0), ("/data/dataset:mosi", "encoder:en"));
    assert_eq!(read(1, 1), ("/data/dataset:sims", "/models/roberta"));
    assert_eq!(read(2, 1), ("/data/dataset:sims", "/models/wide"));
    let training = spec.train_spec(&spec.methods[0], &spec.datasets[0], 1);
    assert_eq!(training.data.path, "/data/dataset:aligned");
    assert_eq!(
        spec.inputs().len(),
        5,
        "each pair once: {:?}",
        spec.inputs()
    );
    // Paths are hints there, too.
    let mut moved = spec.clone();
    for inputs in moved.methods[0].inputs.values_mut() {
        inputs.data.path = "/elsewhere".to_owned();
    }
    assert_eq!(moved.sweep_id(None), spec.sweep_id(None));
    moved.methods[0].inputs.clear();
    assert_ne!(moved.sweep_id(None), spec.sweep_id(None));
}

/// The reference reads Chinese with the English encoder.
#[test]
fn tfr_net_needs_the_english_encoder_where_it_keeps_that_fault() {
    let sims = r#"
name = "tfr"
methods = ["tfr-net"]
seeds = [1]
rates = [0.0]
[datasets.sims]
file = "dataset:sims"
[encoders.zh]
path = "/models/chinese"
"#;
    let spec = read("test.toml", sims).unwrap();
    let error = resolve("test.toml", sims, &spec, &mut Everything).unwrap_err();
    let problem = &error.problems[0];
    assert!(
        problem.message.contains("with the English encoder"),
        "{problem:?}"
    );
    assert!(
        problem.help.as_ref().unwrap().contains("[encoders.en]"),
        "{problem:?}"
    );
    let encoder = |text: &str| {
        let spec = resolved(text);
        spec.inputs_of(&spec.methods[0], &spec.datasets[0])
            .1
            .path
            .clone()
    };
    let english = format!("{sims}[encoders.en]\npath = \"encoder:en\"\n");
    assert_eq!(encoder(&english), "encoder:en");
    assert!(notes(&english).is_empty(), "{:?}", notes(&english));
    let corrected = format!("{sims}[method.tfr-net]\nfaults = {{ tfr-english-encoder = false }}\n");
    assert_eq!(encoder(&corrected), "/models/chinese");
    let own = format!("{sims}[method.tfr-net.encoders.zh]\npath = \"/models/own\"\n");
    assert_eq!(encoder(&own), "/models/own");
    // With it, or without the fault, the English one is for nothing.
    for idle in [
        format!("{english}[method.tfr-net]\nfaults = {{ tfr-english-encoder = false }}\n"),
        format!("{english}[method.tfr-net.encoders.zh]\npath = \"/models/own\"\n"),
    ] {
        let noted = notes(&idle);
        assert_eq!(
            noted,
            ["no dataset has texts in `en`: its encoder is not used"],
            "{idle}"
        );
    }
}

#[test]
fn settings_of_training_without_effect_are_noted() {
    for (more, expected) in [
        (
            "[method.misa]\ntrain_missing = \"complete\"\n",
            "`misa` is not in `methods`: its settings have no effect",
        ),
        (
            "[protocol]\nfaults = { grl-on-proxy = true }\n",
            "`grl-on-proxy` is kept without this switch, too",
        ),
        (
            "[protocol]\nfidelity = \"corrected\"\n[method.lnln]\nfaults = { grl-on-proxy = false }\n",
            "`grl-on-proxy` is corrected without this switch, too",
        ),
        (
            "[protocol]\nfaults = { tetfn-audio-kernel = false }\n",
            "no method of the sweep has the fault `tetfn-audio-kernel`",
        ),
        (
            "[protocol]\ntrain_missing = \"drawn-once\"\nfaults = { repeated-numbers = false }\n",
            "`repeated-numbers` has no effect: only `redrawn` draws new rates for all samples",
        ),
        (
            "[method.almt]\ntrain_missing = \"complete\"\nfaults = { repeated-numbers = false }\n",
            "`repeated-numbers` has no effect: only `redrawn` draws new rates for all samples",
        ),
        (
            "[method.almt.encoders.fr]\npath = \"/models/french\"\n",
            "no dataset has texts in `fr`: its encoder is not used",
        ),
    ] {
        assert_eq!(notes(&with(more)), [expected], "{more}");
    }
    for effective in [
        "[protocol]\nfaults = { repeated-numbers = false }\n",
        "[protocol]\nfaults = { grl-on-proxy = false }\n[method.\"lnln/wide\"]\nfaults = { grl-on-proxy = true }\n",
        "[method.lnln]\ntrain_missing = \"complete\"\n",
    ] {
        assert!(
            notes(&with(effective)).is_empty(),
            "{effective}: {:?}",
            notes(&with(effective))
        );
    }
    let text = GOOD.replacen("\"lnln/no-dmc\"", "\"lnln/no-train-missing\"", 1);
    let own = format!("{text}\n[method.\"lnln/no-train-missing\"]\ntrain_missing = \"redrawn\"\n");
    assert_eq!(
        notes(&own),
        ["`train_missing` of lnln/no-train-missing has no effect: it trains on complete inputs"]
    );
    let all = format!("{text}\n[method.lnln]\ntrain_missing = \"fixed:0.2\"\n");
    assert!(notes(&all).is_empty(), "it counts for lnln/wide");
}

fn shipped(name: &str) -> String {
    let path = format!("{}/../deploy/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).unwrap()
}

/// What `deploy/paper.toml` says of each method: its regime, the file and the encoder that it reads of MOSI
/// and SIMS.
fn settings(text: &str) -> Vec<[String; 4]> {
    let spec = resolved(text);
    let of = |id: &str| {
        spec.datasets
            .iter()
            .find(|own| own.benchmark.id() == id)
            .unwrap()
    };
    let methods = spec.methods.iter().map(|method| {
        let (data, _, _) = spec.inputs_of(method, of("mosi"));
        let (_, encoder, _) = spec.inputs_of(method, of("sims"));
        [
            method.method.clone(),
            spec.protocol_on(method, of("mosi"))
                .train_missing
                .to_string(),
            data.path.clone(),
            encoder.path.clone(),
        ]
    });
    methods.collect()
}

#[test]
fn paper_spec_has_the_published_setting() {
    let text = shipped("paper.toml");
    assert!(notes(&text).is_empty(), "{:?}", notes(&text));
    let spec = resolved(&text);
    let counts = crate::matrix::counts(&spec);
    assert_eq!((counts.train, counts.eval), (72, 1152));
    assert_eq!(spec.protocol.selection, crate::wire::Selection::Test);
    assert_eq!(Faults::from(spec.protocol.fidelity), Faults::REFERENCE);
    let almt = &spec.methods[6].hyper["mosi"];
    assert_eq!(
        (&almt["frames"], &almt["early_stop"]),
        (&50.into(), &0.into())
    );
    assert_eq!(almt["max_epochs"], 200);
    for [method, regime, file, encoder] in settings(&text) {
        assert_eq!(regime, "lnln-loader", "{method}");
        assert_eq!(file.ends_with("-aligned"), method == "tetfn", "{method}");
        let english = encoder.ends_with("bert-base-uncased");
        assert_eq!(
            english,
            method == "tfr-net",
            "{method} reads Chinese with {encoder}"
        );
    }
}

/// What it shows in comments: MMSA's defaults.
#[test]
fn other_reading_of_the_paper_trains_only_lnln_by_its_loader() {
    let text: String = shipped("paper.toml")
        .lines()
        .map(|line| {
            let code =
                |line: &&str| line.starts_with("[method.") || line.starts_with("train_missing");
            format!("{}\n", line.strip_prefix("# ").filter(code).unwrap_or(line))
        })
        .collect();
    let text = text.replacen(
        "[method.tetfn]",
        "[method.tetfn]\ntrain_missing = \"complete\"",
        1,
    );
    for [method, regime, ..] in settings(&text) {
        let expected = match method.as_str() {
            "lnln" => "lnln-loader",
            "tfr-net" => "fixed:0.2",
            _ => "complete",
        };
        assert_eq!(regime, expected, "{method}");
    }
}
