//! Erased splits as files: what the reference erases, in a layout that Python reads.

use crate::pickler::import_bytes_with;
use halfheard_import::{
    cases::{self, Format},
    nonfinite::{NonFinite, Reference},
};
use halfheard_shared::{
    benchmark::Benchmark,
    case::Case,
    dataset::{Dataset, Kind, Split},
    encoder::TokenIds,
    erased_split::ErasedSplit,
    erasure::Rates,
    metrics::evaluate,
    pickle::{Limits, Pickle, Value},
    regime::{Pass, Regime},
};
use safetensors::SafeTensors;
use std::{path::Path, process::Command};

const SEED: u32 = 1111;

fn form(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/forms");
    std::fs::read(folder.join(name)).unwrap()
}

fn dataset() -> Dataset {
    let bytes = form("aligned.pkl");
    let (_, data) =
        import_bytes_with(Kind::Mosi, NonFinite::Reference, Reference::Mmsa, &bytes).unwrap();
    data
}

fn erased(data: &Dataset, split: Split, case: &str) -> ErasedSplit {
    let case: Case = case.parse().unwrap();
    ErasedSplit::new(data, split, &case, SEED, TokenIds::BERT, None).unwrap()
}

/// The masks are those that the reference's own code drew for this file.
#[test]
fn exported_masks_are_those_of_the_reference() {
    let data = dataset();
    let expected: serde_json::Value = serde_json::from_slice(&form("aligned-masks.json")).unwrap();
    for split in Split::ALL {
        for rate in ["0.3", "0.7"] {
            let erased = erased(&data, split, &format!("r={rate}"));
            let rows = |name: &str| -> Vec<u8> {
                let rows = expected[format!("{split} {rate}")][name]
                    .as_array()
                    .unwrap();
                let rows = rows.iter();
                rows.flat_map(|row| row.as_str().unwrap().bytes().map(|bit| bit - b'0'))
                    .collect()
            };
            assert_eq!(erased.text_kept, rows("text"), "{split} {rate}");
            assert_eq!(erased.audio_kept, rows("features"), "{split} {rate}");
            assert_eq!(erased.vision_kept, rows("features"), "{split} {rate}");
        }
    }
}

#[test]
fn missing_steps_are_zeros_and_unknown_tokens() {
    let data = dataset();
    let shapes = data.shapes();
    let complete = erased(&data, Split::Test, "r=0");
    let erased = erased(&data, Split::Test, "missing=la");
    assert!(erased.audio.iter().all(|value| *value == 0.0));
    assert!(erased.audio_kept.iter().all(|kept| *kept == 0));
    assert_eq!(erased.vision, complete.vision);
    assert_ne!(erased.text, complete.text);
    for (kept, sample) in erased
        .text_kept
        .chunks(shapes.text_len)
        .zip(erased.text.chunks(3 * shapes.text_len))
    {
        for ((token, mask), kept) in sample.iter().zip(&sample[shapes.text_len..]).zip(kept) {
            if *mask == 1 && *kept == 0 {
                assert_eq!(i64::from(*token), TokenIds::BERT.unknown);
            }
        }
    }
    assert_ne!(erased.masks_digest(), complete.masks_digest());
}

