//! What `coord plan` says that a slot needs, against what a process was seen to take: one training
//! step and an update of every method, each in a process of its own.

#![allow(clippy::unwrap_used, reason = "a test stops where something is wrong")]

use halfheard_models::memory;
use halfheard_models::{
    context::Optimizations,
    layers::bert::{Bert, BertConfig},
    methods::{Batch, Build, DataShape, Inputs, PerModality, Position, REGISTRY, builder},
};
use halfheard_shared::{
    dataset::Shapes,
    methods::{self, DataFacts, EncoderShape, Setup, memory::needed},
    wire::Fidelity,
};
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, env, error::Error, fs, path::Path, process::Command};
use tch::{Device, Kind, Tensor, nn};

/// In the child: the method whose step it takes.
const CHILD: &str = "HALFHEARD_TEST_STEP_OF";
/// In the child: the encoder's folder.
const ENCODER: &str = "HALFHEARD_TEST_ENCODER";

/// Longer than wide, as the field's datasets are.
const SHAPE: DataShape = DataShape {
    text_length: 40,
    audio_length: 200,
    audio_dim: 24,
    vision_length: 160,
    vision_dim: 32,
    train_samples: 32,
    unimodal_labels: false,
};

/// How far from what is seen an estimate may be: these shares of it.
const WITHIN: std::ops::RangeInclusive<f64> = 0.75..=1.35;

fn hyper(id: &str) -> Map<String, Value> {
    let info = methods::find(id).unwrap();
    let mut changes = Map::from_iter([("batch_size".to_owned(), json!(16))]);
    if info.hyper.contains_key("num_temporal_head") {
        changes.insert("num_temporal_head".to_owned(), json!(8));
    }
    info.resolve("mosei", &[&changes]).unwrap()
}

fn encoder(folder: &Path) {
    let config = json!({
        "vocab_size": 2000, "hidden_size": 192, "num_hidden_layers": 4, "num_attention_heads": 4,
        "intermediate_size": 768, "max_position_embeddings": 64, "type_vocab_size": 2,
    });
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let vs = nn::VarStore::new(Device::Cpu);
    let _bert = Bert::fresh(&vs.root(), BertConfig::read(folder).unwrap());
    let weights: Vec<(String, Tensor)> = vs.variables().into_iter().collect();
    Tensor::write_safetensors(&weights, folder.join("model.safetensors")).unwrap();
}

fn batch(samples: i64) -> Batch {
    let float = (Kind::Float, Device::Cpu);
    let whole = (Kind::Int64, Device::Cpu);
    let inputs = || Inputs {
        text: Tensor::stack(
            &[
                Tensor::randint_low(5, 2000, [samples, SHAPE.text_length], whole),
                Tensor::ones([samples, SHAPE.text_length], whole),
                Tensor::zeros([samples, SHAPE.text_length], whole),
            ],
            1,
        ),
        audio: Tensor::randn([samples, SHAPE.audio_length, SHAPE.audio_dim], float),
        vision: Tensor::randn([samples, SHAPE.vision_length, SHAPE.vision_dim], float),
        audio_lengths: Tensor::full([samples], SHAPE.audio_length, whole),
        vision_lengths: Tensor::full([samples], SHAPE.vision_length, whole),
    };
    let masks = |share: f64| PerModality {
        text: Tensor::rand([samples, SHAPE.text_length], float)
            .le(share)
            .to_kind(Kind::Float),
        audio: Tensor::rand([samples, SHAPE.audio_length], float)
            .le(share)
            .to_kind(Kind::Float),
        vision: Tensor::rand([samples, SHAPE.vision_length], float)
            .le(share)
            .to_kind(Kind::Float),
    };
    Batch {
        index: Tensor::arange(samples, whole),
        input: inputs(),
        complete: Some(inputs()),
        kept: masks(0.5),
        present: masks(1.0),
        missing_rate: PerModality {
            text: Tensor::full([samples], 0.5, float),
            audio: Tensor::full([samples], 0.5, float),
            vision: Tensor::full([samples], 0.5, float),
        },
        labels: Tensor::randn([samples], float),
        unimodal_labels: None,
    }
}

