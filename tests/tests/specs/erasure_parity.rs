//! The erasure of the real MOSI test split, imported as by a user, against digests of the reference's own erasure.

use halfheard_import::import::{Request, import};
use halfheard_shared::{
    case::{Case, Rate},
    dataset::{DataFolder, Dataset, Kind, Split},
    encoder::TokenIds,
    erasure::{Rates, erase_text, kept, present},
};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

fn shared() -> PathBuf {
    std::env::var_os("HALFHEARD_SHARED").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"),
        PathBuf::from,
    )
}

fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn erasure_matches_every_digest_of_the_reference() {
    let file = shared().join("data/mosi_utterance_50.pkl.gz");
    let Ok(masks) = std::fs::read_to_string(shared().join("parity/masks.json")) else {
        println!("skipped: no parity/masks.json under HALFHEARD_SHARED");
        return;
    };
    if !file.is_file() {
        println!("skipped: no data/mosi_utterance_50.pkl.gz under HALFHEARD_SHARED");
        return;
    }
    let masks: Value = serde_json::from_str(&masks).unwrap();

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
    let split = data.split(Split::Test);
    let (samples, shapes) = (split.len(), data.shapes());
    let tokens = shapes.text_len;

    // Of each sample's three rows, ids come first and the attention mask second.
    let row = |which: usize| -> Vec<i64> {
        let texts = split.text().chunks_exact(3 * tokens);
        texts
            .flat_map(|text| &text[which * tokens..][..tokens])
            .map(|&token| i64::from(token))
            .collect()
    };
    let ids = row(0);
    let text_present: Vec<u8> = row(1).iter().map(|&m| u8::from(m == 1)).collect();
    let audio_present = present(split.audio_lengths(), shapes.audio_len);
    let vision_present = present(split.vision_lengths(), shapes.vision_len);

    let cases = masks["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 33);
    for case in cases {
        let seed = u32::try_from(case["seed"].as_u64().unwrap()).unwrap();
        let rate = Rate::new(case["rate"].as_f64().unwrap()).unwrap();
        let rates = Rates::of_case(&Case::at_rate(rate), samples);
        let text = erase_text(&ids, &text_present, &rates.text, seed, TokenIds::BERT);
        let id_bytes: Vec<u8> = text.ids.iter().flat_map(|id| id.to_le_bytes()).collect();
        for (what, bytes) in [
            ("text_ids", &id_bytes),
            ("text_kept", &text.kept),
            ("audio_kept", &kept(&audio_present, &rates.audio, seed)),
            ("vision_kept", &kept(&vision_present, &rates.vision, seed)),
        ] {
            let expected = case[what].as_str().unwrap();
            assert_eq!(sha256(bytes), expected, "{what}, seed {seed}, r={rate}");
        }
        let count: u64 = text.kept.iter().map(|&kept| u64::from(kept)).sum();
        assert_eq!(count, case["text_kept_count"].as_u64().unwrap());
    }
    println!("{} digests of {} cases match", 4 * cases.len(), cases.len());
}
