use super::*;
use halfheard_shared::{
    benchmark::Kind,
    encoder::{EncoderFacts, TextFacts, TokenIds},
    hash::Hash,
    spec::{self, DatasetSpec, ExternalSpec, Files, FoundDataset, FoundEncoder, FoundProgram},
    wire::BlobRef,
};

const BASE: EncoderShape = EncoderShape::BERT_BASE;

/// A machine with every file that a spec names.
struct Everything;

fn blob(path: &str) -> BlobRef {
    BlobRef {
        blake3: Hash::of(path.as_bytes()).to_string(),
        path: path.to_owned(),
    }
}

impl Files for Everything {
    fn dataset(&mut self, name: &str, spec: &DatasetSpec) -> Result<FoundDataset, String> {
        Ok(FoundDataset {
            blob: blob(&spec.file),
            kind: spec.kind(name).unwrap_or(Kind::Mosi),
            texts: Some(TextFacts {
                length: 50,
                largest: 30_521,
                segments: 0,
                starts: [(101, 7)].into(),
                ends: [(102, 7)].into(),
            }),
            facts: None,
            labels: Some(Hash::of(b"labels")),
        })
    }

    fn encoder(&mut self, _language: &str, path: &str) -> Result<FoundEncoder, String> {
        Ok(FoundEncoder {
            blob: blob(path),
            shape: Some(BASE),
            facts: EncoderFacts {
                vocabulary: 30_522,
                longest: 512,
                segments: 2,
                tokens: TokenIds::BERT,
            },
        })
    }

    fn program(&mut self, external: &ExternalSpec) -> Result<FoundProgram, String> {
        let files = external.files.iter();
        Ok(FoundProgram {
            files: files
                .map(|file| (file.clone(), Hash::of(b"file")))
                .collect(),
            bundle: Hash::of(b"bundle"),
        })
    }

    fn confusions(&mut self, _: &str, _: &str, _: &str) -> Result<Hash, String> {
        Err("no table of confusions here".to_owned())
    }
}

/// The features that MMSA distributes.
struct Published;

impl Sizes for Published {
    fn of(&self, method: &ResolvedMethod, dataset: &str) -> Option<(DataFacts, EncoderShape)> {
        let mut data = *DataFacts::distributed(dataset)?;
        // Aligned files have the text's length.
        if method.method == "tetfn" && dataset != "sims" {
            data.shapes.audio_len = data.shapes.text_len;
            data.shapes.vision_len = data.shapes.text_len;
        }
        Some((data, BASE))
    }
}

fn resolved(text: &str) -> ResolvedSpec {
    let read = spec::read("spec.toml", text).unwrap();
    spec::resolve("spec.toml", text, &read, &mut Everything).unwrap()
}

fn paper() -> ResolvedSpec {
    resolved(include_str!("../../../../../deploy/paper.toml"))
}

/// All jobs of a spec are open.
fn forecast(spec: &ResolvedSpec, timings: &[Timing], hardware: Option<&str>) -> Forecast {
    let pairs = spec.methods.iter().flat_map(|method| {
        let model = model_name(&method.method, &method.variant);
        let datasets = spec.datasets.iter();
        datasets.map(move |dataset| (model.clone(), dataset.benchmark.id()))
    });
    let pairs: Vec<(String, &str)> = pairs.collect();
    let open = pairs.iter().map(|(model, dataset)| Open {
        model,
        dataset,
        trainings: spec.seeds.len(),
        evaluations: spec.seeds.len() * spec.cases.len(),
    });
    let hardware = hardware.map(|hardware| hardware.parse().unwrap());
    Forecast::new(spec, &Published, open, timings, hardware)
}

/// What jobs of a method on a dataset took on a device.
fn timing(spec: &ResolvedSpec, method: &str, dataset: &str, trains: bool) -> Timing {
    let own = spec
        .methods
        .iter()
        .find(|own| own.method == method)
        .unwrap();
    let on = spec
        .datasets
        .iter()
        .find(|on| on.benchmark.id() == dataset)
        .unwrap();
    Timing {
        trains,
        spec: serde_json::to_value(spec.train_spec(own, on, 0)).unwrap(),
        device: "cuda:0 NVIDIA H100 80GB HBM3".to_owned(),
        jobs: if trains { 12 } else { 192 },
        seconds: if trains { 10.0 } else { 2.0 },
        epochs: trains.then_some(20.0),
    }
}