/// Two steps, each with its update, and what the process took at most.
fn steps(id: &str, encoder: &Path) -> Result<u64, Box<dyn Error>> {
    tch::manual_seed(1);
    tch::set_num_threads(1);
    let mut hyper = hyper(id);
    if hyper.contains_key("update_epochs") {
        hyper.insert("update_epochs".to_owned(), json!(1));
    }
    let hyper = Value::Object(hyper);
    let mut method = builder(id).unwrap()(&Build {
        hyper: &hyper,
        dataset: "mosei",
        data: SHAPE,
        encoder,
        device: Device::Cpu,
        fidelity: Fidelity::Reference,
        max_epochs: 10,
        optimizations: Optimizations::ALL,
    })?;
    let batch = batch(16);
    method.prepare(&batch)?;
    // The second epoch, from which on all parts of a loss are there; the last pass, where all else
    // than bounds is trained.
    let pass = method.passes() - 1;
    for step in 0..2 {
        let at = Position {
            epoch: 2,
            pass,
            step,
            steps: 2,
        };
        if step == 0 {
            method.begin_pass(at)?;
        }
        method.train_step(at, &batch)?;
    }
    memory::peak_bytes().ok_or_else(|| "the kernel does not say".into())
}

fn seen(id: &str, encoder: &Path) -> Result<u64, Box<dyn Error>> {
    let child = Command::new(env::current_exe()?)
        .args([
            "--exact",
            "a_slot_takes_about_what_was_planned",
            "--nocapture",
        ])
        .env(CHILD, id)
        .env(ENCODER, encoder)
        .env(memory::TUNABLES, memory::KEEP_HEAP)
        .output()?;
    let out = String::from_utf8(child.stdout)?;
    let line = out.lines().find_map(|line| line.split_once("peak: "));
    let (_, peak) = line.ok_or_else(|| format!("no peak in {out}"))?;
    Ok(peak.trim().parse()?)
}

#[test]
fn a_slot_takes_about_what_was_planned() {
    if let (Ok(id), Ok(encoder)) = (env::var(CHILD), env::var(ENCODER)) {
        println!("peak: {}", steps(&id, Path::new(&encoder)).unwrap());
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    encoder(folder.path());
    let shape = EncoderShape::of(&BertConfig::read(folder.path()).unwrap());
    let data = DataFacts {
        shapes: Shapes {
            text_len: SHAPE.text_length as usize,
            audio_len: SHAPE.audio_length as usize,
            audio_dim: SHAPE.audio_dim as usize,
            vision_len: SHAPE.vision_length as usize,
            vision_dim: SHAPE.vision_dim as usize,
        },
        samples: [SHAPE.train_samples as usize, 1, 1],
        tokens: None,
    };
    let mut wrong = BTreeMap::new();
    for (id, _) in REGISTRY {
        let hyper = hyper(id);
        let needed = needed(
            methods::find(id).unwrap(),
            Setup {
                hyper: &hyper,
                fidelity: Fidelity::Reference,
                data: Some(&data),
                encoder: Some(&shape),
            },
        )
        .unwrap();
        // No checkpoint and no state is kept here.
        let planned = needed.total() - needed.kept;
        let seen = seen(id, folder.path()).unwrap();
        let share = planned as f64 / seen as f64;
        let mega = |bytes: u64| bytes / 1_000_000;
        println!(
            "{id}: planned {} MB (step {}, weights {}), seen {} MB, {share:.2}",
            mega(planned),
            mega(needed.step),
            mega(needed.weights),
            mega(seen)
        );
        if !WITHIN.contains(&share) {
            wrong.insert(*id, share);
        }
    }
    assert!(
        wrong.is_empty(),
        "planned as a share of what was seen: {wrong:?}"
    );
}
