//! The field's other protocols on the real MOSI test split: against what the public codes' own functions draw
//! there, and against recorded digests of our own where no public code is comparable. With `UPDATE_GOLDEN=1`
//! in the environment our own are written anew.

use halfheard_import::import::{Request, import};
use halfheard_shared::{
    case::Case,
    dataset::{DataFolder, Dataset, Kind, Split},
    encoder::TokenIds,
    erasure::{
        ConfusionTable, Damaged, FeatureStatistics, Inputs, Resources, WordConfusions, damage,
        modalities, present,
    },
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

fn shared(name: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("HALFHEARD_SHARED").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"),
        PathBuf::from,
    );
    let file = folder.join(name);
    if file.is_file() {
        return Some(file);
    }
    println!("skipped: no {name} under HALFHEARD_SHARED");
    None
}

fn golden_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/protocols.json")
}

fn golden() -> Value {
    serde_json::from_slice(&std::fs::read(golden_file()).unwrap()).unwrap()
}

fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn ids_digest(ids: &[i64]) -> String {
    let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    sha256(&bytes)
}

fn features_digest(features: &[f32]) -> String {
    let bytes: Vec<u8> = features.iter().flat_map(|x| x.to_le_bytes()).collect();
    sha256(&bytes)
}

/// The real data, imported as by a user.
struct Mosi {
    data: Dataset,
    ids: Vec<i64>,
    text: Vec<u8>,
    audio: Vec<u8>,
    vision: Vec<u8>,
    audio_statistics: FeatureStatistics,
    vision_statistics: FeatureStatistics,
    confusions: ConfusionTable,
    _root: tempfile::TempDir,
}

impl Mosi {
    fn open() -> Option<Self> {
        let file = shared("data/mosi_utterance_50.pkl.gz")?;
        let root = tempfile::tempdir().unwrap();
        let request = Request {
            nonfinite: halfheard_import::nonfinite::NonFinite::Reference,
            reference: halfheard_import::nonfinite::Reference::Mmsa,
            file: &file,
            kind: Kind::Mosi,
            name: "mosi",
            folder: &DataFolder::new(root.path()),
            replace: false,
            max_bytes: None,
        };
        let imported = import(&request, &mut |_, _, _| ()).unwrap();
        let data = Dataset::open(&imported.path).unwrap();
        let (split, training, shapes) = (
            data.split(Split::Test),
            data.split(Split::Train),
            data.shapes(),
        );
        let tokens = shapes.text_len;
        let row = |which: usize| -> Vec<i64> {
            let texts = split.text().chunks_exact(3 * tokens);
            texts
                .flat_map(|text| &text[which * tokens..][..tokens])
                .map(|&token| i64::from(token))
                .collect()
        };
        Some(Self {
            ids: row(0),
            text: row(1).iter().map(|&m| u8::from(m == 1)).collect(),
            audio: present(split.audio_lengths(), shapes.audio_len),
            vision: present(split.vision_lengths(), shapes.vision_len),
            audio_statistics: FeatureStatistics::of(
                training.audio(),
                &present(training.audio_lengths(), shapes.audio_len),
                shapes.audio_dim,
            ),
            vision_statistics: FeatureStatistics::of(
                training.vision(),
                &present(training.vision_lengths(), shapes.vision_len),
                shapes.vision_dim,
            ),
            confusions: confusions(),
            data,
            _root: root,
        })
    }

    fn damaged(&self, case: &str, sweep_seed: u32) -> Damaged {
        let case: Case = case.parse().unwrap();
        let inputs = Inputs {
            samples: self.data.split(Split::Test).len(),
            ids: &self.ids,
            text: &self.text,
            audio: &self.audio,
            vision: &self.vision,
        };
        let resources = Resources {
            audio: Some(&self.audio_statistics),
            vision: Some(&self.vision_statistics),
            confusions: Some(&self.confusions),
        };
        let seed = case.seed(sweep_seed);
        damage(&case.damage, &inputs, &resources, seed, TokenIds::BERT).unwrap()
    }
}

/// The words of the built-in table that are among these tokens of the uncased English BERT.
fn confusions() -> ConfusionTable {
    let vocabulary: HashMap<String, i64> = [
        ("to", 2000),
        ("for", 2005),
        ("one", 2028),
        ("their", 2037),
        ("there", 2045),
        ("two", 2048),
        ("no", 2053),
        ("know", 2113),
        ("four", 2176),
        ("won", 2180),
        ("too", 2205),
    ]
    .map(|(word, id)| (word.to_owned(), id))
    .into();
    let (table, coverage) =
        ConfusionTable::of_words(&WordConfusions::english(), &vocabulary).unwrap();
    // for-four and one-won each way, their-there, to-two-too, no-know.
    assert_eq!(coverage.covered, 14);
    table
}

