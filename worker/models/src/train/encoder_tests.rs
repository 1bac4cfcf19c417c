//! Training with published encoder formats, and rejecting unusable ones.

use super::{
    Data, Directive, Snapshot, StepReport, TrainObserver, TrainOutcome, Trainer, build,
    data::Rows,
    testing::{alone, data, dataset, dataset_with, spec},
};
use halfheard_shared::{
    case::Case,
    dataset::{Kind, Split},
    encoder::{Encoder, TokenIds},
    wire::{CheckpointRef, EpochLog, TrainSpec},
};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::json;
use std::{
    fs,
    path::{Path, PathBuf},
};
use tch::Device;

/// A folder written by the published tools (`shared/tests/data/encoders/make.py`).
fn published(name: &str) -> PathBuf {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/tests/data/encoders");
    data.join(name)
}

/// A spec of CENET, which trains its encoder from the first step on.
fn cenet(tokens: TokenIds) -> TrainSpec {
    let hyper = json!({
        "batch_size": 8, "max_epochs": 2, "early_stop": 0, "learning_rate": 1e-3,
        "weight_decay": 1e-4, "adam_epsilon": 1e-8, "max_grad_norm": 2.0,
    });
    TrainSpec {
        method: "cenet".to_owned(),
        hyper: hyper.to_string(),
        tokens,
        ..spec(2)
    }
}

struct Quiet;

impl TrainObserver for Quiet {
    fn directive(&mut self, _view: StepReport) -> Directive {
        Directive::Continue
    }
    fn epoch_ended(&mut self, _log: EpochLog) {}
    fn save(&mut self, _snapshot: Snapshot) {}
}

/// Trains; the checkpoints' hashes identify the result to the bit.
fn train(spec: &TrainSpec, data: &Data, encoder: &Path) -> Vec<CheckpointRef> {
    let method = build(spec, data, encoder, Device::Cpu).unwrap();
    let mut trainer = Trainer::new(spec.clone(), method, data).unwrap();
    match trainer.run(&mut Quiet).unwrap() {
        TrainOutcome::Completed { checkpoints, .. } => checkpoints,
        other => panic!("not done: {other:?}"),
    }
}

#[test]
fn all_published_formats_train_bit_identically() {
    let _alone = alone();
    let (_folder, file) = dataset(20);
    let data = data(&file);
    let spec = cenet(TokenIds::BERT);
    let expected = train(&spec, &data, &published("bert"));
    for form in [
        "bert-published",
        "bert-zip",
        "bert-legacy",
        "bert-shards",
        "bert-bin-shards",
        "bert-double",
    ] {
        assert_eq!(train(&spec, &data, &published(form)), expected, "{form}");
    }
    assert_ne!(train(&spec, &data, &published("bert-half")), expected);
}

#[test]
fn small_encoder_under_hub_names_trains_bit_identically() {
    let set_up = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.deps/encoder");
    let original = std::env::var_os("HALFHEARD_ENCODER_EN").map_or(set_up, PathBuf::from);
    let Ok(content) = fs::read(original.join("model.safetensors")) else {
        println!(
            "skipped: no encoder in {}; `make setup` installs one",
            original.display()
        );
        return;
    };
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    fs::copy(
        original.join("config.json"),
        folder.path().join("config.json"),
    )
    .unwrap();
    let tensors = SafeTensors::deserialize(&content).unwrap();
    let zeros = [0; 4096];
    let heads = [
        ("bert.embeddings.position_ids", Dtype::I64, vec![1, 512]),
        ("cls.predictions.bias", Dtype::F32, vec![1024]),
        (
            "cls.predictions.transform.LayerNorm.gamma",
            Dtype::F32,
            vec![16],
        ),
        ("cls.seq_relationship.weight", Dtype::F32, vec![2, 16]),
    ];
    let heads = heads.iter().map(|(name, dtype, shape)| {
        let bytes = shape.iter().product::<usize>() * dtype.bitsize() / 8;
        let view = TensorView::new(*dtype, shape.clone(), &zeros[..bytes]).unwrap();
        ((*name).to_owned(), view)
    });
    let renamed = tensors
        .tensors()
        .into_iter()
        .filter(|(name, _)| name != "embeddings.position_ids")
        .map(|(name, view)| {
            let name = name
                .replace("LayerNorm.weight", "LayerNorm.gamma")
                .replace("LayerNorm.bias", "LayerNorm.beta");
            (format!("bert.{name}"), view)
        })
        .chain(heads);
    let weights = folder.path().join("model.safetensors");
    safetensors::serialize_to_file(renamed, None, &weights).unwrap();
    assert_ne!(fs::read(&weights).unwrap(), content);

    let (_dataset, file) = dataset(8);
    let data = data(&file);
    let spec = TrainSpec {
        max_epochs: 1,
        ..cenet(TokenIds::BERT)
    };
    let expected = train(&spec, &data, &original);
    assert_eq!(train(&spec, &data, folder.path()), expected);
}

/// The tokens of erasure and padding reach the encoder, and RoBERTa trains with them.
#[test]
fn roberta_trains_with_its_special_tokens() {
    let _alone = alone();
    let encoder = published("roberta");
    let tokens = Encoder::open(&encoder).unwrap().token_ids().unwrap();
    assert_eq!((tokens.unknown, tokens.padding), (3, 1));
    let (_folder, file) = dataset_with(Kind::Mosi, 20, |i| [0, 4 + i % 20, 24 + i % 20, 50, 2, 0]);
    let split = data(&file).split(Split::Test).unwrap();
    let case: Case = "missing=l".parse().unwrap();
    let erased = split.erase_case(&case, 1111, tokens).unwrap();
    let third = Rows::new(vec![3], Device::Cpu).unwrap();
    let batch = split.batch(third, &erased, false).unwrap();
    let ids = Vec::<i64>::try_from(batch.input.text.get(0).get(0)).unwrap();
    assert_eq!(ids, [0, 3, 3, 3, 2, 1]);

    let spec = cenet(tokens);
    let trained = train(&spec, &data(&file), &encoder);
    assert_eq!(train(&spec, &data(&file), &encoder), trained);
    // Other ids change the result.
    let other = TokenIds {
        unknown: 4,
        ..tokens
    };
    assert_ne!(train(&cenet(other), &data(&file), &encoder), trained);
}

#[test]
fn texts_of_another_vocabulary_are_rejected_before_building() {
    let (_folder, file) = dataset(20);
    let refused = |tokens, encoder: &str| {
        let built = build(
            &cenet(tokens),
            &data(&file),
            &published(encoder),
            Device::Cpu,
        );
        built.err().map(|error| error.to_string()).unwrap()
    };
    let roberta = TokenIds {
        unknown: 3,
        mask: Some(59),
        start: 0,
        end: 2,
        padding: 1,
    };
    let error = refused(roberta, "roberta");
    assert!(
        error.contains("tokenised for another vocabulary"),
        "{error}"
    );
    // Without token ids in the spec, the size of the tables shows it.
    let error = refused(TokenIds::BERT, "roberta");
    assert!(error.contains("the encoder has only 60 tokens"), "{error}");
}