fn row<'f>(forecast: &'f Forecast, method: &str, dataset: &str) -> &'f Row {
    let mut rows = forecast.rows.iter();
    rows.find(|row| row.method == method && row.dataset == dataset)
        .unwrap()
}

#[test]
fn paper_has_a_finite_time_on_every_hardware() {
    let spec = paper();
    let hours = |hardware: &str| {
        let forecast = forecast(&spec, &[], Some(hardware));
        assert_eq!((forecast.rows.len(), forecast.unknown.len()), (24, 0));
        let total = forecast.total;
        assert!(
            total.device_hours.is_finite() && total.device_hours > 1.0,
            "{hardware}: {total:?}"
        );
        assert!(
            total.makespan_hours >= total.longest_chain_hours,
            "{hardware}: {total:?}"
        );
        (total.device_hours, total.makespan_hours)
    };
    let (one, eight) = (hours("h100"), hours("h100x8"));
    assert_eq!(one.0, one.1, "one device does all the work");
    assert_eq!(one.0, eight.0);
    assert!(eight.1 < one.1 && eight.1 >= one.1 / 8.0, "{eight:?}");
    // A slower device takes longer; a thousand take as long as the longest chain.
    assert!(hours("a100").0 > 2.0 * one.0);
    assert!(hours("cpu:160").0 > 50.0 * one.0);
    let many = forecast(&spec, &[], Some("h100x1000")).total;
    assert_eq!(many.makespan_hours, many.longest_chain_hours);
}

#[test]
fn forecast_of_the_paper_says_from_where_each_time_is() {
    let spec = paper();
    let mut timings = vec![
        timing(&spec, "misa", "mosi", true),
        timing(&spec, "misa", "mosi", false),
        timing(&spec, "lnln", "mosi", true),
    ];
    let mut on_cpu = timing(&spec, "almt", "mosi", true);
    on_cpu.device = "cpu".to_owned();
    timings.push(on_cpu);
    insta::assert_snapshot!(
        "on_eight_gpus",
        forecast(&spec, &timings, Some("h100x8")).to_string()
    );
    insta::assert_snapshot!(
        "without_hardware",
        forecast(&spec, &timings, None).to_string()
    );
}

#[test]
fn measured_seconds_win_where_the_same_was_trained() {
    let spec = paper();
    let measured = [
        timing(&spec, "misa", "mosi", true),
        timing(&spec, "misa", "mosi", false),
    ];
    let forecast_of = |timings: &[Timing], hardware| forecast(&spec, timings, hardware);
    let source = |jobs| Source::Measured {
        device: "NVIDIA H100 80GB HBM3".to_owned(),
        jobs,
    };
    for hardware in [Some("h100"), None] {
        let forecast = forecast_of(&measured, hardware);
        let misa = row(&forecast, "misa", "mosi");
        assert_eq!(
            (&misa.training.source, &misa.evaluation.source),
            (&source(12), &source(192))
        );
        // Of up to 100 epochs; earlier trainings had 20.
        assert_eq!(misa.training.seconds, Some(1000.0));
        assert_eq!(misa.training.expected_seconds, Some(200.0));
        assert_eq!(misa.evaluation.seconds, Some(2.0));
        assert_eq!(
            forecast.unknown.len(),
            if hardware.is_some() { 0 } else { 23 }
        );
        let total = forecast.total;
        assert!(
            total.expected_device_hours < total.device_hours,
            "{total:?}"
        );
    }
    // What an H100 took says nothing of an A100, except how many epochs there were.
    let other = forecast_of(&measured, Some("a100"));
    let misa = row(&other, "misa", "mosi");
    assert!(
        matches!(misa.training.source, Source::Estimated { .. }),
        "{misa:?}"
    );
    assert_eq!(misa.expected_epochs, Some(20.0));
    // Trainings of fewer epochs at most do not tell how many these have.
    let mut short = measured[0].clone();
    short.spec["max_epochs"] = 20.into();
    let short = forecast_of(&[short], Some("h100"));
    assert_eq!(row(&short, "misa", "mosi").expected_epochs, None);
    // LNLN never stops early, whatever was measured.
    let lnln = forecast_of(&[timing(&spec, "lnln", "mosi", true)], Some("h100"));
    let lnln = row(&lnln, "lnln", "mosi");
    assert_eq!(
        (lnln.expected_epochs, lnln.training.seconds),
        (None, Some(2000.0))
    );
    // Two GPUs of a machine are one kind of device.
    let mut second = measured[0].clone();
    second.device = "cuda:1 NVIDIA H100 80GB HBM3".to_owned();
    (second.jobs, second.seconds) = (4, 6.0);
    let both = forecast_of(&[measured[0].clone(), second], None);
    let training = &row(&both, "misa", "mosi").training;
    assert_eq!(
        (&training.source, training.seconds),
        (&source(16), Some(900.0))
    );
}

