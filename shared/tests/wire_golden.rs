//! The wire format, byte for byte: coordinators and workers of different builds must understand
//! each other. When a change here is meant, raise `wire::VERSION` and renew the files with
//! `UPDATE_WIRE=1 cargo test -p halfheard-shared --test wire_golden`.

#![allow(clippy::unwrap_used, reason = "a test stops where something is wrong")]

use halfheard_shared::{
    benchmark::{Benchmark, Kind, definition::DefinitionSpec},
    encoder::TokenIds,
    ids::{AttemptId, JobId, SweepId},
    wire::*,
};
use serde::{Serialize, de::DeserializeOwned};
use std::{collections::BTreeMap, fmt::Debug, path::PathBuf};

fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(name: &str, message: &T) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../schemas/wire")
        .join(format!("{name}.v{VERSION}.bin"));
    let now = encode(message).unwrap();
    if std::env::var_os("UPDATE_WIRE").is_some() {
        std::fs::write(&path, &now).unwrap();
    }
    let kept = std::fs::read(&path)
        .unwrap_or_else(|e| panic!("{}: {e}; see this test's first lines", path.display()));
    assert_eq!(kept, now, "{name} is written otherwise than before");
    assert_eq!(&decode::<T>(&kept).unwrap(), message, "{name} reads back");
}

/// A report as the previous release wrote it: such a file is made once and never renewed. It reads as `message` without
/// what that release did not know, and is written byte for byte for workers that speak it.
fn check_previous(name: &str, message: &ResultMessage) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../schemas/wire")
        .join(format!("{name}.v{PREVIOUS}.bin"));
    if std::env::var_os("UPDATE_WIRE").is_some() && !path.exists() {
        std::fs::write(&path, message.encode_as_previous().unwrap()).unwrap();
    }
    let kept = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert_eq!(kept[0], PREVIOUS);
    let mut known = message.clone();
    match &mut known.body {
        ResultBody::Trained { peak_memory, .. } | ResultBody::Evaluated { peak_memory, .. } => {
            *peak_memory = 0;
        }
        _ => {}
    }
    assert_eq!(decode_report(&kept).unwrap(), known, "{name} reads");
    assert_eq!(
        message.encode_as_previous().unwrap(),
        kept,
        "{name} is written otherwise than the previous release did"
    );
    // And of this release, the same reader reads everything.
    let now = encode(message).unwrap();
    assert_eq!(&decode_report(&now).unwrap(), message);
}

fn check_report(name: &str, message: &ResultMessage) {
    check(name, message);
    check_previous(name, message);
}

fn sweep() -> SweepId {
    SweepId::derive(&[b"golden"])
}

fn job() -> JobId {
    JobId::derive(&[b"golden"])
}

fn spec() -> TrainSpec {
    let blob = |digit: &str, path: &str| BlobRef {
        blake3: digit.repeat(64),
        path: path.to_owned(),
    };
    TrainSpec {
        method: "lnln".to_owned(),
        variant: "no-dmc".to_owned(),
        dataset: Benchmark::Mosi,
        data: blob("a", "/data/mosi"),
        encoder: blob("b", "/encoders/en"),
        tokens: TokenIds::BERT,
        seed: 1111,
        max_epochs: 200,
        hyper: r#"{"alpha":0.9,"batch_size":64}"#.to_owned(),
        protocol: Protocol {
            selection: Selection::Validation,
            train_missing: halfheard_shared::regime::Regime::Redrawn,
            erasure_seed: 1111,
            selection_rate: 500,
            fidelity: Fidelity::Reference,
            switched: Vec::new(),
        },
        numerics: halfheard_shared::numerics::Numerics::Machine,
    }
}

/// A training on a dataset whose protocol somebody defined.
fn own() -> TrainSpec {
    let text = "label_range = [0, 5]\nlanguage = \"zh\"\nclasses = [2, [1.5, 3.5]]\n\
                rule = \"intervals\"";
    let definition: DefinitionSpec = toml::from_str(text).unwrap();
    let kind = Kind::own(definition.resolve().unwrap()).unwrap();
    TrainSpec {
        dataset: Benchmark::new("mine", kind).unwrap(),
        ..spec()
    }
}

fn checkpoint() -> CheckpointRef {
    CheckpointRef {
        criterion: "acc7".to_owned(),
        epoch: 7,
        blake3: "c".repeat(64),
        bytes: 1 << 33,
    }
}

#[test]
fn jobs() {
    let message = |work| JobMessage {
        sweep: sweep(),
        job: job(),
        attempt: AttemptId::derive(&[b"golden"]),
        work,
    };
    check("job-train", &message(Work::Train(spec())));
    check("job-train-own", &message(Work::Train(own())));
    check("job-noop", &message(Work::Noop));
    let eval = |case: &str| Work::Eval {
        train: job(),
        spec: spec(),
        case: case.parse().unwrap(),
        confusions: case.starts_with("asr").then(|| "c".repeat(64)),
        checkpoints: vec![checkpoint()],
    };
    check("job-eval-rate", &message(eval("r=0.3")));
    check("job-eval-missing", &message(eval("missing=la")));
    check("job-eval-asr", &message(eval("asr=0.3@1112")));
}

