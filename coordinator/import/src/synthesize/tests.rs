use super::*;
use halfheard_shared::dataset::Dataset;
use std::path::{Path, PathBuf};

/// A vocabulary of BERT's form: special tokens in place, then the words, `extra` behind them.
fn vocabulary(dir: &Path, extra: &[&str]) -> PathBuf {
    let mut lines: Vec<String> = (0..200).map(|i| format!("[unused{i}]")).collect();
    for (id, token) in [(0, "[PAD]"), (100, "[UNK]"), (101, "[CLS]"), (102, "[SEP]")] {
        lines[id] = token.to_owned();
    }
    let all = "terrible bad weak normal fine good amazing hated disliked endured saw liked enjoyed \
               loved movie story really and the was i thought felt to me";
    lines.extend(all.split_whitespace().map(str::to_owned));
    lines.extend(extra.iter().map(|&word| word.to_owned()));
    let path = dir.join("vocab.txt");
    std::fs::write(&path, lines.join("\n")).unwrap();
    path
}

fn make(settings: &Settings, dir: &Path) -> Imported {
    let vocabulary = Vocabulary::read(&vocabulary(dir, &["film"])).unwrap();
    let folder = DataFolder::new(dir);
    synthesize(
        settings,
        &vocabulary,
        "toy",
        &folder,
        true,
        &mut |_, _, _| {},
    )
    .unwrap()
}

#[test]
fn seed_determines_every_byte() {
    let dir = tempfile::tempdir().unwrap();
    let hash = |seed| {
        make(&Settings::small(Kind::Mosi, seed), dir.path())
            .manifest
            .blake3
    };
    let first = hash(1);
    assert_eq!(first, hash(1));
    assert_ne!(first, hash(2));
    // The bytes belong to the format: tables made from them are compared between machines.
    assert_eq!(
        first,
        "1b70839a8cd984b2f2b59a6495ee8914f1c99db96249d0863bfa64db0033a674"
    );
}

#[test]
fn dataset_has_all_classes_and_varied_lengths() {
    let dir = tempfile::tempdir().unwrap();
    for kind in Kind::ALL {
        let imported = make(&Settings::small(kind, 7), dir.path());
        let train = &imported.manifest.splits[&Split::Train];
        assert_eq!(train.samples, 256);
        for &count in &train.label_counts {
            assert!(count >= 5, "{kind}: {:?}", train.label_counts);
        }
        assert!(train.text_lengths.min >= 6 && train.text_lengths.max > train.text_lengths.min + 6);
        assert!(train.audio_lengths.max > train.audio_lengths.min + 6);
        let data = Dataset::open(&imported.path).unwrap();
        let view = data.split(Split::Test);
        assert_eq!(
            view.labels_of(halfheard_shared::case::Modality::Audio)
                .is_some(),
            kind == Kind::Sims
        );
        // Text and raw text agree: [CLS], a token a word, [SEP], padding.
        let l = data.shapes().text_len;
        for sample in 0..view.len() {
            let ids = &view.text()[sample * 3 * l..][..l];
            let words = view.raw_text(sample).split(' ').count();
            assert_eq!((ids[0], ids[words + 1]), (CLS_ID, SEP_ID));
            assert!(
                ids[1..=words].iter().all(|&id| id >= 200)
                    && ids[words + 2..].iter().all(|&id| id == 0)
            );
        }
    }
}

const CLS_ID: i32 = 101;
const SEP_ID: i32 = 102;

/// Sign accuracy of the best single threshold on a one-number reading of each sample.
fn sign_accuracy(readings: &[f32], labels: &[f32]) -> f32 {
    let agree = readings
        .iter()
        .zip(labels)
        .filter(|(r, y)| (**r > 0.0) == (**y > 0.0))
        .count() as f32
        / readings.len() as f32;
    agree.max(1.0 - agree)
}

/// Every modality carries the label, none alone determines it.
#[test]
fn every_modality_carries_part_of_label() {
    let dir = tempfile::tempdir().unwrap();
    let imported = make(&Settings::small(Kind::Mosi, 3), dir.path());
    let data = Dataset::open(&imported.path).unwrap();
    let (train, test) = (data.split(Split::Train), data.split(Split::Test));
    let shapes = data.shapes();
    type Rows<'a> = (&'a [f32], &'a [i64], usize, usize);
    let reading = |(rows, lengths, steps, dim): Rows<'_>, sample: usize| -> Vec<f32> {
        // Second half minus first half of the sequence, feature by feature: its rise.
        let n = lengths[sample] as usize;
        let row = &rows[sample * steps * dim..][..n * dim];
        let mut rise = vec![0.0; dim];
        for (step, values) in row.chunks_exact(dim).enumerate() {
            let sign = if step * 2 < n { -1.0 } else { 1.0 };
            values
                .iter()
                .zip(&mut rise)
                .for_each(|(x, r)| *r += sign * x / n as f32);
        }
        rise
    };
    let parts: [(Rows<'_>, Rows<'_>); 2] = [
        (
            (
                train.audio(),
                train.audio_lengths(),
                shapes.audio_len,
                shapes.audio_dim,
            ),
            (
                test.audio(),
                test.audio_lengths(),
                shapes.audio_len,
                shapes.audio_dim,
            ),
        ),
        (
            (
                train.vision(),
                train.vision_lengths(),
                shapes.vision_len,
                shapes.vision_dim,
            ),
            (
                test.vision(),
                test.vision_lengths(),
                shapes.vision_len,
                shapes.vision_dim,
            ),
        ),
    ];
    for (train_rows, test_rows) in parts {
        // The direction in which rises go with labels, learned on train, tried on test.
        let mut direction = vec![0.0; train_rows.3];
        for (sample, &label) in train.labels().iter().enumerate() {
            let rise = reading(train_rows, sample);
            rise.iter()
                .zip(&mut direction)
                .for_each(|(r, d)| *d += label * r);
        }
        let readings: Vec<f32> = (0..test.len())
            .map(|sample| {
                reading(test_rows, sample)
                    .iter()
                    .zip(&direction)
                    .map(|(a, b)| a * b)
                    .sum()
            })
            .collect();
        let accuracy = sign_accuracy(&readings, test.labels());
        assert!((0.7..0.98).contains(&accuracy), "{accuracy}");
    }
}

#[test]
fn impossible_settings_are_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let folder = DataFolder::new(dir.path());
    let vocab = Vocabulary::read(&vocabulary(dir.path(), &[])).unwrap();
    let mut settings = Settings::small(Kind::Mosi, 1);
    settings.shapes.text_len = 5;
    let error =
        synthesize(&settings, &vocab, "toy", &folder, false, &mut |_, _, _| {}).unwrap_err();
    assert_eq!(error.to_string(), "the text length is 5, expected 9 to 512");
    assert!(folder.names().unwrap().is_empty());

    let bad = dir.path().join("bad.txt");
    std::fs::write(&bad, "the\nmovie\n").unwrap();
    assert!(matches!(
        Vocabulary::read(&bad),
        Err(VocabularyError::Special {
            token: "[PAD]",
            line: 1,
            ..
        })
    ));
}