#[test]
fn other_work_is_not_the_same() {
    let spec = paper();
    let changed = |change: &dyn Fn(&mut TrainSpec)| {
        let mut timing = timing(&spec, "lnln", "mosi", true);
        let mut own: TrainSpec = serde_json::from_value(timing.spec).unwrap();
        change(&mut own);
        timing.spec = serde_json::to_value(own).unwrap();
        let forecast = forecast(&spec, &[timing], Some("h100"));
        let source = row(&forecast, "lnln", "mosi").training.source.clone();
        matches!(source, Source::Measured { .. })
    };
    let hyper = |key: &str, value: Value| {
        let key = key.to_owned();
        move |spec: &mut TrainSpec| {
            let mut hyper: Map<String, Value> = serde_json::from_str(&spec.hyper).unwrap();
            hyper.insert(key.clone(), value.clone());
            spec.hyper = serde_json::to_string(&hyper).unwrap();
        }
    };
    assert!(changed(&|_| {}));
    assert!(changed(&hyper("learning_rate", 0.5.into())));
    assert!(changed(&hyper("max_epochs", 3.into())));
    // The ablation of a loss weight costs the same, one that leaves a part out does not.
    assert!(changed(&hyper("alpha", 0.0.into())));
    assert!(!changed(&hyper("gamma", 0.0.into())));
    assert!(!changed(&hyper("batch_size", 32.into())));
    assert!(!changed(&hyper("width", 64.into())));
    assert!(!changed(&|spec| spec.encoder = blob("encoders/small")));
    assert!(!changed(&|spec| spec.data = blob("dataset:toy")));
    assert!(!changed(&|spec| spec.protocol.selection = Selection::Both));
    assert!(!changed(&|spec| spec.hyper = "[]".to_owned()));
    // A spec of another release is skipped.
    let strange = Timing {
        spec: serde_json::json!({"method": "lnln"}),
        ..timing(&spec, "lnln", "mosi", true)
    };
    let strange = forecast(&spec, &[strange], None);
    assert_eq!(
        row(&strange, "lnln", "mosi").training.source,
        Source::Unknown
    );
}

#[test]
fn external_programs_are_unknown_until_measured() {
    let spec = resolved(
        "name = \"own\"\nmethods = [\"mine\", \"text-only\"]\nseeds = [1]\nrates = [0.0]\n\
         [datasets.mosi]\nfile = \"dataset:mosi\"\n[encoders.en]\npath = \"enc\"\n\
         [[external]]\nid = \"mine\"\ncommand = [\"python\", \"mine.py\"]\nfiles = [\"mine.py\"]\n",
    );
    let unmeasured = forecast(&spec, &[], Some("h100"));
    let mine = row(&unmeasured, "mine", "mosi");
    assert_eq!(
        (mine.step_flop, &mine.training.source),
        (None, &Source::Unknown)
    );
    assert_eq!(unmeasured.unknown, ["mine on mosi"]);
    assert!(
        unmeasured
            .to_string()
            .contains("time of mine on mosi is not known"),
        "{unmeasured}"
    );
    let timings = [
        timing(&spec, "mine", "mosi", true),
        timing(&spec, "mine", "mosi", false),
    ];
    let known = forecast(&spec, &timings, Some("h100"));
    assert_eq!(
        row(&known, "mine", "mosi").training.expected_seconds,
        Some(200.0)
    );
    assert!(known.unknown.is_empty());
}

#[test]
fn finished_work_costs_nothing() {
    let spec = paper();
    let done = Open {
        model: "lnln",
        dataset: "mosi",
        trainings: 0,
        evaluations: 0,
    };
    let nothing = Forecast::new(&spec, &Published, [done].into_iter(), &[], None);
    assert_eq!(
        (nothing.total, nothing.to_string()),
        (Total::default(), String::new())
    );
}