/// Every field of the pickle is that of the split, as our own reader of the field's pickles sees it; and
/// CPython finds nothing to object to.
#[test]
fn pickle_has_the_layout_of_the_field() {
    let data = dataset();
    let erased = erased(&data, Split::Test, "r=0.5");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r=0.5.pkl");
    cases::write(&erased, &path, Format::Pickle).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let pickle = Pickle::read(&bytes, Limits::default()).unwrap();
    let split = pickle.get(pickle.root(), "test").unwrap();
    let array = |key: &str| pickle.array(pickle.get(split, key).unwrap()).unwrap();
    let (n, shapes) = (erased.samples(), erased.shapes);
    assert_eq!(array("text_bert").shape(), [n, 3, shapes.text_len]);
    assert_eq!(
        array("audio").shape(),
        [n, shapes.audio_len, shapes.audio_dim]
    );
    assert_eq!(
        array("vision").shape(),
        [n, shapes.vision_len, shapes.vision_dim]
    );
    assert_eq!(array("text_kept").dtype().name(), "u1");
    assert_eq!(array("audio_lengths").dtype().name(), "i8");
    let floats = |key: &str| -> Vec<f32> {
        let view = array(key);
        let mut values = Vec::new();
        for row in 0..n {
            let mut part = Vec::new();
            view.read_f32(row, &mut part, &mut Vec::new()).unwrap();
            values.extend(part);
        }
        values
    };
    assert_eq!(floats("audio"), erased.audio);
    assert_eq!(floats("regression_labels"), erased.labels);
    let text: Vec<i32> = floats("text_bert").iter().map(|id| *id as i32).collect();
    assert_eq!(text, erased.text);
    let texts = |key: &str| -> Vec<String> {
        let items: &[Value<'_>] = pickle.items(pickle.get(split, key).unwrap()).unwrap();
        items
            .iter()
            .map(|item| pickle.text(*item).unwrap().to_owned())
            .collect()
    };
    assert_eq!(texts("id"), erased.ids);
    assert_eq!(texts("raw_text"), erased.raw_text);
    // Part of CPython; it needs no NumPy.
    let checked = Command::new("python3")
        .args(["-m", "pickletools"])
        .arg(&path)
        .output();
    match checked {
        Ok(output) => assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        ),
        Err(error) => eprintln!("skipped: CPython's own check ({error})"),
    }
}

/// One number for each step, whichever modality: aligned ones lose the same steps, but for a text's ends.
#[test]
fn aligned_modalities_lose_the_same_steps() {
    let data = dataset();
    let split = data.split(Split::Test);
    let lengths: Vec<i64> = split.audio_lengths().to_vec();
    assert_eq!(lengths, split.vision_lengths());
    let erased = erased(&data, Split::Test, "r=0.5");
    assert_eq!(erased.audio_kept, erased.vision_kept);
    let steps = data.shapes().text_len;
    let rows = erased
        .text_kept
        .chunks(steps)
        .zip(erased.audio_kept.chunks(steps));
    for ((text, audio), &length) in rows.zip(&lengths) {
        let length = length as usize;
        for step in 0..steps {
            let end = step == 0 || step + 1 == length;
            assert_eq!(
                text[step],
                u8::from(end) | audio[step],
                "step {step} of {length}"
            );
        }
    }
}

#[test]
fn safetensors_have_the_same_content() {
    let data = dataset();
    let erased = erased(&data, Split::Valid, "r=0.5");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r=0.5.safetensors");
    cases::write(&erased, &path, Format::Safetensors).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let data = |name: &str| tensors.tensor(name).unwrap().data().to_vec();
    let vision: Vec<u8> = erased.vision.iter().flat_map(|x| x.to_le_bytes()).collect();
    assert_eq!(data("vision"), vision);
    assert_eq!(data("audio_kept"), erased.audio_kept);
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let metadata = metadata.metadata().as_ref().unwrap();
    let ids: Vec<String> = serde_json::from_str(&metadata["ids"]).unwrap();
    assert_eq!((ids, metadata["split"].as_str()), (erased.ids, "valid"));
    assert_eq!(metadata["erasure_seed"], SEED.to_string());
}