/// Grants are the same in both versions, but for the version's number.
#[test]
fn answers() {
    let job = JobMessage {
        sweep: sweep(),
        job: job(),
        attempt: AttemptId::derive(&[b"golden"]),
        work: Work::Train(spec()),
    };
    for (name, answer) in [
        ("answer-grants", Answer::Grants(vec![job])),
        (
            "answer-refused",
            Answer::Refused("another store".to_owned()),
        ),
    ] {
        for version in [VERSION, PREVIOUS] {
            let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
                .join("../schemas/wire")
                .join(format!("{name}.v{version}.bin"));
            let now = answer.encode_for(version).unwrap();
            let renews = version == VERSION || !path.exists();
            if std::env::var_os("UPDATE_WIRE").is_some() && renews {
                std::fs::write(&path, &now).unwrap();
            }
            let kept = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            assert_eq!(kept, now, "{name} is written otherwise than before");
            assert_eq!(Answer::decode(&kept).unwrap(), answer);
        }
    }
}

fn message(body: ResultBody) -> ResultMessage {
    ResultMessage {
        job: job(),
        attempt: AttemptId::derive(&[b"golden"]),
        worker: WorkerInfo {
            name: "node-1.0".to_owned(),
            host: "node-1".to_owned(),
            device: "cpu".to_owned(),
            version: "0.1.0".to_owned(),
            processor: "x86-64-avx2-2t".to_owned(),
        },
        body,
    }
}

#[test]
fn output_of_a_program() {
    // The previous release has no such report.
    check(
        "result-output",
        &message(ResultBody::Output {
            tail: "the last lines\n".to_owned(),
            bytes: 70_000,
            stored: true,
        }),
    );
}

#[test]
fn results() {
    let metrics: BTreeMap<String, Option<f64>> =
        [("acc7".to_owned(), Some(0.25)), ("corr".to_owned(), None)].into();
    check_report(
        "result-started",
        &message(ResultBody::Started {
            resumed_after_epoch: 4,
        }),
    );
    check_report(
        "result-epoch",
        &message(ResultBody::Epoch(EpochLog {
            epoch: 5,
            losses: [("loss".to_owned(), 1.5)].into(),
            metrics: metrics.clone(),
            train_seconds: 12.5,
            eval_seconds: 0.5,
            best_for: vec!["acc7".to_owned()],
        })),
    );
    check_report(
        "result-trained",
        &message(ResultBody::Trained {
            checkpoints: vec![checkpoint()],
            epochs: 20,
            seconds: 1234.5,
            peak_memory: 1 << 34,
        }),
    );
    check_report(
        "result-evaluated",
        &message(ResultBody::Evaluated {
            results: vec![CriterionResult {
                criterion: "acc7".to_owned(),
                epoch: 7,
                predictions: 0,
                metrics,
            }],
            predictions: vec![vec![0.5, -1.25, 3.0]],
            seconds: 2.5,
            peak_memory: 1 << 20,
        }),
    );
    check_report(
        "result-failed",
        &message(ResultBody::Failed(Failure {
            chain: vec!["outer".to_owned(), "inner".to_owned()],
            kind: FailureKind::NonFinite,
        })),
    );
    check_report(
        "result-handed-back",
        &message(ResultBody::HandedBack { after_epoch: 6 }),
    );
    check_report(
        "result-declined",
        &message(ResultBody::Declined {
            after_epoch: 6,
            fault: Fault::new(
                FaultKind::Dataset,
                "dataset mosi",
                vec!["outer".to_owned(), "inner".to_owned()],
            ),
        }),
    );
}

#[test]
fn invalid_message_is_rejected() {
    let good = encode(&JobMessage {
        sweep: sweep(),
        job: job(),
        attempt: AttemptId::derive(&[b"golden"]),
        work: Work::Noop,
    })
    .unwrap();
    assert!(matches!(decode::<JobMessage>(&[]), Err(WireError::Empty)));
    let mut other = good.clone();
    other[0] = VERSION + 1;
    assert!(matches!(
        decode::<JobMessage>(&other),
        Err(WireError::Version { .. })
    ));
    let longer = [good.as_slice(), &[0]].concat();
    assert!(matches!(
        decode::<JobMessage>(&longer),
        Err(WireError::Trailing(1))
    ));
    for end in 1..good.len() {
        assert!(decode::<JobMessage>(&good[..end]).is_err(), "cut at {end}");
    }
    assert!(matches!(
        decode::<JobMessage>(&vec![VERSION; MAX_BYTES + 1]),
        Err(WireError::TooLarge { .. })
    ));
    // What is neither of this release nor of the one before says so, whatever follows.
    for found in [0, 1, 2, PREVIOUS - 1, VERSION + 1, 255] {
        let error = decode_report(&[&[found], &good[1..]].concat()).unwrap_err();
        assert!(matches!(error, WireError::Version { found: named } if named == found));
        let answer = Answer::Grants(Vec::new());
        assert!(
            answer.encode_for(found).is_err(),
            "an answer for version {found}"
        );
    }
    // A list that claims to be endless is refused before memory is taken for it.
    let mut bomb = vec![VERSION];
    bomb.extend([0xfd; 64]);
    assert!(decode::<ResultMessage>(&bomb).is_err());
}