#[test]
fn random_modality_masks_are_those_of_gcnet() {
    let Some(file) = shared("parity/random_modality.json") else {
        return;
    };
    let recorded: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let cases = recorded["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 32);
    for case in cases {
        let number = |key: &str| case[key].as_u64().unwrap();
        let (seed, samples) = (number("seed") as u32, number("samples") as usize);
        let rate = case["rate"].as_f64().unwrap();
        let mask = modalities::kept(samples, rate, seed).concat();
        let kept: u64 = mask.iter().map(|&k| u64::from(k)).sum();
        assert_eq!(kept, number("kept"), "{case}");
        assert_eq!(sha256(&mask), case["sha256"].as_str().unwrap(), "{case}");
    }
    println!("{} masks match", cases.len());
}

#[test]
fn blocks_are_those_of_niat() {
    let Some(mosi) = Mosi::open() else { return };
    let golden = golden();
    let rows = golden["reference"]["niat_block"]["rows"]
        .as_array()
        .unwrap();
    assert_eq!(rows.len(), 22);
    for row in rows {
        let seed = row["seed"].as_u64().unwrap() as u32;
        // A block of nothing is the complete split, under its only name.
        let case = match row["rate"].as_f64().unwrap() {
            0.0 => "r=0".to_owned(),
            rate => format!("block={rate}"),
        };
        let damaged = mosi.damaged(&case, seed);
        assert_eq!(
            ids_digest(&damaged.text.ids),
            row["text_ids"].as_str().unwrap(),
            "{row}"
        );
        // The source erases the same block of the three aligned modalities.
        for kept in [
            &damaged.text.kept,
            &damaged.audio.kept,
            &damaged.vision.kept,
        ] {
            assert_eq!(sha256(kept), row["kept"].as_str().unwrap(), "{row}");
        }
        let count: u64 = damaged.text.kept.iter().map(|&k| u64::from(k)).sum();
        assert_eq!(count, row["kept_count"].as_u64().unwrap(), "{row}");
    }
    println!("{} blocks of 3 modalities match", rows.len());
}

#[test]
fn rates_of_modalities_erase_as_emt_dlfr() {
    let Some(mosi) = Mosi::open() else { return };
    let golden = golden();
    let rows = &golden["reference"]["emt_dlfr_modality_rates"]["rows"];
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), 4);
    for row in rows {
        let seed = row["seed"].as_u64().unwrap() as u32;
        let rates = &row["rates"];
        let case = format!("l={},a={},v={}", rates[0], rates[1], rates[2]);
        let damaged = mosi.damaged(&case, seed);
        for (what, found) in [
            ("text_ids", ids_digest(&damaged.text.ids)),
            ("text_kept", sha256(&damaged.text.kept)),
            ("audio_kept", sha256(&damaged.audio.kept)),
            ("vision_kept", sha256(&damaged.vision.kept)),
        ] {
            assert_eq!(found, row[what].as_str().unwrap(), "{what} of {row}");
        }
    }
}

#[test]
fn each_kind_damages_as_recorded() {
    let Some(mosi) = Mosi::open() else { return };
    let mut golden = golden();
    let mut own = serde_json::Map::new();
    for case in [
        "r=0.3",
        "r=0.3@1112",
        "missing=la",
        "r=0.3+missing=la",
        "mr=0.3",
        "mr=0.7",
        "l=0.7,a=0.1,v=0.3",
        "block=0.3",
        "bursts=0.3",
        "bursts=0.7",
        "asr=0.3",
        "noise=0.5",
        "permuted=a",
        "permuted=la",
        "averaged=a",
        "averaged=av",
    ] {
        let damaged = mosi.damaged(case, 1111);
        let split = mosi.data.split(Split::Test);
        let (audio, vision) = (
            damaged.audio.features(split.audio(), split.len()),
            damaged.vision.features(split.vision(), split.len()),
        );
        let masks = [
            &damaged.text.kept,
            &damaged.audio.kept,
            &damaged.vision.kept,
        ];
        let mut digests = json!({
            "text": ids_digest(&damaged.text.ids),
            "masks": sha256(&masks.map(Vec::as_slice).concat()),
            "audio": features_digest(&audio),
            "vision": features_digest(&vision),
        });
        if case.starts_with("noise") {
            // The last bits of a logarithm differ between mathematical libraries.
            for (name, values) in [("audio", audio), ("vision", vision)] {
                let sum: f64 = values.iter().map(|value| f64::from(value.abs())).sum();
                digests[name] = json!(format!("{sum:.3}"));
            }
        }
        own.insert(case.to_owned(), digests);
    }
    let own = Value::Object(own);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        golden["own"] = own.clone();
        let text = serde_json::to_string_pretty(&golden).unwrap() + "\n";
        std::fs::write(golden_file(), text).unwrap();
    }
    assert_eq!(golden["own"], own);
    // What differs must differ, and what a kind leaves alone must be as it was.
    let complete = mosi.damaged("r=0", 1111);
    assert_eq!(mosi.damaged("noise=0.5", 1111).text, complete.text);
    let asr = mosi.damaged("asr=1", 1111);
    let misheard = asr
        .text
        .ids
        .iter()
        .zip(&complete.text.ids)
        .filter(|(a, b)| a != b);
    let coverage = mosi
        .confusions
        .coverage(&mosi.ids, &mosi.text, complete.rates.text.len());
    assert_eq!(misheard.count(), coverage.covered);
    println!("{coverage:?} of MOSI's tokens can be misheard");
}