/// The rates of passes over the training split. Twenty samples in ten batches: two of the eight loading
/// processes have two.
fn regimes() -> Vec<serde_json::Value> {
    let order: Vec<i64> = (0..20).map(|place| (place * 7 + 13) % 20).collect();
    let of = |(regime, epoch, pass): (&str, u32, u32)| {
        let pass = Pass {
            seed: u64::MAX - 5,
            epoch,
            pass,
            order: &order,
            batch_size: 2,
        };
        let rates = regime.parse::<Regime>().unwrap().rates(order.len(), pass);
        serde_json::json!({
            "regime": regime, "seed": pass.seed, "epoch": epoch, "pass": pass.pass,
            "order": order, "batch_size": pass.batch_size,
            "text": rates.text, "audio": rates.audio, "vision": rates.vision,
        })
    };
    let passes = [
        ("complete", 1, 0),
        ("fixed:0.2", 1, 0),
        ("drawn-once", 4, 0),
        ("redrawn", 4, 1),
        ("lnln-loader", 4, 0),
        ("lnln-loader", 4, 1),
    ];
    passes.into_iter().map(of).collect()
}

/// What the Python package must compute, too: its tests read these files.
fn golden() -> (Vec<u8>, serde_json::Value) {
    let data = dataset();
    let sha256 = |bytes: &[u8]| {
        use sha2::{Digest as _, Sha256};
        let digest = Sha256::digest(bytes);
        digest
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let mut cases = serde_json::Map::new();
    for case in ["r=0", "r=0.3", "r=0.7", "missing=la", "missing=v"] {
        let erased = erased(&data, Split::Test, case);
        let masks = [&erased.text_kept, &erased.audio_kept, &erased.vision_kept];
        let text: Vec<u8> = erased.text.iter().flat_map(|x| x.to_le_bytes()).collect();
        let audio: Vec<u8> = erased.audio.iter().flat_map(|x| x.to_le_bytes()).collect();
        let vision: Vec<u8> = erased.vision.iter().flat_map(|x| x.to_le_bytes()).collect();
        cases.insert(
            case.to_owned(),
            serde_json::json!({
                "masks": sha256(&masks.map(Vec::as_slice).concat()),
                "text": sha256(&text),
                "audio": sha256(&audio),
                "vision": sha256(&vision),
            }),
        );
    }
    let rates = |samples, seed, epoch| {
        let rates = Rates::of_training(samples, seed, epoch);
        serde_json::json!({
            "samples": samples, "seed": seed, "epoch": epoch,
            "text": rates.text, "audio": rates.audio, "vision": rates.vision,
        })
    };
    // Any numbers, the same everywhere: products of small primes, on all sides of all edges.
    let numbers = |factor: u32, scale: f32| -> Vec<f32> {
        (0..97_u32)
            .map(|i| ((i * factor % 89) as f32 / 44.0 - 1.0) * scale)
            .collect()
    };
    let measured = |benchmark: Benchmark, range: f32| {
        let (predictions, labels) = (numbers(37, range * 1.2), numbers(53, range));
        serde_json::json!({
            "protocol": benchmark.id(),
            "predictions": predictions,
            "labels": labels,
            "metrics": evaluate(benchmark, &predictions, &labels).unwrap(),
        })
    };
    let golden = serde_json::json!({
        "cases": cases,
        "training": [rates(7, 1111, 1), rates(20, u64::MAX, 300)],
        "regimes": regimes(),
        "metrics": [
            measured(Benchmark::Mosi, 3.0),
            measured(Benchmark::Mosei, 3.0),
            measured(Benchmark::Sims, 1.0),
        ],
        "ids": erased(&data, Split::Test, "r=0").ids,
    });
    (data.bytes().to_vec(), golden)
}

/// With `UPDATE_GOLDEN=1` in the environment the files are written anew.
#[test]
fn golden_files_of_the_python_package_are_current() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../python/tests/data");
    let (data, golden) = golden();
    let (file, json) = (
        folder.join("aligned.safetensors"),
        folder.join("golden.json"),
    );
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(&file, &data).unwrap();
        let text = serde_json::to_string_pretty(&golden).unwrap() + "\n";
        std::fs::write(&json, text).unwrap();
    }
    assert!(std::fs::read(file).unwrap() == data, "the dataset differs");
    let known: serde_json::Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    assert_eq!(known, golden);
}
